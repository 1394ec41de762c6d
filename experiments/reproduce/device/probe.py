"""What this machine takes for the steps of each job: a few of them on a few images, thrown away.

A process of its own, ``python -m otfew.experiments.reproduce.device.probe``, which reads its task from stdin and
answers with a line of JSON a job, so that what it takes down (a device without memory, a library) is itself, and what
it has said before is kept.
"""

from __future__ import annotations

import functools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from otfew import data, devices
from otfew.backbones import plugged
from otfew.data.base import ImageSet
from otfew.errors import UserError
from otfew.experiments import metatrain, pretrain
from otfew.experiments.common.cli import parse, translated
from otfew.experiments.common.console import make_console
from otfew.experiments.device_check.record import describe, processor, versions
from otfew.experiments.reproduce.device.jobs import NEEDED, Measured, Rates, Work
from otfew.runs.identity import code_digest
from otfew.runs.processes import cores
from otfew.training import loop
from otfew.training.augmentation import Augmentation
from otfew.training.checkpoint import save
from otfew.training.metatrain import EpisodeTraining
from otfew.training.pretrain import Classification, Task
from otfew.training.progress import read_number
from otfew.training.s2m2 import S2M2
from otfew.training.settings import MetatrainSettings, PretrainSettings
from otfew.training.validation import Validation

STEPS = 10
"""Of an epoch; there are two, the first of which warms up."""
A_CLASS = 20
"""Images of a class of a validation: enough for episodes of 15 queries."""
MEAN = STD = (0.5, 0.5, 0.5)
CODE = ("otfew", "otfew.methods", "otfew.baselines")


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        name: Of the job.
        command: pretrain or metatrain; any other is measured by ``step``.
        arguments: Its words, in which the weights that it needs may not be there yet.
        start: The words of the pretraining that makes those; empty where they are there, or none are needed.
        step: Network, side and batch of a step of a command that is not measured itself.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    start: tuple[str, ...] = ()
    step: Mapping[str, Any] | None = None


Kinds = dict[str, Rates]
"""What was measured by this process: kind of work -> rates. A kind is measured once, whatever the data and the seed."""
SAME: dict[str, Any] = {
    "epochs": 2,
    "seed": 1,
    "learning_rate": 0.1,
    "schedule": "cosine",
    "step_epochs": 1,
    "step_factor": 0.5,
}
"""Settings that change nothing of what a step takes, all set alike."""


def main() -> None:
    """Answer the requests of stdin: first what machine this is, then a line a job."""
    task = json.load(sys.stdin)
    # A data set takes seconds to find, and most jobs share one.
    library: Any = data
    library.load = functools.cache(data.load)
    kinds: Kinds = {}
    _say({"machine": machine(task["accelerator"])})
    for each in task["requests"]:
        request = Request(**each)
        try:
            found = measure(request, task["accelerator"], kinds)
        except UserError as error:
            found = Measured(reason=translated(str(error)))
        except Exception as error:
            found = Measured(reason=f"its steps could not be measured ({type(error).__name__}: {error})")
        _say({"name": request.name, **asdict(found)})


