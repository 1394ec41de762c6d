"""Train a backbone end to end on episodes: ``python -m experiments.metatrain --dataset cub --method deepemd``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from otfew.errors import UserError
from otfew.experiments.common.cli import parse, run
from otfew.experiments.common.training_options import WithCheckpoint, WithImages
from otfew.training.settings import MetatrainSettings

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from otfew.backbones import Backbone
    from otfew.backbones.base import Card
    from otfew.data.base import ImageSet
    from otfew.data.preparation import Preparation
    from otfew.method import FewShotMethod
    from otfew.nodes import Extractor
    from otfew.training.augmentation import Augmentation
    from otfew.training.metatrain import Task
    from otfew.training.progress import Accuracy, Epoch
    from otfew.training.validation import Validation
    from otfew.training.views import Views

REFERENCE = "cosine-centroid"
"""Scored on the validation episodes beside the method that is trained."""


@dataclass(frozen=True)
class WithEpisodes:
    """What is trained, on which episodes."""

    method: str = "deepemd"
    """deepemd, protonet, matchingnet, frn, or any other method whose logits have a gradient; with options behind a
    colon (deepemd:metric=l2), and package.module:Name of your own."""
    solver: str = "exact"
    """Transport solver of methods that have one: exact (envelope gradient), sinkhorn, qpth, ..."""
    weight_gradient: bool = True
    """For deepemd: let the gradient flow through the nodes' weights too, by the solver's potentials."""
    temperature: float | None = None
    """Scale of the method's logits; default its own. Squared distances of wide features want a small one: 1/64 for
    protonet in the code of Ye et al. (2020)."""
    nodes: str = ""
    """Kind of nodes; default what the method prefers. Patches of grid and sampling are drawn anew each time."""
    way: int = 5
    """Classes in a training episode."""
    shot: int = 1
    """Labelled images of each class."""
    query: int = 15
    """Images to classify of each class."""


@dataclass(frozen=True)
class Config(WithCheckpoint, WithEpisodes, WithImages):
    """Go on training a backbone on episodes of the base classes, through a method's own logits and its OT solver.

    The backbone as it starts is validated too: where no epoch beats it, it is what is kept, unless the last is asked
    for. Under torchrun, each process takes an episode of every step.
    """

    dataset: str = "glyphs"
    """Name of the data set; its train split gives the episodes, its val split validates every epoch."""
    backbone: str = ""
    """Where to start: a checkpoint of experiments.pretrain, by name or path; package.module:factory@PATH where the
    network is your own, or package.module:factory with the weights that it comes with; default ours for the data
    set."""
    name: str = ""
    """Of the checkpoint; default BACKBONE-METHOD."""
    select: Literal["own", "last"] = "own"
    """The epoch that is kept: the best on the validation episodes by the very method that is trained, the start
    included, or the last. A comparison with other methods on the same backbone leans towards the method that chose;
    each method with its own backbone has had the same choice."""
    settings: Annotated[MetatrainSettings, tyro.conf.arg(name="")] = field(default_factory=MetatrainSettings)
    """How to train."""


@dataclass(frozen=True)
class Setup:
    """A configuration with every default decided, its data and its backbone.

    Attributes:
        config: The command line.
        name: Of the checkpoint.
        output: Its folder.
        backbone: To go on with.
        trained: Name of the method.
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
    trained: str
    options: dict[str, Any]
    learned: dict[str, float]
    extractor: Extractor
    preparation: Preparation
    augmentation: Augmentation
    train: ImageSet
    val: ImageSet

    @property
    def select(self) -> str:
        """Name what chooses the epoch: the method that is trained, or "last" for nothing."""
        return "last" if self.config.select == "last" else self.trained

    @property
    def plugged_in(self) -> dict[str, Any]:
        """Say which source the plug-ins of this training are made of."""
        from otfew.experiments.common.training import plugged_in

        names = (self.trained, self.options.get("solver"), self.extractor.spec)
        return plugged_in(*names, self.backbone.card.architecture, self.config.dataset)

    def method(self, learned: Mapping[str, float | Tensor]) -> FewShotMethod:
        """Build the method from what it learns."""
        from otfew import catalogue

        return catalogue.build(self.trained, **self.options, **learned)

    def methods(self, learned: Mapping[str, float]) -> dict[str, FewShotMethod]:
        """Build the methods that are validated."""
        from otfew import catalogue

        return {self.trained: self.method(learned), REFERENCE: catalogue.build(REFERENCE)}


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
    from otfew.experiments.common.training import Bars, Target, code, make_console, watch
    from otfew.reporting.console import PlainConsole
    from otfew.runs import processes
    from otfew.training import loop
    from otfew.training.metatrain import EpisodeTraining
    from otfew.training.progress import read_accuracy

    console = make_console()
    chosen = prepare(config)
    task, validation = load_data(chosen, console)
    card = describe(chosen, task, validation)
    path = chosen.output / f"{chosen.name}.safetensors"
    target = Target(path, card, lambda: _architecture(card), config.half, chosen.select, chosen.trained)
    identity = {
        "backbone": chosen.backbone.digest,
        "method": {"name": chosen.trained, "options": chosen.options, "nodes": chosen.extractor.spec},
        "episodes": asdict(task.sampler.protocol),
        "preparation": asdict(chosen.preparation),
        "augmentation": asdict(chosen.augmentation),
        "train": chosen.train.digest,
        "val": chosen.val.digest,
        "val_episodes": config.val_episodes,
        "select": config.select,
        **chosen.plugged_in,
    }
    main_process = processes.world().is_main
    with Bars(console) as bar:
        best, history = loop.run(
            lambda parts: EpisodeTraining(chosen.backbone.module, task, config.settings, parts),
            config.settings,
            loop.Duties(
                validation,
                read_accuracy,
                target.score,
                chosen.output / "state.pt",
                identity,
                initial=True,
                save_every=config.save_every,
                code=code(),
            ),
            watch(bar, console, config.settings.epochs, target, config.tensorboard) if main_process else None,
        )
    if main_process:
        target.write(best, history)
        output = PlainConsole()
        target.report(history, validation, output)
        if processes.world().size == 1:
            gain(chosen, path, history, validation, output)
    return path


