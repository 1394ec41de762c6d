"""The parts of a check, the most valuable first: a module of this folder each, and how long it may take."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otfew.errors import UserError

if TYPE_CHECKING:
    from otfew.experiments.device_check.bench import Bench, Row

TESTS = "tests"
"""The part that is no measurement: ``pytest -m cuda``."""


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        name: Of it, and of the module whose ``measure`` yields its rows.
        most: Seconds that it may take where the whole may take ``MINUTES``.
        least: Seconds below which it is not begun.
    """

    name: str
    most: float
    least: float


MINUTES = 4.0

PARTS = (
    Part(TESTS, 130, 20),
    Part("exact", 60, 12),
    Part("methods", 35, 10),
    Part("metatrain", 25, 10),
    Part("sinkhorn", 25, 8),
    Part("points", 25, 8),
    Part("images", 20, 8),
)


def chosen(names: tuple[str, ...]) -> list[Part]:
    """Choose parts by name, in the order of their worth.

    Raises:
        UserError: There is no part of a name, or none is named.
    """
    known = [part.name for part in PARTS]
    unknown = [name for name in names if name not in {*known, "all"}]
    if unknown or not names:
        raise UserError(f"`parts` must be among {', '.join(known)} and all, not {' '.join(unknown) or 'nothing'}.")
    return [part for part in PARTS if "all" in names or part.name in names]


def seconds(part: Part, later: list[Part], left: float, minutes: float) -> float:
    """Share out what is left of the time.

    Args:
        part: That comes next.
        later: Those behind it; each keeps what it needs at least.
        left: Seconds of the whole that are left.
        minutes: That the whole may take.

    Returns:
        How long the part may take; 0 where that is not worth a start.
    """
    scale = minutes / MINUTES
    kept = scale * sum(other.least for other in later)
    share = min(scale * part.most, left - kept)
    return share if share >= min(part.least, scale * part.least) else 0.0


def measure(name: str, bench: Bench) -> Iterator[Row]:
    """Yield the rows of a part that measures."""
    module = importlib.import_module(f"otfew.experiments.device_check.{name}")
    rows: Iterator[Row] = module.measure(bench)
    return rows
