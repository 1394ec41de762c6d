"""An explanation as a picture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from otfew.classifier.reasons import Reasons
from otfew.data.base import Image
from otfew.nodes.boxes import Boxes
from otfew.reporting.canvas import INK, caption, make_figure
from otfew.reporting.pages import Mark, numbered

SIDE = 900
"""Pictures are drawn with at most so many pixels to a side."""
_FOR, _AGAINST = np.array([0.76, 0.27, 0.05]), np.array([0.19, 0.41, 0.56])
"""Colours of regions that speak for a class and against it."""
_TITLE = 54
"""Characters that fit over a picture."""
_GREY = 0.35
"""Of a region's own colour, what is left where it counts nothing."""


def draw(told: Reasons) -> Any:
    """Draw an explanation: maps above, numbered flows below, the sentences under them."""
    figure, axes = make_figure(2, 3, (13, 10.2))
    for place, (title, picture, marks) in zip(axes.flat, panels(told), strict=True):
        _show(place, picture, title)
        if picture is not None:
            for mark in marks:
                _mark(place, mark, picture.shape)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.94, bottom=0.13, wspace=0.03, hspace=0.14)
    figure.text(0.012, 0.015, "\n".join(_wrapped(told.sentences())), fontsize=9, color=INK, va="bottom")
    return figure


def panels(told: Reasons) -> list[tuple[str, Image | None, list[Mark]]]:
    """Lay out the six pictures of an explanation: title of two lines, picture, and what is marked in it."""
    for_answer, lead = told.for_answer, told.for_answer - told.for_runner_up
    for_map = heat(told.picture, told.boxes, for_answer / max(np.abs(for_answer).max(), 1e-12))
    lead_map = heat(told.picture, told.boxes, lead / max(np.abs(lead).max(), 1e-12))
    regions = () if told.deletion is None else told.deletion.regions.tolist()
    best, rival = told.best(told.answer), told.best(told.runner_up)
    flows = told.flows
    opinion = "which decided"
    if not told.opinion.decided:
        opinion = f"a second opinion: it {'agrees' if told.opinion.agrees else f'says {told.opinion.answer}'}"
    return [
        (f"{told.name}\n{told.answer} {told.confidence:.2f}", told.picture, [Mark(tuple(box)) for box in regions]),
        (f"by {told.method}, what speaks\nfor {told.answer} (orange) or against (blue)", for_map, []),
        (f"for {told.answer} (orange)\nor rather {told.runner_up} (blue)", lead_map, []),
        (f"DeepEMD's {len(flows)} strongest flows,\n{opinion}", told.picture, numbered([f.here for f in flows])),
        (
            f"answer: {_with_photo(told.answer, best.name)}\n{_listed([f.similarity for f in flows])}",
            best.picture,
            numbered([flow.there for flow in flows]),
        ),
        (
            f"runner-up: {_with_photo(told.runner_up, rival.name)}\n{_listed([f.rival_similarity for f in flows])}",
            rival.picture,
            numbered([flow.rival for flow in flows]),
        ),
    ]


def _with_photo(label: Any, name: str) -> str:
    """Name a class and a photo of it, the class once where the photo's folder is called like it."""
    return name if name.startswith(f"{label}/") else f"{label}, {name}"


def _listed(similar: list[float]) -> str:
    return "similarity " + ", ".join(f"{i}: {value:.2f}" for i, value in enumerate(similar, 1)) if similar else ""


def heat(picture: Image, boxes: Boxes, values: npt.NDArray[np.float64]) -> Image:
    """Colour the regions of a picture by what they count.

    Args:
        picture: (height, width, 3) uint8.
        boxes: (nodes, 4) in pixels of it.
        values: (nodes,) from -1, against, to 1, for; a pixel has the mean of the boxes that it lies in.

    Returns:
        A picture, at most ``SIDE`` pixels to a side.
    """
    small, scale = shrunk(picture)
    total, count = np.zeros(small.shape[:2]), np.zeros(small.shape[:2])
    for (x0, y0, x1, y1), value in zip(np.rint(boxes * scale).astype(int), values, strict=True):
        total[y0:y1, x0:x1] += value
        count[y0:y1, x0:x1] += 1
    mean: npt.NDArray[Any] = total / np.maximum(count, 1)
    # Cells become a smooth map, which hides no edge of the picture.
    cell = max(1.0, float(np.sqrt(np.prod(small.shape[:2]) / len(boxes))))
    mean = cv2.GaussianBlur(mean, (0, 0), cell / 3)
    mean = mean * (np.abs(values).max() / max(np.abs(mean).max(), 1e-12))
    grey = np.repeat(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[..., None], 3, 2) / 255
    strength = np.clip(np.abs(mean), 0, 1)[..., None] ** 0.7
    colour = np.where(mean[..., None] >= 0, _FOR, _AGAINST)
    shown = (1 - 0.75 * strength) * (_GREY * small / 255 + (1 - _GREY) * grey) + 0.75 * strength * colour
    return np.asarray(np.rint(255 * np.clip(shown, 0, 1)), np.uint8)


def shrunk(picture: Image) -> tuple[Image, float]:
    """Make a picture at most ``SIDE`` pixels to a side; also return the factor."""
    scale = min(1.0, SIDE / max(picture.shape[:2]))
    if scale == 1:
        return picture, 1.0
    side = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, side, interpolation=cv2.INTER_AREA), np.uint8), scale


def _show(axes: Any, picture: Image | None, title: str) -> None:
    """Put a picture up, or say that there is none."""
    if picture is None:
        axes.text(0.5, 0.5, "its picture was not kept", ha="center", va="center", fontsize=9, color=INK)
    else:
        axes.imshow(shrunk(picture)[0], interpolation="nearest")
    axes.set_title("\n".join(caption(_cut(line)) for line in title.split("\n")), fontsize=9, color=INK)
    axes.set_axis_off()


def _cut(line: str) -> str:
    """Leave out the middle of what is too long for a title."""
    half = _TITLE // 2
    return line if len(line) <= _TITLE else f"{line[: half - 1]}…{line[-half:]}"


def _mark(axes: Any, mark: Mark, shape: tuple[int, ...]) -> None:
    """Outline a region given in pixels of the picture before it was shrunk, and number it at its corner."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = np.asarray(mark.box) * min(1.0, SIDE / max(shape[:2]))
    for colour, width in (("black", 3.0), (mark.colour, 1.5)):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=width))
    if mark.text:
        axes.annotate(
            mark.text,
            (x0, y0),
            xytext=(3 + 13 * mark.repeats, -3),
            textcoords="offset points",
            color="white",
            fontsize=8,
            fontweight="bold",
            ha="left",
            va="top",
            bbox={"facecolor": mark.colour, "edgecolor": "none", "pad": 1.2},
        )


def _wrapped(sentences: Iterable[str], width: int = 175) -> list[str]:
    """Break sentences into lines."""
    import textwrap

    return [line for sentence in sentences for line in textwrap.wrap(caption(sentence), width)]
