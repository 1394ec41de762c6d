"""Random bits of a sample: a pure function of its identity, the same on every machine and in every order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from otfew.random.keys import key128

Integers = npt.NDArray[np.int64]


class Dice:
    """Raw bits of a counter-based generator (Philox) for many samples at once, handed out column by column.

    Only raw bits and integer arithmetic are used: the distributions of ``numpy.random`` may change between versions.
    """

    def __init__(self, identities: Sequence[str], rolls: int) -> None:
        self._bits = np.empty((len(identities), rolls), dtype=np.uint64)
        self._used = 0
        for row, identity in zip(self._bits, identities, strict=True):
            row[:] = np.random.Philox(key=key128(identity)).random_raw(rolls)

    def below(self, limit: int | Integers, count: int = 1) -> Integers:
        """Roll integers in [0, limit).

        Args:
            limit: Exclusive upper bound, at least 1: one for all, or (samples, count).
            count: Rolls per sample.

        Returns:
            (samples, count) int64; uniform but for a bias below limit / 2**64.

        Raises:
            ValueError: If the samples have no rolls left.
        """
        if self._used + count > self._bits.shape[1]:
            raise ValueError(f"{count} rolls asked for, {self._bits.shape[1] - self._used} left")
        bits = self._bits[:, self._used : self._used + count]
        self._used += count
        return np.asarray(bits % np.asarray(limit, dtype=np.uint64), dtype=np.int64)

    def colours(self, count: int = 1) -> Integers:
        """Roll (samples, count, 3) colours, each channel in [0, 256)."""
        packed = self.below(1 << 24, count)
        return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1)
