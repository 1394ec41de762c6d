"""Long-tailed training: OT re-weighting against its rivals, ``python -m experiments.long_tail --dataset cifar100``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otfew.errors import UserError
from otfew.experiments.common.cli import parse
from otfew.experiments.long_tail.config import Config
from otfew.training.long_tail.settings import Recipe

if TYPE_CHECKING:
    from otfew.experiments.long_tail.setting import Setting, Stage1
    from otfew.runs.directory import RunDirectory

FORMAT = 1


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
    from otfew.experiments.common import setup
    from otfew.experiments.common.training import make_console
    from otfew.experiments.long_tail import answers, report
    from otfew.experiments.long_tail.arms import ARMS, COMPARISONS, POST_HOC, Weights
    from otfew.experiments.long_tail.setting import builder, find, run_stage1, stage1_folder
    from otfew.experiments.long_tail.stage2 import run_arms
    from otfew.runs.directory import RunDirectory, to_json
    from otfew.runs.identity import short_hash

    console, stderr = setup.make_console(), make_console()
    arms = _chosen(config)
    _check(config)
    setup.need_one_process("long_tail")
    setup.set_threads(config.threads)
    setting = find(config)
    if config.recipe.batch_size > len(setting.train):
        raise UserError(
            f"--batch-size {config.recipe.batch_size} is more than the {len(setting.train)} training images."
        )
    builder(config, setting)
    identity = _identity(config, setting, arms)
    output = config.output or Path("runs") / f"long-tail-{short_hash(identity)}"
    # The claim comes first: a wrong folder must not be refused after hours of training.
    directory = RunDirectory(output, identity)
    stage1 = run_stage1(config, setting, stage1_folder(config, setting), stderr)
    weights = Weights(stage1.cached, config.ot)
    blocks = run_arms(config, arms, stage1, weights, directory, stderr)
    results, tables, lines = report.compare(
        blocks, stage1.cached.test_labels.numpy(), setting.train.classes, setting.counts.numpy(), COMPARISONS
    )
    described = {"summary": {name: POST_HOC.get(name) or ARMS[name][0] for name in arms}}
    found = {**results, **described, **_stage1_record(stage1), "val_curves": _curves(config, stage1, blocks)}
    if config.figures:
        from otfew.experiments.long_tail.plots import figures

        found["picture"] = figures(weights)
    directory.write("results.json", to_json({**identity, **found}))
    directory.write(answers.FILE, answers.to_bytes(blocks, stage1.cached.test_labels.numpy()))
    directory.write("timings.json", to_json({name: [b["seconds"] for b in blocks[name]] for name in arms}))
    title = f"{about(identity['setting'])}, stage 2: {config.stage2}, {config.seeds} seeds on one stage 1"
    lines = [*report.references(config.dataset, config.factor), *lines, *_caveats(config, setting)]
    if config.figures:
        _draw(directory, found["picture"], about(identity["setting"]))
        lines.append(f"figures: {directory.path / 'weights.png'} and {directory.path / 'plans.png'}")
    report.show(title, tables, lines, directory, console)
    return directory.path


def about(setting: Mapping[str, Any]) -> str:
    """Name data and network."""
    return f"{setting['dataset']}-LT, factor {setting['factor']:g}, {setting['backbone']}"


def _chosen(config: Config) -> list[str]:
    """List the arms in the order of reports."""
    from otfew.experiments.long_tail.arms import ARMS, POST_HOC, PUBLISHED

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
    from otfew.runs.identity import versions

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
        "versions": versions(),
    }


def _stage1_record(stage1: Stage1) -> dict[str, Any]:
    """Tell how stage 1 went; its times stay out, since results.json is the same bytes for the same run."""
    from otfew.training.long_tail.run import ERROR

    last = stage1.history[-1]
    return {"stage1": {"epochs": last.epoch, "loss": last.loss, "validation_error": last.validation[ERROR]}}


def _curves(
    config: Config, stage1: Stage1, blocks: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, dict[str, list[float]]]:
    """Collect the curves that were kept: stage 1's by its seed, then each arm's by its seeds."""
    from otfew.experiments.long_tail.setting import STAGE_1
    from otfew.training.long_tail.run import ACCURACY
    from otfew.training.progress import curves

    found = {STAGE_1: {str(config.recipe.seed): curves(stage1.history).get(ACCURACY, [])}}
    found |= {
        name: {str(seed): [round(float(point), 2) for point in each["curve"]] for seed, each in enumerate(records)}
        for name, records in blocks.items()
        if name != STAGE_1
    }
    kept = {name: {seed: curve for seed, curve in each.items() if curve} for name, each in found.items()}
    return {name: each for name, each in kept.items() if each}


def _draw(directory: RunDirectory, found: Mapping[str, Any], title: str) -> None:
    """Write the pictures."""
    from otfew.experiments.long_tail.plots import pictures

    for name, content in pictures(found, title).items():
        directory.write(name, content)


def _caveats(config: Config, setting: Setting) -> list[str]:
    """Say what a reader must know."""
    from otfew.experiments.long_tail.setting import CIFAR

    usual = Recipe()
    lines = [
        f"{len(setting.train):,} training, {len(setting.meta):,} meta, {len(setting.validation):,} validation, "
        f"{len(setting.test):,} test images; validation images come from what the subset leaves unused, so its largest "
        "classes may be a little smaller than published",
        "learning rate, epoch and tau are chosen on the validation split, never on test; published figures are the "
        "best test epoch",
        *setting.identity["notes"],
    ]
    if present := len(set(setting.curve.labels.tolist())):
        lines.append(
            f"validation curves: mean over classes of the accuracy on {len(setting.curve):,} further images that the "
            f"subset leaves unused and that choose nothing, of {present} of {len(setting.train.classes)} classes (the "
            "largest leave none)"
            if present < len(setting.train.classes)
            else f"validation curves: accuracy on {len(setting.curve):,} further images that the subset leaves unused "
            "and that choose nothing"
        )
    else:
        lines.append("no validation curves: the subset leaves no image unused, or --curve is 0")
    if config.dataset in CIFAR and config.recipe.epochs < usual.epochs:
        lines.append(f"shortened stage 1: {config.recipe.epochs} epochs instead of {usual.epochs}")
    if config.stage2 == "classifier":
        lines.append(
            "classifiers are trained on features of images that are not augmented, ldam-drw and ot-published too"
        )
    return lines
