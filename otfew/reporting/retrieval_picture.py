"""A few queries with what two rankings retrieve first, as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from otfew.data.base import ImageSet
from otfew.data.preparation import resize_square
from otfew.random.words import permutation
from otfew.reporting.canvas import (
    CONTROL,
    INK,
    SMALL,
    TRANSPORT,
    WIDTH,
    add_axes,
    blank,
    caption,
    headline,
    headline_height,
    to_png,
    width_of,
    wrapped,
)
from otfew.reporting.retrieval import MAIN
from otfew.retrieval.run import GLOBAL, Ranked

SHOWN = 6
"""Retrieved images in a row."""
SIDE = 128
"""Of an image, pixels."""
RIGHT, WRONG = "#0072B2", "#D55E00"
"""Frames and badges: blue and vermilion, which colour-blind people tell apart."""
_GAP, _WORDS, _NAME = 0.08, 0.24, 0.2
"""Inches between images, above a row of them for words, and below it for names."""


def choose(first: Ranked, second: Ranked) -> dict[int, str]:
    """Choose queries by a rule, not by taste: two of a fixed draw, and the largest gain and loss in MAP@R.

    Returns:
        Number of the query -> why.
    """
    change = second.metrics[MAIN] - first.metrics[MAIN]
    usable = np.flatnonzero(~np.isnan(change))
    drawn = usable[permutation(len(usable), key=1)[:2]]
    reasons: dict[int, list[str]] = {}
    for reason, query in (
        *(("drawn", int(query)) for query in drawn),
        ("largest gain", int(usable[change[usable].argmax()])),
        ("largest loss", int(usable[change[usable].argmin()])),
    ):
        reasons.setdefault(query, []).append(reason)
    return {query: ", ".join(why) for query, why in reasons.items()}


def picture(images: ImageSet, first: Ranked, second: Ranked, name: str) -> bytes:
    """Draw the queries of ``choose``, each with the first images of both rankings, marked by whether they are right.

    Args:
        images: The gallery.
        first: The global ranking.
        second: The ranking that is compared with it.
        name: Of the second.

    Returns:
        A PNG file.
    """
    return to_png(figure(images, first, second, name), dpi=100)


def figure(images: ImageSet, first: Ranked, second: Ranked, name: str) -> Any:
    """Draw what ``picture`` writes: see there.

    Returns:
        A ``matplotlib.figure.Figure``; its axes are images, a query's before those found for it.
    """
    chosen = choose(first, second)
    before, after = (100 * float(np.nanmean(ranked.metrics[MAIN])) for ranked in (first, second))
    title = f"Ranking again by {name} takes MAP@R from {before:.1f} to {after:.1f} %, a mean over all queries"
    key = (
        f"Queries at the left, each with the first {SHOWN} images found. Disc with a tick: of the query's class. "
        "Square with a cross: of another, which is named."
    )
    side = (WIDTH - SHOWN * _GAP) / (SHOWN + 1)
    high = 2 * (_WORDS + side + _NAME) + 0.1
    made = blank((WIDTH, headline_height(title, key) + high * len(chosen)))
    top = headline(made, title, key)
    for query, why in chosen.items():
        label = images.labels[query]
        for row, ranked, by, colour in ((0, first, GLOBAL, CONTROL), (1, second, name, TRANSPORT)):
            down = top + row * (_WORDS + side + _NAME)
            score = 100 * ranked.metrics[MAIN][query]
            _write(made, side + _GAP, down + _WORDS / 2, f"{by}: MAP@R {score:.1f} %", colour, bold=True)
            if row == 0:
                _write(made, 0.0, down + _WORDS / 2, "query", INK, bold=True)
                _show(add_axes(made, 0.0, down + _WORDS, side, side), images, query, INK)
                told = wrapped(f"{images.classes[label]} ({why})", side, SMALL)
                for k, line in enumerate(told):
                    _write(made, 0.0, down + _WORDS + side + 0.09 + 0.14 * k, line, INK)
            for k, found in enumerate(ranked.head[query, :SHOWN].tolist(), 1):
                left, right = k * (side + _GAP), images.labels[found] == label
                axes = add_axes(made, left, down + _WORDS, side, side)
                _show(axes, images, found, RIGHT if right else WRONG)
                _badge(axes, bool(right))
                if not right:
                    named = _cut(images.classes[images.labels[found]], side)
                    _write(made, left, down + _WORDS + side + 0.09, named, WRONG)
        top += high
    return made


def _show(axes: Any, images: ImageSet, index: int, colour: str) -> None:
    """Draw an image in a coloured frame."""
    axes.imshow(resize_square(images.read(index), SIDE))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(colour)
        spine.set_linewidth(2.0)


def _badge(axes: Any, right: bool) -> None:
    """Mark a found image by a shape and a sign."""
    sign, shape, colour = ("\N{CHECK MARK}", "circle", RIGHT) if right else ("\N{BALLOT X}", "square", WRONG)
    axes.annotate(
        sign, (0, 1), xycoords="axes fraction", xytext=(8, -8), textcoords="offset points", ha="center", va="center",
        color="white", fontsize=SMALL, fontweight="bold", family="DejaVu Sans",
        bbox={"boxstyle": f"{shape},pad=0.2", "facecolor": colour, "edgecolor": "white", "linewidth": 0.8},
    )  # fmt: skip


def _write(made: Any, left: float, down: float, text: str, colour: str, *, bold: bool = False) -> None:
    """Write at a place in inches from the left upper corner."""
    across, height = made.get_size_inches()
    made.text(
        left / across, 1 - down / height, caption(text), fontsize=SMALL, color=colour, va="center",
        fontweight="bold" if bold else "normal", family="DejaVu Sans",
    )  # fmt: skip


def _cut(name: str, width: float) -> str:
    """Leave out the end of a name that is wider than an image."""
    while len(name) > 1 and width_of(name, SMALL) > width:
        name = name[:-2].rstrip("…") + "…"
    return name
