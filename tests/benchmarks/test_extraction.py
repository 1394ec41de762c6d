"""Speed of backbones on images in memory: as features are extracted, and with channels first."""

from __future__ import annotations

import copy
import time

import pytest
import torch

from otfew.backbones import ARCHITECTURES, efficientnet_lite0
from otfew.backbones.base import Backbone, Card, normalise

SIDES = {"efficientnet-lite0": 160, "resnet12": 84, "resnet12-quarter": 84, "conv4": 84, "wrn16_2": 32}
PIXELS = 1 << 17


def backbone(name):
    if name == efficientnet_lite0.NAME:
        if not efficientnet_lite0.installed():
            pytest.skip("needs the pretrained extra")
        return efficientnet_lite0.load()
    return Backbone(ARCHITECTURES[name](), Card(name, name), "")


@pytest.mark.parametrize("name", SIDES)
def test_memory_format(name, benchmark, summarise):
    """CPU seconds of one thread. The bar: no network is slower with channels last."""
    side = SIDES[name]
    images = torch.randint(0, 256, (max(1, PIXELS // side**2), 3, side, side), dtype=torch.uint8)
    network = backbone(name)
    plain = copy.deepcopy(network.module)
    for parameter in plain.parameters():
        parameter.data = parameter.data.contiguous()

    def channels_first():
        with torch.inference_mode():
            return plain(normalise(images, network.card.mean, network.card.std))

    contenders = {"channels last": lambda: network.maps(images), "channels first": channels_first}
    seconds = {key: [] for key in contenders}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(4):
            for key, work in contenders.items():
                start = time.process_time()
                work()
                seconds[key].append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    # The first turn warms up.
    medians = {key: sorted(values[1:])[1] for key, values in seconds.items()}
    rate = len(images) / medians["channels last"]
    benchmark.extra_info["images a second"] = rate
    benchmark.pedantic(contenders["channels last"], rounds=1)
    summarise(f"{name}, {len(images)} x {side} px, CPU time of one thread, {rate:.0f} images/s", medians)
