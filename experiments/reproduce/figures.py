"""What the answers of a run say of its arms and of their differences: a reader for each kind of command.

Figures are in per cent or points of the run's own measure; those of solvers are ratios of times.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError
from otfew.experiments.reproduce.answers import STEPS, Answers
from otfew.statistics import seeds as seed_statistics
from otfew.statistics.crossed import Spread
from otfew.statistics.intervals import Estimate, Z, episode_half_width, estimate, p_value
from otfew.statistics.units import as_units

Floats = npt.NDArray[np.float64]
DIGITS = 6
TIMED_BATCH = 50
"""Problems in the batches whose times are compared: those of the table of solver_timings."""


@dataclass(frozen=True)
class Figure:
    """A mean with its intervals, each of which holds the other sources fixed.

    Attributes:
        mean: In per cent or points, or a ratio.
        intervals: What varies (episodes, classes, queries, images, networks, seeds, runs) -> half of a 95 % interval.
        p: Two-sided, of "no difference on other classes", or on other images where classes are fixed, or on other seeds
            where only those are known; None for levels and where it can't be had.
        seeds: Networks, seeds or runs that it is a mean over.
        degrees: What varies -> degrees of freedom of its Student's t, for classes; those of networks, seeds and runs
            are one fewer than there are, images are taken for normal.
    """

    mean: float
    intervals: Mapping[str, float] = field(default_factory=dict)
    p: float | None = None
    seeds: int = 1
    degrees: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Round, so that the order of additions leaves no trace."""
        return {
            **asdict(self),
            "mean": round(self.mean, DIGITS),
            "intervals": {name: round(value, DIGITS) for name, value in self.intervals.items()},
            "p": None if self.p is None else float(f"{self.p:.4g}"),
        }


class Reader(ABC):
    """The answers of a finished run.

    Args:
        answers: Of the reader's kind.
        name: Of the run, for messages.
    """

    KIND: ClassVar[str]
    """Of answers that this reads."""

    def __init__(self, answers: Answers, name: str) -> None:
        self.about, self.arrays, self.name = answers.about, answers.arrays, name

    @abstractmethod
    def level(self, key: str, measure: str) -> Figure:
        """Measure one arm."""

    @abstractmethod
    def difference(self, key: str, other: Reader, other_key: str, measure: str) -> Figure:
        """Compare an arm with one of this run or of another."""

    def _missing(self, key: str) -> UserError:
        return UserError(f"the run {self.name} has no arm {key!r}.")


class UnitReader(Reader):
    """A run whose arms were asked about the same units: episodes, images or queries.

    Differences are paired unit by unit, also between arms of two runs that saw the same ones.
    """

    @abstractmethod
    def values(self, key: str) -> Floats:
        """Return what each unit says of an arm, (units,), as a fraction of 1."""

    @abstractmethod
    def same(self, key: str) -> Any:
        """Say of which units an arm is; equal for arms that can be compared."""

    @abstractmethod
    def figure(self, key: str, values: Floats) -> Figure:
        """Average values of the units of an arm, with intervals and p."""

    def level(self, key: str, measure: str) -> Figure:
        """Return the mean."""
        return replace(self.figure(key, self.values(key)), p=None)

    def difference(self, key: str, other: Reader, other_key: str, measure: str) -> Figure:
        """Return the mean of paired differences."""
        return self.figure(key, _paired((self, key), (other, other_key)))


class EpisodeReader(UnitReader):
    """Runs on episodes: accuracies."""

    KIND = "episodes"

    def values(self, key: str) -> Floats:
        """Return the accuracy of each episode."""
        panel, method = self._panel(key)
        if method not in panel["methods"]:
            raise self._missing(key)
        right: Floats = self.arrays[panel["right"]][panel["methods"].index(method)] / panel["queries"]
        return right

    def same(self, key: str) -> Any:
        """Say which episodes an arm saw."""
        panel, _ = self._panel(key)
        asked = {name: panel[name] for name in ("way", "shot", "query", "seed", "query_balance", "data")}
        names = panel["class_names"]
        return asked, [[names[i] for i in row] for row in self.arrays[panel["classes"]].tolist()]

    def figure(self, key: str, values: Floats) -> Figure:
        """Average episodes, with intervals over them and over classes."""
        panel, _ = self._panel(key)
        classes = self.arrays[panel["classes"]].astype(np.int64)
        drawn, names = as_units(classes, panel["class_names"], panel.get("class_units", ()))
        return _from_estimate(estimate(values, drawn, names), "episodes")

    def _panel(self, key: str) -> tuple[Mapping[str, Any], str]:
        name, _, method = key.rpartition(" / ")
        if name not in self.about["panels"]:
            raise self._missing(key)
        return self.about["panels"][name], method


