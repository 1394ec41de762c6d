"""Train a backbone on the base classes of a data set: ``python -m experiments.pretrain --dataset glyphs``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from otfew.errors import UserError
from otfew.experiments.common.cli import parse, run
from otfew.experiments.common.training_options import WithCheckpoint, WithImages
from otfew.training.settings import PretrainSettings

if TYPE_CHECKING:
    from rich.console import Console

    from otfew.backbones.base import Card
    from otfew.data.base import ImageSet
    from otfew.data.preparation import Preparation
    from otfew.training.augmentation import Augmentation
    from otfew.training.pretrain import Task
    from otfew.training.validation import Validation

VALIDATED = ("deepemd-fcn", "cosine-centroid")
"""Methods that score the validation episodes after each epoch.

Only cosine-centroid may choose the epoch: one that deepemd-fcn chose would lean towards transport in every comparison.
"""
OBJECTIVES = {
    "none": "softmax over the training classes on globally averaged maps",
    "augment": "softmax over the training classes on globally averaged maps of images turned by random quarters",
    "self-supervised": (
        "softmax over the training classes on globally averaged maps of images turned by random quarters, plus "
        "rotation_weight times softmax over the turns"
    ),
    "s2m2": (
        "softmax over the training classes and over turns of images in all four turns; in the last mixup_epochs "
        "softmax of images or maps mixed in pairs as well"
    ),
}


@dataclass(frozen=True)
class WithArchitecture:
    """What is trained."""

    last_pool: bool = True
    """False leaves out the last pooling, so that 32 px images keep 4x4 nodes."""
    resolution: int | None = None
    """Side in pixels; default the data set's usual one."""


@dataclass(frozen=True)
class Config(WithCheckpoint, WithArchitecture, WithImages):
    """Train a backbone with softmax on base classes, and validate every epoch.

    Under torchrun, each process takes its share of every batch.
    """

    backbone: str = "resnet12"
    """Architecture, or package.module:factory of your own."""
    select: Literal["last", "cosine-centroid"] = "last"
    """The epoch that is kept: the last, whatever validation says, or the best on the validation episodes by
    cosine-centroid. The accuracies of deepemd-fcn are recorded, and choose nothing."""
    settings: Annotated[PretrainSettings, tyro.conf.arg(name="")] = field(default_factory=PretrainSettings)
    """How to train."""


@dataclass(frozen=True)
class Setup:
    """A configuration with every default decided, and its data."""

    config: Config
    name: str
    output: Path
    preparation: Preparation
    augmentation: Augmentation
    train: ImageSet
    val: ImageSet


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: Instead of those of the process.

    Raises:
        UserError: A mistake in the arguments or the data, in one sentence.
    """
    train(parse(Config, "pretrain", arguments))


def train(config: Config) -> Path:
    """Train as configured; returns the path of the checkpoint."""
    from otfew.experiments.common.training import Bars, Target, code, make_console, plugged_in, watch
    from otfew.reporting.console import PlainConsole
    from otfew.runs import processes
    from otfew.training import loop
    from otfew.training.pretrain import Classification
    from otfew.training.progress import read_accuracy
    from otfew.training.s2m2 import S2M2

    console = make_console()
    chosen = prepare(config)
    task, validation = load_data(chosen, console)
    path = chosen.output / f"{chosen.name}.safetensors"
    target = Target(path, describe(chosen, task, validation), partial(build, config), config.half, config.select)
    identity = {
        "architecture": config.backbone,
        "last_pool": config.last_pool,
        "preparation": asdict(chosen.preparation),
        "augmentation": asdict(chosen.augmentation),
        "train": chosen.train.digest,
        "val": chosen.val.digest,
        "val_episodes": config.val_episodes,
        "select": config.select,
        **plugged_in(config.backbone, config.dataset),
    }
    objective = S2M2 if config.settings.recipe == "s2m2" else Classification
    main_process = processes.world().is_main
    with Bars(console) as bar:
        best, history = loop.run(
            lambda parts: objective(target.build, task, config.settings, parts),
            config.settings,
            loop.Duties(
                validation,
                read_accuracy,
                target.score,
                chosen.output / "state.pt",
                identity,
                save_every=config.save_every,
                code=code(),
            ),
            watch(bar, console, config.settings.epochs, target, config.tensorboard) if main_process else None,
        )
    if main_process:
        target.write(best, history)
        target.report(history, validation, PlainConsole())
    return path


def prepare(config: Config) -> Setup:
    """Decide the defaults and find the images; raises ``UserError`` for what can't be."""
    from otfew import catalogue, data
    from otfew.backbones import plugged
    from otfew.data.preparation import Preparation, default_crop
    from otfew.experiments.common.training import augmentation_of, checkpoint_name, splits
    from otfew.plugins import file_name, is_plugin, load

    factory: Any = plugged.architecture(config.backbone)
    if is_plugin(config.backbone):
        factory = load(config.backbone, "backbone")
    if not config.last_pool and not (callable(factory) and catalogue.accepts(factory, "last_pool")):
        raise UserError(f"--no-last-pool: {config.backbone} has no last pooling to leave out.")
    if config.val_episodes < 1:
        raise UserError(f"--val-episodes must be at least 1, not {config.val_episodes}.")
    train, val = splits(config)
    usual = data.find(config.dataset).resolution
    resolution = usual if config.resolution is None else config.resolution
    least = 16 if config.last_pool else 8
    if resolution < least:
        raise UserError(f"--resolution {resolution} leaves no node: choose at least {least}.")
    trained_on = train.dataset.removesuffix(".csv")
    name = checkpoint_name(config.name, file_name(f"{trained_on}-{config.backbone}"))
    return Setup(
        config=config,
        name=name,
        output=config.output or Path("runs") / name,
        preparation=Preparation(resolution, config.crop or default_crop(usual)),
        augmentation=augmentation_of(config.dataset, config.min_scale, config.flip, config.colour),
        train=train,
        val=val,
    )


