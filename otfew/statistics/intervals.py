"""Intervals, paired differences and verdicts.

Two intervals, because two things are random: the episodes that were drawn from these classes, and the classes
themselves. The first shrinks as one draws more episodes and says nothing about other classes; claims rest on the wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Z = 1.96
LEAST_EPISODES = 30
"""Fewer episodes without a class than this and its leave-one-out mean says nothing."""


@dataclass(frozen=True)
class Jackknife:
    """Spread of a mean over classes.

    Attributes:
        standard_error: Of the mean, or None where it cannot be had.
        half_width: Of the 95 % interval, by Student's t with classes - 1 degrees of freedom, or None.
        degrees: Degrees of freedom.
        reason: Why there is none, or "".
        noise_share: Expected share of the variance that is there because episodes are finitely many; more episodes
            remove it. Near 1 the interval says little about the classes and errs wide.
    """

    standard_error: float | None
    half_width: float | None
    degrees: int
    reason: str = ""
    noise_share: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes with both intervals.

    Attributes:
        mean: Over episodes.
        episode_half_width: 1.96 s / sqrt(n): over episodes from these very classes.
        jackknife: Over classes, or over photos of fixed classes.
        over: Which of them.
    """

    mean: float
    episode_half_width: float
    jackknife: Jackknife
    over: str = "classes"

    @property
    def half_width(self) -> float | None:
        """The wider of the two, or None where the jackknife's is unknown."""
        if self.jackknife.half_width is None:
            return None
        return max(self.episode_half_width, self.jackknife.half_width)


def episode_half_width(values: Floats) -> float:
    """Compute half of the usual 95 % interval of a mean: 1.96 s / sqrt(n).

    Args:
        values: (episodes,) float64.

    Returns:
        The half-width, in units of the values; NaN for one episode.
    """
    if len(values) < 2:
        return math.nan
    return Z * float(values.std(ddof=1)) / math.sqrt(len(values))


def class_jackknife(values: Floats, classes: npt.NDArray[np.int64], names: Sequence[str]) -> Jackknife:
    """Estimate how a mean over episodes varies with the choice of classes.

    theta_c is the mean over the episodes without class c; the variance is (C - 1) / C * sum_c (theta_c - mean theta)^2
    (Efron and Stein 1981). Episodes are few where many contain c, and the noise of theta_c then adds to the spread: the
    interval errs on the wide side, the less the more episodes there are.

    Args:
        values: (episodes,) float64.
        classes: (episodes, way) int64, indices into ``names``.
        names: Of all the classes that episodes are drawn from.

    Returns:
        The spread of the mean over classes, or the reason why there is none: fewer than 30 episodes without some class.
    """
    n_classes = len(names)
    degrees = n_classes - 1
    contains = np.zeros((n_classes, len(values)), dtype=bool)
    contains[classes.T, np.arange(len(values))] = True
    remaining = (~contains).sum(1)
    worst = int(remaining.argmin())
    if remaining[worst] < LEAST_EPISODES:
        reason = (
            f"only {remaining[worst]} of {len(values)} episodes lack class {names[worst]!r}; {LEAST_EPISODES} needed"
        )
        return Jackknife(None, None, degrees, reason)
    theta = np.array([values[~row].mean() for row in contains])
    variance = degrees / n_classes * float(((theta - theta.mean()) ** 2).sum())
    error = math.sqrt(variance)
    # Were classes alike, theta_c would still differ: by the variance of a mean of those episodes about that of all.
    noise = degrees / n_classes * float(values.var(ddof=1)) * float((1 / remaining - 1 / len(values)).sum())
    share = min(1.0, noise / variance) if variance > 0 else None
    return Jackknife(error, float(stats.t.ppf(0.975, degrees)) * error, degrees, noise_share=share)


def estimate(values: Floats, classes: npt.NDArray[np.int64], names: Sequence[str]) -> Estimate:
    """Average episodes, with both intervals; a difference is an estimate of paired differences, episode by episode.

    Args:
        values: (episodes,) float64.
        classes: (episodes, way) int64, indices into ``names``.
        names: Of all the classes that episodes are drawn from.

    Returns:
        The mean with half-widths over episodes and over classes.
    """
    return Estimate(float(values.mean()), episode_half_width(values), class_jackknife(values, classes, names))


def p_value(difference: Estimate) -> float | None:
    """Compute the two-sided p of "no difference on other classes", by Student's t from the jackknife.

    Args:
        difference: An estimate of paired differences.

    Returns:
        p, or None where the jackknife has no standard error.
    """
    error = difference.jackknife.standard_error
    if error is None:
        return None
    if error == 0:
        return 1.0 if difference.mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference.mean) / error, difference.jackknife.degrees))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for their number (Holm 1979).

    The k-th smallest of m is multiplied by m - k + 1, kept from falling below its predecessors, and capped at 1.

    Args:
        p_values: Of questions asked together; None does not count.

    Returns:
        Corrected values in the order given; None stays None.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (p, i) in enumerate(known):
        running = max(running, min(1.0, (len(known) - rank) * p))
        adjusted[i] = running
    return adjusted


def verdict(difference: Estimate, adjusted_p: float | None, level: float = 0.05) -> str:
    """Put a difference into words: "better", "worse", "no difference shown" or "not assessed".

    A difference counts where Holm's p is below the level and the wider interval excludes zero.

    Args:
        difference: An estimate of paired differences.
        adjusted_p: As ``holm`` gives it; None where nobody knows.
        level: Of significance.

    Returns:
        One of the four.
    """
    if adjusted_p is None or difference.half_width is None:
        return "not assessed"
    if adjusted_p >= level or not abs(difference.mean) > difference.half_width:
        return "no difference shown"
    return "better" if difference.mean > 0 else "worse"
