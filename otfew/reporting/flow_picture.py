"""Photographs side by side at full resolution, with numbered flows between their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from otfew.data.base import Image
from otfew.nodes.boxes import Boxes
from otfew.reporting.canvas import INK, caption

Floats = npt.NDArray[np.float64]

WIDEST, NARROWEST = 5.0, 0.6
"""Widths of lines, points: of the largest flow of a picture, and the least that can be seen."""
ANSWER, RUNNER_UP = "#D55E00", "#0072B2"
"""Vermilion and blue, as in maps of what speaks for an answer and against it; the shapes of numbers differ, too."""
_BENDS = (0.07, -0.07, 0.15, -0.15, 0.0)
"""Of lines one after the other, so that those along one row of cells can be told apart."""
_IN_CELL, _LEAST = 0.36, 6.0
"""Letters of numbers as a share of their cell's width, and the least, points."""
_SIDE = 900
"""Photos are drawn with at most so many pixels to a side."""
_HEIGHT = 1.0
"""Of every photo, in the units of the axes; gaps and titles are shares of it."""


@dataclass(frozen=True)
class Photo:
    """A photograph with its cells.

    Attributes:
        picture: (height, width, 3) uint8.
        title: Above it, a line or more; the first is bold.
        boxes: (nodes, 4) in pixels of the picture.
        weights: (nodes,) of the cells; None draws no cells.
    """

    picture: Image
    title: str
    boxes: Boxes
    weights: Floats | None = None


@dataclass(frozen=True)
class Link:
    """A flow between a cell of one photo and a cell of another.

    Attributes:
        number: At both of its ends.
        start: Place of the photo that it leaves, in the row, and of its cell.
        end: The same of where it goes.
        mass: Share of all mass.
        colour: Of its line and numbers.
        square: Numbers stand in squares instead of discs.
    """

    number: int
    start: tuple[int, int]
    end: tuple[int, int]
    mass: float
    colour: str = ANSWER
    square: bool = False


