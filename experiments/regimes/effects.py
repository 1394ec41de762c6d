"""What exact transport adds in a cell, and on average over cells, with intervals over episodes, classes and networks.

Classes and networks are crossed, since all networks of a cell see the same episodes: see ``otfew.statistics.crossed``.
With fewer than three networks of a kind an effect holds for these networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from otfew.statistics.crossed import Spread, crossed, summed
from otfew.statistics.intervals import estimate

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Means = Mapping[tuple[str, int], float]

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
        classes: What classes do to the mean; None where that cannot be had.
        networks: What networks do to it; None where there are fewer than three.
    """

    mean: float
    episodes: float
    classes: Spread | None
    networks: Spread | None = None

    @property
    def half(self) -> float | None:
        """Half of the 95 % interval, the widest; None where one is unknown."""
        if self.classes is None or math.isnan(self.episodes):
            return None
        return max(self.episodes, crossed(self.mean, self._sources)[0])

    @property
    def p(self) -> float | None:
        """Two-sided, of no difference on other classes, and networks where there are three."""
        return None if self.classes is None else crossed(self.mean, self._sources)[1]

    @property
    def _sources(self) -> list[Spread]:
        return [source for source in (self.classes, self.networks) if source is not None]

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
    """Average effects on data sets of their own, which weigh alike: variances add, and are divided by k^2.

    Raises:
        ValueError: There is none.
    """
    if not effects:
        raise ValueError("there is no effect to be averaged")
    k = len(effects)
    mean = float(np.mean([e.mean for e in effects]))
    episodes = math.sqrt(sum(e.episodes**2 for e in effects)) / k
    classes = [e.classes for e in effects if e.classes is not None]
    networks = [e.networks for e in effects if e.networks is not None]
    return Effect(mean, episodes, _shared(classes, k) if len(classes) == k else None, _shared(networks, k))


def _shared(sources: Sequence[Spread], k: int) -> Spread | None:
    """Say what independent sources do to a mean of k, of which each moves one."""
    if not sources:
        return None
    found = summed(sources)
    return Spread(found.standard_error / k, found.degrees)


def together(cells: Sequence[Sequence[Counted]], control: str) -> Effect:
    """Average over cells of one data set, whose episodes have the same classes, episode by episode, in points.

    Cells weigh alike, and in a cell its networks. What networks do is told by their means over the cells that share
    them; such groups of cells, whose networks are of different kinds, are independent, and of fewer than three networks
    one holds for these.

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
    each = [np.stack([100 * _difference(one.shares, control) for one in cell]) for cell in cells]
    found = _over_classes(np.mean([values.mean(0) for values in each], axis=0), first)
    sources = []
    for kind in _kinds([_by_network(cell, values) for cell, values in zip(cells, each, strict=True)]):
        common = [name for name in kind[0] if all(name in own for own in kind)]
        spread = _over_networks([float(np.mean([own[name] for own in kind])) for name in common])
        if spread is not None:
            sources.append(Spread(spread.standard_error * len(kind) / len(cells), spread.degrees))
    return replace(found, networks=summed(sources) if sources else None)


def _by_network(cell: Sequence[Counted], values: Floats) -> Means:
    """Average (networks, episodes) values of each network; those of one name are told apart by their order."""
    names = [one.network for one in cell]
    keys = [(name, names[:k].count(name)) for k, name in enumerate(names)]
    return dict(zip(keys, values.mean(1).tolist(), strict=True))


def _kinds(cells: Sequence[Means]) -> list[list[Means]]:
    """Put cells that share a network, by themselves or through others, into one group."""
    kinds: list[list[Means]] = []
    for cell in cells:
        shares = [any(cell.keys() & other.keys() for other in kind) for kind in kinds]
        joined = [one for kind, own in zip(kinds, shares, strict=True) if own for one in kind]
        kinds = [*(kind for kind, own in zip(kinds, shares, strict=True) if not own), [*joined, cell]]
    return kinds


def _over_networks(means: Sequence[float]) -> Spread | None:
    """Say what networks do to the mean over them; None where there are fewer than three."""
    if len(means) < LEAST_NETWORKS:
        return None
    return Spread(math.sqrt(float(np.var(means, ddof=1)) / len(means)), len(means) - 1)


def _difference(shares: Floats, control: str) -> Floats:
    return np.asarray(shares[0] - shares[METHODS.index(control)], np.float64)


def _effect(counted: Sequence[Counted], values: Floats) -> Effect:
    """Estimate the mean of (networks, episodes) values."""
    first = counted[0]
    if any(not np.array_equal(one.classes, first.classes) for one in counted):
        raise ValueError("networks of a cell must see the same episodes")
    return replace(_over_classes(values.mean(0), first), networks=_over_networks(values.mean(1).tolist()))


def _over_classes(values: Floats, one: Counted) -> Effect:
    """Estimate the mean of (episodes,) values with what episodes and classes do to it."""
    found = estimate(values, one.classes, one.names)
    error, degrees = found.jackknife.standard_error, found.jackknife.degrees
    return Effect(found.mean, found.episode_half_width, None if error is None else Spread(error, degrees))


Table = Mapping[str, Sequence[Counted]]
"""Id of a cell -> what its networks' methods got right."""
