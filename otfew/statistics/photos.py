"""How a mean over episodes varies with the photos, where the classes are these and no others.

Every class is in each episode, so that leaving classes out says nothing. What is random is which photos there are: each
has a part in the figure as one that is labelled and as one that is asked about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from otfew.statistics.intervals import LEAST_EPISODES, Estimate, Jackknife, episode_half_width

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Roles:
    """Who was what in which episode.

    Attributes:
        support: (episodes, labelled) indices of photos.
        query: (episodes, queries) indices of photos; none of an episode is in both, or twice.
        classes: (photos,) class of each photo; -1 for those that have no part.
    """

    support: Indices
    query: Indices
    classes: Indices


def photo_jackknife(values: Floats, roles: Roles) -> Jackknife:
    """Estimate how the mean of values varies with the choice of photos of these classes.

    theta_i is the mean over the episodes in which photo i is not labelled, without what is said of i itself. Photos are
    drawn class by class, so that the variance is sum_c (n_c - 1) / n_c sum_{i in c} (theta_i - mean theta of c)^2.

    Args:
        values: (episodes, queries) float64, such as whether each query was classified rightly.
        roles: Of the same episodes.

    Returns:
        The spread of the mean over photos, or the reason why there is none: fewer than 30 episodes in which some photo
        is not labelled.
    """
    episodes, queries = values.shape
    photos = len(roles.classes)
    means = values.mean(1)
    rows = np.repeat(np.arange(episodes), roles.support.shape[1])
    labelled = roles.support.ravel()
    remaining = episodes - np.bincount(labelled, minlength=photos)
    sums = means.sum() - np.bincount(labelled, weights=means[rows], minlength=photos)
    if queries > 1:
        # Without its own query, an episode's mean is over the others.
        others = (values.sum(1)[:, None] - values) / (queries - 1) - means[:, None]
        sums = sums + np.bincount(roles.query.ravel(), weights=others.ravel(), minlength=photos)
    present = np.flatnonzero(roles.classes >= 0)
    counts = np.bincount(roles.classes[present])
    degrees = int((counts[counts > 0] - 1).sum())
    worst = int(remaining[present].min())
    if worst < LEAST_EPISODES:
        reason = f"only {worst} of {episodes} episodes do without some photo; {LEAST_EPISODES} needed"
        return Jackknife(None, None, degrees, reason)
    theta = sums[present] / remaining[present]
    factors = 1 - 1 / counts[roles.classes[present]]
    centres = (
        np.bincount(roles.classes[present], weights=theta)[roles.classes[present]] / counts[roles.classes[present]]
    )
    variance = float((factors * (theta - centres) ** 2).sum())
    error = math.sqrt(variance)
    # Were photos alike, theta_i would still differ: by the variance of a mean of those episodes about that of all.
    noise = float(means.var(ddof=1)) * float((factors * (1 / remaining[present] - 1 / episodes)).sum())
    share = min(1.0, noise / variance) if variance > 0 else None
    return Jackknife(error, float(stats.t.ppf(0.975, degrees)) * error, degrees, noise_share=share)


def estimate(values: Floats, roles: Roles) -> Estimate:
    """Average queries, with both intervals; a difference is an estimate of paired differences, query by query.

    Args:
        values: (episodes, queries) float64.
        roles: Of the same episodes.

    Returns:
        The mean with half-widths over episodes and over photos.
    """
    means = values.mean(1)
    return Estimate(float(means.mean()), episode_half_width(means), photo_jackknife(values, roles), over="photos")
