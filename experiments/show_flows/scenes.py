"""Where the nodes of an image are: its picture, and a box for each node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.backbones import Backbone
from otfew.data.base import Image
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.nodes import Extractor
from otfew.nodes.boxes import Boxes, map_boxes
from otfew.nodes.fcn import FCN
from otfew.nodes.patches import PatchExtractor


@dataclass(frozen=True)
class Scene:
    """An image as its nodes see it.

    Attributes:
        name: For titles.
        picture: (height, width, 3) uint8, what the boxes are in.
        boxes: (nodes, 4), the part of the picture that each node stands for.
        nodes: (nodes, channels) float32 on the CPU.
        grid: (rows, columns) where the nodes are the cells of one map, else None.
    """

    name: str
    picture: Image
    boxes: Boxes
    nodes: Tensor
    grid: tuple[int, int] | None


def look(image: Image, name: str, backbone: Backbone, extractor: Extractor, preparation: Preparation) -> Scene:
    """Extract the nodes of one image together with their places.

    Args:
        image: (height, width, 3) at its original resolution.
        name: Its identifier, from which random crops are drawn.
        backbone: On any device.
        extractor: Kind of nodes.
        preparation: Resolution and crop.

    Raises:
        UserError: Nodes of a kind whose places are unknown, or that cannot be cut.
    """
    views = torch.from_numpy(extractor.views(image, preparation, name))
    # One view at a time: many large crops need not fit.
    maps = torch.cat([backbone.maps(view[None]) for view in views.permute(0, 3, 1, 2)])
    nodes = extractor.nodes(maps[None])[0].float().cpu()
    if isinstance(extractor, FCN):
        height, width = maps.shape[2:]
        # The map comes last, where it is among the nodes.
        boxes = map_boxes(height, width, extractor.levels, preparation.resolution)[: len(nodes)]
        return Scene(name, views[0].numpy(), boxes, nodes, None if extractor.levels else (height, width))
    if isinstance(extractor, PatchExtractor):
        patches = extractor.patches(image.shape[0], image.shape[1], name)
        places = np.array([(p.left, p.top, p.right, p.bottom) for p in patches], np.float64)
        return Scene(name, image, places, nodes, None)
    raise UserError(f"where nodes {extractor.spec!r} are in an image is unknown: choose fcn, grid or sampling.")


def covered(boxes: Boxes, target: Boxes) -> npt.NDArray[np.float64]:
    """Compute the share of each box's area that lies inside a target.

    Args:
        boxes: (..., 4).
        target: (..., 4), broadcast against ``boxes``.
    """
    low = np.maximum(boxes[..., :2], target[..., :2])
    high = np.minimum(boxes[..., 2:], target[..., 2:])
    inside = np.clip(high - low, 0, None).prod(-1)
    share: npt.NDArray[np.float64] = inside / (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return share


def in_picture(boxes: Boxes, side: int, extractor: Extractor, preparation: Preparation) -> Boxes:
    """Move boxes from a square image of ``side`` pixels into the picture that ``look`` would show of it."""
    if isinstance(extractor, PatchExtractor):
        return boxes
    resolution = preparation.resolution
    enlarged = resolution if preparation.crop == "none" else round(resolution * 92 / 84)
    return boxes * enlarged / side - (enlarged - resolution) // 2