class LongTailReader(UnitReader):
    """Long-tailed training: accuracy on the test images, second stages averaged over seeds on one first stage.

    Their classes are fixed by design, so that intervals are over images, and over first stages where runs have several.
    """

    KIND = "long-tail"

    def values(self, key: str) -> Floats:
        """Return the share of seeds that get each image right."""
        if key not in self.about["arms"]:
            raise self._missing(key)
        packed = self.arrays[self.about["arms"][key]]
        right: Floats = np.unpackbits(packed, axis=1, count=self.about["images"]).mean(0)
        return right

    def same(self, key: str) -> Any:
        """Say which test images an arm saw."""
        return self.about["same"], self.about["images"]

    def figure(self, key: str, values: Floats) -> Figure:
        """Average images."""
        mean, half = 100 * float(values.mean()), 100 * episode_half_width(values)
        return Figure(mean, {"images": half}, normal_p(mean, half))


class RetrievalReader(UnitReader):
    """Retrieval: MAP@R."""

    KIND = "retrieval"

    def values(self, key: str) -> Floats:
        """Return MAP@R of each query."""
        if key not in self.about["rankings"]:
            raise self._missing(key)
        found: Floats = self.arrays["map_at_r"][self.about["rankings"].index(key)] / STEPS
        return found

    def same(self, key: str) -> Any:
        """Say of which queries an arm is."""
        return self.about["same"], self.arrays["classes"].tolist()

    def figure(self, key: str, values: Floats) -> Figure:
        """Average queries, with intervals over them and over their classes."""
        classes = self.arrays["classes"].astype(np.int64)[:, None]
        drawn, names = as_units(classes, self.about["class_names"], self.about.get("class_units", ()))
        return _from_estimate(estimate(values, drawn, names), "queries")


class MetricReader(Reader):
    """Metric learning: mAP, paired by seed."""

    KIND = "metric"
    MEASURES: ClassVar[dict[str, Callable[[Floats], Floats]]] = {
        "first_epoch": lambda maps: maps[:, 1],
        "mean_of_epochs": lambda maps: maps[:, 1:].mean(1),
        "last_epoch": lambda maps: maps[:, -1],
    }

    def level(self, key: str, measure: str) -> Figure:
        """Return the mean over seeds."""
        return _from_seeds(seed_statistics.estimate(list(self._values(key, measure).values())))

    def difference(self, key: str, other: Reader, other_key: str, measure: str) -> Figure:
        """Return the mean of differences over the seeds of both."""
        if not isinstance(other, MetricReader):
            raise UserError(f"{other.name} is no run of metric learning: {key!r} can't be compared with it.")
        if self.about["same"] != other.about["same"]:
            raise UserError(f"{key!r} of {self.name} and {other_key!r} of {other.name} saw other images.")
        runs = {"left": self._values(key, measure), "right": other._values(other_key, measure)}
        found = seed_statistics.differences(runs, "right")["left"]
        if found is None:
            raise UserError(f"{key!r} and {other_key!r} share no seed.")
        return _from_seeds(found.estimate, found.p)

    def _values(self, key: str, measure: str) -> dict[int, float]:
        losses = self.about["losses"]
        if key not in losses or measure not in self.MEASURES:
            raise self._missing(f"{key} by {measure or 'no measure'}")
        if not losses[key]["seeds"]:
            raise UserError(f"{key!r} of {self.name} diverged with every seed.")
        values = self.MEASURES[measure](self.arrays[losses[key]["map"]])
        return dict(zip(losses[key]["seeds"], values.tolist(), strict=True))


class SolverReader(Reader):
    """Solver timings: how many times as long one takes as another, on 50 problems of the most nodes that both have."""

    KIND = "times"

    def level(self, key: str, measure: str) -> Figure:
        """Return the ratio for an arm "SLOW over FAST"; "SOLVER at N" names a number of nodes."""
        slow, _, fast = key.partition(" over ")
        times: dict[int, dict[str, float]] = {}
        for (solver, n, batch), found in zip(self.about["rows"], self.arrays["forward_ms"].tolist(), strict=True):
            if batch == TIMED_BATCH:
                times.setdefault(n, {})[solver] = found
        sides = [side.partition(" at ")[::2] for side in (slow, fast)]
        both = [n for n, found in times.items() if {solver for solver, _ in sides} <= found.keys()]
        try:
            one, two = (times[int(n) if n else max(both)][solver] for solver, n in sides)
        except (KeyError, ValueError):
            raise self._missing(key) from None
        return Figure(one / two)

    def difference(self, key: str, other: Reader, other_key: str, measure: str) -> Figure:
        """Refuse: an arm is a comparison already."""
        raise UserError(f"{key!r} and {other_key!r} are ratios of times: claim a level of one.")