def gain(
    chosen: Setup, path: Path, history: Sequence[Epoch[Accuracy]], validation: Validation, console: Console
) -> None:
    """Print what meta-training gained on the validation episodes, pair by pair, and write it to gain.json."""
    import torch

    from otfew import backbones
    from otfew.backbones.plugged import spelled
    from otfew.runs.directory import to_json
    from otfew.runs.files import write_atomically
    from otfew.training.progress import by_accuracy, kept_epoch
    from otfew.training.validation import interval

    start = backbones.load(chosen.config.backbone, dataset=chosen.train.dataset)
    device = torch.device("cpu")
    before = validation.accuracies(start.module, device, chosen.learned)
    kept = kept_epoch(history, by_accuracy(chosen.select))
    found = backbones.load(spelled(chosen.backbone.card.architecture, path))
    after = validation.accuracies(found.module, device, kept.learned)
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
    if chosen.select != "last":
        console.print(
            f"epoch {kept.epoch} of {len(history) - 1} was chosen on these very episodes, by {chosen.select}, which "
            "leans towards a gain",
            soft_wrap=True,
        )
    write_atomically(path.parent / "gain.json", to_json(record))


def prepare(config: Config) -> Setup:
    """Decide the defaults, load the backbone and find the images; raises ``UserError`` for what can't be."""
    from otfew import backbones, catalogue, data, nodes, plugins
    from otfew.data.preparation import Preparation, default_crop
    from otfew.experiments.common import setup
    from otfew.experiments.common.training import augmentation_of, checkpoint_name, splits

    trained, own = catalogue.parse(config.method)
    kind = catalogue.find(trained)
    if config.val_episodes < 1:
        raise UserError(f"--val-episodes must be at least 1, not {config.val_episodes}.")
    setup.check_solver(config.solver)
    train, val = splits(config)
    backbone = backbones.load(config.backbone, dataset=train.dataset)
    _check_start(backbone, config, train, val)
    options, learned = _method_options(config, trained, own)
    card = backbone.card
    usual = data.find(config.dataset).resolution
    name = checkpoint_name(config.name, plugins.file_name(f"{card.name}-{trained}"))
    return Setup(
        config=config,
        name=name,
        output=config.output or Path("runs") / name,
        backbone=backbone,
        trained=trained,
        options=options,
        learned=learned,
        extractor=nodes.parse(config.nodes or kind.nodes),
        preparation=Preparation(usual if _is_own(config) else card.resolution, config.crop or default_crop(usual)),
        augmentation=augmentation_of(config.dataset, config.min_scale, config.flip, config.colour),
        train=train,
        val=val,
    )


