"""An explanation as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from otfew.classifier.reasons import Reasons
from otfew.data.base import Image
from otfew.nodes.boxes import Boxes
from otfew.reporting.canvas import INK, TEXT, WIDTH, add_axes, blank, caption, headline, headline_height, wrapped
from otfew.reporting.flow_picture import ANSWER, RUNNER_UP, Link, draw_strip, strip_width
from otfew.reporting.flow_picture import Photo as Drawn
from otfew.reporting.pages import Mark, numbered

SIDE = 900
"""Pictures are drawn with at most so many pixels to a side."""
_FOR, _AGAINST = np.array([213, 94, 0]) / 255, np.array([0, 114, 178]) / 255
"""Colours of regions that speak for a class and against it: vermilion and blue, as flows to the answer and from it."""
_TITLE, _NAME = 42, 30
"""Characters that fit over a map, and over a photo of the row below."""
_GAP = 0.22
"""Between the photos of that row, as a share of their height."""
_HEAD = 0.42
"""Inches above a row of pictures, for their titles."""
_KEY = (
    "Below, lines are mass that moves from a cell to a cell, as wide as it is much; bars at cells' feet are weights. "
    "At the right, under the same numbers, where the same cells' mass goes in the runner-up's photo."
)
_GREY = 0.35
"""Of a region's own colour, what is left where it counts nothing."""


def draw(told: Reasons) -> Any:
    """Draw an explanation: maps above, below them the photo between two labelled ones, with numbered flows.

    The flows to the answer's photo stand at the left, as wide as they are much; where the same cells' mass goes in the
    runner-up's photo stands at the right, under the same numbers.
    """
    sentences = [line for sentence in told.sentences()[1:] for line in wrapped(sentence, WIDTH, TEXT)]
    title = told.sentences()[0]
    maps, strip = panels(told)[:3], _strip(told)
    gap = 0.04
    high = (WIDTH - 2 * gap) / 3 * told.picture.shape[0] / told.picture.shape[1]
    low = WIDTH / strip_width(strip, _GAP) if strip else 0.3
    head, step = headline_height(title, _KEY), 1.5 * TEXT / 72
    figure = blank((WIDTH, head + _HEAD + high + _HEAD + low + 0.12 + step * len(sentences)))
    top = headline(figure, title, _KEY) + _HEAD
    for k, (name, picture, marks) in enumerate(maps):
        place = add_axes(figure, k * ((WIDTH - 2 * gap) / 3 + gap), top, (WIDTH - 2 * gap) / 3, high)
        _show(place, picture, name)
        for mark in marks:
            _mark(place, mark, told.picture.shape)
    top += high + _HEAD
    row = add_axes(figure, 0.0, top, WIDTH, low)
    if strip:
        draw_strip(row, strip, _links(told), gap=_GAP, size=TEXT)
    else:
        row.set_axis_off()
        row.text(0.5, 0.5, "the labelled photos were not kept: no flows are drawn", ha="center", va="center")
    for k, line in enumerate(reversed(sentences)):
        figure.text(0.0, step * k / figure.get_figheight(), caption(line), fontsize=TEXT, color=INK, va="bottom")
    return figure


def _strip(told: Reasons) -> list[Drawn]:
    """Lay out the answer's photo, the photo itself and the runner-up's; nothing where a picture was not kept."""
    best, rival = told.best(told.answer), told.best(told.runner_up)
    if best.picture is None or rival.picture is None:
        return []
    there, elsewhere = told.transports
    opinion = "DeepEMD's strongest flows" if told.opinion.decided else "second opinion: DeepEMD"
    return [
        Drawn(best.picture, _title(f"{told.answer}: the answer", best.name), there.there, there.plan.sum(0)),
        Drawn(told.picture, _title(opinion, told.name), told.boxes, there.plan.sum(1)),
        Drawn(rival.picture, _title(f"{told.runner_up}: the runner-up", rival.name), elsewhere.there,
              elsewhere.plan.sum(0)),
    ]  # fmt: skip


