"""Rectangles at random that cover a share of an image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LEAST, MOST = 0.05, 0.15
"""Area of a rectangle, as a share of the image's."""
_TRIES = 200

Box = tuple[int, int, int, int]
"""Top, left, bottom, right."""


def box(height: int, width: int, area: float, draws: Iterator[float]) -> Box:
    """Draw a rectangle of a share ``area`` of an image, inside it, of sides 1:2 to 2:1 relative to the image's."""
    aspect = 4.0 ** (next(draws) - 0.5)
    rows = min(height, max(1, round(height * (area * aspect) ** 0.5)))
    columns = min(width, max(1, round(width * (area / aspect) ** 0.5)))
    top, left = int(next(draws) * (height - rows + 1)), int(next(draws) * (width - columns + 1))
    return top, left, top + rows, left + columns


def covering(height: int, width: int, share: float, draws: Iterator[float]) -> list[Box]:
    """Draw rectangles until they cover a share of an image, up to a hundredth of it; they may overlap."""
    covered = np.zeros((height, width), dtype=bool)
    boxes: list[Box] = []
    for _ in range(_TRIES):
        left = share - float(covered.mean())
        if left < 0.01:
            break
        found = box(height, width, min(left, LEAST + (MOST - LEAST) * next(draws)), draws)
        covered[found[0] : found[2], found[1] : found[3]] = True
        boxes.append(found)
    return boxes
