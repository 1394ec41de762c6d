"""How alike two glyphs look, whatever their size, rotation and font."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from otfew.data.glyph_drawing.fonts import FONTS, Mask, fonts_of, mask

Vectors = npt.NDArray[np.float32]

SOURCE = 48
"""Longest side in pixels at which glyphs are drawn to be compared."""

SIDE = 32
"""Side in pixels of the pictures that are compared."""

RADIUS = 7.0
"""Root mean square distance in pixels of the ink from its centre, after scaling."""

BLUR = 0.7
"""Standard deviation in pixels of the blur: it forgives small differences in place and stroke width."""

ANGLES: tuple[int, ...] = tuple(range(0, 360, 15))
JITTER: tuple[tuple[float, float, float], ...] = tuple(
    (scale, x, y)
    for scale in (0.87, 1.0, 1.15)
    for x, y in ((0.0, 0.0), (2.0, 0.0), (-2.0, 0.0), (0.0, 2.0), (0.0, -2.0))
)
"""Changes of scale and place (pixels) that a fine comparison tries: they make up for a tail that one glyph has more."""

VIEWS: tuple[str, ...] = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralItalic",
)
"""Fonts in which glyphs are compared: one of each design, the others being slanted or emboldened forms of them."""


def normalised(
    ink: Mask, angle: float = 0.0, mirrored: bool = False, jitter: tuple[float, float, float] = (1.0, 0.0, 0.0)
) -> Vectors:
    """Turn a glyph about its centre of mass, at a common size, and make it a unit vector.

    Size is the root mean square distance of the ink from its centre, which a rotation does not change, so that "c" and
    "C" or "p" and "d" become equal. Vectors have mean 0: their inner product is the correlation of two pictures.

    Args:
        ink: (height, width) uint8 coverage.
        angle: Degrees.
        mirrored: Take the mirror image first.
        jitter: Factor on the size and shift in x and y (pixels).

    Returns:
        (SIDE * SIDE,) float32 of norm 1.
    """
    return _unit(*_smoothed(ink, mirrored), angle, jitter)


def _smoothed(ink: Mask, mirrored: bool) -> tuple[Vectors, float, float, float]:
    """The blurred ink in a margin, its centre of mass (x, y) and its radius, in pixels of the ink.

    The blur comes before the picture shrinks, so that thin strokes are not lost between samples.
    """
    import cv2

    margin = 16
    picture = cv2.copyMakeBorder(
        np.ascontiguousarray(ink[:, ::-1] if mirrored else ink), margin, margin, margin, margin, cv2.BORDER_CONSTANT
    ).astype(np.float32)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    total = picture.sum()
    centre_x, centre_y = float((x * picture).sum() / total), float((y * picture).sum() / total)
    radius = float(np.sqrt((((x - centre_x) ** 2 + (y - centre_y) ** 2) * picture).sum() / total))
    smooth = np.asarray(cv2.GaussianBlur(picture, (0, 0), BLUR * radius / RADIUS), dtype=np.float32)
    return smooth, centre_x, centre_y, radius


def _unit(
    smooth: Vectors, centre_x: float, centre_y: float, radius: float, angle: float, jitter: tuple[float, float, float]
) -> Vectors:
    import cv2

    scale, x, y = jitter
    turn = np.asarray(cv2.getRotationMatrix2D((centre_x, centre_y), angle, scale * RADIUS / radius), dtype=np.float64)
    turn[:, 2] += (SIDE - 1) / 2 - np.array([centre_x - x, centre_y - y])
    vector = cv2.warpAffine(smooth, turn, (SIDE, SIDE)).reshape(-1)
    vector = vector - vector.mean()
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def body(ink: Mask) -> Mask:
    """Cut a glyph down to its largest connected part: without dots and other marks.

    Args:
        ink: (height, width) uint8 coverage.

    Returns:
        The part, cropped; the ink itself if it is connected.
    """
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats((ink >= 96).astype(np.uint8), connectivity=8)
    if count <= 2:
        return ink
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    others = (labels > 0) & (labels != largest)
    x, y, width, height = (int(stats[largest, column]) for column in range(4))
    return np.where(others, 0, ink).astype(np.uint8)[y : y + height, x : x + width]


def views(code: int) -> list[str]:
    """List the fonts of ``VIEWS`` that have a glyph for a code point."""
    places = set(fonts_of(code))
    return [font for font in VIEWS if FONTS.index(font) in places]


def inks(code: int) -> list[Mask]:
    """Draw the masks of a glyph that are compared: whole and without marks, in the fonts of ``VIEWS``."""
    whole = [mask(font, code, SOURCE) for font in views(code)]
    return whole + [part for one in whole if (part := body(one)) is not one]


def similarity(
    codes: Sequence[int], others: Sequence[int] | None = None, *, mirrored: bool = False, fine: bool = False
) -> npt.NDArray[np.float32]:
    """Measure the largest correlation of any two pictures of two glyphs: over fonts, rotations, with and without marks.

    Args:
        codes: Code points.
        others: Code points to compare them with; ``codes`` itself if None.
        mirrored: Compare with the mirror images of ``others``.
        fine: Try ``JITTER`` too, at 15 times the cost.

    Returns:
        (len(codes), len(others)) float32, at most 1.
    """
    upright, starts = _upright(tuple(codes))
    others = codes if others is None else others
    result = np.empty((len(codes), len(others)), dtype=np.float32)
    for place, code in enumerate(others):
        smoothed = [_smoothed(ink, mirrored) for ink in inks(code)]
        jitters = JITTER if fine else JITTER[5:6]
        turned = np.stack([_unit(*one, angle, jitter) for one in smoothed for angle in ANGLES for jitter in jitters])
        result[:, place] = np.maximum.reduceat((upright @ turned.T).max(axis=1), starts)
    return result


@lru_cache(maxsize=2)
def _upright(codes: tuple[int, ...]) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Pictures of all codes, and where those of each begin."""
    pictures = [[normalised(ink) for ink in inks(code)] for code in codes]
    starts = np.cumsum([0] + [len(some) for some in pictures[:-1]])
    return np.stack([picture for some in pictures for picture in some]), starts
