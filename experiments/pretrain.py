"""Train a backbone on the base classes of a data set: ``python -m experiments.pretrain --dataset glyphs``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from otfew import data
from otfew.data.base import DataOptions, ImageSet
from otfew.errors import UserError
from otfew.experiments._cli import parse, run
from otfew.preparation import CROPS, Crop, Preparation, default_crop
from otfew.training.augmentation import Augmentation
from otfew.training.pretrain import Epoch, Settings, Task, Watcher, pretrain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from torch import Tensor

    from otfew.backbones.base import Card
    from otfew.training.validation import Validation

DRAWN = ("glyphs", "omniglot")
"""Data sets of characters: mirroring makes another class, and a small crop leaves nothing to recognise."""


@dataclass(frozen=True)
class Config:
    """Train a backbone with softmax on base classes and keep the epoch that does best on validation episodes.

    Attributes:
        dataset: Name of the data set; its train split is learned, its val split chooses the epoch.
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
        min_scale: Least share of the area in a random crop; default 0.08, for characters 0.6.
        flip: Mirror training images; default all but characters.
        colour: Strength of random brightness, contrast and saturation.
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
    val_episodes: int = 200
    min_scale: float | None = None
    flip: bool | None = None
    colour: float = 0.0
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
    from rich.console import Console

    console = Console(stderr=True)
    plan = prepare(config)
    path = plan.output / f"{plan.name}.safetensors"
    task, validation = load_data(plan, console)
    card = describe(plan, task, validation)
    with _progress(console) as bar:
        watcher = _Display(bar, console, config.settings, path, card, plan)
        best, history = pretrain(
            partial(_build, config), task, validation, config.settings, plan.output / "state.pt", watcher
        )
    write(path, best, history, card, plan)
    report(path, history, validation, Console())
    return path


def prepare(config: Config) -> Plan:
    """Decide the defaults and find the images; raises ``UserError`` for what can't be."""
    from otfew.backbones.architectures import ARCHITECTURES

    if config.backbone not in ARCHITECTURES:
        raise UserError(f"unknown architecture {config.backbone!r}: choose from {', '.join(ARCHITECTURES)}.")
    if config.val_episodes < 1:
        raise UserError(f"--val-episodes must be at least 1, not {config.val_episodes}.")
    train, val = (data.load(config.dataset, split, config.data_root, config.data) for split in ("train", "val"))
    usual = data.DATASETS[config.dataset].resolution
    resolution = usual if config.resolution is None else config.resolution
    least = 16 if config.last_pool else 8
    if resolution < least:
        raise UserError(f"--resolution {resolution} leaves no node: choose at least {least}.")
    if config.crop is not None and config.crop not in CROPS:
        raise UserError(f"unknown --crop {config.crop!r}: choose one of {', '.join(CROPS)}.")
    name = config.name or f"{config.dataset}-{config.backbone}"
    if Path(name).name != name:
        raise UserError(f"--name {name!r} must be a plain file name; --output names the folder.")
    drawn = config.dataset in DRAWN
    return Plan(
        config=config,
        name=name,
        output=config.output or Path("runs") / name,
        preparation=Preparation(resolution, config.crop or default_crop(usual)),
        augmentation=Augmentation(
            min_scale=(0.6 if drawn else 0.08) if config.min_scale is None else config.min_scale,
            flip=not drawn if config.flip is None else config.flip,
            colour=config.colour,
        ),
        train=train,
        val=val,
    )


def load_data(plan: Plan, console: Console) -> tuple[Task, Validation]:
    """Decode both splits into memory."""
    import torch

    from otfew.training import images, validation

    resolution = plan.preparation.resolution
    # Training images keep the margin that the centre crop would cut: random crops may use it.
    stored = Preparation(round(resolution * 92 / 84) if plan.preparation.crop == "center" else resolution)
    with _progress(console) as bar:
        job = bar.add_task("reading images", total=len(plan.train) + len(plan.val))
        train_pixels = images.decode(plan.train, stored, lambda: bar.advance(job))
        val_pixels = images.decode(plan.val, plan.preparation, lambda: bar.advance(job))
    mean, std = images.statistics(train_pixels)
    config = plan.config
    task = Task(
        pixels=train_pixels,
        labels=torch.from_numpy(plan.train.labels),
        classes=len(plan.train.classes),
        resolution=resolution,
        mean=mean,
        std=std,
        augmentation=plan.augmentation,
        identity={
            "architecture": config.backbone,
            "last_pool": config.last_pool,
            "preparation": asdict(plan.preparation),
            "train": plan.train.digest,
            "val": plan.val.digest,
            "val_episodes": config.val_episodes,
        },
    )
    return task, validation.prepare(plan.val, val_pixels, config.val_episodes)


