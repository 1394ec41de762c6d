"""Train a backbone end to end on episodes: ``python -m experiments.metatrain --dataset cub --method deepemd``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from otfew import catalogue, data
from otfew.data.base import DataOptions, ImageSet
from otfew.data.preparation import CROPS, Crop, Preparation, default_crop
from otfew.errors import UserError
from otfew.experiments.common import setup
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
from otfew.training.metatrain import EpisodeTraining, Settings, Task
from otfew.training.progress import LAST, kept_epoch

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from otfew.backbones import Backbone
    from otfew.backbones.base import Card
    from otfew.method import FewShotMethod
    from otfew.nodes import Extractor
    from otfew.training.progress import Epoch
    from otfew.training.validation import Validation
    from otfew.training.views import Views

REFERENCE = "cosine-centroid"
"""Scored on the validation episodes beside the method that is trained."""


@dataclass(frozen=True)
class Config:
    """Go on training a backbone on episodes of the base classes, through a method's own logits and its OT solver.

    The backbone as it starts is validated too: where no epoch beats it, it is what is kept, unless the last is asked
    for. Under torchrun, each process takes an episode of every step.

    Attributes:
        dataset: Name of the data set; its train split gives the episodes, its val split validates every epoch.
        data_root: Folder of the data; default $OTFEW_DATA, then a cache directory.
        backbone: Where to start: a checkpoint of experiments.pretrain, by name or path; default ours for the data set.
        method: deepemd, protonet, matchingnet, frn, or any other method whose logits have a gradient.
        solver: Transport solver of methods that have one: exact (envelope gradient), sinkhorn, qpth, ...
        weight_gradient: For deepemd: let the gradient flow through the nodes' weights too, by the solver's potentials.
        temperature: Scale of the method's logits; default its own. Squared distances of wide features want a small one:
            1/64 for protonet in the code of Ye et al. (2020).
        nodes: Kind of nodes; default what the method prefers. Patches of grid and sampling are drawn anew each time.
        way: Classes in a training episode.
        shot: Labelled images of each class.
        query: Images to classify of each class.
        crop: Validation images: whole ("none") or DeepEMD's centre crop ("center"); default by data set.
        name: Of the checkpoint; default BACKBONE-METHOD.
        output: Folder for NAME.safetensors, NAME.json, history.json and state.pt; default runs/NAME. The same command
            resumes a run that was stopped.
        half: Store half-precision weights.
        val_episodes: Validation episodes (5-way 1-shot).
        select: The epoch that is kept: the best on the validation episodes by the very method that is trained, the
            start included, or the last. A comparison with other methods on the same backbone leans towards the method
            that chose; each method with its own backbone has had the same choice.
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
    backbone: str = ""
    method: str = "deepemd"
    solver: str = "exact"
    weight_gradient: bool = True
    temperature: float | None = None
    nodes: str = ""
    way: int = 5
    shot: int = 1
    query: int = 15
    crop: Crop | None = None
    name: str = ""
    output: Path | None = None
    half: bool = True
    val_episodes: int = 500
    select: Literal["own", "last"] = "own"
    min_scale: float | None = None
    flip: bool | None = None
    colour: float = 0.0
    tensorboard: bool = True
    save_every: float = 60.0
    data: Annotated[DataOptions, tyro.conf.arg(name="")] = field(default_factory=DataOptions)
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)


