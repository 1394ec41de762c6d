"""Drawing without replacement from raw 64-bit words, alike on every machine."""

from __future__ import annotations

from collections.abc import Iterator

_WORDS = 1 << 64


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
