"""Clutter: pieces of other things in the picture."""

from __future__ import annotations

from collections.abc import Iterator

from otfew.data.base import Image
from otfew.data.preparation import resize
from otfew.data.shifts.base import Others, Shift
from otfew.data.shifts.rectangles import covering


def clutter(image: Image, strength: float, draws: Iterator[float], others: Others) -> Image:
    """Cover a share ``strength`` of the image, its severity, by patches of other images.

    Each patch is the same part of an image of another class of the same set, so that it is no more and no less a piece
    of an object than what it covers. Some are of classes that an episode has: a patch may speak for a wrong class, as
    things beside each other in a photo do, and never for the right one.
    """
    height, width = image.shape[:2]
    changed = image.copy()
    for top, left, bottom, right in covering(height, width, strength, draws):
        other = resize(others(next(draws)), height, width)
        changed[top:bottom, left:right] = other[top:bottom, left:right]
    return changed


CLUTTER = Shift(
    "clutter", "patches of images of other classes over 10, 25 or 40 % of the image", (0.1, 0.25, 0.4), clutter, True
)
