"""Near-duplicates among labelled photos: copies, and bursts of one scene.

Two photos are alike if a perceptual hash says so (copies that were encoded anew, resized, brightened), or if the
backbone does (cropped copies, and photos of one scene taken one after another). What counts as alike for a backbone is
measured on the photos themselves: no further apart than twice the distance of a photo and its own middle nine tenths,
and clearly nearer than any photo of another class.

Measured on 800 photos of 50 species of CUB and copies of 100 of them, with efficientnet-lite0 at 224 pixels
(``tests/classifier/test_duplicates.py`` holds what follows for parts of them). The hash finds all copies of JPEG
quality 20, of a third of the size, or a fifth darker, 99 % of those a fifth brighter, and nothing among 319,600 pairs
of different photos, 4.5 million of CIFAR-100 and 2 million of Omniglot's drawings, where the nearest pair differs in 12
bits; of another 2 million pairs of drawings it takes four for copies (docs/results/near-duplicates.json, which has the
neighbouring thresholds as well). The features find all copies that lack a twentieth of each side, 98 % of a tenth, 62 %
of a fifth, all mirrored ones, and among the 319,600 pairs two, both bursts. On drawings they say little: up to 4 % of
the pairs of one character count as alike there, a sixth with a network of ours that has seen photos of 32 pixels
alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from otfew.data.base import Image

Floats = npt.NDArray[np.float32]

BITS = 10
"""Most bits of 143 in which the hashes of two copies differ; those of two drawings differ in 12, of two birds in 36."""
COLOUR = 12
"""Most that the mean chroma of two copies differs, of 255: things of one shape and two colours are no copies."""
PROBES = 10
"""Photos on which a backbone's tolerance is measured."""
MIDDLE = 0.9
"""Sides of the middle that is cut out of them, over those of the whole."""
TOLERANCE = 2.0
"""How much further a photo of the same scene may be than that middle."""
MARGIN = 0.6
"""And how far, at most, over the distance of the nearest photo of another class, for either of the two."""

_SIDE = 64
_WAVES = 12
_FLAT = 2.0
"""Deviation of grey values, of 255, below which a picture has no pattern to be hashed."""
_BYTES = _WAVES * _WAVES // 8
_ROWS = 512
"""Photos that are compared with all others at once, which bounds the memory."""


def print_of(pixels: Image) -> bytes:
    """Hash what a picture looks like: 18 bytes of pattern and 2 of colour.

    The pattern is the signs, about their median, of the lowest 12 x 12 coefficients of the discrete cosine transform of
    64 x 64 grey values, without the first (the mean); the colour is the mean Cr and Cb. A picture without a pattern has
    18 bytes of zeros.

    Args:
        pixels: (height, width, 3) uint8 RGB.
    """
    height, width = pixels.shape[:2]
    how = cv2.INTER_AREA if height * width > _SIDE * _SIDE else cv2.INTER_LINEAR
    small = cv2.cvtColor(cv2.resize(pixels, (_SIDE, _SIDE), interpolation=how), cv2.COLOR_RGB2YCrCb)
    grey = small[:, :, 0].astype(np.float32)
    colour: bytes = np.rint(small[:, :, 1:].mean((0, 1))).astype(np.uint8).tobytes()
    if grey.std() < _FLAT:
        return bytes(_BYTES) + colour
    waves = cv2.dct(grey)[:_WAVES, :_WAVES].ravel()[1:]
    pattern: bytes = np.packbits(np.append(waves > np.median(waves), False)).tobytes()
    return pattern + colour


def middle(pixels: Image) -> Image:
    """Cut the middle out of a picture, nine tenths of each side."""
    height, width = pixels.shape[:2]
    rows, columns = max(1, round(height * MIDDLE)), max(1, round(width * MIDDLE))
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[top : top + rows, left : left + columns]


def probes(prints: Sequence[bytes]) -> list[int]:
    """Choose the photos to measure a backbone's tolerance on, by chance: the same of the same photos in any order."""
    return sorted(range(len(prints)), key=lambda i: (zlib.crc32(prints[i]), i))[:PROBES]


