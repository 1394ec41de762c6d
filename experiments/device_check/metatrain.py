"""A step of meta-training through DeepEMD beside one through ProtoNet: what transport costs in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from otfew import catalogue
from otfew.backbones.architectures import ARCHITECTURES
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.experiments.device_check.bench import CARD, Bench, Row
from otfew.nodes.fcn import FCN
from otfew.training.augmentation import Augment, Augmentation
from otfew.training.loop import Part
from otfew.training.metatrain import EpisodeTraining, Task
from otfew.training.settings import MetatrainSettings
from otfew.training.views import WholeImages

MEAN = STD = (0.5, 0.5, 0.5)
METHODS = ("protonet", "deepemd")


@dataclass(frozen=True)
class Setting:
    """What is trained on.

    Attributes:
        architecture: Of the network.
        side: Of the images, in pixels.
        query: Images to classify of each class.
    """

    architecture: str
    side: int
    query: int


SETTING = Setting("resnet12", 84, 15)
TOY = Setting("conv4", 16, 2)


def measure(bench: Bench) -> Iterator[Row]:
    """Yield a row a method, and one for their ratio.

    An episode a step, 5-way 1-shot with 15 queries a class, on 84 px: the batch of DeepEMD's code.
    """
    setting = TOY if bench.toy else SETTING
    steps = {name: _stepper(name, setting, bench.device) for name in METHODS}
    timings = bench.race(steps, seconds=6.0)
    images = 5 * (1 + setting.query)
    size = f"{setting.architecture}, {setting.side} px"
    for name, timing in timings.items():
        yield {"what": f"training step, {name}", "size": size, "count": images, "by": CARD, **timing.figures(images)}
    of, to = (timings[name].figures(images)["ms"] for name in reversed(METHODS))
    yield {"what": "training step, deepemd / protonet", "size": size, "count": images, "by": CARD, "ratio": of / to}


def _stepper(name: str, setting: Setting, device: torch.device) -> Callable[[], object]:
    """Make what does one step of an optimizer, episode after episode."""
    labels = np.repeat(np.arange(10), 1 + setting.query)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (len(labels), 3, setting.side, setting.side), generator=generator, dtype=torch.uint8)
    sampler = Sampler(
        Protocol("made", "", "train", query=setting.query), labels, [f"class {label}" for label in range(10)]
    )
    method = catalogue.build(name, **({"temperature": 1 / 64} if name == "protonet" else {}))
    task = Task(
        WholeImages(pixels, Augment(Augmentation(), setting.side)),
        sampler,
        FCN(),
        lambda _: method,
        {},
        MEAN,
        STD,
    )
    torch.manual_seed(0)
    training = EpisodeTraining(ARCHITECTURES[setting.architecture](), task, MetatrainSettings())
    module: Any = training.module
    module.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=5e-4, momentum=0.9, nesterov=True, weight_decay=5e-4)
    training.train()
    done = 0

    def step() -> object:
        nonlocal done
        optimizer.zero_grad()
        outcome = training.outcome(module, Part(0, done, 0, 1), device)
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += 1
        return outcome

    return step
