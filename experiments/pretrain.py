"""Train a backbone on the base classes of a data set: ``python -m experiments.pretrain --dataset glyphs``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from otfew import catalogue, data
from otfew.data.base import DataOptions, ImageSet
from otfew.data.preparation import CROPS, Crop, Preparation, default_crop
from otfew.errors import UserError
from otfew.experiments.common.cli import parse, run
from otfew.experiments.common.training import (
    Target,
    augmentation_of,
    checkpoint_name,
    make_console,
    progress_bar,
    selection,
    spell,
    stored,
    watch,
)
from otfew.runs import processes
from otfew.training import loop
from otfew.training.augmentation import Augmentation
from otfew.training.pretrain import Classification, Settings, Task
from otfew.training.s2m2 import S2M2

if TYPE_CHECKING:
    from rich.console import Console

    from otfew.backbones.base import Card
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
class Config:
    """Train a backbone with softmax on base classes, and validate every epoch.

    Under torchrun, each process takes its share of every batch.

    Attributes:
        dataset: Name of the data set; its train split is learned, its val split validates every epoch.
        data_root: Folder of the data; default $OTFEW_DATA, then a cache directory.
        backbone: Architecture.
        last_pool: False leaves out the last pooling, so that 32 px images keep 4x4 nodes.
        resolution: Side in pixels; default the data set's usual one.
        crop: Validation images: whole ("none") or DeepEMD's centre crop ("center"); default by data set.
        name: Of the checkpoint; default DATASET-BACKBONE.
        output: Folder for NAME.safetensors, NAME.json, history.json and state.pt; default runs/NAME. The same command
            resumes a run that was stopped.
        half: Store half-precision weights.
        val_episodes: Validation episodes (5-way 1-shot).
        select: The epoch that is kept: the last, whatever validation says, or the best on the validation episodes by
            cosine-centroid. The accuracies of deepemd-fcn are recorded, and choose nothing.
        min_scale: Least share of the area in a random crop; default 0.08, for characters 0.6.
        flip: Mirror training images; default all but characters.
        colour: Strength of random brightness, contrast and saturation.
        tensorboard: Write curves for TensorBoard beside the checkpoint.
        save_every: Seconds of work that a crash may cost at most, short of one step.
        data: Options of the data set.
        settings: How to train.
    """

    dataset: str = "glyphs"
    data_root: Path | None = None
    backbone: str = "resnet12"
    last_pool: bool = True
    resolution: int | None = None
    crop: Crop | None = None
    name: str = ""
    output: Path | None = None
    half: bool = True
    val_episodes: int = 500
    select: Literal["last", "cosine-centroid"] = "last"
    min_scale: float | None = None
    flip: bool | None = None
    colour: float = 0.0
    tensorboard: bool = True
    save_every: float = 60.0
    data: Annotated[DataOptions, tyro.conf.arg(name="")] = field(default_factory=DataOptions)
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)


@dataclass(frozen=True)
class Plan:
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
    from otfew.reporting.console import PlainConsole

    console = make_console()
    plan = prepare(config)
    task, validation = load_data(plan, console)
    path = plan.output / f"{plan.name}.safetensors"
    target = Target(path, describe(plan, task, validation), partial(_build, config), config.half, config.select)
    identity = {
        "architecture": config.backbone,
        "last_pool": config.last_pool,
        "preparation": asdict(plan.preparation),
        "augmentation": asdict(plan.augmentation),
        "train": plan.train.digest,
        "val": plan.val.digest,
        "val_episodes": config.val_episodes,
        "select": config.select,
    }
    objective = S2M2 if config.settings.recipe == "s2m2" else Classification
    main_process = processes.world().is_main
    with progress_bar(console) as bar:
        best, history = loop.run(
            lambda parts: objective(target.build, task, config.settings, parts),
            config.settings,
            loop.Plan(validation, config.select, plan.output / "state.pt", identity, save_every=config.save_every),
            watch(bar, console, config.settings.epochs, target, config.tensorboard) if main_process else None,
        )
    if main_process:
        target.write(best, history)
        target.report(history, validation, PlainConsole())
    return path


def prepare(config: Config) -> Plan:
    """Decide the defaults and find the images; raises ``UserError`` for what can't be."""
    from otfew.backbones.architectures import ARCHITECTURES

    if config.backbone not in ARCHITECTURES:
        raise UserError(f"unknown architecture {config.backbone!r}: choose from {', '.join(ARCHITECTURES)}.")
    if not config.last_pool and not catalogue.accepts(ARCHITECTURES[config.backbone], "last_pool"):
        raise UserError(f"--no-last-pool: {config.backbone} has no last pooling to leave out.")
    if config.val_episodes < 1:
        raise UserError(f"--val-episodes must be at least 1, not {config.val_episodes}.")
    with processes.leaders_first():
        train, val = (data.load(config.dataset, split, config.data_root, config.data) for split in ("train", "val"))
    usual = data.DATASETS[config.dataset].resolution
    resolution = usual if config.resolution is None else config.resolution
    least = 16 if config.last_pool else 8
    if resolution < least:
        raise UserError(f"--resolution {resolution} leaves no node: choose at least {least}.")
    if config.crop is not None and config.crop not in CROPS:
        raise UserError(f"unknown --crop {config.crop!r}: choose one of {', '.join(CROPS)}.")
    name = checkpoint_name(config.name, f"{config.dataset}-{config.backbone}")
    return Plan(
        config=config,
        name=name,
        output=config.output or Path("runs") / name,
        preparation=Preparation(resolution, config.crop or default_crop(usual)),
        augmentation=augmentation_of(config.dataset, config.min_scale, config.flip, config.colour),
        train=train,
        val=val,
    )