_READERS: dict[str, type[Reader]] = {
    reader.KIND: reader for reader in (EpisodeReader, MetricReader, LongTailReader, RetrievalReader, SolverReader)
}


def reader_of(answers: Answers, name: str) -> Reader:
    """Choose the reader of a run's answers.

    Raises:
        UserError: They are of no kind that is known.
    """
    kind = answers.about.get("kind")
    if kind not in _READERS:
        raise UserError(f"the answers of {name} are of an unknown kind, {kind!r}: restore them from the repository.")
    return _READERS[kind](answers, name)


Side = tuple[Reader, str]
"""A run and the name of an arm in it."""


def difference(pairs: Sequence[tuple[Side, Side]], measure: str) -> Figure:
    """Compare two arms, averaged over networks where there are several pairs.

    Several pairs must be runs on the same episodes or images: their differences are averaged unit by unit, which gives
    the intervals over episodes and classes, or over images, and network by network, which gives Student's t over
    networks. p is that over classes or images: the verdict crosses it with networks.

    Raises:
        UserError: An arm is not there, or runs that can't be compared.
    """
    if len(pairs) == 1:
        ((left, key), (right, other_key)) = pairs[0]
        return left.difference(key, right, other_key, measure)
    return _over_networks([left for left, _ in pairs], [_paired(left, right) for left, right in pairs])


def level(sides: Sequence[Side], measure: str) -> Figure:
    """Measure an arm, averaged over networks, or over runs of a clock, where there are several.

    Raises:
        UserError: An arm is not there, or runs that can't be averaged.
    """
    if len(sides) == 1:
        reader, key = sides[0]
        return reader.level(key, measure)
    if all(isinstance(reader, SolverReader) for reader, _ in sides):
        found = seed_statistics.estimate([reader.level(key, measure).mean for reader, key in sides])
        return Figure(found.mean, {} if found.half_width is None else {"runs": found.half_width}, None, found.seeds)
    return replace(_over_networks(sides, [_of_units(side).values(side[1]) for side in sides]), p=None)


def normal_p(mean: float, half_width: float) -> float:
    """Two-sided p of "the mean is 0", from half of a normal 95 % interval."""
    return Spread(half_width / Z).p_value(mean)


def _paired(left: Side, right: Side) -> Floats:
    one, two = _of_units(left), _of_units(right)
    _need_same(left, right)
    return one.values(left[1]) - two.values(right[1])


def _need_same(one: Side, two: Side) -> None:
    """Refuse arms that were asked about other units."""
    if one[0] is two[0] and one[1].rpartition(" / ")[0] == two[1].rpartition(" / ")[0]:
        return
    if _of_units(one).same(one[1]) != _of_units(two).same(two[1]):
        raise UserError(f"{one[1]!r} of {one[0].name} and {two[1]!r} of {two[0].name} saw other episodes or images.")


def _over_networks(sides: Sequence[Side], values: Sequence[Floats]) -> Figure:
    for side in sides[1:]:
        _need_same(sides[0], side)
    found = _of_units(sides[0]).figure(sides[0][1], np.mean(values, axis=0))
    over = seed_statistics.estimate([100 * float(network.mean()) for network in values]).half_width
    intervals = {} if over is None else {"networks": over}
    return replace(found, intervals={**found.intervals, **intervals}, seeds=len(values))


def _of_units(side: Side) -> UnitReader:
    reader = side[0]
    if not isinstance(reader, UnitReader):
        raise UserError(f"{reader.name} is no run on episodes or images: it can't be averaged with others.")
    return reader


def _from_estimate(found: Estimate, draws: str) -> Figure:
    intervals, degrees = {draws: 100 * found.episode_half_width}, {}
    if found.jackknife.half_width is not None:
        intervals["classes"] = 100 * found.jackknife.half_width
        degrees["classes"] = found.jackknife.degrees
    return Figure(100 * found.mean, intervals, p_value(found), 1, degrees)


def _from_seeds(found: seed_statistics.SeedEstimate, p: float | None = None) -> Figure:
    intervals = {} if found.half_width is None else {"seeds": 100 * found.half_width}
    return Figure(100 * found.mean, intervals, p, found.seeds)
