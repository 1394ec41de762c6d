"""Which candidate, honestly: the first by a prior ranking, unless held-out photos say otherwise beyond chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.classifier.by_class import Evenly
from otfew.classifier.candidates import Candidate, View
from otfew.random.keys import key128
from otfew.statistics.temperature import Expected, cross_fit, log_losses, unit_means

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

LEVEL = 0.05
"""Of the test that lets a candidate pass the prior's first."""
FLIPS = 4999
"""Random signs of the differences."""
LEAST_UNITS = 6
"""Fewer units cannot reach the level, whatever they say: 2 ** -5 is above a twentieth of it corrected once."""


@dataclass(frozen=True)
class Judged:
    """A candidate as held-out photos see it.

    Attributes:
        candidate: Which.
        cost: Pixels that go through its network for a photo, over those of one photo at the network's own resolution.
        prior_loss: Log-loss that other data let expect; None where there are none of it.
        loss: Mean held-out log-loss over units; None where nothing could be held out.
        accuracy: Mean held-out accuracy, by class, see ``by_class.Evenly``; None likewise.
        gain: Total log-loss that it saves over all units, compared with the prior's first.
        p: One-sided, of "saves nothing", corrected for the number of candidates; None for the prior's first itself.
        reason: Why it could not be judged, or "".
    """

    candidate: Candidate
    cost: float
    prior_loss: float | None
    loss: float | None = None
    accuracy: float | None = None
    gain: float | None = None
    p: float | None = None
    reason: str = ""


def better(losses: Floats, key: str = "otfew selection") -> Floats:
    """Test whether others lose less than the first, on the same units, corrected for their number.

    Under "no difference", the differences of a unit may as well have the other sign, all candidates' at once. The
    corrected p of a candidate is the share of random signs under which the largest t statistic of all candidates
    reaches its own (Westfall and Young 1993, the single-step method): as Holm's it holds the rate of any error, and
    it gains by the likeness of candidates.

    Args:
        losses: (candidates, units).
        key: Of the random signs.

    Returns:
        (candidates - 1,) corrected p, one-sided.
    """
    gains = losses[:1] - losses[1:]
    count = gains.shape[1]
    if not len(gains):
        return np.zeros(0)
    if count < LEAST_UNITS:
        return np.ones(len(gains))
    bits = np.random.Philox(key=key128(key)).random_raw(FLIPS * count).reshape(FLIPS, count)
    signs = 1.0 - 2.0 * (bits >> np.uint64(63)).astype(np.float64)
    squares = (gains**2).sum(1)
    own = _t(gains.sum(1), squares, count)
    largest = _t(signs @ gains.T, squares, count).max(1)
    # The signs as they are count among the random ones, so that no p is zero.
    p: Floats = (1 + (largest[:, None] >= own[None] - 1e-12).sum(0)) / (FLIPS + 1)
    return p


def _t(sums: Floats, squares: Floats, count: int) -> Floats:
    """Compute the t statistic of a mean from sums; signs do not change the sum of squares."""
    spread = np.sqrt(np.maximum(squares - sums**2 / count, 0) * count / max(1, count - 1))
    # A candidate that is everywhere alike the first has no gain, whichever way signs fall.
    t: Floats = np.where(
        spread > 1e-12, sums / np.maximum(spread, 1e-12), np.sign(sums) * np.where(squares > 1e-24, 1e6, 0)
    )
    return t


