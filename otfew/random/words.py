"""Raw 64-bit words of a key: what all that is drawn here is made of, the same on every machine.

They come from Philox, a counter-based generator whose words are specified and never change, unlike the distributions
and shuffles of libraries.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


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


def permutation(count: int, key: int) -> npt.NDArray[np.int64]:
    """Shuffle ``range(count)``: (count,) int64, the order of as many words of a key."""
    words = np.random.Philox(key=key).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)
