"""Where the nodes of an image are in it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.nodes.base import Extractor
from otfew.nodes.fcn import FCN
from otfew.nodes.patches import PatchExtractor

Boxes = npt.NDArray[np.float64]
"""(n, 4): x0, y0, x1, y1 in pixels; x1 and y1 exclusive."""


def node_boxes(extractor: Extractor, count: int, size: tuple[int, int], preparation: Preparation, name: str) -> Boxes:
    """Find the boxes of an image's nodes in that image at its original resolution.

    Args:
        extractor: Kind of nodes.
        count: How many nodes the image has; a map is taken for square, as its views are.
        size: (height, width) of the image in pixels.
        preparation: Resolution and crop.
        name: The image's identifier, from which random crops are drawn.

    Returns:
        (count, 4), within the image.

    Raises:
        UserError: Nodes of a kind whose places are unknown.
    """
    height, width = size
    extractor = getattr(extractor, "inner", extractor)  # a user's own may be of a kind whose places are known
    if isinstance(extractor, PatchExtractor):
        patches = extractor.patches(height, width, name)
        return np.array([(p.left, p.top, p.right, p.bottom) for p in patches], np.float64)
    pooled = sum(level * level for level in extractor.levels) if isinstance(extractor, FCN) else 0
    resolution = preparation.resolution
    # Without the map, whose size is then unknown, the levels' cells are taken as they would be of a very fine one.
    side = math.isqrt(count - pooled) if count > pooled else resolution
    if not isinstance(extractor, FCN) or count != pooled + (side * side if extractor.with_map else 0):
        raise UserError(f"where nodes {extractor.spec!r} are in an image is unknown: choose fcn, grid or sampling.")
    enlarged = resolution if preparation.crop == "none" else round(resolution * 92 / 84)
    square = map_boxes(side, side, extractor.levels, resolution)[:count] + (enlarged - resolution) // 2
    boxes: Boxes = square * np.array([width, height, width, height]) / enlarged
    return boxes


def map_boxes(height: int, width: int, levels: tuple[int, ...], side: int) -> Boxes:
    """Find the boxes of a feature pyramid's nodes in a square picture: the levels' cells, then the map's.

    A cell of level l averages the map's rows floor(i h / l) to ceil((i + 1) h / l) - 1, and columns alike. These are
    the parts that nodes stand for; what a convolutional node sees is larger.

    Args:
        height: Of the map.
        width: Of the map.
        levels: Of the pyramid.
        side: Of the picture, pixels.
    """
    boxes = [
        (
            math.floor(j * width / columns) / width,
            math.floor(i * height / rows) / height,
            math.ceil((j + 1) * width / columns) / width,
            math.ceil((i + 1) * height / rows) / height,
        )
        for rows, columns in [*((level, level) for level in levels), (height, width)]
        for i in range(rows)
        for j in range(columns)
    ]
    return side * np.array(boxes, np.float64)