def _is_own(config: Config) -> bool:
    """Tell whether the start is a network of the user's own with the weights that it comes with."""
    from otfew.plugins import is_plugin

    return is_plugin(config.backbone) and not config.backbone.startswith("timm:")


def _check_start(backbone: Backbone, config: Config, train: ImageSet, val: ImageSet) -> None:
    """Raise ``UserError`` where training can't go on with a backbone; one of the user's own is made trainable."""
    from otfew import backbones
    from otfew.plugins import is_plugin

    card = backbone.card
    if _is_own(config):
        if next(backbone.module.parameters(), None) is None:
            raise UserError(f"backbone {card.name!r} has no weights: there is nothing to train.")
        backbone.module.requires_grad_(True)
        return
    if card.architecture not in backbones.ARCHITECTURES and not is_plugin(card.architecture):
        raise UserError(
            f"backbone {card.name!r} is of no architecture of ours, so no checkpoint of it can be written: give one "
            "that experiments.pretrain wrote."
        )
    if card.dataset != train.dataset:
        raise UserError(
            f"backbone {card.name!r} was trained on {card.dataset or 'unknown data'!r}, not on {train.dataset!r}, and "
            "a card names the classes of one data set only: train one with experiments.pretrain."
        )
    seen, _ = backbones.classes_seen(card, val.classes, dataset=train.dataset)
    if seen:
        raise UserError(
            f"backbone {card.name!r} was trained on {seen} of the {len(val.classes)} validation classes of "
            f"{train.dataset!r}, which could not choose an epoch then: give another backbone."
        )