def _title(first: str, name: str) -> str:
    return f"{_cut(first, _NAME)}\n{_cut(name, _NAME)}"


def _links(told: Reasons) -> list[Link]:
    """Number the flows to the answer's photo, and where the same cells' mass goes in the runner-up's."""
    there, elsewhere = told.transports
    found = []
    for flow in told.flows:
        here = _place(told.boxes, flow.here)
        to, rather = _place(there.there, flow.there), _place(elsewhere.there, flow.rival)
        found.append(Link(flow.number, (1, here), (0, to), flow.share, ANSWER))
        mass = float(elsewhere.plan[here, rather])
        found.append(Link(flow.number, (1, here), (2, rather), mass, RUNNER_UP, square=True))
    return found


def _place(boxes: Boxes, box: tuple[float, ...]) -> int:
    """Find a cell by its corners."""
    return int(np.abs(boxes - box).sum(1).argmin())


def panels(told: Reasons) -> list[tuple[str, Image | None, list[Mark]]]:
    """Lay out the six pictures of an explanation: title of two lines, picture, and what is marked in it."""
    for_answer, lead = told.for_answer, told.for_answer - told.for_runner_up
    for_map = heat(told.picture, told.boxes, for_answer / max(np.abs(for_answer).max(), 1e-12))
    lead_map = heat(told.picture, told.boxes, lead / max(np.abs(lead).max(), 1e-12))
    regions = () if told.deletion is None else told.deletion.regions.tolist()
    best, rival = told.best(told.answer), told.best(told.runner_up)
    flows = told.flows
    shares, rather = [one.share for one in flows], [one.mass for one in _links(told) if one.square]
    opinion = "which decided"
    if not told.opinion.decided:
        opinion = f"a second opinion: it {'agrees' if told.opinion.agrees else f'says {told.opinion.answer}'}"
    return [
        (f"{told.name}\n{told.answer} {told.confidence:.2f}", told.picture, [Mark(tuple(box)) for box in regions]),
        (f"by {told.method}, what speaks\nfor {told.answer} (orange) or against (blue)", for_map, []),
        (f"for {told.answer} (orange)\nor rather {told.runner_up} (blue)", lead_map, []),
        (
            f"DeepEMD's {len(flows)} strongest flows,\n{opinion}",
            told.picture,
            numbered([f.here for f in flows], shares),
        ),
        (
            f"answer: {_with_photo(told.answer, best.name)}\n{_listed(shares, [f.similarity for f in flows])}",
            best.picture,
            numbered([flow.there for flow in flows], shares),
        ),
        (
            f"runner-up: {_with_photo(told.runner_up, rival.name)}\n"
            f"{_listed(rather, [f.rival_similarity for f in flows])}",
            rival.picture,
            numbered([flow.rival for flow in flows], rather),
        ),
    ]


def _with_photo(label: Any, name: str) -> str:
    """Name a class and a photo of it, the class once where the photo's folder is called like it."""
    return name if name.startswith(f"{label}/") else f"{label}, {name}"


def _listed(masses: Sequence[float], similar: Sequence[float]) -> str:
    """List flows: their numbers, per cent of all mass, and similarities."""
    each = (
        f"{k}: {100 * mass:.1f} at {value:.2f}" for k, (mass, value) in enumerate(zip(masses, similar, strict=True), 1)
    )
    return f"% of mass at similarity {', '.join(each)}" if similar else ""


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


def _cut(line: str, room: int = _TITLE) -> str:
    """Leave out the middle of what is too long for a title."""
    half = room // 2
    return line if len(line) <= room else f"{line[: half - 1]}…{line[-half:]}"


def _mark(axes: Any, mark: Mark, shape: tuple[int, ...]) -> None:
    """Outline a region given in pixels of the picture before it was shrunk."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = np.asarray(mark.box) * min(1.0, SIDE / max(shape[:2]))
    for colour, width in (("black", 3.0), (mark.colour, 1.5)):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=width))
