"""Mosaics of real images whose classes have the same parts in other proportions: a designed positive control.

A mosaic is a square of tiles; each tile is a whole image of one of a few classes, the parts. Classes of mosaics differ
in how many tiles each part has, and in nothing else: every class has every part, tiles lie in random places, and each
image of a part is drawn anew. Let tiles of one part be alike (similarity 1) and others unlike (0), weights equal, and
p, q the shares of the parts in two mosaics. Then Chamfer is 1 for every pair, since every tile finds one of its part;
the product coupling is sum_k p_k q_k, largest not at p = q but at the most lopsided q; and transport is
sum_k min(p_k, q_k) = 1 - TV(p, q), largest at p = q alone. So on these images exact transport must win, or the
measurement is broken. It says nothing about photographs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from otfew.data.base import Image, ImageSet
from otfew.data.preparation import resize_square
from otfew.errors import UserError
from otfew.random.keys import digest, key128
from otfew.random.shuffle import draw
from otfew.random.words import stream

PARTS = 4
"""Classes that tiles are taken from: the first of the split, by name."""
TILES = 5
"""Tiles to a side."""
SIDE = 32
"""Pixels to a tile's side."""
CLASSES = 12
"""Of mosaics."""
PER_CLASS = 24
"""Mosaics of each."""
LEAST = 2
"""Tiles that each part has at least, so that no class is told by a part that others lack."""

Composition = tuple[int, ...]


def compositions(tiles: int, parts: int, count: int, least: int = LEAST) -> list[Composition]:
    """Choose ways to divide tiles among parts that lie far apart.

    Greedily: the most even one first, then each time the one whose least distance to those chosen, in tiles that
    differ, is largest; of equals the first in order.

    Args:
        tiles: Of a mosaic.
        parts: How many.
        count: How many to choose.
        least: Tiles of each part at least.

    Raises:
        UserError: There are fewer.
    """
    everyone = list(_divided(tiles, parts, least))
    if count > len(everyone):
        raise UserError(f"{tiles} tiles of {parts} parts are divided in {len(everyone)} ways, not {count}.")
    chosen = [min(everyone, key=lambda c: (max(c) - min(c), c))]
    while len(chosen) < count:
        far = [min(sum(abs(a - b) for a, b in zip(c, other, strict=True)) for other in chosen) for c in everyone]
        chosen.append(everyone[int(np.argmax(far))])
    return chosen


def _divided(tiles: int, parts: int, least: int) -> Iterator[Composition]:
    """Go through all ways, in order."""
    for first in itertools.product(range(least, tiles + 1), repeat=parts - 1):
        if (last := tiles - sum(first)) >= least:
            yield (*first, last)


def made_of(parts: int = PARTS) -> list[Composition]:
    """Return the classes of mosaics: how many tiles each part has."""
    return compositions(TILES**2, parts, CLASSES)


@dataclass(frozen=True)
class _Painter:
    """Puts mosaic i together; the same on every machine."""

    images: ImageSet
    members: tuple[tuple[int, ...], ...]
    compositions: tuple[Composition, ...]
    names: tuple[str, ...]

    def __call__(self, index: int) -> Image:
        """Paint: (TILES * SIDE, TILES * SIDE, 3) uint8."""
        words = stream(key128(f"mosaic 1\0{self.names[index]}"), 0, 64)
        tiles = []
        for members, count in zip(self.members, self.compositions[index // PER_CLASS], strict=True):
            tiles += [members[i] for i in draw(words, len(members), count)]
        order = draw(words, len(tiles), len(tiles))
        painted = np.empty((TILES * SIDE, TILES * SIDE, 3), np.uint8)
        for place, which in enumerate(order):
            row, column = divmod(place, TILES)
            tile = resize_square(self.images.read(tiles[which]), SIDE)
            painted[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = tile
        return painted


def mosaics(images: ImageSet, parts: Sequence[str] = ()) -> ImageSet:
    """Make mosaics of the images of a few classes.

    Args:
        images: Whose images are tiles.
        parts: Classes that tiles are of; () takes the first ``PARTS`` by name.

    Returns:
        ``CLASSES`` classes of ``PER_CLASS`` mosaics, (160, 160, 3) each.

    Raises:
        UserError: An unknown part, or one with fewer images than a mosaic may need.
    """
    parts = tuple(parts) or tuple(sorted(images.classes)[:PARTS])
    chosen = made_of(len(parts))
    members = []
    for part in parts:
        if part not in images.classes:
            raise UserError(f"there is no class {part!r} in split {images.split!r} of {images.dataset!r}.")
        own = np.flatnonzero(images.labels == images.classes.index(part)).tolist()
        if len(own) < TILES**2:
            raise UserError(f"class {part!r} has {len(own)} images; a mosaic may need {TILES**2}.")
        members.append(tuple(own))
    classes = tuple(", ".join(f"{n} {part}" for n, part in zip(c, parts, strict=True)) for c in chosen)
    names = tuple(f"{images.split}/{c}/{i}" for c in classes for i in range(PER_CLASS))
    about = f"mosaics of {TILES}x{TILES} images of {', '.join(parts)}: classes differ in their numbers alone"
    return ImageSet(
        dataset=images.dataset,
        split=images.split,
        variant="mosaics",
        classes=classes,
        labels=np.repeat(np.arange(CLASSES), PER_CLASS),
        names=names,
        read=_Painter(images, tuple(members), tuple(chosen), names),
        fingerprint=digest(f"mosaics 1\0{images.fingerprint}\0{about}").hex(),
        published_classes=CLASSES,
        notes=(*images.notes, f"a designed positive control, no evidence for a method: {about}"),
    )