def load_data(chosen: Setup, console: Console) -> tuple[Task, Validation]:
    """Decode both splits into memory."""
    import torch

    from otfew import catalogue
    from otfew.experiments.common.training import Bars, stored
    from otfew.nodes.fcn import FCN
    from otfew.training.images import decode, statistics
    from otfew.training.pretrain import Task
    from otfew.training.validation import Validation, make_sampler

    resolution = chosen.preparation.resolution
    sampler = make_sampler(chosen.val)
    with Bars(console) as bar:
        job = bar.add_task("reading images", total=len(chosen.train) + len(chosen.val))
        train_pixels = decode(chosen.train, stored(chosen.preparation), lambda: bar.advance(job))[:, 0]
        val_pixels = decode(chosen.val, chosen.preparation, lambda: bar.advance(job))
    mean, std = statistics(train_pixels)
    labels = torch.from_numpy(chosen.train.labels)
    task = Task(train_pixels, labels, len(chosen.train.classes), resolution, mean, std, chosen.augmentation)
    methods = {name: catalogue.build(name) for name in VALIDATED}
    validation = Validation(
        val_pixels, chosen.val, FCN(), sampler, chosen.config.val_episodes, lambda _: methods, mean, std
    )
    return task, validation


def describe(chosen: Setup, task: Task, validation: Validation) -> Card:
    """Write the card, as far as it is known before training."""
    import torch

    from otfew.backbones.base import Card
    from otfew.experiments.common.training import plugged_in, selection
    from otfew.runs import processes

    config, images = chosen.config, chosen.train
    variant = f" ({images.variant})" if images.variant else ""
    notes = "".join(f"; {note}" for note in images.notes)
    return Card(
        name=chosen.name,
        architecture=config.backbone,
        options=_options(config),
        resolution=chosen.preparation.resolution,
        mean=task.mean,
        std=task.std,
        training_data=f"{images.dataset} train{variant}: {len(images.classes)} classes, {len(images):,} images{notes}",
        dataset=images.dataset,
        training_classes=images.classes,
        protocol={
            "command": command(replace(config, dataset=images.dataset)),
            "objective": OBJECTIVES["s2m2" if config.settings.recipe == "s2m2" else config.settings.rotation],
            "processes": processes.world().size,
            **asdict(config.settings),
            "augmentation": asdict(chosen.augmentation),
            "crop": chosen.preparation.crop,
            "training_images_sha256": images.digest,
            **plugged_in(config.backbone, config.dataset),
            "selection": selection(config.select, validation, initial=False),
            "torch": torch.__version__,
        },
    )


def command(config: Config) -> str:
    """Spell out the command that trains this, without paths of this machine."""
    from otfew.experiments.common.training import spell

    always = {"dataset", "backbone", "select", "epochs", "seed"}
    never = {"data_root", "output", "download", "tensorboard", "save_every"}
    return spell("pretrain", config, config.data, config.settings, always=always, never=never)


def _options(config: Config) -> dict[str, bool]:
    """Return the architecture's options that are not its defaults."""
    return {} if config.last_pool else {"last_pool": False}


def build(config: Config) -> Any:
    """Make the network that is trained, with first weights."""
    from otfew.backbones import plugged

    return plugged.architecture(config.backbone)(**_options(config))


if __name__ == "__main__":
    run(main)
