"""Forest plots: sorted rows with short labels at the left, marks with intervals, and values printed at the right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from otfew.reporting import canvas
from otfew.reporting.canvas import FAINT, GRID, INK, SMALL, TEXT, WIDTH, Role, caption, width_of, wrapped

LABEL = 2.5
"""Most inches of a label; what is longer is wrapped."""
HUGE = 4.0
"""An interval that is so many times as wide as the median one is cut off at the axis' edge, and marked by an arrow."""
BAND = "#e9e9e9"
CLIPPED = "clipped"
"""Mark of the arrows, for whoever looks for them in the figure."""
GAIN = 1.5
"""How many times as long the axis would be with it: else it is not worth cutting off."""
_LINE, _ROOM, _HEADING, _NOTE = 0.165, 0.085, 0.27, 0.15
"""Inches of a line of a label, of the room of a row, of a heading, and of a line of notes."""
_TICKS = 0.27
"""Inches below the rows for ticks; the axis' name comes below."""
_GAP, _LEAST = 0.14, 0.6
"""Inches between columns, and of the narrowest axis: with many columns the chart becomes wider instead."""
_EDGE = 0.09
"""Inches between the outermost mark and the end of its axis."""


@dataclass(frozen=True)
class Mark:
    """A figure in one column.

    Attributes:
        value: Where its mark is; without a number there is none.
        thick: Half of the thick bar, or None.
        thin: Half of the thin line, or None.
        text: Printed at the column's right.
    """

    value: float
    thick: float | None = None
    thin: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Row:
    """A line of the plot.

    Attributes:
        label: Short.
        role: Colour and marker of its marks.
        marks: One for each column, or None.
        strong: Letters of the label.
    """

    label: str
    role: Role
    marks: tuple[Mark | None, ...] = ()
    strong: bool = False


@dataclass(frozen=True)
class Heading:
    """Words above the rows that follow."""

    words: str


@dataclass(frozen=True)
class Column:
    """An axis.

    Attributes:
        axis: Its name, with the unit.
        zero: Where its line is: no difference, or the level that is claimed.
        band: Ends of the grey band: a margin within which differences do not matter.
        role: Of all its marks, in the place of the rows'.
        share: Of the width, beside the others; 0 prints values and draws nothing.
        head: Above the values that are printed.
    """

    axis: str
    zero: float | None = None
    band: tuple[float, float] | None = None
    role: Role | None = None
    share: float = 1.0
    head: str = ""


@dataclass(frozen=True)
class _Layout:
    """Where things are, in inches."""

    labels: float
    places: list[tuple[float, float, float]] = field(default_factory=list)
    """Of each column: left, width, and where its values end."""
    names: list[list[str]] = field(default_factory=list)
    """Of each axis, in lines."""
    heights: list[float] = field(default_factory=list)

    @property
    def height(self) -> float:
        return sum(self.heights)


def draw(
    title: str,
    subtitle: str,
    rows: Sequence[Row | Heading],
    columns: Sequence[Column],
    key: Sequence[Any] = (),
    notes: Sequence[str] = (),
) -> Any:
    """Draw a forest plot.

    Args:
        title: What was found.
        subtitle: On what.
        rows: From top to bottom; sorting is the caller's.
        columns: From left to right.
        key: Entries that say what colours and bars are (``canvas.role_key``, ``canvas.bar_key``).
        notes: Paragraphs in small letters below everything: what was not measured.

    Returns:
        A figure of matplotlib's that no window knows of; its axes are the columns.
    """
    layout = _lay_out(rows, columns)
    head = canvas.headline_height(title, subtitle)
    heads = _LINE + 0.03 if any(column.head for column in columns) else 0.0
    small = [line for note in notes for line in wrapped(note, WIDTH, SMALL)]
    below = _NOTE * len(small) + (0.08 if small else 0.0)
    foot = below + canvas.key_height(key) + (0.12 if key else 0.0)
    axis = _TICKS + _LINE * max(len(lines) for lines in layout.names)
    figure = canvas.blank((WIDTH, head + heads + layout.height + axis + foot))
    canvas.headline(figure, title, subtitle)
    top = head + heads
    middles = []
    down = top
    for row, height in zip(rows, layout.heights, strict=True):
        middles.append(down + height / 2)
        _write_label(figure, row, layout, down, height)
        down += height
    for place, column in enumerate(columns):
        _draw_column(figure, rows, middles, layout, place, column, top)
        if column.head:
            x = layout.places[place][2]
            _write(figure, x, head + heads / 2, column.head, SMALL, FAINT, "right")
    if key:
        canvas.add_key(figure, key, bottom=below)
    for i, line in enumerate(small):
        _write(figure, 0.0, figure.get_figheight() - _NOTE * (len(small) - i - 0.5), line, SMALL, FAINT, "left")
    return figure


