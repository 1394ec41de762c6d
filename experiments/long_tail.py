"""Long-tailed training: OT re-weighting against its rivals, ``python -m experiments.long_tail --dataset cifar100``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from otfew.errors import UserError
from otfew.experiments import _long_tail_report as report
from otfew.experiments import _setup
from otfew.experiments._cli import parse, run
from otfew.experiments._long_tail_arms import ARMS, COMPARISONS, POST_HOC, OTOptions, Weights
from otfew.experiments._long_tail_setting import (
    CIFAR,
    Display,
    Setting,
    Stage1,
    builder,
    device_of,
    find,
    progress,
    run_stage1,
    stage1_folder,
)
from otfew.methods import ot_reweighting as published
from otfew.run_directory import RunDirectory, to_json
from otfew.training.long_tail import Recipe, train_images
from otfew.training.long_tail_head import HeadRecipe, error_percent, head_of, initial_head, train_head
from otfew.training.long_tail_images import Network, extract
from otfew.training.long_tail_losses import Objective, adjusted

if TYPE_CHECKING:
    from rich.console import Console

FORMAT = 1
TAUS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Tried for logit adjustment."""
PUBLISHED = "ot-published"
Block = dict[str, Any]


@dataclass(frozen=True)
class AllLayers:
    """Second stages of all layers (``--stage2 all``).

    Attributes:
        epochs: Passes over the training images.
        learning_rate: Of the first step.
    """

    epochs: int = 20
    learning_rate: float = 0.001

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise UserError(f"--all-layers.{name.replace('_', '-')} must be positive, not {value}.")


