"""A few queries with what two rankings retrieve first, as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from otfew.data.base import ImageSet
from otfew.data.preparation import resize_square
from otfew.random.words import permutation
from otfew.reporting.canvas import CONTROL, TRANSPORT, caption, make_figure, to_png
from otfew.reporting.retrieval import MAIN
from otfew.retrieval.run import GLOBAL, Ranked

SHOWN = 6
"""Retrieved images in a row."""
SIDE = 96
"""Of an image, pixels."""
_RIGHT, _WRONG = "#2a9d3a", "#c1121f"


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
    """Draw the queries of ``choose``, each with the first images of both rankings, framed by whether they are right.

    Args:
        images: The gallery.
        first: The global ranking.
        second: The ranking that is compared with it.
        name: Of the second.

    Returns:
        A PNG file.
    """
    chosen = choose(first, second)
    figure, panels = make_figure(2 * len(chosen), SHOWN + 1, (1.25 * (SHOWN + 1), 3.1 * len(chosen)))
    for axes in panels.flat:
        axes.axis("off")
    for k, (query, why) in enumerate(chosen.items()):
        label = images.labels[query]
        for row, ranked, title, colour in ((0, first, GLOBAL, CONTROL), (1, second, name, TRANSPORT)):
            places = panels[2 * k + row]
            if row == 0:
                _show(places[0], images, query, "#1a1a1a")
                places[0].set_title(why, fontsize=7, loc="left")
            score = 100 * ranked.metrics[MAIN][query]
            places[1].set_title(caption(f"{title}: MAP@R {score:.1f} %"), fontsize=7, loc="left", color=colour)
            for axes, found in zip(places[1:], ranked.head[query, :SHOWN], strict=False):
                _show(axes, images, int(found), _RIGHT if images.labels[found] == label else _WRONG)
    return to_png(figure, dpi=90)


def _show(axes: Any, images: ImageSet, index: int, colour: str) -> None:
    """Draw an image in a coloured frame."""
    axes.imshow(resize_square(images.read(index), SIDE))
    axes.axis("on")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(2.5)
