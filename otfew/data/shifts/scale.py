"""Scale: the camera farther away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from otfew.data.base import Image
from otfew.data.preparation import resize
from otfew.data.shifts.base import Others, Shift


def scale(image: Image, strength: float, draws: Iterator[float], others: Others) -> Image:
    """Shrink both sides of the image to a share ``strength`` and put it anywhere on a field of its mean colour."""
    del others
    height, width = image.shape[:2]
    rows, columns = max(1, round(strength * height)), max(1, round(strength * width))
    top, left = int(next(draws) * (height - rows + 1)), int(next(draws) * (width - columns + 1))
    changed = np.empty_like(image)
    changed[:] = np.rint(image.reshape(-1, 3).mean(0)).astype(np.uint8)
    changed[top : top + rows, left : left + columns] = resize(image, rows, columns)
    return changed


SCALE = Shift("scale", "farther away: sides at 80, 65 or 50 %, anywhere on a plain field", (0.8, 0.65, 0.5), scale)