@dataclass(frozen=True)
class Config:
    """Train once with cross-entropy on a long-tailed set, then compare second stages on it.

    Attributes:
        dataset: cifar10, cifar100 or image-folder (class folders, or such below train and test).
        factor: Imbalance: images of the largest class over those of the smallest. Published: 200, 100, 50, 20.
        data_root: Folder of the data; default $OTFEW_DATA, then a cache directory.
        download: Fetch what is missing where the publisher allows it.
        backbone: Architecture to train, or a trained backbone (as for compare) to go on from.
        resolution: Side in pixels; default 32 for CIFAR, else 84.
        flip: Mirror half of the training images.
        meta: Balanced meta images a class.
        validation: Balanced validation images a class; default 1,000 in all for CIFAR, else 10 a class.
        meta_seed: Draws the meta images; default as published.
        subset_seed: Draws the long-tailed subset; default as published.
        arms: Second stages; "all" for every one.
        seeds: Runs of each arm on the one stage 1: order of samples, new classifiers, shuffled weights.
        stage2: Train the classifier on cached features (seconds), or all layers.
        stage1: Folder of stage 1, shared by runs of the same setting; default runs/long-tail-stage1-HASH.
        output: Folder of this run; default runs/long-tail-HASH. The same command resumes a run that was stopped.
        figures: Draw the weights, and costs and plans.
        threads: CPU threads; 0 takes all cores.
        recipe: Of stage 1.
        head: Of classifiers on cached features.
        all_layers: Of second stages of all layers.
        ot: Of the OT weights.
    """

    dataset: str = "cifar100"
    factor: float = 100.0
    data_root: Path | None = None
    download: bool = True
    backbone: str = "resnet32"
    resolution: int | None = None
    flip: bool = True
    meta: int = 10
    validation: int | None = None
    meta_seed: int = 6
    subset_seed: int = 42
    arms: tuple[str, ...] = ("all",)
    seeds: int = 3
    stage2: Literal["classifier", "all"] = "classifier"
    stage1: Path | None = None
    output: Path | None = None
    figures: bool = True
    threads: int = 0
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)
    head: HeadRecipe = field(default_factory=HeadRecipe)
    all_layers: AllLayers = field(default_factory=AllLayers)
    ot: OTOptions = field(default_factory=OTOptions)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: Instead of those of the process.

    Raises:
        UserError: A mistake in the arguments or the data, in one sentence.
    """
    compare(parse(Config, "long-tail", arguments))


def compare(config: Config) -> Path:
    """Run as configured; returns the folder of the run."""
    from rich.console import Console

    console, stderr = _setup.make_console(), Console(stderr=True)
    arms = _chosen(config)
    _check(config)
    _setup.set_threads(config.threads)
    setting = find(config)
    if config.recipe.batch_size > len(setting.train):
        raise UserError(
            f"--batch-size {config.recipe.batch_size} is more than the {len(setting.train)} training images."
        )
    builder(config, setting)
    identity = _identity(config, setting, arms)
    output = config.output or Path("runs") / f"long-tail-{_setup.short_hash(identity)}"
    # The claim comes first: a wrong folder must not be refused after hours of training.
    directory = RunDirectory(output, identity)
    stage1 = run_stage1(config, setting, stage1_folder(config, setting), stderr)
    weights = Weights(stage1.cached, config.ot)
    blocks = _run_arms(config, arms, stage1, weights, directory, stderr)
    results, tables, lines = report.compare(
        blocks, stage1.cached.test_labels.numpy(), setting.train.classes, setting.counts.numpy(), COMPARISONS
    )
    about = {"summary": {name: POST_HOC.get(name) or ARMS[name][0] for name in arms}}
    directory.write("results.json", to_json({**identity, **results, **about, **_stage1_record(stage1)}))
    directory.write("timings.json", to_json({name: [b["seconds"] for b in blocks[name]] for name in arms}))
    title = (
        f"{config.dataset}-LT, factor {config.factor:g}, {config.backbone}, stage 2: {config.stage2}, "
        f"{config.seeds} seeds on one stage 1"
    )
    lines = [*report.references(config.dataset, config.factor), *lines, *_caveats(config, setting)]
    if config.figures:
        _draw(directory, weights)
        lines.append(f"figures: {directory.path / 'weights.png'} and {directory.path / 'plans.png'}")
    report.show(title, tables, lines, directory, console)
    return directory.path


def _chosen(config: Config) -> list[str]:
    """List the arms in the order of reports."""
    known = [*POST_HOC, *ARMS]
    if unknown := [name for name in config.arms if name not in {*known, "all"}]:
        raise UserError(f"unknown arm {unknown[0]!r}: choose from all, {', '.join(known)}.")
    wanted = known if "all" in config.arms else [name for name in known if name in config.arms]
    if config.stage2 == "all":
        # The published code trains the classifier alone.
        wanted = [name for name in wanted if name != PUBLISHED]
    if not wanted:
        raise UserError("--arms leaves nothing to run: name at least one.")
    return wanted


def _check(config: Config) -> None:
    """Refuse numbers that make no sense."""
    if config.seeds < 1:
        raise UserError(f"--seeds must be at least 1, not {config.seeds}.")
    for name in ("reg", "label_coefficient", "feature_coefficient"):
        value = getattr(config.ot, name)
        if not (0 <= value < float("inf")) or (name == "reg" and value == 0):
            raise UserError(f"--ot.{name.replace('_', '-')} must be a positive finite number, not {value}.")


def _identity(config: Config, setting: Setting, arms: list[str]) -> dict[str, Any]:
    """Say what the run is a function of."""
    return {
        "command": "long-tail",
        "format": FORMAT,
        "setting": setting.identity,
        "arms": arms,
        "seeds": config.seeds,
        "stage2": {
            "layers": config.stage2,
            **asdict(config.head if config.stage2 == "classifier" else config.all_layers),
        },
        "ot": asdict(config.ot),
        "versions": _setup.versions(),
    }


def _run_arms(
    config: Config,
    arms: list[str],
    stage1: Stage1,
    weights: Weights,
    directory: RunDirectory,
    console: Console,
) -> dict[str, list[Block]]:
    """Run every arm with every seed, or take what is finished from the folder."""
    jobs = [(name, seed) for name in arms for seed in range(1 if name in POST_HOC else config.seeds)]
    blocks: dict[str, list[Block]] = {name: [] for name in arms}
    with progress(console) as bar:
        task = bar.add_task("second stages", total=len(jobs))
        for index, (name, seed) in enumerate(jobs):
            bar.update(task, description=f"{name}, seed {seed}")
            block: Mapping[str, Any] | None = directory.load_block(index, console.print)
            if block is None:
                began = time.perf_counter()
                found = _run_arm(config, name, seed, stage1, weights, directory, console)
                found["seconds"] = time.perf_counter() - began
                directory.save_block(index, {key: np.asarray(value) for key, value in found.items()})
                block = found
            blocks[name].append({k: v if k == "predictions" else float(v) for k, v in block.items()})
            bar.advance(task)
    return blocks


def _run_arm(
    config: Config,
    name: str,
    seed: int,
    stage1: Stage1,
    weights: Weights,
    directory: RunDirectory,
    console: Console,
) -> Block:
    """Run one second stage; predictions (test images,) and what validation chose."""
    if name in POST_HOC:
        return _post_hoc(name, stage1)
    objective = ARMS[name][1](weights, seed)
    if config.stage2 == "all":
        return _all_layers(config, name, seed, objective, stage1, directory, console)
    recipe = config.head
    if name == PUBLISHED:
        recipe = replace(
            recipe,
            epochs=published.EPOCHS,
            batch_size=published.BATCH,
            learning_rates=(published.HEAD_LEARNING_RATE,),
            cosine_schedule=False,
        )
    cached = stage1.cached
    choice = train_head(cached.features, cached.head, objective, recipe, seed)
    with torch.inference_mode():
        logits = head_of(choice.state, objective)(cached.test)
    return _block(logits, choice.validation_error, choice.learning_rate, choice.epoch)


def _post_hoc(name: str, stage1: Stage1) -> Block:
    """Use the classifier of stage 1, as it is or adjusted."""
    cached = stage1.cached
    head = head_of(cached.head, Objective())
    counts = cached.features.counts
    with torch.inference_mode():
        held, test = head(cached.features.validation), head(cached.test)
        taus = (0.0,) if name == "stage-1" else TAUS
        errors = [error_percent(adjusted(held, counts, tau), cached.features.validation_labels) for tau in taus]
        best = errors.index(min(errors))
        return {**_block(adjusted(test, counts, taus[best]), errors[best], 0.0, 0), "tau": taus[best]}


def _all_layers_recipe(config: Config, seed: int) -> Recipe:
    """Adapt the recipe of stage 1."""
    return replace(
        config.recipe, epochs=config.all_layers.epochs, learning_rate=config.all_layers.learning_rate, seed=seed
    )


def _all_layers(
    config: Config,
    name: str,
    seed: int,
    objective: Objective,
    stage1: Stage1,
    directory: RunDirectory,
    console: Console,
) -> Block:
    """Train all layers, from stage 1's weights, with batch normalisation's statistics kept."""

    def build() -> Network:
        network = stage1.build()
        network.load_state_dict(stage1.weights)
        network.head = initial_head(stage1.cached.head, objective, seed)
        return network

    recipe = _all_layers_recipe(config, seed)
    state = directory.path / "states" / f"{name}-{seed}.pt"
    with progress(console) as bar:
        kept, history = train_images(
            build,
            stage1.images,
            objective,
            recipe,
            state,
            {"arm": name},
            second_stage=True,
            watcher=Display(bar, console, recipe.epochs, f"{name}, seed {seed}"),
        )
    network = build()
    network.load_state_dict(kept)
    images = stage1.images
    device = device_of(recipe)
    vectors = extract(network.backbone.to(device).eval(), stage1.test, images.mean, images.std, device)
    with torch.inference_mode():
        logits = network.head(vectors)
    best = min(history, key=lambda record: (record.validation_error, record.epoch))
    return _block(logits, best.validation_error, recipe.learning_rate, best.epoch)


def _block(logits: Tensor, validation_error: float, learning_rate: float, epoch: int) -> Block:
    return {
        "predictions": logits.argmax(-1).numpy().astype(np.int16),
        "validation_error": validation_error,
        "learning_rate": learning_rate,
        "epoch": epoch,
    }


def _stage1_record(stage1: Stage1) -> dict[str, Any]:
    """Tell how stage 1 went; its times stay out, since results.json is the same bytes for the same run."""
    last = stage1.history[-1]
    return {"stage1": {"epochs": last.epoch, "loss": last.loss, "validation_error": last.validation_error}}


def _draw(directory: RunDirectory, weights: Weights) -> None:
    """Write the figures."""
    from otfew.experiments._long_tail_plots import plans, weights_by_class

    directory.write("weights.png", weights_by_class(weights))
    directory.write("plans.png", plans(weights))


def _caveats(config: Config, setting: Setting) -> list[str]:
    """Say what a reader must know."""
    usual = Recipe()
    lines = [
        f"{len(setting.train):,} training, {len(setting.meta):,} meta, {len(setting.validation):,} validation, "
        f"{len(setting.test):,} test images; validation images come from what the subset leaves unused, so its largest "
        "classes may be a little smaller than published",
        "learning rate, epoch and tau are chosen on the validation split, never on test; published figures are the "
        "best test epoch",
        *setting.identity["notes"],
    ]
    if config.dataset in CIFAR and config.recipe.epochs < usual.epochs:
        lines.append(f"shortened stage 1: {config.recipe.epochs} epochs instead of {usual.epochs}")
    if config.stage2 == "classifier":
        lines.append(
            "classifiers are trained on features of images that are not augmented, ldam-drw and ot-published too"
        )
    return lines


if __name__ == "__main__":
    run(main)