def largest(plan: Floats, similarity: Floats, count: int) -> list[tuple[int, int, float]]:
    """Find the largest flows of a plan.

    Args:
        plan: (n, m) of total 1.
        similarity: (n, m); of equal flows (to six digits) the most similar come first.
        count: At most so many; flows of no mass are none.

    Returns:
        Row, column and mass, the largest first.
    """
    order = np.lexsort((-similarity.ravel(), -plan.round(6).ravel()))[:count]
    found = ((int(k // plan.shape[1]), int(k % plan.shape[1])) for k in order)
    return [(i, j, float(plan[i, j])) for i, j in found if plan[i, j] > 0]


def line_width(mass: float, most: float) -> float:
    """Width of a flow's line in points: in proportion to its mass, the largest ``WIDEST``, none below ``NARROWEST``."""
    return max(NARROWEST, WIDEST * mass / most)


def strip_width(photos: Sequence[Photo], gap: float) -> float:
    """Width of a row of photos of height 1."""
    return float(sum(one.picture.shape[1] / one.picture.shape[0] for one in photos) + gap * (len(photos) - 1))


def draw_strip(
    axes: Any, photos: Sequence[Photo], flows: Sequence[Link], *, gap: float = 0.28, size: float = 10
) -> None:
    """Draw photos in a row, all as high as 1 in data units, with lines of flows between them.

    Args:
        axes: Empty; its limits are set.
        photos: From left to right.
        flows: Between them.
        gap: Between two photos, as a share of their height.
        size: Of letters, points.
    """
    lefts, left = [], 0.0
    for photo in photos:
        height, width = photo.picture.shape[:2]
        lefts.append(left)
        axes.imshow(
            _shrunk(photo.picture), extent=(left, left + width / height, 0, _HEIGHT), interpolation="antialiased"
        )
        _head(axes, photo, left + width / height / 2, size)
        if photo.weights is not None:
            _cells(axes, photo, left)
        left += width / height + gap
    axes.set_xlim(0, left - gap)
    axes.set_ylim(0, _HEIGHT)
    axes.set_aspect("equal")
    axes.set_axis_off()
    most = max((flow.mass for flow in flows), default=1.0)
    # The thinnest lie on top, where wide ones would hide them.
    for flow in sorted(flows, key=lambda one: -one.mass):
        ends = [_middle(photos[k], lefts[k], cell) for k, cell in (flow.start, flow.end)]
        _line(axes, ends, flow, line_width(flow.mass, most))
    for k in range(len(photos)):
        _numbers(axes, photos[k], lefts[k], [(f, *end) for f in flows for end in (f.start, f.end) if end[0] == k], size)


def _head(axes: Any, photo: Photo, middle: float, size: float) -> None:
    """Write a photo's title above it, its first line bold."""
    first, *others = (caption(line) for line in photo.title.split("\n"))
    rise = 3.0
    for line in reversed(others):
        axes.annotate(line, (middle, _HEIGHT), xytext=(0, rise), textcoords="offset points", ha="center", va="bottom",
                      fontsize=size - 1, color=INK)  # fmt: skip
        rise += 1.3 * (size - 1)
    axes.annotate(first, (middle, _HEIGHT), xytext=(0, rise), textcoords="offset points", ha="center", va="bottom",
                  fontsize=size, fontweight="bold", color=INK)  # fmt: skip


def _cells(axes: Any, photo: Photo, left: float) -> None:
    """Draw the cells' edges, hair-thin, and at each cell's foot a bar as long as its weight."""
    from matplotlib.patches import Rectangle

    assert photo.weights is not None
    most = max(float(photo.weights.max()), 1e-12)
    tiles = _tile(photo.boxes)
    for (x0, y0, x1, y1), weight in zip(_placed(photo, left), photo.weights, strict=True):
        if tiles:
            axes.add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=0.5, alpha=0.45)
            )
        wide, high = x1 - x0, y1 - y0
        foot = (x0 + 0.08 * wide, y0 + 0.05 * high)
        axes.add_patch(Rectangle(foot, 0.84 * wide, 0.07 * high, facecolor="black", alpha=0.4, linewidth=0))
        axes.add_patch(Rectangle(foot, 0.84 * wide * weight / most, 0.07 * high, facecolor="white", linewidth=0))


def _tile(boxes: Boxes) -> bool:
    """Tell whether cells lie side by side rather than upon one another."""
    whole = (boxes[:, 2:].max(0) - boxes[:, :2].min(0)).prod()
    return bool((boxes[:, 2:] - boxes[:, :2]).prod(1).sum() <= 1.001 * whole)


def _line(axes: Any, ends: Sequence[tuple[float, float]], flow: Link, width: float) -> None:
    """Draw one line with a white edge, which any photo lets see."""
    from matplotlib.patches import FancyArrowPatch

    bend = _BENDS[flow.number % len(_BENDS)]
    for colour, wide in (("white", width + 1.4), (flow.colour, width)):
        style: dict[str, Any] = {"arrowstyle": "-", "connectionstyle": f"arc3,rad={bend}", "shrinkA": 0, "shrinkB": 0}
        line = FancyArrowPatch(*ends, **style, color=colour, linewidth=wide, alpha=0.85, capstyle="round", zorder=3)
        axes.add_patch(line)


def _numbers(axes: Any, photo: Photo, left: float, ends: Sequence[tuple[Link, int, int]], size: float) -> None:
    """Number the ends of flows in one photo; those of one cell stand side by side."""
    cells: dict[int, list[Link]] = {}
    for flow, _, cell in ends:
        cells.setdefault(cell, []).append(flow)
    for cell, flows in cells.items():
        x0, _, x1, _ = _placed(photo, left)[cell]
        points = float(np.clip(_IN_CELL * (x1 - x0) * _points(axes), _LEAST, size - 1))
        for place, flow in enumerate(flows):
            shift = (place - (len(flows) - 1) / 2) * 1.6 * points
            axes.annotate(
                str(flow.number),
                _middle(photo, left, cell),
                xytext=(shift, 0),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=points,
                fontweight="bold",
                color="white",
                zorder=5,
                bbox={
                    "boxstyle": "square,pad=0.18" if flow.square else "circle,pad=0.16",
                    "facecolor": flow.colour,
                    "edgecolor": "white",
                    "linewidth": 1.0,
                },
            )


def _points(axes: Any) -> float:
    """Height of a photo in points."""
    return float(72 * axes.figure.get_size_inches()[1] * axes.get_position(original=True).height / _HEIGHT)


def _middle(photo: Photo, left: float, cell: int) -> tuple[float, float]:
    x0, y0, x1, y1 = _placed(photo, left)[cell]
    return (x0 + x1) / 2, (y0 + y1) / 2


def _placed(photo: Photo, left: float) -> Floats:
    """Boxes in the axes' units, whose y points up: (nodes, 4) x0, y0, x1, y1."""
    height = photo.picture.shape[0]
    x0, y0, x1, y1 = (photo.boxes / height).T
    return np.stack([left + x0, _HEIGHT - y1, left + x1, _HEIGHT - y0], 1)


def _shrunk(picture: Image) -> Image:
    """Make a photo no larger than it is drawn."""
    scale = _SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