def reaches(
    vectors: Floats,
    labels: npt.NDArray[np.intp],
    drifts: Sequence[float],
    tolerance: float = TOLERANCE,
    margin: float = MARGIN,
) -> Floats:
    """Find how far from each photo another may be that counts as of the same scene.

    min(``TOLERANCE`` times the median drift, ``MARGIN`` times the distance of the nearest photo of another class). The
    second is for backbones that hardly tell classes apart (photos to one trained on drawings), which cannot tell copies
    either.

    Args:
        vectors: (photos, channels) global vectors.
        labels: (photos,) classes.
        drifts: Distances of some photos and their middles.
        tolerance: See ``TOLERANCE``.
        margin: See ``MARGIN``.

    Returns:
        (photos,) distances: 1 - cosine.
    """
    units = _units(vectors)
    nearest = np.ones(len(units), np.float32)
    for start in range(0, len(units), _ROWS):
        rows = slice(start, start + _ROWS)
        apart = labels[rows, None] != labels[None]
        nearest[rows] = np.where(apart, 1 - units[rows] @ units.T, 1).min(1)
    allowed = tolerance * float(np.median(drifts)) if len(drifts) else 0.0
    found: Floats = np.minimum(allowed, margin * nearest).astype(np.float32)
    return found


def alike(prints: Sequence[bytes], rows: slice = slice(None), most: int = BITS) -> npt.NDArray[np.bool_]:
    """Tell by their hashes which photos are copies: (rows, photos).

    Args:
        prints: Of each photo, see ``print_of``.
        rows: Photos to be compared with all.
        most: Bits in which two copies may differ.
    """
    table = np.frombuffer(b"".join(prints), np.uint8).reshape(len(prints), _BYTES + 2)
    bits = np.unpackbits(table[:, :_BYTES], axis=1).astype(np.float32)
    on = bits.sum(1)
    differ = on[rows, None] + on[None] - 2 * bits[rows] @ bits.T
    colours = table[:, _BYTES:].astype(np.int16)
    near = np.abs(colours[rows, None] - colours[None]).max(2) <= COLOUR
    patterned = on > 0
    found: npt.NDArray[np.bool_] = (differ <= most) & near & patterned[rows, None] & patterned[None]
    return found


def groups(vectors: Floats, prints: Sequence[bytes], reach: Floats) -> npt.NDArray[np.int64]:
    """Group near-duplicates: two photos are in one group if a chain of alike pairs leads from one to the other.

    Args:
        vectors: (photos, channels) global vectors.
        prints: Of each photo, see ``print_of``.
        reach: (photos,) how far from each a photo of the same scene may be, see ``reaches``; both of a pair count.

    Returns:
        (photos,) the number of each photo's group, from 0 in the order of their first photos.
    """
    from scipy.sparse import csr_matrix, vstack
    from scipy.sparse.csgraph import connected_components

    count, units = len(prints), _units(vectors)
    if not count:
        return np.zeros(0, np.int64)
    pieces = [slice(start, start + _ROWS) for start in range(0, count, _ROWS)]
    pairs = vstack([csr_matrix(alike(prints, rows) | _near(units, reach, rows)) for rows in pieces])
    _, found = connected_components(pairs, directed=False)
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    numbers: npt.NDArray[np.int64] = np.argsort(np.argsort(first))[inverse].astype(np.int64)
    return numbers


def _near(units: Floats, reach: Floats, rows: slice) -> npt.NDArray[np.bool_]:
    """Tell by their vectors which photos are of one scene: (rows, photos)."""
    # Distances of zero are zero but for rounding; a reach of zero is none.
    found: npt.NDArray[np.bool_] = 1 - units[rows] @ units.T < np.minimum(reach[rows, None], reach[None])
    return found


def _units(vectors: Floats) -> Floats:
    """Bring vectors to length 1; one of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Floats = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return found
