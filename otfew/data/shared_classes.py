"""Data sets whose published train and test parts hold the same classes: a validation part is kept back from train."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from otfew.data.base import Split
from otfew.random.keys import digest

NOTE = "train, val and test share all classes"
VAL_SHARE = 0.1
"""Share of each class's published training images that is kept back."""


def part_of(split: Split, names: Sequence[str], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Choose the images of "train" or "val" among the published training images.

    Within a class, images rank by the sha256 of their name; the first tenth is val. The choice depends neither on the
    order of the images nor on the machine.

    Args:
        split: "train" or "val".
        names: (images,) unique.
        labels: (images,).

    Returns:
        Indices, ascending.
    """
    ranks = np.array([int.from_bytes(digest(name)[:8], "big") for name in names], np.uint64)
    kept_back = np.zeros(len(names), dtype=bool)
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        kept_back[members[ranks[members].argsort(kind="stable")][: round(VAL_SHARE * len(members))]] = True
    return np.nonzero(kept_back if split == "val" else ~kept_back)[0]
