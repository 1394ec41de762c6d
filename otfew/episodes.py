"""Few-shot episodes: episode i is a pure function of its protocol, on every machine.

The sampler shuffles by itself over the raw 64-bit words of Philox, a counter-based generator whose words are
specified and never change, unlike the shuffles of libraries. The key is a hash of the protocol and the counter starts
at the episode's index, so any episode can be had without its predecessors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError

Indices = npt.NDArray[np.int64]
VERSION = "otfew episodes 1"
_WORDS = 1 << 64


@dataclass(frozen=True)
class Protocol:
    """What episodes are a function of.

    Attributes:
        dataset: Name of the data set.
        variant: Which of its published splits, crops or seeds.
        split: "train", "val" or "test".
        seed: Any integer.
        way: Classes in an episode.
        shot: Labelled images of each class.
        query: Images to classify of each class.
    """

    dataset: str
    variant: str
    split: str
    seed: int = 1
    way: int = 5
    shot: int = 1
    query: int = 15

    def __post_init__(self) -> None:
        for name, least in (("way", 2), ("shot", 1), ("query", 1)):
            value = getattr(self, name)
            if value < least:
                raise UserError(f"--{name} must be at least {least}, not {value}.")

    def key(self) -> int:
        """Hash the protocol into Philox's 128-bit key."""
        text = "\0".join([VERSION, *(f"{name}={value}" for name, value in asdict(self).items())])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


@dataclass(frozen=True)
class Episodes:
    """Consecutive episodes.

    Attributes:
        classes: (episodes, way) int64, indices into the image set's classes.
        support: (episodes, way, shot) int64, indices of images.
        query: (episodes, way, query) int64, indices of images.
    """

    classes: Indices
    support: Indices
    query: Indices

    def __len__(self) -> int:
        """Count the episodes."""
        return len(self.classes)


class Sampler:
    """Draws episodes of one protocol from labelled images.

    Args:
        protocol: What the episodes are a function of.
        labels: (images,) int, indices into ``classes``.
        classes: Names, for messages.

    Raises:
        UserError: Fewer classes than ``way``, or a class with fewer than shot + query images.
    """

    def __init__(self, protocol: Protocol, labels: npt.ArrayLike, classes: Sequence[str]) -> None:
        self.protocol = protocol
        array = np.asarray(labels, dtype=np.int64)
        counts = np.bincount(array, minlength=len(classes)).tolist()
        if protocol.way > len(classes):
            raise UserError(
                f"--way {protocol.way} asks for more classes than the {len(classes)} that split {protocol.split!r} of "
                f"{protocol.dataset!r} has: choose --way {len(classes)} or less."
            )
        needed = protocol.shot + protocol.query
        for name, count in zip(classes, counts, strict=True):
            if count < needed:
                raise UserError(
                    f"class {name!r} of {protocol.dataset!r} has {count} images, but an episode needs {needed} "
                    f"(--shot {protocol.shot} + --query {protocol.query}): lower them or remove the class."
                )
        order = np.argsort(array, kind="stable")
        self._images: list[list[int]] = [part.tolist() for part in np.split(order, np.cumsum(counts)[:-1])]
        self._key = protocol.key()

    def __call__(self, start: int, stop: int) -> Episodes:
        """Draw episodes ``start`` to ``stop - 1``."""
        p = self.protocol
        classes = np.empty((stop - start, p.way), dtype=np.int64)
        images = np.empty((stop - start, p.way, p.shot + p.query), dtype=np.int64)
        for row, index in enumerate(range(start, stop)):
            chosen, drawn = self._episode(index)
            classes[row] = chosen
            images[row] = drawn
        return Episodes(classes, images[:, :, : p.shot].copy(), images[:, :, p.shot :].copy())

    def _episode(self, index: int) -> tuple[list[int], list[list[int]]]:
        """Draw one episode: classes first, then each class's support and query images, all without replacement."""
        p = self.protocol
        # The index fills the counter's upper half: 2**130 words lie between two episodes.
        generator = np.random.Philox(key=self._key, counter=index << 128)
        words = _words(generator, p.way * (1 + p.shot + p.query))
        chosen = draw(words, len(self._images), p.way)
        drawn = []
        for c in chosen:
            members = self._images[c]
            drawn.append([members[i] for i in draw(words, len(members), p.shot + p.query)])
        return chosen, drawn


def draw(words: Iterator[int], population: int, count: int) -> list[int]:
    """Draw ``count`` of ``range(population)`` without replacement, in random order.

    The first ``count`` steps of a Fisher-Yates shuffle, with a dictionary in place of the array of which few entries
    are touched.

    Args:
        words: Independent uniform 64-bit integers; at least one is taken a step.
        population: How many there are to choose from.
        count: How many to choose, at most ``population``.
    """
    moved: dict[int, int] = {}
    chosen = []
    for i in range(count):
        j = i + below(words, population - i)
        chosen.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return chosen


def below(words: Iterator[int], n: int) -> int:
    """Draw a uniform integer from ``range(n)``.

    Words beyond the largest multiple of n are rejected, so no value is favoured.
    """
    limit = _WORDS - _WORDS % n
    word = next(words)
    while word >= limit:
        word = next(words)
    return word % n


def _words(generator: np.random.Philox, batch: int) -> Iterator[int]:
    """Yield the generator's raw words for ever, fetching ``batch`` at a time."""
    while True:
        yield from generator.random_raw(batch).tolist()
