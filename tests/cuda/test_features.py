"""Features on a device: the CPU's to rounding, without TF32, under a key of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otfew import backbones
from otfew.data.base import ImageSet
from otfew.data.preparation import Preparation
from otfew.features.extract import embed, extract
from otfew.nodes.fcn import FCN

SIDE, COUNT = 32, 12
NETWORK = "glyphs-resnet12-quarter"


DEVICES = [pytest.param("cuda", marks=pytest.mark.cuda), "cpu"]
"""The second shows that these tests are right; tests/devices has the pretended device."""


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    names = tuple(f"{i}" for i in range(COUNT))
    labels = np.repeat(np.arange(3), COUNT // 3)
    return ImageSet("made", "test", "", ("a", "b", "c"), labels, names, lambda i: pixels[i], "", 3)


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("device", DEVICES)
def test_those_of_the_processor(device, images):
    views = torch.from_numpy(np.stack([images.read(i)[None] for i in range(COUNT)]))
    expected, found = (embed(views, backbones.load(NETWORK).to(name), FCN()) for name in ("cpu", device))
    assert found.device.type == device
    assert relative(found.cpu(), expected) < 1e-5


@pytest.mark.parametrize("device", DEVICES)
def test_extraction_uses_no_tf32_and_leaves_the_switch_as_it_was(device, images, tmp_path):
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    here, there = (
        extract(images, backbones.load(NETWORK).to(name), FCN(), Preparation(SIDE, "none"), folder)
        for name, folder in (("cpu", tmp_path / "here"), (device, tmp_path / "there"))
    )
    assert relative(there.nodes.cpu(), here.nodes) < 1e-5
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


@pytest.mark.parametrize("device", DEVICES)
def test_features_of_two_devices_do_not_share_an_entry(device, images, tmp_path):
    for name in ("cpu", device):
        network = backbones.load(NETWORK).to(name)
        extract(images, network, FCN(), Preparation(SIDE, "none"), tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == len({"cpu", device})
