"""Where the nodes of an image are: the image as it is, and a box for each node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.backbones import Backbone
from otfew.data.base import Image
from otfew.data.preparation import Preparation
from otfew.nodes import Extractor
from otfew.nodes.boxes import Boxes, node_boxes


@dataclass(frozen=True)
class Scene:
    """An image as its nodes see it.

    Attributes:
        name: For titles.
        picture: (height, width, 3) uint8 at its original resolution.
        boxes: (nodes, 4) in pixels of the picture, the part that each node stands for.
        nodes: (nodes, channels) float32 on the CPU.
    """

    name: str
    picture: Image
    boxes: Boxes
    nodes: Tensor


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
    return Scene(name, image, node_boxes(extractor, len(nodes), image.shape[:2], preparation, name), nodes)


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
