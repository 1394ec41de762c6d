"""Dark: an exposure too short, with the noise of the sensor that it brings forward."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import cast

import cv2
import numpy as np

from otfew.data.base import Image
from otfew.data.shifts.base import Others, Shift, side

GRAIN = 1 / 32
"""Side of a grain of noise, as a share of the image's."""
NOISE = 4.0
"""Standard deviation of the noise, of 255, whatever the light."""


def dark(image: Image, strength: float, draws: Iterator[float], others: Others) -> Image:
    """Keep a share ``strength`` of the light and add grains of noise.

    Noise is drawn for a grid of grains and stretched over the image: noise of single pixels would vanish where a large
    image is reduced to what a network sees.
    """
    del others
    height, width = image.shape[:2]
    grain = max(1.0, GRAIN * side(image))
    rows, columns = max(1, round(height / grain)), max(1, round(width / grain))
    # The sum of twelve uniform numbers, less six, has mean 0 and variance 1; its arithmetic is the same everywhere.
    flat = np.fromiter(islice(draws, 12 * rows * columns), np.float64, 12 * rows * columns)
    noise = (flat.reshape(rows, columns, 12).sum(2) - 6).astype(np.float32)
    stretched = cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST)
    lit = image.astype(np.float32) * np.float32(strength) + np.float32(NOISE) * stretched[:, :, None]
    return cast("Image", np.clip(np.rint(lit), 0, 255).astype(np.uint8))


DARK = Shift("dark", "too little light: 60, 35 or 20 % of it, and noise", (0.6, 0.35, 0.2), dark)
