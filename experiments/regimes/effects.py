"""What exact transport adds in a cell, and on average over cells, with intervals over episodes, classes and networks.

Classes and networks are crossed: all networks of a cell see the same episodes. The variance of the mean over both is
the jackknife over classes of what the networks give on average, plus s^2 / N over N >= 3 networks; what both share is
counted twice then, which errs on the wide side. With fewer networks an effect holds for these networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from otfew.statistics.intervals import estimate

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

TRANSPORT = "deepemd"
CONTROLS = ("chamfer", "product-coupling")
"""On the same nodes, with the same weights."""
METHODS = (TRANSPORT, *CONTROLS)
LEAST_NETWORKS = 3
"""Fewer say nothing about others of their kind."""


@dataclass(frozen=True)
class Counted:
    """What one network's methods got right in the episodes of a cell.

    Attributes:
        network: Its name.
        right: (methods, episodes) int64, in the order of ``METHODS``.
        queries: Of an episode.
        classes: (episodes, way) indices into ``names``.
        names: Of the classes.
    """

    network: str
    right: Indices
    queries: int
    classes: Indices
    names: tuple[str, ...]

    @property
    def shares(self) -> Floats:
        """Accuracies: (methods, episodes)."""
        return np.asarray(self.right / self.queries, np.float64)


@dataclass(frozen=True)
class Effect:
    """A difference with its errors.

    Attributes:
        mean: Of the difference.
        episodes: Half of the 95 % interval over episodes of these classes.
        error: Standard error over classes, and over networks where there are three; None where it cannot be had.
        degrees: Of freedom that belong to it.
        networks: How many, at the least.
    """

    mean: float
    episodes: float
    error: float | None
    degrees: float
    networks: int

    @property
    def half(self) -> float | None:
        """Half of the 95 % interval: the wider of both; None where one is unknown."""
        if self.error is None or math.isnan(self.episodes):
            return None
        return max(self.episodes, float(stats.t.ppf(0.975, self.degrees)) * self.error)

    @property
    def p(self) -> float | None:
        """Two-sided, of no difference on other classes."""
        if self.error is None:
            return None
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.degrees))

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half is None else self.mean + self.half


def points(counted: Sequence[Counted], control: str) -> Effect:
    """Estimate accuracy with transport minus that of a control, in points.

    Args:
        counted: Of each network, on the same episodes.
        control: A member of ``CONTROLS``.
    """
    return _effect(counted, np.stack([100 * _difference(one.shares, control) for one in counted]))


def log_odds(counted: Sequence[Counted], control: str) -> Effect | None:
    """Estimate the difference of log-odds of a right answer, which a level near 0 or 100 % does not squeeze.

    By the delta method: log(p / (1 - p)) moves by (x - p) / (p (1 - p)) with an episode's share x.

    Args:
        counted: Of each network, on the same episodes.
        control: A member of ``CONTROLS``.

    Returns:
        None where a method is always right or always wrong.
    """
    rows = []
    for one in counted:
        pair = one.shares[[0, METHODS.index(control)]]
        p = pair.mean(1, keepdims=True)
        if not ((p > 0) & (p < 1)).all():
            return None
        moved = np.log(p / (1 - p)) + (pair - p) / (p * (1 - p))
        rows.append(moved[0] - moved[1])
    return _effect(counted, np.stack(rows))


def accuracies(counted: Sequence[Counted]) -> dict[str, float]:
    """Average each method over networks and episodes, in per cent."""
    means = np.mean([one.shares.mean(1) for one in counted], axis=0)
    return {name: float(100 * mean) for name, mean in zip(METHODS, means, strict=True)}


def averaged(effects: Sequence[Effect]) -> Effect:
    """Average effects on data sets of their own, which weigh alike: (sum se^2)^(1/2) / k.

    Degrees of freedom as Welch and Satterthwaite combine them.

    Raises:
        ValueError: There is none.
    """
    if not effects:
        raise ValueError("there is no effect to be averaged")
    k = len(effects)
    mean = float(np.mean([e.mean for e in effects]))
    episodes = math.sqrt(sum(e.episodes**2 for e in effects)) / k
    networks = min(e.networks for e in effects)
    errors = [e.error for e in effects if e.error is not None]
    if len(errors) < k:
        return Effect(mean, episodes, None, min(e.degrees for e in effects), networks)
    parts = [(error**2, e.degrees) for error, e in zip(errors, effects, strict=True)]
    variance, degrees = _combined(parts)
    return Effect(mean, episodes, math.sqrt(variance) / k, degrees, networks)


def together(cells: Sequence[Sequence[Counted]], control: str) -> Effect:
    """Average over cells of one data set, whose episodes have the same classes, episode by episode, in points.

    Args:
        cells: Of each cell its networks.
        control: A member of ``CONTROLS``.

    Raises:
        ValueError: There is no cell, or one has other classes in its episodes.
    """
    if not cells:
        raise ValueError("there is no cell to be averaged")
    first = cells[0][0]
    if any(not np.array_equal(cell[0].classes, first.classes) for cell in cells):
        raise ValueError("cells whose episodes have other classes are not averaged episode by episode")
    each = [np.mean([100 * _difference(one.shares, control) for one in cell], axis=0) for cell in cells]
    found = estimate(np.mean(each, axis=0), first.classes, first.names)
    jackknife = found.jackknife
    networks = min(len(cell) for cell in cells)
    return Effect(found.mean, found.episode_half_width, jackknife.standard_error, jackknife.degrees, networks)


def _difference(shares: Floats, control: str) -> Floats:
    return np.asarray(shares[0] - shares[METHODS.index(control)], np.float64)


def _effect(counted: Sequence[Counted], values: Floats) -> Effect:
    """Estimate the mean of (networks, episodes) values."""
    first = counted[0]
    if any(not np.array_equal(one.classes, first.classes) for one in counted):
        raise ValueError("networks of a cell must see the same episodes")
    found = estimate(values.mean(0), first.classes, first.names)
    error, degrees = found.jackknife.standard_error, float(found.jackknife.degrees)
    episodes, count = found.episode_half_width, len(values)
    if error is not None and count >= LEAST_NETWORKS:
        spread = float(values.mean(1).var(ddof=1)) / count
        variance, degrees = _combined([(error**2, degrees), (spread, float(count - 1))])
        error = math.sqrt(variance)
    return Effect(found.mean, episodes, error, degrees, count)


def _combined(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Add variances with their degrees of freedom (Welch and Satterthwaite)."""
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0, min(degrees for _, degrees in parts)
    return total, total**2 / sum(variance**2 / degrees for variance, degrees in parts)


Table = Mapping[str, Sequence[Counted]]
"""Id of a cell -> what its networks' methods got right."""
