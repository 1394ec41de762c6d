"""Nodes from patches: each patch of an image goes through the network by itself and becomes one node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from otfew.data.base import Image
from otfew.data.preparation import Preparation, resize_square


class Patch(NamedTuple):
    """A rectangle of an image, in pixels.

    Attributes:
        top: First row.
        bottom: Row after the last.
        left: First column.
        right: Column after the last.
        flip: Whether it is mirrored left to right.
    """

    top: int
    bottom: int
    left: int
    right: int
    flip: bool = False


def cut(image: Image, patches: Sequence[Patch], side: int) -> npt.NDArray[np.uint8]:
    """Cut patches out of an image (height, width, 3) and resize each to a square, whatever its aspect ratio.

    Returns:
        (patches, side, side, 3) of the image's dtype.
    """
    views = np.empty((len(patches), side, side, 3), image.dtype)
    for view, (top, bottom, left, right, flip) in zip(views, patches, strict=True):
        square = resize_square(image[top:bottom, left:right], side)
        view[:] = square[:, ::-1] if flip else square
    return views


@dataclass(frozen=True)
class PatchExtractor(ABC):
    """One node a patch: the average of the patch's feature map over its locations.

    Patches are cut from the image at its original resolution, all of it: ``Preparation.crop`` concerns whole images
    only, as in the released code of DeepEMD.
    """

    @abstractmethod
    def patches(self, height: int, width: int, name: str) -> list[Patch]:
        """Choose the patches of an image of so many rows and columns; random ones draw from the seed and its name.

        Raises:
            UserError: The image is too small for them.
        """

    def views(self, image: Image, preparation: Preparation, name: str) -> npt.NDArray[np.uint8]:
        """Cut an image into its patches: (n_views, resolution, resolution, 3)."""
        height, width = image.shape[:2]
        return cut(image, self.patches(height, width, name), preparation.resolution)

    def nodes(self, maps: Tensor) -> Tensor:
        """Average (images, n_views, channels, h, w) over locations: (images, n_views, channels)."""
        return maps.mean((3, 4))