@dataclass(frozen=True)
class Choice:
    """Which candidate was chosen, and why.

    Attributes:
        chosen: Its place among the candidates, which the prior has ranked.
        judged: All of them, in the prior's order.
        moved: True where held-out photos spoke against the prior's first.
        units: Held-out units that were looked at.
    """

    chosen: int
    judged: tuple[Judged, ...]
    moved: bool
    units: int

    @property
    def candidate(self) -> Candidate:
        """Return the chosen one."""
        return self.judged[self.chosen].candidate

    def describe(self) -> dict[str, Any]:
        """Return the candidates with what was found of each, JSON-ready."""
        rows = []
        for judged in self.judged:
            row = asdict(judged)
            candidate = row.pop("candidate")
            rows.append({"method": candidate["method"], **candidate["view"], **row})
        return {"chosen": self.chosen, "moved": self.moved, "units": self.units, "candidates": rows}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Choice:
        """Return what ``describe`` made a record of.

        Args:
            record: As ``describe`` gives it.
        """
        rows = []
        for row in record["candidates"]:
            view = View(row["backbone"], int(row["resolution"]), row["nodes"])
            parts = {name: row[name] for name in ("cost", "prior_loss", "loss", "accuracy", "gain", "p", "reason")}
            rows.append(Judged(Candidate(row["method"], view), **parts))
        return cls(int(record["chosen"]), tuple(rows), bool(record["moved"]), int(record["units"]))

    def __str__(self) -> str:
        """Return the table of candidates in the prior's order, and the reason."""
        head, rows = table_of(self)
        cells = [[cell.replace("\n", " ") for cell in row] for row in (head, *rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        return "\n".join([*lines, reason_of(self)])


def choose(
    ranked: Sequence[Judged],
    logits: Mapping[Candidate, Floats],
    labels: Indices,
    units: Indices,
    expected: Mapping[Candidate, Expected | None],
) -> Choice:
    """Keep the prior's first, or move to the best of those that are better beyond chance.

    Args:
        ranked: Candidates in the prior's order.
        logits: For each that could be judged, (rows, way) of held-out photos; nothing where none could be held out.
        labels: (rows,).
        units: (rows,).
        expected: Each one's temperature before any photo; None takes the scale of the logits.
    """
    able = [judged for judged in ranked if judged.candidate in logits]
    if not able or not len(labels):
        return Choice(0, tuple(ranked), moved=False, units=0)
    losses, right, weights = [], [], Evenly.of(labels, units)
    for judged in able:
        own = logits[judged.candidate]
        fitted = cross_fit(own, labels, units, expected[judged.candidate])
        losses.append(unit_means(log_losses(own, labels, fitted.each[:, None])[:, 0], units)[0])
        right.append(weights.mean((own.argmax(1) == labels).astype(np.float64)))
    table = np.stack(losses)
    p = better(table)
    passing = [k for k in range(1, len(able)) if p[k - 1] <= LEVEL]
    best = min(passing, key=lambda k: (table[k].mean(), k), default=0)
    told = {
        judged.candidate: Judged(
            judged.candidate,
            judged.cost,
            judged.prior_loss,
            float(table[k].mean()),
            right[k],
            float((table[0] - table[k]).sum()),
            float(p[k - 1]) if k else None,
        )
        for k, judged in enumerate(able)
    }
    everything = tuple(told.get(judged.candidate, judged) for judged in ranked)
    place = next(i for i, judged in enumerate(ranked) if judged.candidate == able[best].candidate)
    return Choice(place, everything, moved=best > 0, units=table.shape[1])


def reason_of(choice: Choice) -> str:
    """Say why a candidate was chosen, and what the next one would have been."""
    chosen = choice.judged[choice.chosen]
    if not choice.units:
        return f"{chosen.candidate}, first by prior alone: no photo could be held out"
    others = [j for i, j in enumerate(choice.judged) if i != choice.chosen and j.loss is not None]
    if choice.moved:
        first = next(j.candidate for j in choice.judged if j.loss is not None)
        return (
            f"{chosen.candidate}, chosen by held-out photos: {_figure(chosen.gain, '+.1f')} in log-loss of "
            f"{choice.units} photos over {first}, the prior's first (p {_figure(chosen.p, '.2g')}, corrected for "
            f"{len(others)} candidates)"
        )
    rival = min(others, key=lambda j: j.loss if j.loss is not None else math.inf, default=None)
    told = f"{chosen.candidate}, first by prior"
    if rival is None or rival.gain is None or rival.p is None:
        return told
    return (
        f"{told}; {rival.candidate} {rival.gain:+.1f} in log-loss of {choice.units} photos, not enough to move "
        f"(p {rival.p:.2g})"
    )


def table_of(choice: Choice) -> tuple[list[str], list[list[str]]]:
    """Lay the candidates out as text, in the prior's order: head and rows."""
    head = ["candidate", "cost", "prior\nlog-loss", "held-out\nlog-loss", "held-out %", "gain", "p", ""]

    def row(i: int, judged: Judged) -> list[str]:
        figures = [
            _figure(judged.prior_loss, ".3f"),
            _figure(judged.loss, ".3f"),
            _figure(None if judged.accuracy is None else 100 * judged.accuracy, ".1f"),
            _figure(judged.gain, "+.1f"),
            _figure(judged.p, ".3g"),
        ]
        return [
            str(judged.candidate),
            f"{judged.cost:.1f}",
            *figures,
            "chosen" if i == choice.chosen else judged.reason,
        ]

    return head, [row(i, judged) for i, judged in enumerate(choice.judged)]


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