def limits(
    marks: Sequence[Mark], zero: float | None = None, band: tuple[float, float] | None = None, room: float = 0.04
) -> tuple[float, float]:
    """Find the ends of an axis that holds all marks, and all bars but huge ones.

    Args:
        marks: Those with numbers count.
        zero: Held, too.
        band: Held, too.
        room: Beyond what is held on either side, as a share of it.
    """
    shown = [mark for mark in marks if math.isfinite(mark.value)]
    widths = sorted(width for mark in shown if (width := _widest(mark)) > 0)
    held = [*([] if zero is None else [zero]), *(band or ())]

    def ends(cap: float) -> tuple[float, float]:
        found = [end for mark in shown for w in (min(_widest(mark), cap),) for end in (mark.value - w, mark.value + w)]
        return min([*found, *held], default=-1.0), max([*found, *held], default=1.0)

    low, high = ends(math.inf)
    if len(widths) > 2:
        most = HUGE * widths[len(widths) // 2]
        lower, higher = ends(max((width for width in widths if width <= most), default=most))
        if high - low > GAIN * (higher - lower):
            low, high = lower, higher
    more = room * (high - low) or max(0.5, 0.01 * abs(high))
    return low - more, high + more


def _widest(mark: Mark) -> float:
    """Return the widest bar's half, 0 where there is none."""
    return max((w for w in (mark.thick, mark.thin) if w is not None and math.isfinite(w)), default=0.0)


def _lay_out(rows: Sequence[Row | Heading], columns: Sequence[Column]) -> _Layout:
    """Give labels and values what they need, and the axes the rest."""
    real = [row for row in rows if isinstance(row, Row)]
    labels = max((width_of(line, TEXT, _weight(row)) for row in real for line in _lines(row)), default=0.0)
    labels = max([labels, *(width_of(row.words, TEXT, "bold") - 1.0 for row in rows if isinstance(row, Heading))])
    values = []
    for place, column in enumerate(columns):
        texts = [(mark.text, _weight(row)) for row in real if (mark := _at(row, place)) is not None]
        widest = max((width_of(text, TEXT, weight) for text, weight in texts), default=0.0)
        values.append(max(widest, width_of(column.head, SMALL)))
    gaps = [_GAP * (2 if column.share else 1) for column in columns]
    taken = labels + _GAP + sum(values) + sum(gaps)
    shares = sum(column.share for column in columns)
    room = max(WIDTH - taken, _LEAST * sum(column.share > 0 for column in columns))
    layout = _Layout(labels)
    left = labels + _GAP
    for column, value, gap in zip(columns, values, gaps, strict=True):
        width = room * column.share / shares
        layout.places.append((left, width, left + width + (0.8 * _GAP if column.share else 0.0) + value))
        layout.names.append(wrapped(column.axis, max(width + value, 1.2), TEXT))
        left += width + value + gap
    layout.heights.extend(_HEADING if isinstance(row, Heading) else _LINE * len(_lines(row)) + _ROOM for row in rows)
    return layout


def _at(row: Row, place: int) -> Mark | None:
    return row.marks[place] if place < len(row.marks) else None


def _weight(row: Row) -> str:
    return "bold" if row.strong else "normal"


def _lines(row: Row) -> list[str]:
    """Break a label."""
    return wrapped(row.label, LABEL, TEXT, _weight(row)) or [""]


def _write(
    figure: Any, x: float, y: float, text: str, size: float, colour: str, align: str, bold: bool = False
) -> None:
    """Write at a place in inches from the left upper corner."""
    across, down = figure.get_size_inches()
    figure.text(
        x / across, 1 - y / down, caption(text), fontsize=size, color=colour, ha=align, va="center",
        fontweight="bold" if bold else "normal", family="DejaVu Sans",
    )  # fmt: skip


def _write_label(figure: Any, row: Row | Heading, layout: _Layout, top: float, height: float) -> None:
    if isinstance(row, Heading):
        _write(figure, 0.0, top + 0.6 * height, row.words, TEXT, INK, "left", bold=True)
        return
    lines = _lines(row)
    for i, line in enumerate(lines):
        y = top + height / 2 + _LINE * (i - (len(lines) - 1) / 2)
        _write(figure, layout.labels, y, line, TEXT, INK, "right", bold=row.strong)


def _draw_column(
    figure: Any, rows: Sequence[Row | Heading], middles: Sequence[float], layout: _Layout, place: int, column: Column,
    top: float,
) -> None:  # fmt: skip
    """Draw an axis with its marks, and print its values."""
    left, width, right = layout.places[place]
    lines = [(row, y) for row, y in zip(rows, middles, strict=True) if isinstance(row, Row)]
    found = [(mark, y, row) for row, y in lines if (mark := _at(row, place)) is not None]
    for mark, y, row in found:
        _write(figure, right, y, mark.text, TEXT, INK, "right", bold=row.strong)
    if not column.share:
        return
    axes = canvas.add_axes(figure, left, top, width, layout.height)
    ends = limits([mark for mark, _, _ in found], column.zero, column.band, _EDGE / width)
    axes.set_xlim(ends)
    axes.set_ylim(top + layout.height, top)
    if column.band is not None:
        axes.axvspan(*column.band, color=BAND, linewidth=0, zorder=0)
    if column.zero is not None:
        axes.axvline(column.zero, color=FAINT, linewidth=1, zorder=1)
    for mark, y, row in found:
        _draw_mark(axes, mark, y, column.role or row.role, ends)
    _finish(axes, width, layout.names[place])


def _draw_mark(axes: Any, mark: Mark, y: float, role: Role, ends: tuple[float, float]) -> None:
    """Draw bars, cut off at the ends of the axis with an arrow there, and the marker."""
    if not math.isfinite(mark.value):
        return
    low, high = ends
    # The thick bar is higher than the marker, so that it shows where it is narrow.
    for half, line, alpha in ((mark.thick, 8.0, 0.4), (mark.thin, 1.2, 1.0)):
        if half is None or not math.isfinite(half):
            continue
        first, last = max(low, mark.value - half), min(high, mark.value + half)
        axes.plot(
            [first, last], [y, y], color=role.colour, linewidth=line, alpha=alpha, solid_capstyle="butt", zorder=2
        )  # fmt: skip
    widest = _widest(mark)
    for end, over, marker in ((low, mark.value - widest < low, "<"), (high, mark.value + widest > high, ">")):
        if over:
            axes.plot(
                end, y, marker, color=role.colour, markersize=6, clip_on=False, zorder=3, label="_", gid=CLIPPED
            )  # fmt: skip
    axes.plot(mark.value, y, zorder=4, **role.style(4.5))


def _finish(axes: Any, width: float, name: Sequence[str]) -> None:
    """Set ticks that do not collide, the grid and the axis' name."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    count = max(2, min(8, int(width / 0.3)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=count, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("\n".join(map(caption, name)), fontsize=TEXT, color=INK, linespacing=1.1)


def with_half(figure: str, half: float | None, digits: int = 2) -> str:
    """Write a figure with half of its interval, never broken between the two.

    Args:
        figure: As text.
        half: Of the interval, or None.
        digits: Behind its point.
    """
    return figure if half is None else f"{figure}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{half:,.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """Format with a sign, a true minus.

    Args:
        value: Any number.
        digits: Behind the point.
    """
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def tick(value: float, _: object = None) -> str:
    """Format a tick with a true minus sign and no needless digits."""
    return f"{value:,.6g}".replace("-", "\N{MINUS SIGN}")
