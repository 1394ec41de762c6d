"""What a shift is: images of one place turned into images as of another, at three severities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from otfew.data.base import Image
from otfew.errors import UserError
from otfew.random.draws import uniforms

SEVERITIES = (1, 2, 3)
"""Mild, clear, hard."""
Others = Callable[[float], Image]
"""Gives another image of the set for a number in [0, 1)."""
Change = Callable[[Image, float, Iterator[float], Others], Image]
"""Changes an image by a strength; takes numbers in [0, 1) for what is random, and other images."""


@dataclass(frozen=True)
class Shift:
    """A change of images that leaves their classes as they are.

    Lengths are shares of an image's side (the root of its area), so that an image of 32 pixels is changed as one of 500
    that a network sees at 32.

    Attributes:
        name: In the table of shifts and in reports.
        summary: One line about it.
        strengths: What its parameter is at severities 1, 2 and 3.
        change: What it does.
        takes_others: True where it needs other images.
    """

    name: str
    summary: str
    strengths: tuple[float, float, float]
    change: Change
    takes_others: bool = False

    def apply(self, image: Image, severity: int, key: str, others: Others | None = None) -> Image:
        """Change an image; a pure function of the image, the severity, the key and, where it takes them, the others.

        Args:
            image: (height, width, 3) uint8 RGB; it stays as it is.
            severity: 1, 2 or 3.
            key: What is drawn at random is drawn by the shift's name, the severity and this: the image's name, say.
            others: Where other images come from; only a shift that ``takes_others`` asks.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            UserError: A severity that there is not.
            ValueError: No image, or no others where they are needed.
        """
        if isinstance(severity, bool) or severity not in SEVERITIES:
            raise UserError(f"severity {severity!r} of view {self.name!r}: there are 1 (mild), 2 and 3 (hard).")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"`image` is {image.dtype} of shape {image.shape}: it must be uint8, (height, width, 3)")
        if self.takes_others and others is None:
            raise ValueError(f"shift {self.name!r} needs other images: give `others`")
        draws = uniforms("otfew shift 1", self.name, severity, key)
        return self.change(image, self.strengths[severity - 1], draws, others or _none)


def side(image: Image) -> float:
    """Return the side of a square of an image's area, in pixels."""
    height, width = image.shape[:2]
    return math.sqrt(height * width)


def _none(_: float) -> Image:
    """Stand in for other images where none are asked for."""
    raise ValueError("a shift that takes other images has to say so: `takes_others`")
