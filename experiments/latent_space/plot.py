"""The latent space before and after: histograms of the features of each class, and the first two components."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from otfew.reporting import canvas
from otfew.reporting.canvas import COLOURS, INK, MARKERS, TEXT, WIDTH, caption, to_png
from otfew.reporting.forest_plot import tick, with_half

Record = Mapping[str, Any]
LEAST = 1e-3
"""Least share of a bin that is drawn."""
_STATES = ("of ", "after ", "after ")


def picture(record: Record) -> bytes:
    """Draw ``figure`` as a PNG file."""
    return to_png(figure(record))


def figure(record: Record) -> Any:
    """Draw histograms above, projections below, a column for each space.

    Args:
        record: As ``points.measure`` makes it.

    Returns:
        A figure of matplotlib's.
    """
    from matplotlib.lines import Line2D

    spaces, names = record["spaces"], record["classes"]
    looks = [(COLOURS[c % len(COLOURS)], MARKERS[c % len(MARKERS)]) for c in range(len(names))]
    key: list[Any] = [
        Line2D([], [], color=colour, marker=marker, markersize=5, label=caption(name))
        for name, (colour, marker) in zip(names, looks, strict=True)
    ]
    key.append(Line2D([], [], color="none", marker="*", markeredgecolor=INK, markersize=11, label="shots"))
    title = finding(record)
    subtitle = (
        f"{record['dataset']}; {record['network']}; the classes of the first episode, up to {max(record['images'])} "
        "images of each beside the shots"
    )
    top, foot = canvas.headline_height(title, subtitle), canvas.key_height(key) + 0.15
    drawn = canvas.blank((WIDTH, top + 4.85 + foot))
    canvas.headline(drawn, title, subtitle)
    width = (WIDTH - 0.55) / len(spaces)
    for column, space in enumerate(spaces):
        axes = canvas.add_axes(drawn, 0.55 + width * column, top + 0.2, width - 0.2, 1.8)
        axes.set_title(space["title"], fontsize=TEXT, fontweight="bold", loc="left")
        _histograms(axes, space, looks, column)
        axes = canvas.add_axes(drawn, 0.55 + width * column, top + 2.6, width - 0.2, 2.0)
        _projection(axes, space, looks)
        axes.set_xlabel(f"two components, {100 * space['explained']:.0f} % of variance")
        if not column:
            axes.set_ylabel("principal components")
    canvas.add_key(drawn, key)
    return drawn


def finding(record: Record) -> str:
    """Say how often the nearest mean is right in each space, with the interval over these images.

    Args:
        record: As for ``figure``.
    """
    count = sum(record["images"])
    told = []
    for space, state in zip(record["spaces"], _STATES, strict=False):
        share = space["right"]
        half = 196 * math.sqrt(share * (1 - share) / count)
        told.append(f"{with_half(f'{100 * share:.0f}', half, 0)} % {state}{space['title']}")
    return f"The nearest mean of the shots is right for {', '.join(told)}, of {count:,} images"


def _histograms(axes: Any, space: Record, looks: list[tuple[str, str]], column: int) -> None:
    """Draw how the features of each class are distributed, over all its images and channels."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    for shares, (colour, _) in zip(space["shares"], looks, strict=True):
        axes.stairs(np.array(shares), space["edges"], color=colour, linewidth=1.2)
    axes.set_yscale("log")
    axes.set_ylim(LEAST, 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(100 * value)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.grid(color=canvas.GRID)
    axes.set_xlabel("value of a feature")
    if column:
        axes.yaxis.set_major_formatter(NullFormatter())
    else:
        axes.set_ylabel("% of features (log)")


def _projection(axes: Any, space: Record, looks: list[tuple[str, str]]) -> None:
    """Draw images, and the shots as stars."""
    for images, (colour, marker) in zip(space["images"], looks, strict=True):
        axes.plot(*np.array(images).T, marker, color=colour, markersize=2.8, alpha=0.6, linestyle="none")
    for shots, (colour, _) in zip(space["shots"], looks, strict=True):
        axes.plot(*np.array(shots).T, "*", color=colour, markersize=13, markeredgecolor="black")
    axes.set_xticks([])
    axes.set_yticks([])
