"""The folders on which ``method="auto"`` is judged: which classes and photos each holds, settled before any figure.

A folder is what a user might have: some kinds, a few labelled photos of each, new photos of them, and new photos of
kinds that nobody has labelled. Folders of one source share a pool of photos, so that features are extracted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otfew.random.draws import uniforms

Indices = npt.NDArray[np.int64]

UNKNOWN_CLASSES = 4
"""Most kinds of which a folder has new photos and no labelled ones."""


@dataclass(frozen=True)
class Source:
    """A data set of which no class stands behind the prior's table.

    Attributes:
        dataset: Name as in ``otfew.data.DATASETS``.
        split: Its part.
        resolution: Side in pixels, settled for pictures of 28 to 105 pixels as a user may settle it, which takes a
            third of the time; None tries what the classifier tries by itself.
        classes: Classes of the pool, in the order of their names' hashes.
        new: Photos of each class that are asked about.
        most: Photos of each class that may be labelled.
        shapes: Classes and photos of each, a folder each. In every second folder the number of photos differs from
            class to class: from 1 to twice that, less one.
    """

    dataset: str
    split: str
    resolution: int | None
    classes: int
    new: int
    most: int
    shapes: tuple[tuple[int, int], ...]

    @property
    def each(self) -> int:
        """Count the photos of a class in the pool."""
        return self.most + self.new


_SHAPES = ((5, 1), (5, 4), (5, 20), (8, 2), (8, 8), (10, 3), (12, 5), (12, 10), (16, 3), (20, 5))
_OF_TEN = ((5, 1), (5, 4), (5, 20), (8, 2), (8, 8), (5, 2), (8, 5), (8, 10), (8, 3), (8, 20))
SOURCES = (
    Source("fashion-mnist", "test", 128, 10, 12, 20, _OF_TEN),
    Source("cifar-fs", "test", 128, 20, 6, 20, _SHAPES),
    Source("omniglot", "test", 128, 24, 6, 10, _SHAPES),
    Source("cub", "test", None, 22, 4, 8, _SHAPES),
)


@dataclass(frozen=True)
class Folder:
    """Photos of a pool, by their places in it.

    Attributes:
        source: Number of the source.
        number: Among all folders.
        classes: (way,) classes of the pool.
        labelled: Places of labelled photos.
        new: Places of new photos of the same classes.
        unknown: Places of new photos of other classes.
    """

    source: int
    number: int
    classes: tuple[int, ...]
    labelled: tuple[int, ...]
    new: tuple[int, ...]
    unknown: tuple[int, ...]


def folders(pools: Mapping[int, Indices], sources: Sequence[Source] = SOURCES) -> Iterator[Folder]:
    """Draw all folders: a function of the pools' labels alone.

    Args:
        pools: Number of a source -> (photos,) classes, 0, 1, ..., of its pool; sources that are not there are left out.
        sources: All of them, so that a folder keeps its number.
    """
    number = 0
    for place, source in enumerate(sources):
        for turn, (way, photos) in enumerate(source.shapes):
            if place in pools:
                yield _drawn(number, place, source, pools[place], way, photos, uneven=turn % 2 == 1)
            number += 1


def _drawn(number: int, place: int, source: Source, labels: Indices, way: int, photos: int, *, uneven: bool) -> Folder:
    """Draw one folder."""
    draws = uniforms("otfew folders", source.dataset, number)
    order = _shuffled(np.unique(labels), draws)
    known, others = order[:way], order[way : way + UNKNOWN_CLASSES]
    labelled: list[int] = []
    new: list[int] = []
    for c in known:
        own = _shuffled(np.flatnonzero(labels == c), draws)
        count = 1 + int(next(draws) * (2 * photos - 1)) if uneven else photos
        new += own[: source.new]
        labelled += own[source.new : source.new + min(count, source.most)]
    unknown = [i for c in others for i in _shuffled(np.flatnonzero(labels == c), draws)[: source.new]]
    return Folder(place, number, tuple(known), tuple(labelled), tuple(new), tuple(unknown))


def _shuffled(values: Indices, draws: Iterator[float]) -> list[int]:
    """Put values into a random order, by sorting as many draws."""
    keys = [next(draws) for _ in values]
    return [int(value) for _, value in sorted(zip(keys, values.tolist(), strict=True))]
