"""One run of classify beside the truth."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from otfew.classifier.evidence import wilson
from otfew.classifier.places import find_photos
from otfew.errors import UserError
from otfew.experiments.classify import config as classify
from otfew.experiments.classify.run import Done, run_classify
from otfew.experiments.common.cli import translated
from otfew.experiments.transcript.albums import album_of
from otfew.experiments.transcript.config import Config
from otfew.runs.directory import to_json
from otfew.runs.files import write_atomically
from otfew.runs.identity import versions
from otfew.runs.watch import Step, Watch
from otfew.statistics.detection import auroc
from otfew.statistics.temperature import brier, log_losses, softmax

DIGITS = 6


class Heard:
    """Hands sentences and progress on, and remembers the sentences.

    Args:
        watch: Where they go.
        folder: Whose path is left out of what is remembered.
    """

    def __init__(self, watch: Watch, folder: Path) -> None:
        self.lines: list[str] = []
        self._watch, self._folder = watch, f"{folder}/"

    def note(self, text: str) -> None:
        """Remember a sentence."""
        said = text.replace(self._folder, "")
        if not said.startswith("report: "):  # where the page lies is no part of the record
            self.lines.append(translated(said))
        self._watch.note(said)

    def task(self, title: str) -> AbstractContextManager[Step]:
        """Show how far a task is."""
        return self._watch.task(title)


def run_transcript(config: Config, watch: Watch) -> dict[str, Any]:
    """Run classify, compare its answers with the truth, and write the record.

    Args:
        config: The command line.
        watch: Where sentences and progress go.

    Returns:
        The record.

    Raises:
        UserError: As classify, or data that are missing.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        album = album_of(config, folder)
        truths = album.truths(find_photos(album.new))
        heard = Heard(watch, folder)
        options = classify.Config(
            labelled=str(album.labelled),
            new=(str(album.new),),
            to=folder / "predictions.csv",
            report=config.report,
            save=folder / "kinds.otfew",
            unknown=config.unknown,
            method=config.method,
            threads=config.threads,
        )
        done = run_classify(options, heard)
        size = (folder / "kinds.otfew").stat().st_size
    told, new = done.fitted.report_, judged(done, truths)
    record: dict[str, Any] = {
        "what": "classify on photos whose classes are known: what it says, and how it compares with the truth",
        "command": _command(config),
        "source": album.source,
        "transcript": heard.lines,
        "held_out": {
            "accuracy": None if told.accuracy is None else vars(told.accuracy),
            "quality": None if told.quality is None else vars(told.quality),
            "detection": None if told.detection is None else vars(told.detection),
            "calibration": vars(told.calibration),
        },
        "choice": None if told.choice is None else told.choice.describe(),
        "new": new,
        "saved_bytes": size,
        "versions": versions(),
    }
    write_atomically(config.output, to_json(_rounded(record)))
    for line in sentences(new, config.unknown):
        watch.note(line)
    watch.note(f"record: {config.output}")
    return record


def judged(done: Done, truths: Sequence[str | None]) -> dict[str, Any]:
    """Compare answers with the truth.

    Args:
        done: The answers.
        truths: Class of each file, None for one without a label.

    Raises:
        UserError: A photo of no known class is missing, or one could not be used.
    """
    fitted, found = done.fitted, done.found
    if found.skipped:
        raise UserError(f"{found.skipped[0]} A record needs photos that can all be used.")
    place = {name: c for c, name in enumerate(fitted.classes_.tolist())}
    labels = np.array([-1 if truth is None else place[truth] for truth in truths], np.int64)
    known = labels >= 0
    refused = np.array([bool(answer is not None and answer.unknown) for answer in found.answers])
    sure = np.array([0.0 if answer is None else answer.sureness for answer in found.answers])
    logits, own = found.logits[known], labels[known]
    right = logits.argmax(1) == own
    temperature = fitted.calibration_.temperature
    before, after = (
        {
            "log_loss": float(log_losses(logits, own, np.array([by]))[:, 0].mean()),
            "brier": float(brier(softmax(logits, by), own).mean()),
            "mean_confidence": float(softmax(logits, by).max(1).mean()),
        }
        for by in (1.0, temperature)
    )
    answered = ~refused[known]
    return {
        "known": int(known.sum()),
        "right": int(right.sum()),
        "accuracy": float(right.mean()),
        "interval": list(wilson(float(right.sum()), len(right))),
        "before": before,
        "after": after,
        "refused_known": int(refused[known].sum()),
        "right_of_answered": int(right[answered].sum()),
        "answered": int(answered.sum()),
        "unknown": int((~known).sum()),
        "found_unknown": int(refused[~known].sum()),
        "auroc": auroc(sure[known], sure[~known]) if (~known).any() else None,
        "resemblance": found.resemblance.p,
    }


def sentences(new: dict[str, Any], rate: float) -> list[str]:
    """Say what a comparison found."""
    low, high = new["interval"]
    before, after = new["before"], new["after"]
    lines = [
        f"truth: {new['right']} of {new['known']} new photos of known classes right, {100 * new['accuracy']:.1f} % "
        f"[{100 * low:.1f}, {100 * high:.1f}]",
        f"truth: log-loss {before['log_loss']:.3f} -> {after['log_loss']:.3f}, Brier {before['brier']:.3f} -> "
        f"{after['brier']:.3f}, mean confidence {before['mean_confidence']:.2f} -> {after['mean_confidence']:.2f}",
        f"truth: {new['refused_known']} of {new['known']} known refused (at most {100 * rate:g} % expected)",
    ]
    if new["unknown"]:
        lines.append(
            f"truth: {new['found_unknown']} of {new['unknown']} unknown refused; AUROC of all {new['auroc']:.3f}"
        )
    return lines


def _command(config: Config) -> str:
    """Write the command line that makes the record."""
    default = Config()
    given = [
        f"--{name.replace('_', '-')} {getattr(config, name)}"
        for name in vars(default)
        if name not in {"data_root", "output", "report", "threads"} and getattr(config, name) != getattr(default, name)
    ]
    return " ".join(["python -m experiments.transcript", *given])


def _rounded(value: Any) -> Any:
    """Round floats, so that a record says no more than it knows."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value
