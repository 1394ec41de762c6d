"""All masks that a split draws from, in one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otfew.data.glyph_drawing.fonts import FONTS, fonts_of, mask

Integers = npt.NDArray[np.int64]

SIDE = 44
"""Longest side in pixels of a mask: about that of the largest glyph placed, so that masks are hardly enlarged."""

_INK = 128


@dataclass(frozen=True)
class Atlas:
    """Masks of some classes in all fonts that have them; those of a class follow each other.

    Attributes:
        masks: (masks, SIDE, SIDE) uint8 coverage, each in its upper left corner.
        sizes: (masks, 2) width and height of each, pixels.
        first: (classes,) the first mask of each class.
        count: (classes,) how many masks each class has: one a font.
        ink: (pixels, 2) x and y of the pixels well inside the ink, mask after mask.
        ink_first: (masks,) the first of each mask's pixels in ``ink``.
        ink_count: (masks,) how many there are.
    """

    masks: npt.NDArray[np.uint8]
    sizes: Integers
    first: Integers
    count: Integers
    ink: Integers
    ink_first: Integers
    ink_count: Integers


def atlas(codes: Sequence[int]) -> Atlas:
    """Draw the masks of the glyphs of some code points.

    Args:
        codes: Code point of each class; at least one font has to cover it.

    Returns:
        The masks, in the order of the classes and of ``FONTS``.
    """
    fonts = [fonts_of(code) for code in codes]
    drawn = [mask(FONTS[font], code, SIDE) for code, places in zip(codes, fonts, strict=True) for font in places]
    masks = np.zeros((len(drawn), SIDE, SIDE), dtype=np.uint8)
    for place, one in enumerate(drawn):
        masks[place, : one.shape[0], : one.shape[1]] = one
    owner, y, x = np.nonzero(masks >= _INK)
    count = np.array([len(places) for places in fonts], dtype=np.int64)
    ink_count = np.bincount(owner, minlength=len(masks)).astype(np.int64)
    return Atlas(
        masks=masks,
        sizes=np.array([one.shape[::-1] for one in drawn], dtype=np.int64),
        first=_starts(count),
        count=count,
        ink=np.stack([x, y], axis=1).astype(np.int64),
        ink_first=_starts(ink_count),
        ink_count=ink_count,
    )


def _starts(count: Integers) -> Integers:
    """Where runs of given lengths begin when they follow each other."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(count, dtype=np.int64)[:-1]])
