"""Images a second: through a network into node sets, and in pre-training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.base import Backbone, Card
from otfew.experiments.device_check.bench import CARD, Bench, Row
from otfew.features.extract import embed
from otfew.nodes.fcn import FCN
from otfew.training.augmentation import Augmentation
from otfew.training.loop import Part
from otfew.training.pretrain import Classification, Task
from otfew.training.settings import PretrainSettings

MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Setting:
    """What goes through which network.

    Attributes:
        architecture: Of the network.
        side: Of the images, in pixels.
        images: In a batch of extraction.
        batch: Of pre-training.
    """

    architecture: str
    side: int
    images: int
    batch: int


SETTINGS = (Setting("resnet12", 84, 1024, 128),)
TOY = (Setting("conv4", 16, 4, 4),)


def measure(bench: Bench) -> Iterator[Row]:
    """Yield a row each for extraction, with pixels that come from the host's memory, and a step of pre-training."""
    for setting in TOY if bench.toy else SETTINGS:
        where = {"size": f"{setting.architecture}, {setting.side} px", "by": CARD}
        yield {"what": "extraction", **where, "count": setting.images, **_extraction(bench, setting)}
        yield {"what": "pre-training step", **where, "count": setting.batch, **_pretraining(bench, setting)}


def _extraction(bench: Bench, setting: Setting) -> Row:
    """Time the way from pixels to nodes."""
    views = torch.randint(256, (setting.images, 1, setting.side, setting.side, 3), dtype=torch.uint8)
    module = ARCHITECTURES[setting.architecture]()
    card = Card("made", setting.architecture, {}, setting.side, MEAN, STD)
    backbone = Backbone(module, card, "made").to(bench.device)
    with torch.inference_mode():
        return bench.turns(lambda: embed(views, backbone, FCN()), seconds=1.5).figures(setting.images)


def _pretraining(bench: Bench, setting: Setting) -> Row:
    """Time steps of softmax on base classes, augmentation included."""
    count = 4 * setting.batch
    pixels = torch.randint(256, (count, 3, setting.side, setting.side), dtype=torch.uint8)
    task = Task(pixels, torch.arange(count) % 64, 64, setting.side, MEAN, STD, Augmentation())
    settings = PretrainSettings(batch_size=setting.batch)
    training = Classification(ARCHITECTURES[setting.architecture], task, settings)
    module: Any = training.module
    module.to(bench.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    training.train()
    done = 0

    def step() -> object:
        nonlocal done
        optimizer.zero_grad()
        outcome = training.outcome(module, Part(0, done % training.steps, 0, 1), bench.device)
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += 1
        return outcome

    return bench.turns(step, seconds=2.0).figures(setting.batch)
