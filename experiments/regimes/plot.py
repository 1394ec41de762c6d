"""The map as a picture: a line for each level of each axis, a mark for each data set, a panel for each control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otfew.experiments.regimes import cells as table
from otfew.experiments.regimes.cells import AXES, CONTROL, HELD_BACK
from otfew.experiments.regimes.effects import CONTROLS
from otfew.experiments.regimes.rule import MARGIN, NOT, OPEN, PAYS
from otfew.reporting import canvas
from otfew.reporting.canvas import INK, TEXT, WIDTH, caption, to_png
from otfew.reporting.forest_plot import signed, tick

Record = Mapping[str, Any]

STYLES = {
    "cub": ("birds", "#0072b2", "o"),
    "cifar-fs": ("CIFAR-FS", "#e69f00", "s"),
    "fc100": ("FC100, CIFAR-100", "#009e73", "D"),
    "photos": ("grocery photos", "#cc79a7", "^"),
    "omniglot": ("Omniglot", "#56b4e9", "v"),
    "fashion-mnist": ("Fashion-MNIST, held back", "#882255", "P"),
    "mosaics": ("mosaics, designed", "#000000", "*"),
}
"""Data set -> words, colour (Okabe and Ito 2008: told apart by the colour-blind) and marker."""
_MARK = 0.13
"""Inches of a mark, of which a level has as many as cells, two at least."""


@dataclass(frozen=True)
class _Line:
    """A line of the picture.

    Attributes:
        words: A level, or the axis where it is a heading.
        cells: Of the level; none of a heading.
        top: Where it begins, in marks from the top.
        marks: How high it is.
    """

    words: str
    cells: tuple[Record, ...]
    top: float
    marks: float

    @property
    def middle(self) -> float:
        """Where its words stand."""
        return self.top + self.marks / 2


def picture(record: Record) -> bytes:
    """Draw ``figure`` as a PNG file.

    Args:
        record: As ``record.record`` makes it.
    """
    return to_png(figure(record))


def figure(record: Record) -> Any:
    """Draw the map.

    Args:
        record: As ``record.record`` makes it.

    Returns:
        A figure of matplotlib's.
    """
    lines = _lines(record)
    span = lines[-1].top + lines[-1].marks if lines else 1.0
    levels = [line for line in lines if line.cells]
    key = _key(levels)
    told = f"{record['episodes']:,} episodes for each mark; points of accuracy that transport adds to two controls"
    top, foot = canvas.headline_height(title(record), told), canvas.key_height(key) + 0.15
    drawn = canvas.blank((WIDTH, top + _MARK * span + 0.55 + foot))
    canvas.headline(drawn, title(record), told)
    words = [line.words.replace("-", " ") if line.cells else line.words for line in lines]
    left = max(canvas.width_of(each, TEXT, "bold") for each in words or [""]) + 0.1
    width = (WIDTH - left) / len(CONTROLS)
    for place, control in enumerate(CONTROLS):
        axes = canvas.add_axes(drawn, left + width * place, top, width - 0.2, _MARK * span)
        axes.set_ylim(span, 0)
        axes.set_yticks([])
        _panel(axes, lines, control)
    across, down = drawn.get_size_inches()
    for line, each in zip(lines, words, strict=True):
        drawn.text(
            (left - 0.08) / across, 1 - (top + _MARK * line.middle) / down, caption(each), fontsize=TEXT, color=INK,
            ha="right", va="center", fontweight="normal" if line.cells else "bold", family="DejaVu Sans",
        )  # fmt: skip
    canvas.add_key(drawn, key)
    return drawn


def title(record: Record) -> str:
    """Say what was found."""
    verdicts = [one["verdict"] for one in record["settings"]]
    said = "No setting is judged yet"
    if verdicts:
        pays, fails, left = (verdicts.count(word) or "none" for word in (PAYS, NOT, OPEN))
        said = f"Of {len(verdicts)} settings, exact transport pays in {pays}, does not in {fails}; open: {left}"
    control = [cell for cell in record["cells"] if cell["part"] == CONTROL]
    if control:
        least = min(control[0]["adds"][name]["mean"] for name in CONTROLS)
        said += f"; on mosaics made for it, it adds {least:+.1f} points or more"
    held = record["held_back"]["verdict"]
    return said + (f"; on held-back Fashion-MNIST the advice {'was ' * (held == 'left open')}{held}" if held else "")


def _lines(record: Record) -> list[_Line]:
    """List lines from top to bottom: an axis, then its levels."""
    found: list[_Line] = []
    top = 0.0
    for axis in AXES:
        own = [cell for cell in record["cells"] if cell["axis"] == axis]
        levels = {
            level: tuple(c for c in own if c["level"] == level) for level in dict.fromkeys(c["level"] for c in own)
        }
        for words, cells in [(axis, ()), *levels.items()] if own else []:
            found.append(_Line(words, cells, top, max(2.0, len(cells) + 0.6)))
            top += found[-1].marks
    return found


def _style(cell: Record) -> tuple[str, str, str]:
    images = cell["settings"]["images"]
    dataset = images if images == "mosaics" else table.IMAGES[images].dataset
    return STYLES.get(dataset, (dataset, "0.4", "X"))


def _panel(axes: Any, lines: Sequence[_Line], control: str) -> None:
    """Draw the differences to one control."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    shown = [c["adds"][control] for line in lines for c in line.cells if c["part"] != CONTROL]
    ends = [end for e in shown for end in (e["mean"], e["low"], e["high"]) if end is not None] or [0.0]
    low, high = min(*ends, -MARGIN) - 0.3, max(*ends, 2 * MARGIN) + 0.3
    for line in lines:
        if not line.cells:
            axes.axhspan(line.top, line.top + line.marks, color="0.93", linewidth=0)
        for k, cell in enumerate(line.cells):
            place = line.middle + k - (len(line.cells) - 1) / 2
            _mark(axes, place, cell, cell["adds"][control], low, high)
    axes.axvline(0, color=INK, linewidth=1)
    axes.axvline(MARGIN, color="0.45", linewidth=1, linestyle=":")
    axes.set_xlim(low, high)
    axes.set_xlabel(f"transport minus {control}, points")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.grid(axis="x", color=canvas.GRID)
    axes.spines["left"].set_visible(False)


