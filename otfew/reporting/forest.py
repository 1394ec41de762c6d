"""Forest plots: a line for each entry with its figure and intervals, as the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from otfew.reporting.canvas import CONTROL, TRANSPORT

Span = tuple[float, float]

_WIDTH, _ROW, _TOP = 920, 24, 12
_LETTER = 7.2
"""About the width of a letter, pixels."""
_MOST = 44
"""Letters of a name that are shown."""


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        name: Before it.
        value: Its figure.
        inner: Ends of the thick bar, or None.
        outer: Ends of the thin line, or None.
        text: Behind it.
        strong: Drawn in the colour of transport.
    """

    name: str
    value: float
    inner: Span | None = None
    outer: Span | None = None
    text: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Forest:
    """A plot in pixels, as ``parts.html`` draws it."""

    title: str
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    zero: float | None
    ticks: list[dict[str, Any]]
    bars: list[dict[str, Any]]


def forest(title: str, entries: Sequence[Entry], *, zero: bool = False) -> Forest | None:
    """Lay a plot out.

    Args:
        title: Below the axis, with the unit.
        entries: From top to bottom.
        zero: Draw a line at zero, which is then on the axis.

    Returns:
        None where there is no entry.
    """
    if not entries:
        return None
    ends: list[float] = [end for e in entries for end in (e.value, *(e.inner or ()), *(e.outer or ()))] + (
        [0.0] if zero else []
    )
    step = _step(max(ends) - min(ends))
    low: float
    high: float
    low, high = math.floor(min(ends) / step) * step, math.ceil(max(ends) / step) * step
    if high <= low:
        high = low + step
    left = 24 + _LETTER * min(_MOST, max(len(e.name) for e in entries))
    right = _WIDTH - 24 - _LETTER * max(len(e.text) for e in entries)
    right = max(right, left + 200)
    bottom = _TOP + _ROW * len(entries)

    def x(value: float) -> float:
        return round(left + (right - left) * (value - low) / (high - low), 1)

    bars = [
        {
            "name": e.name if len(e.name) <= _MOST else f"{e.name[: _MOST - 1]}…",
            "y": _TOP + _ROW * i + _ROW / 2,
            "x": x(e.value),
            "inner": e.inner and [x(end) for end in e.inner],
            "outer": e.outer and [x(end) for end in e.outer],
            "text": e.text,
            "colour": TRANSPORT if e.strong else CONTROL,
        }
        for i, e in enumerate(entries)
    ]
    count = round((high - low) / step)
    ticks = [{"x": x(low + i * step), "text": f"{low + i * step:.10g}"} for i in range(count + 1)]
    width = round(max(_WIDTH, right + 24 + _LETTER * max(len(e.text) for e in entries)))
    return Forest(
        title, width, bottom + 48, left, right, _TOP, bottom, x(0.0) if zero else None, ticks, bars
    )  # fmt: skip


def _step(span: float) -> float:
    """Choose the distance of ticks: 1, 2 or 5 times a power of ten, four to ten of them."""
    if span <= 0:
        return 1.0
    power = math.pow(10, math.floor(math.log10(span / 5)))
    return next((m * power for m in (1, 2, 5) if span / (m * power) <= 8), 10 * power)
