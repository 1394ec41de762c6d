"""The map as a picture: a line for each level of each axis, a mark for each data set, a panel for each control."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otfew.experiments.regimes import cells as table
from otfew.experiments.regimes.cells import AXES, CONTROL, HELD_BACK
from otfew.experiments.regimes.effects import CONTROLS
from otfew.experiments.regimes.rule import MARGIN, NOT, OPEN, PAYS
from otfew.reporting.canvas import INK, caption, make_figure, to_png

Record = Mapping[str, Any]

STYLES = {
    "cub": ("birds", "#0072B2", "o"),
    "cifar-fs": ("CIFAR-FS", "#E69F00", "s"),
    "fc100": ("FC100, CIFAR-100", "#009E73", "D"),
    "photos": ("grocery photos", "#CC79A7", "^"),
    "omniglot": ("Omniglot", "#56B4E9", "v"),
    "fashion-mnist": ("Fashion-MNIST, held back", "#D55E00", "P"),
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
    """Draw the map.

    Args:
        record: As ``record.record`` makes it.

    Returns:
        A PNG file.
    """
    lines = _lines(record)
    span = lines[-1].top + lines[-1].marks if lines else 1.0
    height = 1.9 + _MARK * span
    figure, axes = make_figure(1, 2, (12.5, height), sharey=True, gridspec_kw={"wspace": 0.06})
    for panel, control in zip(axes[0], CONTROLS, strict=True):
        _panel(panel, lines, control)
    first = axes[0][0]
    first.set_ylim(span, 0)
    levels = [line for line in lines if line.cells]
    first.set_yticks([line.middle for line in levels], [caption(line.words.replace("-", " ")) for line in levels])
    for line in lines:
        if not line.cells:
            first.annotate(
                line.words, (0, line.middle), xycoords=("axes fraction", "data"), xytext=(-6, 0),
                textcoords="offset points", ha="right", va="center", fontsize=9.5, fontweight="bold", color=INK,
            )  # fmt: skip
    _legend(figure, axes[0][1], levels)
    figure.suptitle("\n".join(textwrap.wrap(title(record), 105)), fontsize=11.5, y=1 - 0.1 / height, va="top")
    figure.subplots_adjust(top=1 - 0.72 / height, bottom=1.1 / height)
    return to_png(figure)


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
    axes.set_xlabel(f"transport minus {control}, points of accuracy", fontsize=10.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _mark(axes: Any, y: float, cell: Record, adds: Record, low: float, high: float) -> None:
    """Draw one cell; what lies beyond the axis is written at its edge."""
    _, colour, marker = _style(cell)
    hollow = cell["settings"]["network"] == "imagenet"
    if not low < adds["mean"] < high:
        right = adds["mean"] >= high
        text = f"{adds['mean']:+.1f} {'→' if right else '←'}"
        if adds["low"] is not None:
            text = f"[{adds['low']:+.1f}, {adds['high']:+.1f}]  {text}"
        side = "right" if right else "left"
        axes.annotate(text, (high if right else low, y), fontsize=9, color=colour, ha=side, va="center")
        return
    if adds["low"] is not None:
        axes.plot([max(low, adds["low"]), min(high, adds["high"])], [y, y], color=colour, linewidth=1.3, alpha=0.8)
    size = 7 if cell["part"] in {HELD_BACK, CONTROL} else 5
    filling = "white" if hollow else colour
    axes.plot(adds["mean"], y, marker, color=colour, markerfacecolor=filling, markersize=size, zorder=3)


def _legend(figure: Any, axes: Any, levels: Sequence[_Line]) -> None:
    """Name data sets below the panels, and what hollow marks and lines are."""
    cells = [cell for line in levels for cell in line.cells]
    handles = [
        axes.plot([], [], marker, color=colour, markersize=6, linestyle="", label=caption(words))[0]
        for words, colour, marker in dict.fromkeys(_style(cell) for cell in cells)
    ]
    if any(cell["settings"]["network"] == "imagenet" for cell in cells):
        words = "hollow: ImageNet network"
        handles += axes.plot([], [], "o", color="0.4", markerfacecolor="white", linestyle="", label=words)
    handles += axes.plot([], [], color="0.4", linewidth=1.3, label="95 % over episodes, classes, networks")
    handles += axes.plot([], [], color="0.45", linewidth=1, linestyle=":", label=f"{MARGIN:g} point")
    figure.legend(handles=handles, loc="lower center", ncol=4, fontsize=9, frameon=False)
