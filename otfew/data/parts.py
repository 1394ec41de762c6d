"""Some of the images of a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from otfew.data.base import Image, ImageSet
from otfew.errors import UserError
from otfew.random.keys import digest


@dataclass(frozen=True)
class _Chosen:
    """Decodes image i of a part; pickles where the whole does."""

    images: ImageSet
    rows: tuple[int, ...]

    def __call__(self, index: int) -> Image:
        """Read image ``index``: (height, width, 3) uint8 RGB."""
        return self.images.read(self.rows[index])


def subset(images: ImageSet, indices: Sequence[int]) -> ImageSet:
    """Keep some images, and all classes; the digest in a cache's key tells the result from the whole."""
    rows = tuple(indices)
    return replace(
        images,
        labels=images.labels[list(rows)],
        names=tuple(images.names[i] for i in rows),
        domains=tuple(images.domains[i] for i in rows) if images.domains else (),
        read=_Chosen(images, rows),
    )


def few_of_each(images: ImageSet, count: int) -> ImageSet:
    """Keep some images of each class: the first by the sha256 of their names, the same on every machine.

    Args:
        images: The whole.
        count: At most so many of each class; 0 for all.

    Raises:
        UserError: A negative number.
    """
    if count < 0:
        raise UserError(f"`images` must be 0 (all) or a number of images of each class, not {count}.")
    if not count:
        return images
    kept: list[int] = []
    for label in range(len(images.classes)):
        members = np.flatnonzero(images.labels == label).tolist()
        kept += sorted(members, key=lambda i: digest(images.names[i]))[:count]
    told = f"at most {count} images of each class, the first by the hash of their names"
    found = subset(images, sorted(kept))
    return found if len(kept) == len(images) else replace(found, notes=(*images.notes, told))
