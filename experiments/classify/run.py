"""One run of classify: from photos to a file of answers, and what is said meanwhile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from otfew.classifier import keeping, many
from otfew.classifier.few_shot import FewShotClassifier
from otfew.classifier.many import Classified
from otfew.classifier.model_file import SUFFIX
from otfew.classifier.places import find_photos
from otfew.errors import UserError
from otfew.experiments.classify.config import Config
from otfew.experiments.classify.files import may_write, to_file
from otfew.experiments.common import own_photos, setup
from otfew.runs.files import write_atomically
from otfew.runs.watch import Watch

LISTED = 20
"""Skipped files that are listed one by one on the console; all are in the file of answers."""


@dataclass(frozen=True)
class Done:
    """What came of a run.

    Attributes:
        fitted: Who gave the answers.
        found: The answers; they are in the file ``to`` of the command line.
    """

    fitted: FewShotClassifier
    found: Classified


def run_classify(config: Config, watch: Watch) -> Done:
    """Fit or load, say what is known, answer, and write.

    Args:
        config: The command line.
        watch: Where sentences and progress go.

    Raises:
        UserError: Whatever the user can set right; no answers are written then. With ``strict``, photos that cannot be
            used, after all else is written.
    """
    config = _checked(config)
    setup.set_threads(config.threads)
    if not config.new:
        raise UserError("NEW must be given: a folder of photos, a pattern such as 'new/*.jpg', or files.")
    files = find_photos(*config.new)
    fitted = _fitted(config, watch)
    own_photos.tell_known(fitted, watch)
    if config.save is not None:
        needs = keeping.save_for_others(fitted, config.save)
        size = os.path.getsize(config.save) / 1e6
        watch.note(f"saved: {config.save} ({size:.1f} MB){'; ' if needs else ''}{needs}")
    if again := _labelled_again(fitted, files):
        watch.note(f"{again} of the {len(files):,} new photos are labelled ones too: their answers prove nothing")
    found = many.classify(fitted, files, beside=config.to, watch=watch)
    _tell_skipped(found, watch)
    line = summary(found, fitted, config.to)
    to_file(config.to, found, fitted, line)
    if config.report is not None:
        from otfew.classifier.report_page import page

        watch.note(f"answers: {config.to}; for the report the least sure are explained, which can take minutes")
        with watch.task("explanations") as step:
            write_atomically(config.report, page(fitted, found, line, step).encode())
    watch.note(line)
    for left in many.forget(fitted, files, config.to):
        watch.note(f"{left} holds what another run has left unfinished: remove it if it is not needed")
    if config.report is not None:
        watch.note(f"report: {config.report}")
    if config.strict and found.skipped:
        raise UserError(
            f"{len(found.skipped):,} of {len(files):,} photos cannot be used, the first: {found.skipped[0]} The "
            f"answers to the others are in {config.to}."
        )
    return Done(fitted, found)


def summary(found: Classified, fitted: FewShotClassifier, to: Path) -> str:
    """Say in one line what came out."""
    answered = [answer for answer in found.answers if answer is not None and not answer.unknown]
    refused = sum(answer is not None and bool(answer.unknown) for answer in found.answers)
    sure = sorted(answer.confidence for answer in answered)
    told = f"{len(answered):,} answered"
    if sure:
        told += f" (median confidence {(sure[(len(sure) - 1) // 2] + sure[len(sure) // 2]) / 2:.2f})"
    if fitted.reject is not None:
        told += f", {refused:,} unknown at {100 * fitted.reject:g} % of known photos refused"
    if found.skipped:
        told += f", {len(found.skipped):,} skipped"
    return f"{len(found.files):,} new photos -> {to}: {told}; {found.resemblance}"


def _checked(config: Config) -> Config:
    """Refuse what needs no photo, before anything is read."""
    if config.to.suffix.lower() not in {".csv", ".json"}:
        raise UserError(f"`to` is {str(config.to)!r}: give a name that ends in .csv or .json.")
    if config.report is not None and config.report.suffix.lower() not in {".html", ".htm"}:
        raise UserError(f"`report` is {str(config.report)!r}: give a name that ends in .html.")
    if config.save is not None and config.save.suffix.lower() != SUFFIX:
        raise UserError(f"`save` is {str(config.save)!r}: give a name that ends in {SUFFIX}.")
    own_photos.check_rate(config.unknown)
    config = replace(
        config,
        to=_expanded(config.to),
        report=None if config.report is None else _expanded(config.report),
        save=None if config.save is None else _expanded(config.save),
    )
    for name in ("to", "report", "save"):
        if (path := getattr(config, name)) is not None:
            may_write(name, path)
    return config


def _expanded(path: Path) -> Path:
    return Path(os.path.expanduser(path))


def _fitted(config: Config, watch: Watch) -> FewShotClassifier:
    """Fit on a folder that is not the one to classify, or load what was saved."""
    given = Path(os.path.expanduser(config.labelled))
    if given.is_dir() and given in {Path(os.path.expanduser(new)) for new in config.new}:
        raise UserError("LABELLED and NEW are one folder: put the photos to classify into another.")
    return own_photos.fitted(config, watch, strict=config.strict)


def _labelled_again(fitted: FewShotClassifier, files: Sequence[Path]) -> int:
    """Count the new photos that are labelled ones, by their files."""
    known = {os.path.realpath(photo.path) for photo in fitted.labelled_.photos if photo.path}
    return sum(os.path.realpath(path) in known for path in files)


def _tell_skipped(found: Classified, watch: Watch) -> None:
    """List what could not be used."""
    for one in found.skipped[:LISTED]:
        watch.note(f"skipped: {one}")
    if len(found.skipped) > LISTED:
        watch.note(f"skipped: {len(found.skipped) - LISTED:,} more, see the rows without a label")