@dataclass(frozen=True)
class Plan:
    """A configuration with every default decided, its data and its backbone.

    Attributes:
        config: The command line.
        name: Of the checkpoint.
        output: Its folder.
        backbone: To go on with.
        options: Of the method, JSON-ready.
        learned: What the method learns: option -> first value.
        extractor: Kind of nodes.
        preparation: Of validation images.
        augmentation: Of training images.
        train: Base classes.
        val: Validation classes.
    """

    config: Config
    name: str
    output: Path
    backbone: Backbone
    options: dict[str, Any]
    learned: dict[str, float]
    extractor: Extractor
    preparation: Preparation
    augmentation: Augmentation
    train: ImageSet
    val: ImageSet

    @property
    def select(self) -> str:
        """Name what chooses the epoch: the method that is trained, or nothing, for the last."""
        return LAST if self.config.select == LAST else self.config.method

    def method(self, learned: Mapping[str, float | Tensor]) -> FewShotMethod:
        """Build the method from what it learns."""
        return catalogue.build(self.config.method, **self.options, **learned)

    def methods(self, learned: Mapping[str, float]) -> dict[str, FewShotMethod]:
        """Build the methods that are validated."""
        return {self.config.method: self.method(learned), REFERENCE: catalogue.build(REFERENCE)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: Instead of those of the process.

    Raises:
        UserError: A mistake in the arguments or the data, in one sentence.
    """
    train(parse(Config, "metatrain", arguments))


def train(config: Config) -> Path:
    """Train as configured; returns the path of the checkpoint."""
    from otfew.reporting.console import PlainConsole

    console = make_console()
    plan = prepare(config)
    task, validation = load_data(plan, console)
    card = describe(plan, task, validation)
    path = plan.output / f"{plan.name}.safetensors"
    target = Target(path, card, lambda: _architecture(card), config.half, plan.select, config.method)
    identity = {
        "backbone": plan.backbone.digest,
        "method": {"name": config.method, "options": plan.options, "nodes": plan.extractor.spec},
        "episodes": asdict(task.sampler.protocol),
        "preparation": asdict(plan.preparation),
        "augmentation": asdict(plan.augmentation),
        "train": plan.train.digest,
        "val": plan.val.digest,
        "val_episodes": config.val_episodes,
        "select": config.select,
    }
    main_process = processes.world().is_main
    with progress_bar(console) as bar:
        best, history = loop.run(
            lambda parts: EpisodeTraining(plan.backbone.module, task, config.settings, parts),
            config.settings,
            loop.Plan(
                validation,
                plan.select,
                plan.output / "state.pt",
                identity,
                initial=True,
                save_every=config.save_every,
            ),
            watch(bar, console, config.settings.epochs, target, config.tensorboard) if main_process else None,
        )
    if main_process:
        target.write(best, history)
        output = PlainConsole()
        target.report(history, validation, output)
        if processes.world().size == 1:
            gain(plan, path, history, validation, output)
    return path


def gain(plan: Plan, path: Path, history: Sequence[Epoch], validation: Validation, console: Console) -> None:
    """Print what meta-training gained on the validation episodes, pair by pair, and write it to gain.json."""
    import torch

    from otfew import backbones
    from otfew.runs.directory import to_json
    from otfew.runs.files import write_atomically
    from otfew.training.validation import interval

    start = backbones.load(plan.config.backbone, dataset=plan.config.dataset)
    device = torch.device("cpu")
    before = validation.accuracies(start.module, device, plan.learned)
    kept = kept_epoch(history, plan.select)
    after = validation.accuracies(backbones.load(str(path)).module, device, kept.learned)
    record = {}
    for name in after:
        pair = {"before": before[name], "after": after[name], "difference": after[name] - before[name]}
        record[name] = {key: asdict(interval(values)) for key, values in pair.items()}
        words = {key: f"{value['mean']:.2f} ± {value['interval']:.2f}" for key, value in record[name].items()}
        console.print(
            f"{name} on {validation.episodes} validation episodes: {words['before']} before, {words['after']} after, "
            f"{record[name]['difference']['mean']:+.2f} ± {record[name]['difference']['interval']:.2f} paired",
            soft_wrap=True,
        )
    if plan.select != LAST:
        console.print(
            f"epoch {kept.epoch} of {len(history) - 1} was chosen on these very episodes, by {plan.select}, which "
            "leans towards a gain",
            soft_wrap=True,
        )
    write_atomically(path.parent / "gain.json", to_json(record))


def prepare(config: Config) -> Plan:
    """Decide the defaults, load the backbone and find the images; raises ``UserError`` for what can't be."""
    from otfew import backbones, nodes

    kind = catalogue.find(config.method)
    if config.val_episodes < 1:
        raise UserError(f"--val-episodes must be at least 1, not {config.val_episodes}.")
    if config.crop is not None and config.crop not in CROPS:
        raise UserError(f"unknown --crop {config.crop!r}: choose one of {', '.join(CROPS)}.")
    setup.check_solver(config.solver)
    with processes.leaders_first():
        train, val = (data.load(config.dataset, split, config.data_root, config.data) for split in ("train", "val"))
    backbone = backbones.load(config.backbone, dataset=config.dataset)
    card = backbone.card
    if card.architecture not in backbones.ARCHITECTURES:
        raise UserError(
            f"backbone {card.name!r} is of no architecture of ours, so no checkpoint of it can be written: give one "
            "that experiments.pretrain wrote."
        )
    if card.dataset != config.dataset:
        raise UserError(
            f"backbone {card.name!r} was trained on {card.dataset or 'unknown data'!r}, not on {config.dataset!r}, and "
            "a card names the classes of one data set only: train one with experiments.pretrain."
        )
    seen, _ = backbones.classes_seen(card, val.classes, dataset=config.dataset)
    if seen:
        raise UserError(
            f"backbone {card.name!r} was trained on {seen} of the {len(val.classes)} validation classes of "
            f"{config.dataset!r}, which could not choose an epoch then: give another backbone."
        )
    name = checkpoint_name(config.name, f"{card.name}-{config.method}")
    defaults = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    given: dict[str, Any] = {"solver": config.solver, "weight_gradient": config.weight_gradient}
    learned = {option: float(defaults[option]) for option in kind.learned}
    if config.temperature is not None:
        if not catalogue.accepts(kind, "temperature"):
            raise UserError(f"--temperature: method {config.method!r} has none.")
        if "temperature" in learned:
            learned["temperature"] = config.temperature
        else:
            given["temperature"] = config.temperature
    return Plan(
        config=config,
        name=name,
        output=config.output or Path("runs") / name,
        backbone=backbone,
        options={option: value for option, value in given.items() if catalogue.accepts(kind, option)},
        learned=learned,
        extractor=nodes.parse(config.nodes or kind.nodes),
        preparation=Preparation(card.resolution, config.crop or default_crop(data.DATASETS[config.dataset].resolution)),
        augmentation=augmentation_of(config.dataset, config.min_scale, config.flip, config.colour),
        train=train,
        val=val,
    )


def load_data(plan: Plan, console: Console) -> tuple[Task, Validation]:
    """Decode both splits into memory and settle the episodes."""
    from otfew.evaluation.episodes import Protocol, Sampler
    from otfew.training.images import decode
    from otfew.training.validation import Validation, make_sampler

    config, card, train = plan.config, plan.backbone.card, plan.train
    protocol = Protocol(
        train.dataset, train.variant, train.split, config.settings.seed, config.way, config.shot, config.query
    )
    sampler = Sampler(protocol, train.labels, train.classes)
    with progress_bar(console) as bar:
        job = bar.add_task("reading images", total=len(train) + len(plan.val))
        views = _views(plan, lambda: bar.advance(job))
        pixels = decode(plan.val, plan.preparation, lambda: bar.advance(job), plan.extractor)
    task = Task(views, sampler, plan.extractor, plan.method, plan.learned, card.mean, card.std)
    validation = Validation(
        pixels, plan.val, plan.extractor, make_sampler(plan.val), config.val_episodes, plan.methods, card.mean, card.std
    )
    return task, validation


def _views(plan: Plan, on_image: Any) -> Views:
    """Read the training images in the form that their nodes need."""
    from otfew.nodes.grid import Grid
    from otfew.nodes.sampling import Sampling
    from otfew.training.augmentation import Augment
    from otfew.training.images import decode
    from otfew.training.views import Patches, WholeImages, read_all

    if isinstance(plan.extractor, Grid | Sampling):
        return Patches(read_all(plan.train), plan.train.names, plan.extractor, plan.preparation)
    pixels = decode(plan.train, stored(plan.preparation), on_image)[:, 0]
    return WholeImages(pixels, Augment(plan.augmentation, plan.preparation.resolution))


def describe(plan: Plan, task: Task, validation: Validation) -> Card:
    """Write the card, as far as it is known before training."""
    import torch

    config, start, images = plan.config, plan.backbone.card, plan.train
    p = task.sampler.protocol
    return replace(
        start,
        name=plan.name,
        training_classes=tuple(dict.fromkeys([*start.training_classes, *images.classes])),
        protocol={
            "command": command(config, start.name),
            "objective": (
                f"softmax over the classes of {p.way}-way {p.shot}-shot {p.query}-query episodes of the training "
                f"classes, by the logits of {config.method}"
            ),
            "meta_trained_for": config.method,
            "method": {"options": plan.options, "nodes": plan.extractor.spec},
            "processes": processes.world().size,
            **asdict(config.settings),
            "augmentation": asdict(plan.augmentation),
            "crop": plan.preparation.crop,
            "training_images_sha256": images.digest,
            "selection": selection(plan.select, validation, initial=True),
            "torch": torch.__version__,
            "started_from": {"name": start.name, "sha256": start.sha256, "protocol": start.protocol},
        },
        sha256="",
    )


def command(config: Config, backbone: str) -> str:
    """Spell out the command that trains this, without paths of this machine."""
    always = {"dataset", "backbone", "method", "select", "epochs", "seed"}
    never = {"data_root", "output", "download", "tensorboard", "save_every"}
    named = replace(config, backbone=backbone)
    return spell("metatrain", named, config.data, config.settings, always=always, never=never)


def _architecture(card: Card) -> Any:
    from otfew.backbones import ARCHITECTURES

    return ARCHITECTURES[card.architecture](**card.options)


if __name__ == "__main__":
    run(main)
