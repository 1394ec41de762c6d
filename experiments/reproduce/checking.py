"""``reproduce --suite check``: everything that the ledger says, computed again from what is committed.

Without data, networks and downloads. Levels of the runs' arms, differences, intervals and p are taken anew from the
answers that are kept; verdicts in both columns, corrections and counts from the figures; the page and the README's
table from all of it. Figures of runs from before answers were kept can only be held against themselves: their p must be
that of their interval.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from otfew.errors import UserError
from otfew.experiments.reproduce import lock as ledger_lock
from otfew.experiments.reproduce.claims import Claim, Ledger
from otfew.experiments.reproduce.evidence import SUITES, Evidence, answered, arms_of, measure, spelled
from otfew.experiments.reproduce.figures import Figure, Reader, normal_p
from otfew.experiments.reproduce.pages import Known, pages
from otfew.statistics.crossed import Spread

NEAR = 2e-6
"""By which figures may differ that other processors add in another order: two of their last digit."""
NEAR_P = 2e-3
"""The same of p, relative to it: p has four digits."""
ROUNDED_P = 1e-2, 1e-6
"""By which p may differ from that of an interval of six digits: relative to it, and at all."""


def check(ledger: Ledger, lock: ledger_lock.Lock | None, docs: Path, console: Console) -> None:
    """Compare all that is committed with what it rests on.

    Args:
        ledger: The claims, which the lock agrees with.
        lock: What they were, and when.
        docs: The folder docs.
        console: Where it says what was compared.

    Raises:
        UserError: Names the first difference, or what is damaged.
    """
    known = Known.load(ledger, docs / "results")
    said = []
    for suite in SUITES:
        again = _figures(ledger, known, suite, Evidence(docs / "results", suite))
        said.append(
            f"suite {suite}: {len(known.figures(suite))} claims with figures, {len(again)} of them computed again from "
            f"the answers of {len(known.readers[suite])} runs"
        )
        if recorded := [claim.id for claim in known.only_recorded(ledger, suite)]:
            said.append(f"suite {suite}, recorded figures only: {len(recorded)}: {', '.join(recorded)}")
    for path, content in pages(ledger, lock, known, docs).items():
        _same_file(path, content)
    said.append(f"verdicts of {len(ledger.claims)} claims in both columns, corrections, counts and pages: as committed")
    for line in said:
        console.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)


def _figures(ledger: Ledger, known: Known, suite: str, evidence: Evidence) -> set[str]:
    """Compare the records and the figures of a suite; returns the claims that its answers give again."""
    readers, figures = known.readers[suite], known.figures(suite)
    _records(ledger, known, suite, evidence)
    again = set()
    for claim in ledger.claims.values():
        if (part := answered(claim, readers, figures.get(claim.id))) is not None:
            found = _measured(part, readers)
            if (claim.id in figures) != bool(found):
                kept, there = ("holds", "lack an arm") if claim.id in figures else ("lacks", "are there")
                raise UserError(f"{evidence.path} {kept} {claim.id}, although the answers of its runs {there}.")
            if found:
                _same(f"{evidence.path}: {claim.id}", _sides(figures[claim.id]), found)
                again.add(claim.id)
        elif claim.id in figures:
            for side, figure in figures[claim.id].items():
                _agrees(f"{evidence.path}: {claim.id}, {side}", figure)
    return again


def _records(ledger: Ledger, known: Known, suite: str, evidence: Evidence) -> None:
    """Compare the records of runs with their answers; every file of answers must be of a run."""
    readers, records = known.readers[suite], known.records[suite]
    for name, reader in readers.items():
        path = evidence.folder / f"{name}.json"
        if name not in records:
            raise UserError(f"{path} is not there, beside the answers of {name}: write it by the run that made them.")
        if records[name]["command"] != spelled(ledger.runs[name], evidence.quick):
            raise UserError(f"{path} is of another command than the answers of {name}: run it anew.")
        arms = {arm: figure.to_json() for arm, figure in arms_of(name, ledger, reader).items()}
        _same(str(path), records[name]["arms"], arms)
    for path in sorted(evidence.answers.glob("*.npz")):
        if path.stem not in readers:
            raise UserError(f"{path} holds answers of no run of the ledger, or of another command: run it anew.")


def _measured(claim: Claim, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Take a claim's figures from answers; nothing where a run lacks an arm, as those of the quick suite may."""
    try:
        return _sides(measure(claim, readers))
    except UserError:
        return {}


def _sides(sides: Mapping[str, Figure]) -> dict[str, Any]:
    return {side: figure.to_json() for side, figure in sides.items()}


def _agrees(where: str, figure: Figure) -> None:
    """Hold a recorded figure against itself: its p must be that of its mean and interval."""
    if figure.p is None:
        return
    if "images" in figure.intervals:
        expected = normal_p(figure.mean, figure.intervals["images"])
    elif "classes" in figure.intervals:
        if "classes" not in figure.degrees:
            raise UserError(f"{where} holds no degrees of freedom of its classes.")
        degrees = figure.degrees["classes"]
        expected = Spread.of_interval(figure.intervals["classes"], degrees).p_value(figure.mean)
    elif "seeds" in figure.intervals:
        expected = Spread.of_interval(figure.intervals["seeds"], figure.seeds - 1).p_value(figure.mean)
    else:
        raise UserError(f"{where} holds a p of no interval.")
    if not math.isclose(expected, figure.p, rel_tol=ROUNDED_P[0], abs_tol=ROUNDED_P[1]):
        raise UserError(f"{where}: p is {figure.p:g}, but its interval gives {expected:.4g}.")


def _same_file(path: Path, made: bytes) -> None:
    """Compare a file with what it must be; figures in JSON may differ by rounding."""
    try:
        written = path.read_bytes()
    except OSError:
        raise UserError(f"{path} is not there: write it by --suite report.") from None
    if written == made:
        return
    if path.suffix == ".json":
        try:
            _same(str(path), json.loads(written), json.loads(made))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): restore it from the repository.") from None
        return
    for number, (old, new) in enumerate(zip(_lines(written), _lines(made), strict=False), start=1):
        if old != new:
            a, b = _around(old, new)
            raise UserError(f"{path}, line {number}, says {a!r}, where the evidence gives {b!r}.")
    raise UserError(f"{path} has other lines at its end than the evidence gives.")


def _lines(content: bytes) -> list[str]:
    return [*content.decode(errors="replace").split("\n"), ""]


def _around(old: str, new: str) -> tuple[str, str]:
    """Cut two lines to what is around their first difference."""
    for tag, i, _, j, _ in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            return old[max(0, i - 30) : i + 50], new[max(0, j - 30) : j + 50]
    return old, new


def _same(where: str, written: Any, found: Any) -> None:
    """Compare records, and name the first place where they differ."""
    for place, old, new in _differences(written, found):
        raise UserError(f"{where}{place}: committed {old}, computed again {new}.")


def _differences(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            if key not in old or key not in new:
                yield f"{place}, {key}", "nothing" if key not in old else "it", "nothing" if key not in new else "it"
            else:
                yield from _differences(old[key], new[key], f"{place}, {key}")
    elif isinstance(old, float) or isinstance(new, float):
        is_p = place.rpartition(", ")[2].startswith("p")
        if not _near(old, new, is_p):
            yield place, repr(old), repr(new)
    elif old != new:
        yield place, repr(old), repr(new)


def _near(old: Any, new: Any, is_p: bool) -> bool:
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return False
    return math.isclose(old, new, rel_tol=NEAR_P if is_p else 0.0, abs_tol=1e-300 if is_p else NEAR)