def _method_options(config: Config, name: str, own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Settle a method's options, and what it learns with its first values; its own go before the command's."""
    from otfew import catalogue

    kind = catalogue.find(name)
    defaults = {option: p.default for option, p in inspect.signature(kind).parameters.items()}
    given: dict[str, Any] = {"solver": config.solver, "weight_gradient": config.weight_gradient}
    given = {option: value for option, value in given.items() if catalogue.accepts(kind, option)} | dict(own)
    if config.temperature is not None:
        if not catalogue.accepts(kind, "temperature"):
            raise UserError(f"--temperature: method {name!r} has none.")
        if "temperature" in own:
            raise UserError(f"--temperature and --method {config.method} both give a temperature: leave one out.")
        given["temperature"] = config.temperature
    learned = {option: given.pop(option, defaults.get(option)) for option in kind.learned}
    for option, value in learned.items():
        if not isinstance(value, int | float):
            raise UserError(f"method {name!r} learns {option!r}, which has no number to begin with: give it a default.")
    # What is wrong with options is said now, and not after the images were read.
    catalogue.build(name, **given, **learned)
    return given, {option: float(value) for option, value in learned.items()}


def load_data(chosen: Setup, console: Console) -> tuple[Task, Validation]:
    """Decode both splits into memory and settle the episodes."""
    from otfew.evaluation.episodes import Protocol, Sampler
    from otfew.experiments.common.training import Bars
    from otfew.training.images import decode
    from otfew.training.metatrain import Task
    from otfew.training.validation import Validation, make_sampler

    config, card, train = chosen.config, chosen.backbone.card, chosen.train
    protocol = Protocol(
        train.dataset, train.variant, train.split, config.settings.seed, config.way, config.shot, config.query
    )
    sampler = Sampler(protocol, train.labels, train.classes)
    with Bars(console) as bar:
        job = bar.add_task("reading images", total=len(train) + len(chosen.val))
        views = _views(chosen, lambda: bar.advance(job))
        pixels = decode(chosen.val, chosen.preparation, lambda: bar.advance(job), chosen.extractor)
    task = Task(views, sampler, chosen.extractor, chosen.method, chosen.learned, card.mean, card.std)
    validation = Validation(
        pixels,
        chosen.val,
        chosen.extractor,
        make_sampler(chosen.val),
        config.val_episodes,
        chosen.methods,
        card.mean,
        card.std,
    )
    return task, validation


def _views(chosen: Setup, on_image: Any) -> Views:
    """Read the training images in the form that their nodes need."""
    from otfew.experiments.common.training import stored
    from otfew.nodes.grid import Grid
    from otfew.nodes.sampling import Sampling
    from otfew.training.augmentation import Augment
    from otfew.training.images import decode
    from otfew.training.own_views import OwnViews
    from otfew.training.views import Patches, WholeImages, read_all

    if isinstance(chosen.extractor, Grid | Sampling):
        return Patches(read_all(chosen.train), chosen.train.names, chosen.extractor, chosen.preparation)
    if chosen.extractor.n_views > 1:
        return OwnViews(read_all(chosen.train), chosen.train.names, chosen.extractor, chosen.preparation)
    pixels = decode(chosen.train, stored(chosen.preparation), on_image)[:, 0]
    return WholeImages(pixels, Augment(chosen.augmentation, chosen.preparation.resolution))


def describe(chosen: Setup, task: Task, validation: Validation) -> Card:
    """Write the card, as far as it is known before training."""
    import torch

    from otfew.experiments.common.training import selection
    from otfew.runs import processes

    config, start, images = chosen.config, chosen.backbone.card, chosen.train
    p = task.sampler.protocol
    # Of a network that came with weights nobody knows what it has seen, so that no list of classes would be whole.
    known = () if start.external else tuple(dict.fromkeys([*start.training_classes, *images.classes]))
    return replace(
        start,
        name=chosen.name,
        resolution=chosen.preparation.resolution,
        training_classes=known,
        protocol={
            "command": command(replace(config, dataset=images.dataset), _spelled(start)),
            "objective": (
                f"softmax over the classes of {p.way}-way {p.shot}-shot {p.query}-query episodes of the training "
                f"classes, by the logits of {chosen.trained}"
            ),
            "meta_trained_for": chosen.trained,
            "method": {"options": chosen.options, "nodes": chosen.extractor.spec},
            "processes": processes.world().size,
            **asdict(config.settings),
            "augmentation": asdict(chosen.augmentation),
            "crop": chosen.preparation.crop,
            "training_images_sha256": images.digest,
            **chosen.plugged_in,
            "selection": selection(chosen.select, validation, initial=True),
            "torch": torch.__version__,
            "started_from": {"name": start.name, "sha256": start.sha256, "protocol": start.protocol},
        },
        sha256="",
    )


def _spelled(start: Card) -> str:
    """Write a start without the path that it was found at."""
    from otfew.plugins import is_plugin

    own = is_plugin(start.architecture) and start.name != start.architecture
    return f"{start.architecture}@{start.name}.safetensors" if own else start.name


def command(config: Config, backbone: str) -> str:
    """Spell out the command that trains this, without paths of this machine."""
    from otfew.experiments.common.training import spell

    always = {"dataset", "backbone", "method", "select", "epochs", "seed"}
    never = {"data_root", "output", "download", "tensorboard", "save_every"}
    named = replace(config, backbone=backbone)
    return spell("metatrain", named, config.data, config.settings, always=always, never=never)


def _architecture(card: Card) -> Any:
    from otfew.backbones import plugged

    return plugged.architecture(card.architecture)(**card.options)


if __name__ == "__main__":
    run(main)