def load_data(plan: Plan, console: Console) -> tuple[Task, Validation]:
    """Decode both splits into memory."""
    import torch

    from otfew.nodes.fcn import FCN
    from otfew.training.images import decode, statistics
    from otfew.training.validation import Validation, make_sampler

    resolution = plan.preparation.resolution
    sampler = make_sampler(plan.val)
    with progress_bar(console) as bar:
        job = bar.add_task("reading images", total=len(plan.train) + len(plan.val))
        train_pixels = decode(plan.train, stored(plan.preparation), lambda: bar.advance(job))[:, 0]
        val_pixels = decode(plan.val, plan.preparation, lambda: bar.advance(job))
    mean, std = statistics(train_pixels)
    labels = torch.from_numpy(plan.train.labels)
    task = Task(train_pixels, labels, len(plan.train.classes), resolution, mean, std, plan.augmentation)
    methods = {name: catalogue.build(name) for name in VALIDATED}
    validation = Validation(
        val_pixels, plan.val, FCN(), sampler, plan.config.val_episodes, lambda _: methods, mean, std
    )
    return task, validation


def describe(plan: Plan, task: Task, validation: Validation) -> Card:
    """Write the card, as far as it is known before training."""
    import torch

    from otfew.backbones.base import Card

    config, images = plan.config, plan.train
    variant = f" ({images.variant})" if images.variant else ""
    notes = "".join(f"; {note}" for note in images.notes)
    return Card(
        name=plan.name,
        architecture=config.backbone,
        options=_options(config),
        resolution=plan.preparation.resolution,
        mean=task.mean,
        std=task.std,
        training_data=f"{images.dataset} train{variant}: {len(images.classes)} classes, {len(images):,} images{notes}",
        dataset=images.dataset,
        training_classes=images.classes,
        protocol={
            "command": command(config),
            "objective": OBJECTIVES["s2m2" if config.settings.recipe == "s2m2" else config.settings.rotation],
            "processes": processes.world().size,
            **asdict(config.settings),
            "augmentation": asdict(plan.augmentation),
            "crop": plan.preparation.crop,
            "training_images_sha256": images.digest,
            "selection": selection(config.select, validation, initial=False),
            "torch": torch.__version__,
        },
    )


def command(config: Config) -> str:
    """Spell out the command that trains this, without paths of this machine."""
    always = {"dataset", "backbone", "select", "epochs", "seed"}
    never = {"data_root", "output", "download", "tensorboard", "save_every"}
    return spell("pretrain", config, config.data, config.settings, always=always, never=never)


def _options(config: Config) -> dict[str, bool]:
    """Return the architecture's options that are not its defaults."""
    return {} if config.last_pool else {"last_pool": False}


def _build(config: Config) -> Any:
    from otfew.backbones.architectures import ARCHITECTURES

    return ARCHITECTURES[config.backbone](**_options(config))


if __name__ == "__main__":
    run(main)
