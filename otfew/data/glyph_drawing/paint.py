"""The painter: recipes and masks become pictures and the boxes of the targets, in integer arithmetic.

OpenCV's warp would do, but its rounding depends on its version and on the processor's instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from otfew.data.glyph_drawing.atlas import Atlas
from otfew.data.glyph_drawing.recipe import PIXEL, RESOLUTION, Recipes

Integers: TypeAlias = npt.NDArray[np.int64]
Images: TypeAlias = npt.NDArray[np.uint8]


def paint(recipes: Recipes, masks: Atlas) -> tuple[Images, Integers]:
    """Paint pictures.

    A layer is its mask turned and scaled, by bilinear interpolation; the target comes last and covers what is below it.

    Args:
        recipes: What to paint.
        masks: The masks that the recipes name.

    Returns:
        (pictures, 64, 64, 3) uint8 RGB, and (pictures, 4) the box x0, y0, x1, y1 of the last layer: the smallest that
        holds all pixels it touches, x1 and y1 being exclusive.
    """
    pictures = len(recipes.mask)
    images = np.empty((pictures, RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    boxes = np.empty((pictures, 4), dtype=np.int64)
    layers = np.concatenate([recipes.window, recipes.centre, recipes.reach, recipes.step, recipes.colour], axis=-1)
    _compiled(_fill)(images, recipes.corners)
    _compiled(_cover)(images, boxes, recipes.mask, layers, masks.masks)
    return images, boxes


@lru_cache(maxsize=2)
def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    from otfew.transport.jit import jit

    compiled: Callable[..., None] = jit(nogil=True)(function)
    return compiled


def _fill(images: Images, corners: Integers) -> None:
    """Blend the colours of the four corners over each picture."""
    side = images.shape[1]
    last = side - 1
    for picture in range(images.shape[0]):
        for y in range(side):
            for x in range(side):
                for channel in range(3):
                    upper = corners[picture, 0, channel] * (last - x) + corners[picture, 1, channel] * x
                    lower = corners[picture, 2, channel] * (last - x) + corners[picture, 3, channel] * x
                    images[picture, y, x, channel] = (upper * (last - y) + lower * y + last * last // 2) // (
                        last * last
                    )


def _cover(images: Images, boxes: Integers, which: Integers, layers: Integers, masks: Images) -> None:
    """Paint the layers over each picture; columns of ``layers``: window 4, centre 2, reach 2, step 2, colour 3."""
    side = images.shape[1]
    for picture in range(images.shape[0]):
        for layer in range(which.shape[1]):
            mask = which[picture, layer]
            if mask < 0:
                continue
            x0, y0 = layers[picture, layer, 0], layers[picture, layer, 1]
            x1, y1 = layers[picture, layer, 2], layers[picture, layer, 3]
            cx, cy = layers[picture, layer, 4], layers[picture, layer, 5]
            rx, ry = layers[picture, layer, 6], layers[picture, layer, 7]
            sx, sy = layers[picture, layer, 8], layers[picture, layer, 9]
            left, right, upper, lower = side, 0, side, 0
            for y in range(max(0, (cy - ry) // PIXEL), min(side, (cy + ry) // PIXEL + 1)):
                for x in range(max(0, (cx - rx) // PIXEL), min(side, (cx + rx) // PIXEL + 1)):
                    dx, dy = x * PIXEL + PIXEL // 2 - cx, y * PIXEL + PIXEL // 2 - cy
                    # Place in the mask in 1/65536 pixel, whose pixels have their centres at halves.
                    u = ((sx * dx + sy * dy) >> 8) + ((x0 + x1 - 1) << 15)
                    v = ((sx * dy - sy * dx) >> 8) + ((y0 + y1 - 1) << 15)
                    total = 0
                    for corner in range(4):
                        i, j = (u >> 16) + (corner & 1), (v >> 16) + (corner >> 1)
                        if x0 <= i < x1 and y0 <= j < y1:
                            weight_x = (u >> 8) & 255 if corner & 1 else 256 - ((u >> 8) & 255)
                            weight_y = (v >> 8) & 255 if corner >> 1 else 256 - ((v >> 8) & 255)
                            total += masks[mask, j, i] * weight_x * weight_y
                    alpha = (total + (1 << 15)) >> 16
                    if alpha > 0:
                        left, right, upper, lower = min(left, x), max(right, x + 1), min(upper, y), max(lower, y + 1)
                        for channel in range(3):
                            mixed = layers[picture, layer, 10 + channel] * alpha
                            mixed += images[picture, y, x, channel] * (255 - alpha)
                            images[picture, y, x, channel] = (mixed + 127) // 255
            boxes[picture, 0], boxes[picture, 1] = left, upper
            boxes[picture, 2], boxes[picture, 3] = right, lower
