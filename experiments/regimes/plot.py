"""The map as a picture: a line for each level of each axis, a mark for each data set, a panel for each control."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from otfew.experiments.regimes.cells import AXES, CONTROL, HELD_BACK, IMAGES
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
_LINE = 0.27
"""Inches of a level."""
_SPREAD = 0.62
"""Share of its line that a level's marks take."""


def picture(record: Record) -> bytes:
    """Draw the map.

    Args:
        record: As ``record.record`` makes it.

    Returns:
        A PNG file.
    """
    levels = _levels(record)
    height = 1.8 + _LINE * len(levels)
    figure, axes = make_figure(1, 2, (12.5, height), sharey=True, gridspec_kw={"wspace": 0.06})
    for panel, control in zip(axes[0], CONTROLS, strict=True):
        _panel(panel, levels, control)
    axes[0][0].set_yticks(
        [y for y, (level, _) in enumerate(levels) if level], [_words(level) for level, _ in levels if level]
    )
    axes[0][0].invert_yaxis()
    for y, (level, cells) in enumerate(levels):
        if not level:
            axes[0][0].annotate(
                str(cells[0]["axis"]), (0, y), xycoords=("axes fraction", "data"), xytext=(-6, 0),
                textcoords="offset points", ha="right", va="center", fontsize=9, fontweight="bold", color=INK,
            )  # fmt: skip
    _legend(figure, axes[0][1], levels)
    figure.suptitle("\n".join(textwrap.wrap(title(record), 110)), fontsize=11, y=1 - 0.12 / height, va="top")
    figure.subplots_adjust(top=1 - 0.85 / height, bottom=0.6 / height)
    return to_png(figure)


def title(record: Record) -> str:
    """Say what was found."""
    verdicts = [one["verdict"] for one in record["settings"]]
    counts = [
        f"pays in {verdicts.count(PAYS)}",
        f"does not in {verdicts.count(NOT)}",
        f"open in {verdicts.count(OPEN)}",
    ]
    said = (
        f"Exact transport {', '.join(counts)} of {len(verdicts)} settings" if verdicts else "No setting is judged yet"
    )
    control = [cell for cell in record["cells"] if cell["part"] == CONTROL]
    if control:
        least = min(control[0]["adds"][name]["mean"] for name in CONTROLS)
        said += f"; on mosaics made for it, it adds {least:+.1f} points or more"
    held = record["held_back"]["verdict"]
    return said + (f"; on held-back Fashion-MNIST the advice {'was ' * (held == 'left open')}{held}" if held else "")


def _levels(record: Record) -> list[tuple[str, list[Record]]]:
    """List lines from top to bottom: an axis as ("", its cells), then its levels with theirs."""
    found: list[tuple[str, list[Record]]] = []
    for axis in AXES:
        own = [cell for cell in record["cells"] if cell["axis"] == axis]
        if own:
            found.append(("", own))
            found += [
                (level, [c for c in own if c["level"] == level]) for level in dict.fromkeys(c["level"] for c in own)
            ]
    return found


def _words(level: str) -> str:
    return caption(level.replace("-", " "))


def _style(cell: Record) -> tuple[str, str, str]:
    images = cell["settings"]["images"]
    return STYLES["mosaics" if images == "mosaics" else IMAGES[images].dataset]


def _panel(axes: Any, levels: Sequence[tuple[str, Sequence[Record]]], control: str) -> None:
    """Draw the differences to one control."""
    shown = [c["adds"][control] for _, cells in levels for c in cells if c["part"] != CONTROL]
    ends = [end for e in shown for end in (e["mean"], e["low"], e["high"]) if end is not None] or [0.0]
    low, high = min(*ends, -MARGIN) - 0.3, max(*ends, 2 * MARGIN) + 0.3
    for y, (level, cells) in enumerate(levels):
        if not level:
            axes.axhspan(y - 0.5, y + 0.5, color="0.93", linewidth=0)
            continue
        for k, cell in enumerate(cells):
            place = y + _SPREAD * ((k + 0.5) / len(cells) - 0.5)
            _mark(axes, place, cell, cell["adds"][control], low, high)
    axes.axvline(0, color=INK, linewidth=1)
    axes.axvline(MARGIN, color="0.45", linewidth=1, linestyle=":")
    axes.set_xlim(low, high)
    axes.set_ylim(-0.6, len(levels) - 0.4)
    axes.set_xlabel(f"accuracy with exact transport minus {control}, points (95 %; dotted: {MARGIN:g} point)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _mark(axes: Any, y: float, cell: Record, adds: Record, low: float, high: float) -> None:
    """Draw one cell; what lies beyond the axis is written at its edge."""
    _, colour, marker = _style(cell)
    hollow = cell["settings"]["network"] == "imagenet"
    if adds["low"] is not None:
        axes.plot([max(low, adds["low"]), min(high, adds["high"])], [y, y], color=colour, linewidth=1.3, alpha=0.8)
    if low < adds["mean"] < high:
        filling = "white" if hollow else colour
        size = 7 if cell["part"] in {HELD_BACK, CONTROL} else 5
        axes.plot(adds["mean"], y, marker, color=colour, markerfacecolor=filling, markersize=size, zorder=3)
    else:
        right = adds["mean"] >= high
        axes.annotate(
            f"{adds['mean']:+.1f} {'→' if right else '←'}", (high if right else low, y), fontsize=8, color=colour,
            ha="right" if right else "left", va="center",
        )  # fmt: skip


def _legend(figure: Any, axes: Any, levels: Sequence[tuple[str, Sequence[Record]]]) -> None:
    """Name data sets below the panels, and what hollow marks are."""
    styles = dict.fromkeys(_style(cell) for level, cells in levels if level for cell in cells)
    handles = [
        axes.plot([], [], marker, color=colour, markersize=6, label=caption(words))[0]
        for words, colour, marker in styles
    ]
    if any(cell["settings"]["network"] == "imagenet" for _, cells in levels for cell in cells):
        handles.append(
            axes.plot([], [], "o", color="0.4", markerfacecolor="white", label="hollow: ImageNet network")[0]
        )
    figure.legend(handles=handles, loc="lower center", ncol=4, fontsize=8.5, frameon=False)
