"""Shuffles and draws without replacement, the same on every machine.

They are made over the raw 64-bit words of Philox, a counter-based generator whose words are specified and never change,
unlike the shuffles of libraries.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_WORDS = 1 << 64


def stream(key: int, index: int, batch: int) -> Iterator[int]:
    """Yield uniform 64-bit integers for ever.

    Args:
        key: Of 128 bits; different keys give unrelated streams.
        index: Of the stream among those of its key. It fills the counter's upper half, so that 2**130 words lie between
            two streams.
        batch: How many words are fetched at a time; changes nothing but the speed.
    """
    generator = np.random.Philox(key=key, counter=index << 128)
    while True:
        yield from generator.random_raw(batch).tolist()


class Deck:
    """``range(population)``, drawn from without replacement.

    The steps of a Fisher-Yates shuffle, with a dictionary in place of the array of which few entries are touched.

    Args:
        population: How many there are to choose from.
    """

    def __init__(self, population: int) -> None:
        self._population = population
        self._moved: dict[int, int] = {}
        self._drawn = 0

    def draw(self, words: Iterator[int], count: int) -> list[int]:
        """Draw ``count`` more, in random order.

        Args:
            words: Independent uniform 64-bit integers; at least one is taken a step.
            count: At most what is left.
        """
        chosen = []
        for i in range(self._drawn, self._drawn + count):
            j = i + below(words, self._population - i)
            chosen.append(self._moved.get(j, j))
            self._moved[j] = self._moved.get(i, i)
        self._drawn += count
        return chosen


def draw(words: Iterator[int], population: int, count: int) -> list[int]:
    """Draw ``count`` of ``range(population)`` without replacement, in random order; arguments as in ``Deck``."""
    return Deck(population).draw(words, count)


def below(words: Iterator[int], n: int) -> int:
    """Draw a uniform integer from ``range(n)``.

    Words beyond the largest multiple of n are rejected, so no value is favoured.
    """
    limit = _WORDS - _WORDS % n
    word = next(words)
    while word >= limit:
        word = next(words)
    return word % n


def permutation(count: int, key: int) -> npt.NDArray[np.int64]:
    """Shuffle ``range(count)``: (count,) int64, the order of as many words of a key."""
    words = np.random.Philox(key=key).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)
