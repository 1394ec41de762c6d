"""Intervals of a mean over photos that are not independent: by folder and by class at once, and by source.

A photo is like others of its folder, on which one method was chosen, and like others of its class, which return in
other folders. With weights w_i that sum to 1 and residuals e_i = w_i (x_i - m), m the weighted mean of the photo's
source, the variance of the mean is

    V = V_folder + V_class - V_both,    V_g = G / (G - S) sum_g (sum_{i in g} e_i)^2,

for G clusters in S sources (Cameron, Gelbach and Miller 2011, two-way; the factor is that of G - S degrees of
freedom). It holds for other folders and classes of the same sources. What another source would add is V_source,
(sd of the S sources' means)^2 / S for sources of equal weight: with four of them a wide interval, of three degrees of
freedom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clustered:
    """A mean with two 95 % intervals.

    Attributes:
        mean: Weighted.
        within: (low, high), over folders and classes of these very sources.
        across: (low, high), over sources as well; None with fewer than two.
    """

    mean: float
    within: tuple[float, float]
    across: tuple[float, float] | None

    @property
    def low(self) -> float:
        """The lower of both lower bounds."""
        return min(self.within[0], math.inf if self.across is None else self.across[0])


def clustered(values: Floats, weights: Floats, folders: Indices, classes: Indices, sources: Indices) -> Clustered:
    """Average photos and say how far the mean is to be trusted (Cameron, Gelbach and Miller 2011, two-way clusters).

    Args:
        values: (photos,) float64.
        weights: (photos,) float64 above 0, of any sum.
        folders: (photos,) ids, each of one source.
        classes: (photos,) ids, each of one source.
        sources: (photos,) ids.

    Returns:
        The mean with its intervals.

    Raises:
        ValueError: No photos, or no more folders or classes than sources.
    """
    if not len(values):
        raise ValueError("there are no values: give one at least")
    shares = weights / weights.sum()
    names, place = np.unique(sources, return_inverse=True)
    mass = np.bincount(place, weights=shares)
    means = np.bincount(place, weights=shares * values) / mass
    mean = float((shares * values).sum())
    residuals = shares * (values - means[place])
    both = np.unique(np.stack([folders, classes], 1), axis=0, return_inverse=True)[1].reshape(-1)
    counts = [len(np.unique(ids)) for ids in (folders, classes)]
    if min(counts) <= len(names):
        raise ValueError(f"{counts[0]} folders and {counts[1]} classes are too few for {len(names)} sources")
    one, other, joint = (_variance(residuals, ids, len(names)) for ids in (folders, classes, both))
    # The difference may come out below either part by chance; it is never taken for less than the larger of them.
    error = math.sqrt(max(one + other - joint, one, other))
    half = float(stats.t.ppf(0.975, min(counts) - len(names))) * error
    across = None
    if len(names) > 1:
        spread = math.sqrt(len(names) / (len(names) - 1) * float(((mass * (means - mean)) ** 2).sum()))
        wide = float(stats.t.ppf(0.975, len(names) - 1)) * spread
        across = (mean - wide, mean + wide)
    return Clustered(mean, (mean - half, mean + half), across)


def _variance(residuals: Floats, ids: Indices, sources: int) -> float:
    """Square the sums over clusters."""
    _, place = np.unique(ids, return_inverse=True)
    sums = np.bincount(place, weights=residuals)
    # Where every photo is a cluster of its own there are as many as photos, and more than sources.
    return len(sums) / max(1, len(sums) - sources) * float((sums**2).sum())