def _mark(axes: Any, y: float, cell: Record, adds: Record, low: float, high: float) -> None:
    """Draw one cell; what lies beyond the axis is written at its edge."""
    _, colour, marker = _style(cell)
    hollow = cell["settings"]["network"] == "imagenet"
    if not low < adds["mean"] < high:
        right = adds["mean"] >= high
        text = signed(adds["mean"], 1)
        if adds["low"] is not None:
            text = f"{text} [{signed(adds['low'], 1)}, {signed(adds['high'], 1)}]"
        text = f"{text} →" if right else f"← {text}"
        side = "right" if right else "left"
        axes.annotate(text, (high if right else low, y), fontsize=canvas.SMALL, color=colour, ha=side, va="center")
        return
    if adds["low"] is not None:
        axes.plot([max(low, adds["low"]), min(high, adds["high"])], [y, y], color=colour, linewidth=1.3, alpha=0.8)
    size = 6 if cell["part"] in {HELD_BACK, CONTROL} else 4.5
    filling = "white" if hollow else colour
    axes.plot(adds["mean"], y, marker, color=colour, markerfacecolor=filling, markersize=size, zorder=3)


def _key(levels: Sequence[_Line]) -> list[Any]:
    """Name data sets, and say what hollow marks and lines are."""
    from matplotlib.lines import Line2D

    cells = [cell for line in levels for cell in line.cells]
    handles = [
        Line2D([], [], marker=marker, color=colour, markersize=6, linestyle="", label=caption(words))
        for words, colour, marker in dict.fromkeys(_style(cell) for cell in cells)
    ]
    if any(cell["settings"]["network"] == "imagenet" for cell in cells):
        words = "hollow: ImageNet network"
        handles.append(Line2D([], [], marker="o", color="0.4", markerfacecolor="white", linestyle="", label=words))
    handles.append(Line2D([], [], color="0.4", linewidth=1.3, label="95 % over episodes, classes, networks"))
    handles.append(Line2D([], [], color="0.45", linewidth=1, linestyle=":", label=f"{MARGIN:g} point"))
    return handles
