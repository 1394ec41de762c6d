"""Held-out photos weighed as if new ones came evenly from the classes, however many are labelled of each.

A class of many photos has more of them held out, and is known better. An average over photos would say how well photos
are answered that come as the labelled ones do, which is higher where new ones come from all classes alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evenly:
    """Weights of held-out rows: classes weigh alike, in a class its units, in a unit its rows.

    Attributes:
        rows: (rows,) of total 1.
        classes: How many classes some photo of which was held out; the others are left out of every average.
        effective: Units of equal weight whose average would vary as much as this one, (sum w)^2 / sum w^2 (Kish 1965):
            their number where as many of each class were held out, fewer elsewhere.
        even: Whether as many of each class were held out, so that all units weigh alike.
    """

    rows: Floats
    classes: int
    effective: float
    even: bool

    @classmethod
    def of(cls, labels: Indices, units: Indices) -> Evenly:
        """Weigh rows, at least one.

        Args:
            labels: (rows,) true classes.
            units: (rows,) ids of near-duplicate groups; one that spans classes counts in each.
        """
        pairs, place, count = np.unique(np.stack([labels, units]), axis=1, return_inverse=True, return_counts=True)
        _, own, each = np.unique(pairs[0], return_inverse=True, return_counts=True)
        weights = 1 / (len(each) * each[own])
        place = place.reshape(-1)
        rows = (weights / count)[place]
        return cls(rows, len(each), float(1 / (weights**2).sum()), bool((each == each[0]).all()))

    def mean(self, values: Floats) -> float:
        """Average values (rows,)."""
        return float(self.rows @ values)
