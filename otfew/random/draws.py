"""Random numbers that are a pure function of a key: the same on every machine, in every order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from otfew.random.keys import key128

_AT_ONCE = 16


def uniforms(*key: str | int) -> Iterator[float]:
    """Yield independent numbers, uniform in [0, 1), for ever.

    Only raw bits of a counter-based generator (Philox) are used: the distributions of ``numpy.random`` may change
    between versions.

    Args:
        *key: A seed and an image's name, say; different keys give unrelated streams.
    """
    generator = np.random.Philox(key=key128(repr(key)))
    while True:
        yield from ((generator.random_raw(_AT_ONCE) >> np.uint64(11)) * 2.0**-53).tolist()


def uniform_array(count: int, *key: str | int) -> npt.NDArray[np.float64]:
    """Draw the first ``count`` of ``uniforms(*key)`` at once."""
    generator = np.random.Philox(key=key128(repr(key)))
    return np.asarray((generator.random_raw(count) >> np.uint64(11)) * 2.0**-53, np.float64)