def _say(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def machine(accelerator: str) -> dict[str, Any]:
    """Say what is measured on."""
    device = devices.pick({"gpu": "cuda"}.get(accelerator, accelerator))
    return {
        "card": describe(device),
        "host": {"processor": processor(), "cores": cores()},
        "versions": versions(),
        "code": code_digest(*CODE),
    }


def measure(request: Request, accelerator: str, kinds: Kinds) -> Measured:
    """Measure a job's kind of work.

    Args:
        request: What to measure.
        accelerator: What networks run on.
        kinds: What is known already; gets longer.

    Raises:
        UserError: It can't be done here, for want of its data, say.
    """
    words = [*request.arguments, "--accelerator", accelerator]
    if request.command == "pretrain":
        return _pretrain(words, kinds)
    if request.command == "metatrain":
        with tempfile.TemporaryDirectory() as folder:
            if request.start:
                start = Path(folder) / "start.safetensors"
                _untrained([*request.start, "--accelerator", accelerator], start)
                words = [word.replace(NEEDED, str(start)) for word in words]
            return _metatrain(words, kinds)
    assert request.step is not None  # others are not asked for
    return Measured(_once(kinds, request.step, lambda: _network(**request.step or {}, accelerator=accelerator)))


def _pretrain(words: Sequence[str], kinds: Kinds) -> Measured:
    chosen = pretrain.prepare(parse(pretrain.Config, "pretrain", words))
    config, settings = chosen.config, chosen.config.settings
    train, val = len(chosen.train), len(chosen.val)
    work = Work(
        steps=settings.epochs * (train // settings.batch_size),
        epochs=settings.epochs,
        validated=val,
        images=train + val,
        closings=1,
    )
    mixup: dict[str, Any] = {"mixup_epochs": 1} if settings.recipe == "s2m2" else {}
    brief: PretrainSettings = replace(settings, **{**SAME, **mixup})

    def rates() -> Rates:
        objective = S2M2 if settings.recipe == "s2m2" else Classification
        small = _shortened(chosen, few(chosen.train, STEPS * settings.batch_size))
        (task, validation), read = _timed(lambda: pretrain.load_data(small, make_console()))
        found = _rates(lambda parts: objective(lambda: pretrain.build(config), task, brief, parts), brief, validation)
        return replace(found, read=read / (len(small.train) + len(small.val)))

    kind = [config.backbone, config.last_pool, brief, chosen.preparation, chosen.augmentation]
    return Measured(_once(kinds, kind, rates), work)


def _metatrain(words: Sequence[str], kinds: Kinds) -> Measured:
    chosen = metatrain.prepare(parse(metatrain.Config, "metatrain", words))
    config, settings = chosen.config, chosen.config.settings
    train, val = len(chosen.train), len(chosen.val)
    work = Work(
        steps=settings.epochs * (settings.episodes_per_epoch // settings.accumulate),
        epochs=settings.epochs + 1,
        validated=val,
        images=train + val,
        closings=3,
    )
    brief: MetatrainSettings = replace(settings, **SAME, episodes_per_epoch=STEPS * settings.accumulate)

    def rates() -> Rates:
        a_class = max(A_CLASS, config.shot + config.query)
        small = _shortened(chosen, few(chosen.train, a_class * len(chosen.train.classes)))
        (task, validation), read = _timed(lambda: metatrain.load_data(small, make_console()))
        module = chosen.backbone.module
        found = _rates(lambda parts: EpisodeTraining(module, task, brief, parts), brief, validation)
        return replace(found, read=read / (len(small.train) + len(small.val)))

    card = chosen.backbone.card
    kind: list[Any] = [card.architecture, dict(card.options), chosen.trained, chosen.options, chosen.extractor.spec]
    kind += [config.way, config.shot, config.query, brief, chosen.preparation, chosen.augmentation]
    return Measured(_once(kinds, kind, rates), work)


def _once(kinds: Kinds, kind: object, measured: Callable[[], Rates]) -> Rates:
    """Measure a kind of work unless that was done."""
    key = repr(kind)
    if key not in kinds:
        kinds[key] = measured()
    return kinds[key]


def _network(network: str, side: int, batch: int, accelerator: str) -> Rates:
    """Measure steps of softmax on random pixels."""
    pixels = torch.randint(256, (STEPS * batch, 3, side, side), dtype=torch.uint8)
    task = Task(pixels, torch.arange(len(pixels)) % 100, 100, side, MEAN, STD, Augmentation())
    brief = PretrainSettings(**{**SAME, "batch_size": batch, "accelerator": accelerator})
    return _rates(lambda parts: Classification(plugged.architecture(network), task, brief, parts), brief, None)


def _untrained(words: Sequence[str], path: Path) -> None:
    """Write a network of the kind that a pretraining leaves, which has learned nothing."""
    chosen = pretrain.prepare(parse(pretrain.Config, "pretrain", words))
    small = replace(chosen, train=few(chosen.train, 1), val=_validated(chosen.val))
    task, validation = pretrain.load_data(small, make_console())
    card = pretrain.describe(chosen, task, validation)
    save(path, pretrain.build(chosen.config), card)


def few(images: ImageSet, count: int) -> ImageSet:
    """Take so many images of a split, as many of each class as can be; its classes stay.

    Args:
        images: The split.
        count: How many, or a few more.
    """
    a_class = math.ceil(count / len(images.classes))
    places = [np.flatnonzero(images.labels == label)[:a_class] for label in range(len(images.classes))]
    chosen = np.sort(np.concatenate(places))

    def read(index: int) -> Any:
        return images.read(int(chosen[index]))

    domains = tuple(images.domains[i] for i in chosen) if images.domains else ()
    names = tuple(images.names[i] for i in chosen)
    return replace(images, labels=images.labels[chosen], names=names, read=read, domains=domains)


def _shortened(chosen: Any, train: ImageSet) -> Any:
    """Give a training fewer images, and its validation fewer episodes in the same share."""
    val = _validated(chosen.val)
    episodes = max(2, round(chosen.config.val_episodes * len(val) / len(chosen.val)))
    return replace(chosen, train=train, val=val, config=replace(chosen.config, val_episodes=episodes))


def _validated(val: ImageSet) -> ImageSet:
    return few(val, A_CLASS * len(val.classes))


def _rates(build: Callable[[int], Any], settings: Any, validation: Validation | None) -> Rates:
    """Train two short epochs, and take the times of the second."""

    def nothing(_network: nn.Module, _device: torch.device, _learned: Mapping[str, float]) -> dict[str, float]:
        return {"": 0.0}

    def validate(network: nn.Module, device: torch.device, learned: Mapping[str, float]) -> dict[str, float]:
        assert validation is not None
        return {name: each.mean for name, each in validation(network, device, learned).items()}

    objectives = []

    def built(parts: int) -> Any:
        objectives.append(build(parts))
        return objectives[-1]

    with tempfile.TemporaryDirectory() as folder:
        duties = loop.Duties(
            nothing if validation is None else validate,
            read_number,
            None,
            Path(folder) / "state.pt",
            {},
            save_every=math.inf,
        )
        _, history = loop.run(built, settings, duties)
    (objective,) = objectives
    first, second = history[-2:]
    step = second.training_seconds / objective.steps
    warm = max(0.0, first.seconds - second.seconds)
    if validation is None:
        return Rates(step, warm)
    images = len(validation.images)
    return Rates(
        step,
        warm,
        validate=(second.seconds - second.training_seconds) / images,
        close=_closing(objective.network, validation, dict(objective.learned())) / images,
    )


def _closing(network: nn.Module, validation: Validation, learned: Mapping[str, float]) -> float:
    """Time a validation on the CPU, as trainings end with; a second time where the first may have compiled."""
    network = network.to("cpu").eval()
    _, seconds = _timed(lambda: validation(network, torch.device("cpu"), learned))
    if seconds < 2.0:
        _, seconds = _timed(lambda: validation(network, torch.device("cpu"), learned))
    return seconds


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    found = call()
    return found, time.perf_counter() - began


if __name__ == "__main__":
    main()
