"""Blur: a lens out of focus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import cv2

from otfew.data.base import Image
from otfew.data.shifts.base import Others, Shift, side


def blur(image: Image, strength: float, draws: Iterator[float], others: Others) -> Image:
    """Convolve with a Gaussian whose standard deviation is ``strength`` times the image's side."""
    del draws, others
    sigma = strength * side(image)
    return cast("Image", cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))


BLUR = Shift("blur", "out of focus: a Gaussian of 1, 2.5 or 5 % of the side", (0.01, 0.025, 0.05), blur)
