"""Occlusion: something flat in front of the object."""

from __future__ import annotations

from collections.abc import Iterator

from otfew.data.base import Image
from otfew.data.shifts.base import Others, Shift
from otfew.data.shifts.rectangles import box


def occlusion(image: Image, strength: float, draws: Iterator[float], others: Others) -> Image:
    """Cover a share ``strength`` of the image by one rectangle of one colour, both at random."""
    del others
    height, width = image.shape[:2]
    top, left, bottom, right = box(height, width, strength, draws)
    changed = image.copy()
    changed[top:bottom, left:right] = [int(256 * next(draws)) for _ in range(3)]
    return changed


OCCLUSION = Shift("occlusion", "a flat rectangle in front: 10, 25 or 40 % of the image", (0.1, 0.25, 0.4), occlusion)