def describe(plan: Plan, task: Task, validation: Validation) -> Card:
    """Write the card, as far as it is known before training."""
    import torch

    from otfew.backbones.base import Card

    config, images = plan.config, plan.train
    variant = f" ({images.variant})" if images.variant else ""
    notes = "".join(f"; {note}" for note in images.notes)
    protocol = validation.protocol
    return Card(
        name=plan.name,
        architecture=config.backbone,
        options={} if config.last_pool else {"last_pool": False},
        resolution=plan.preparation.resolution,
        mean=task.mean,
        std=task.std,
        training_data=f"{images.dataset} train{variant}: {len(images.classes)} classes, {len(images):,} images{notes}",
        dataset=images.dataset,
        training_classes=images.classes,
        protocol={
            "command": command(config),
            "objective": "softmax over the training classes on globally averaged maps",
            "optimizer": "SGD, Nesterov",
            **asdict(config.settings),
            "augmentation": asdict(plan.augmentation),
            "crop": plan.preparation.crop,
            "training_images_sha256": images.digest,
            "selection": (
                f"best epoch on {len(validation.episodes)} episodes of the val split ({len(plan.val.classes)} "
                f"classes), {protocol.way}-way {protocol.shot}-shot {protocol.query}-query, cosine of global vectors"
            ),
            "torch": torch.__version__,
        },
    )


def command(config: Config) -> str:
    """Spell out the command that trains this, without paths of this machine."""
    words = ["python -m experiments.pretrain"]
    for part in (config, config.data, config.settings):
        for entry in fields(part):
            value = getattr(part, entry.name)
            always = entry.name in {"dataset", "backbone", "epochs", "seed"}
            if entry.name in {"data_root", "output", "download", "data", "settings"}:
                continue
            if value == entry.default and not always:
                continue
            flag = entry.name.replace("_", "-")
            switch = isinstance(value, bool) and isinstance(entry.default, bool)
            words.append(f"--{'' if value else 'no-'}{flag}" if switch else f"--{flag} {value}")
    return " ".join(words)


def write(path: Path, best: dict[str, Tensor], history: list[Epoch], card: Card, plan: Plan) -> None:
    """Write the best weights with their card, and history.json."""
    from otfew.backbones.weights import write_atomic
    from otfew.training.checkpoint import save

    chosen = max(history, key=lambda record: (record.val_accuracy, -record.epoch))
    found = {
        "epochs_done": len(history),
        "best_epoch": chosen.epoch,
        "val_accuracy": round(chosen.val_accuracy, 3),
        "val_interval": round(chosen.val_interval, 3),
    }
    module = _build(plan.config)
    module.load_state_dict(best)
    save(path, module, replace(card, protocol={**card.protocol, **found}), half=plan.config.half)
    records = [asdict(record) for record in history]
    write_atomic(path.parent / "history.json", (json.dumps(records, indent=1) + "\n").encode())


def report(path: Path, history: list[Epoch], validation: Validation, console: Console) -> None:
    """Print the last epochs, the best one, and the accuracy of the file just written."""
    from rich.table import Table

    from otfew.training.checkpoint import load

    best = max(history, key=lambda record: (record.val_accuracy, -record.epoch))
    table = Table(title=path.stem)
    for heading in ("epoch", "loss", "train %", "val %", "seconds"):
        table.add_column(heading, justify="right")
    for record in history:
        if record is best or record.epoch > len(history) - 5:
            mark = " (best)" if record is best else ""
            table.add_row(
                f"{record.epoch}{mark}",
                f"{record.loss:.3f}",
                f"{record.train_accuracy:.1f}",
                f"{record.val_accuracy:.2f} ± {record.val_interval:.2f}",
                f"{record.seconds:.0f}",
            )
    accuracy, interval = validation.accuracy(load(path).maps)
    table.add_row("as saved", "", "", f"{accuracy:.2f} ± {interval:.2f}", "", end_section=True)
    console.print(table)
    console.print(f"{path} ({path.stat().st_size / 1e6:.2f} MB); use it with --backbone {path}", soft_wrap=True)


class _Display(Watcher):
    """Shows progress and writes the best weights as soon as there are any."""

    def __init__(self, bar: Progress, console: Console, settings: Settings, path: Path, card: Card, plan: Plan) -> None:
        self.bar, self.console, self.path, self.card, self.plan = bar, console, path, card, plan
        self.epochs = settings.epochs
        self.job = bar.add_task("training", total=None)

    def on_resume(self, epochs: int, batches: int) -> None:
        self.console.print(f"resuming after {epochs} epochs and {batches} batches")

    def on_batch(self, epoch: int, batch: int, batches: int, loss: float) -> None:
        done = (epoch - 1) * batches + batch
        if self.bar.tasks[0].total is None:
            self.bar.reset(self.job, total=self.epochs * batches, completed=done - 1)
        self.bar.update(self.job, completed=done, description=f"epoch {epoch}/{self.epochs} loss {loss:.3f}")

    def on_epoch(self, history: list[Epoch], best: dict[str, Tensor] | None) -> None:
        record = history[-1]
        self.console.print(
            f"epoch {record.epoch}: loss {record.loss:.3f}, train {record.train_accuracy:.1f} %, "
            f"val {record.val_accuracy:.2f} ± {record.val_interval:.2f} %, {record.seconds:.0f} s"
        )
        if best is not None:
            write(self.path, best, history, self.card, self.plan)


def _progress(console: Console) -> Progress:
    """Make a progress bar with time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def _build(config: Config) -> Any:
    from otfew.backbones.architectures import ARCHITECTURES

    return ARCHITECTURES[config.backbone](last_pool=config.last_pool)


if __name__ == "__main__":
    run(main)
