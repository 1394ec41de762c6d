"""From a decoded image to the square that a backbone sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from otfew import choices
from otfew.data.base import Image
from otfew.errors import UserError

Crop = choices.Crop
CROPS: tuple[Crop, ...] = ("none", "center")
PHOTOGRAPH = 84
"""Data sets usually evaluated at this side or more are photographs and get the centre crop by default."""


@dataclass(frozen=True)
class Preparation:
    """How an image becomes (resolution, resolution, 3).

    Attributes:
        resolution: Side in pixels.
        crop: "none" resizes the whole image to a square; "center" resizes it to a square 92/84 times as large and cuts
            out the middle, which is the evaluation protocol of DeepEMD and FEAT (92 to 84 pixels). Neither keeps the
            aspect ratio.

    Raises:
        UserError: A resolution below 1, or another crop.
    """

    resolution: int
    crop: Crop = "none"

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise UserError(f"`resolution` must be at least 1 pixel, not {self.resolution}.")
        if self.crop not in CROPS:
            raise UserError(f"unknown `crop` {self.crop!r}: choose one of {', '.join(CROPS)}.")

    def __call__(self, image: Image) -> Image:
        """Resize and crop one image.

        Args:
            image: (height, width, 3) uint8 or float32.

        Returns:
            (resolution, resolution, 3) of the same dtype.
        """
        if self.crop == "none":
            return resize_square(image, self.resolution)
        enlarged = round(self.resolution * 92 / 84)
        start = (enlarged - self.resolution) // 2
        stop = start + self.resolution
        return np.ascontiguousarray(resize_square(image, enlarged)[start:stop, start:stop])


def default_crop(usual_resolution: int) -> Crop:
    """Choose the crop of a data set by the side in pixels at which it is usually evaluated."""
    return "center" if usual_resolution >= PHOTOGRAPH else "none"


def resize_square(image: Image, side: int) -> Image:
    """Resize (height, width, 3) to (side, side, 3), as ``resize`` does."""
    return resize(image, side, side)


def resize(image: Image, height: int, width: int) -> Image:
    """Resize to (height, width, 3): pixel areas when shrinking, linear interpolation when enlarging."""
    old_height, old_width = image.shape[:2]
    if (old_height, old_width) == (height, width):
        return image
    # INTER_AREA averages what it leaves out; linear interpolation would alias there.
    method = cv2.INTER_AREA if old_height * old_width > height * width else cv2.INTER_LINEAR
    return cast("Image", cv2.resize(image, (width, height), interpolation=method))
