"""Edges: a photograph turned into a drawing of its outlines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import cv2
import numpy as np

from otfew.data.base import Image
from otfew.data.shifts.base import Others, Shift, side

WIDTH = 0.01
"""Standard deviation of the Gaussian that is derived, as a share of the side: how broad lines are."""
BRIGHTEST = 98
"""Percentile of the gradient that becomes white."""


def edges(image: Image, strength: float, draws: Iterator[float], others: Others) -> Image:
    """Fade the photograph out, by ``strength``, and its edge map in.

    The map is the length of the gradient of the blurred grey image, white where it is largest: what is left of an
    image without colours and surfaces. Canny's thin lines would vanish where a large image is reduced.
    """
    del draws, others
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), max(0.5, WIDTH * side(image)), borderType=cv2.BORDER_REFLECT)
    length = cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    white = max(float(np.percentile(length, BRIGHTEST)), 1.0)
    drawn = np.minimum(length / white, 1) * 255
    mixed = (1 - strength) * image.astype(np.float32) + strength * drawn[:, :, None]
    return cast("Image", np.clip(np.rint(mixed), 0, 255).astype(np.uint8))


EDGES = Shift("edges", "the photograph gone by 25, 50 or 75 % into its edge map", (0.25, 0.5, 0.75), edges)
