"""The part of docs/reproduction.md that lists commands: of runs, and of the networks whose weights are not here."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from otfew.backbones.zoo import IN_CHECKOUT
from otfew.experiments.reproduce.claims import Ledger, Run, Training
from otfew.experiments.reproduce.evidence import spelled

EXTERNAL = ("efficientnet-lite0",)
"""Networks of others that runs name, which are downloaded."""


@dataclass(frozen=True)
class Kept:
    """Runs whose answers are kept, for the commands that the ledger has now.

    Attributes:
        full: Names, of the full suite.
        quick: Of the quick one.
        only_recorded: Ids of claims with a figure of the full suite, or else of the quick one, that cannot be taken
            from answers again.
    """

    full: frozenset[str] = frozenset()
    quick: frozenset[str] = frozenset()
    only_recorded: tuple[str, ...] = ()

    def sentence(self, ledger: Ledger) -> str:
        """Say how much can be computed again."""
        return (
            f"Answers are kept of {len(self.full)} of {len(ledger.runs)} runs, and of {len(self.quick)} of the quick "
            f"suite. {len(self.only_recorded)} rows rest on runs from before answers were kept, or one such: theirs "
            "are recorded figures only, which the check holds against themselves."
        )


def runs_section(ledger: Ledger, kept: Kept) -> list[str]:
    """Write the commands of all runs, and those of the trainings whose weights a checkout lacks."""
    lines = ["## Runs", "", _RUNS, ""]
    for name, run in ledger.runs.items():
        missing = lacking(run)
        notes = ["answers kept"] if name in kept.full else []
        for each in missing:
            how = "are trained below" if each in ledger.trainings else "come from experiments.metric_learning"
            notes.append(f"needs {each}, whose weights are not here and {how}")
        lines += [f"    # {'; '.join([name, *notes])}", f"    {spelled(run, quick=False)}"]
    away = [training for training in ledger.trainings.values() if training.name not in IN_CHECKOUT]
    if away:
        lines += ["", "## Networks whose weights are not here", "", _TRAININGS, ""]
        lines += [f"    {_training(training)}" for training in away]
    return lines


def lacking(run: Run) -> list[str]:
    """Name the checkpoints of a run whose weights do not come with a checkout."""
    return [name for name in _backbones(run.arguments) if name not in (*IN_CHECKOUT, *EXTERNAL)]


def _training(training: Training) -> str:
    named = [] if training.command == "metric-learning" else ["--name", training.name]
    words = [*training.arguments, *named, "--output", f"checkpoints/{training.name}"]
    for name in _backbones(training.arguments):
        if name not in IN_CHECKOUT and name != training.name and training.command == "metatrain":
            words[words.index(name)] = f"checkpoints/{name}/{name}.safetensors"
    return shlex.join(["python", "-m", f"experiments.{training.command.replace('-', '_')}", *words])


def _backbones(words: Sequence[str]) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--backbone"]


_RUNS = """The full suite; the quick one takes fewer episodes and only what committed checkpoints allow in minutes
(`quick` in `experiments/claims.toml`). What each found, with its protocol, lies in `results/RUN.json` and
`results/quick/RUN.json`, what it answered in `results/answers/RUN.npz`."""

_TRAININGS = """A checkout holds the cards of those that have been trained, with the sha256 of the weights that the
figures are of, and no weights. The full suite trains them where a run needs them; by hand, give
`--backbone checkpoints/NAME/NAME.safetensors` to the run afterwards. Trained anew, they keep their last epoch, and are
other networks than those of the cards."""
