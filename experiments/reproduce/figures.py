"""What a finished run says of its arms and of their differences: a reader for each kind of command.

Figures are in per cent or points of the run's own measure; those of solvers are ratios of times.
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError
from otfew.experiments.solver_timings.report import TABLE_BATCH
from otfew.statistics import seeds as seed_statistics
from otfew.statistics.intervals import Estimate, estimate, p_value

Floats = npt.NDArray[np.float64]
DIGITS = 6
DRAWS = {"episodes", "queries", "images"}
"""What varies even when classes and network stay."""


@dataclass(frozen=True)
class Figure:
    """A mean with its intervals.

    Attributes:
        mean: In per cent or points, or a ratio.
        intervals: What varies (episodes, classes, queries, images, seeds, runs) -> half of a 95 % interval.
        p: Two-sided, of "no difference on other classes", or on other seeds where only those are known; None for levels
            and where it can't be had.
        seeds: Networks, seeds or runs that it is a mean over.
    """

    mean: float
    intervals: Mapping[str, float] = field(default_factory=dict)
    p: float | None = None
    seeds: int = 1

    @property
    def half_width(self) -> float | None:
        """The widest interval, or None where all that is known is over the draws from the very same classes."""
        return max(self.intervals.values()) if set(self.intervals) - DRAWS else None

    def to_json(self) -> dict[str, Any]:
        """Round, so that the order of additions leaves no trace."""
        return {
            **asdict(self),
            "mean": round(self.mean, DIGITS),
            "intervals": {name: round(value, DIGITS) for name, value in self.intervals.items()},
            "p": None if self.p is None else float(f"{self.p:.4g}"),
        }


class Reader(ABC):
    """A finished run.

    Args:
        folder: Of the run.
    """

    COMMANDS: ClassVar[tuple[str, ...]]
    """What this reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: dict[str, Any] = json.loads((folder / "results.json").read_bytes())

    @abstractmethod
    def level(self, key: str, measure: str) -> Figure:
        """Measure one arm."""

    @abstractmethod
    def difference(self, key: str, other: Reader, other_key: str, measure: str) -> Figure:
        """Compare an arm with one of this run or of another."""

    def protocol(self) -> Any:
        """Say on what the figures rest."""
        return self.results["protocol"]

    def need_one_run(self, key: str, other: Reader, other_key: str) -> None:
        """Refuse arms of two runs where a run has compared its own arms only."""
        if other.folder != self.folder:
            raise UserError(
                f"{key!r} in {self.folder} and {other_key!r} in {other.folder} are arms of two runs, which neither has "
                "compared: claim two arms of one run."
            )

    def _missing(self, key: str) -> UserError:
        return UserError(f"{self.folder} has no arm {key!r}.")


class EpisodeReader(Reader):
    """Runs on episodes: every pair of arms on the same episodes can be compared, also of two runs."""

    COMMANDS = ("compare", "ablate-weights", "extractors", "shots", "cross-domain", "latent-space")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._accuracies: dict[str, list[float]] = {}
        with (folder / "episodes.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                key = " / ".join(row[name] for name in ("panel", "method") if name in row)
                self._accuracies.setdefault(key, []).append(float(row["accuracy"]))
        self._classes: dict[str, list[list[str]]] = {}

    def protocol(self) -> Any:
        """Say on what the figures rest, panel by panel where there are several."""
        if "panels" in self.results:
            return {key: panel["protocol"] for key, panel in self.results["panels"].items()}
        return super().protocol()

    def level(self, key: str, measure: str) -> Figure:
        """Return the mean accuracy."""
        return _from_estimate(estimate(self.values(key), *self.indexed(key)), level=True)

    def difference(self, key: str, other: Reader, other_key: str, measure: str) -> Figure:
        """Return the mean of paired differences."""
        return _from_estimate(estimate(_paired((self, key), (other, other_key)), *self.indexed(key)))

    def check_same(self, key: str, other: EpisodeReader, other_key: str) -> None:
        """Refuse arms that saw other episodes."""
        mine, others = self._protocol_of(key), other._protocol_of(other_key)
        same = all(mine.get(name) == others.get(name) for name in ("shot", "query", "split", "seed"))
        if not same or self._episodes(key) != other._episodes(other_key):
            raise UserError(f"{key!r} in {self.folder} and {other_key!r} in {other.folder} saw other episodes.")

    def _protocol_of(self, key: str) -> Mapping[str, Any]:
        panel = key.rpartition(" / ")[0]
        found: Mapping[str, Any] = (self.results["panels"][panel] if panel else self.results)["protocol"]
        return found

    def values(self, key: str) -> Floats:
        """Return the accuracies of an arm, (episodes,)."""
        if key not in self._accuracies:
            raise self._missing(key)
        return np.array(self._accuracies[key])

    def _episodes(self, key: str) -> list[list[str]]:
        """Return the classes of each episode, by name."""
        panel = key.rpartition(" / ")[0]
        if panel not in self._classes:
            folder = self.folder / "panels" / panel if panel else self.folder
            with (folder / "classes.csv").open(newline="", encoding="utf-8") as file:
                self._classes[panel] = [row[1:] for row in csv.reader(file)][1:]
        return self._classes[panel]

    def indexed(self, key: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return the classes of each episode (episodes, way) as indices, and all class names."""
        panel = key.rpartition(" / ")[0]
        names: list[str] = (self.results["panels"][panel] if panel else self.results)["class_names"]
        number = {name: i for i, name in enumerate(names)}
        return np.array([[number[name] for name in row] for row in self._episodes(key)], dtype=np.int64), names


class MetricReader(Reader):
    """Metric learning: mAP, paired by seed."""

    COMMANDS = ("metric-learning",)
    MEASURES: ClassVar[dict[str, Callable[[list[float]], float]]] = {
        "first_epoch": lambda maps: maps[1],
        "mean_of_epochs": lambda maps: sum(maps[1:]) / (len(maps) - 1),
        "last_epoch": lambda maps: maps[-1],
    }

    def level(self, key: str, measure: str) -> Figure:
        """Return the mean over seeds."""
        found = seed_statistics.estimate(list(self._values(key, measure).values()))
        return _from_seeds(found)

    def difference(self, key: str, other: Reader, other_key: str, measure: str) -> Figure:
        """Return the mean of differences over the seeds of both."""
        if not isinstance(other, MetricReader):
            raise UserError(f"{other.folder} is no run of metric learning: {key!r} can't be compared with it.")
        mine, others = self.protocol(), other.protocol()
        if any(mine.get(name) != others.get(name) for name in ("dataset", "data", "across", "images")):
            raise UserError(f"{key!r} in {self.folder} and {other_key!r} in {other.folder} saw other images.")
        runs = {"left": self._values(key, measure), "right": other._values(other_key, measure)}
        found = seed_statistics.differences(runs, "right")["left"]
        if found is None:
            raise UserError(f"{key!r} and {other_key!r} share no seed.")
        return _from_seeds(found.estimate, found.p)

    def _values(self, key: str, measure: str) -> dict[int, float]:
        losses = self.results["losses"]
        if key not in losses or measure not in self.MEASURES:
            raise self._missing(f"{key} by {measure or 'no measure'}")
        pick = self.MEASURES[measure]
        seeds = losses[key]["seeds"]
        if not seeds:
            raise UserError(f"{key!r} in {self.folder} diverged with every seed.")
        return {int(s): pick([record["figures"]["map"] for record in run]) for s, run in seeds.items()}


class LongTailReader(Reader):
    """Long-tailed training: accuracy on the test images, second stages averaged over seeds on one first stage."""

    COMMANDS = ("long-tail",)

    def protocol(self) -> Any:
        """Say on what the figures rest."""
        return {name: self.results[name] for name in ("setting", "stage2", "seeds", "ot")}

    def level(self, key: str, measure: str) -> Figure:
        """Return the accuracy."""
        if key not in self.results["errors"]:
            raise self._missing(key)
        found = self.results["errors"][key]
        return Figure(100 - found["error"], _intervals(found, {"images": "image_ci", "classes": "class_ci"}))

    def difference(self, key: str, other: Reader, other_key: str, measure: str) -> Figure:
        """Return the difference of accuracies, which the run must have compared itself."""
        self.need_one_run(key, other, other_key)
        for found in self.results["comparisons"]:
            if (found["arm"], found["rival"]) == (key, other_key):
                intervals = _intervals(found, {"images": "image_ci", "classes": "class_ci"})
                return Figure(0.0 - found["error_difference"], intervals, found["p"])
        raise self._missing(f"{key} against {other_key}")


class RetrievalReader(Reader):
    """Retrieval: MAP@R."""

    COMMANDS = ("retrieve",)
    NAMES: ClassVar = {"queries": "query_ci", "classes": "class_ci"}

    def level(self, key: str, measure: str) -> Figure:
        """Return MAP@R."""
        if key not in self.results["methods"]:
            raise self._missing(key)
        found = self.results["methods"][key]["metrics"]["map_at_r"]
        return Figure(100 * found["mean"], _intervals(found, self.NAMES, 100))

    def difference(self, key: str, other: Reader, other_key: str, measure: str) -> Figure:
        """Return the difference to the global ranking or to the best control on the same nodes."""
        self.need_one_run(key, other, other_key)
        method = self.results["methods"].get(key, {}).get("difference", {})
        control = self.results["transport_adds"].get(key, {})
        for found, to in ((method, method.get("to")), (control, control.get("control"))):
            if to == other_key:
                record = found["map_at_r"]
                return Figure(100 * record["mean"], _intervals(record, self.NAMES, 100), record["p"])
        raise self._missing(f"{key} against {other_key}")


class SolverReader(Reader):
    """Solver timings: how many times as long one solver takes as another, on 50 problems of the most nodes."""

    COMMANDS = ("solver-timings",)

    def level(self, key: str, measure: str) -> Figure:
        """Return the ratio for an arm "SLOW over FAST"."""
        slow, _, fast = key.partition(" over ")
        times: dict[int, dict[str, float]] = {}
        for row in self.results["timings"]:
            if (row["panel"], row["batch"]) == ("nodes", TABLE_BATCH) and "forward_ms" in row:
                times.setdefault(row["n"], {})[row["solver"]] = row["forward_ms"]
        both = [n for n, found in times.items() if {slow, fast} <= found.keys()]
        if not both:
            raise self._missing(key)
        return Figure(times[max(both)][slow] / times[max(both)][fast])

    def difference(self, key: str, other: Reader, other_key: str, measure: str) -> Figure:
        """Refuse: an arm is a comparison already."""
        raise UserError(f"{key!r} and {other_key!r} are ratios of times: claim a level of one.")


READERS: dict[str, type[Reader]] = {
    command: reader
    for reader in (EpisodeReader, MetricReader, LongTailReader, RetrievalReader, SolverReader)
    for command in reader.COMMANDS
}
"""By command."""


Side = tuple[Reader, str]
"""A run and the name of an arm in it."""


def difference(pairs: Sequence[tuple[Side, Side]], measure: str) -> Figure:
    """Compare two arms, averaged over networks where there are several pairs.

    Several pairs must be runs on the same episodes: their differences are averaged episode by episode, which gives the
    intervals over episodes and classes, and network by network, which gives Student's t over networks. p is that over
    classes: with two degrees of freedom no difference would survive a correction, so networks count by their interval.

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
    return replace(_over_networks(sides, [_episode_reader(side).values(side[1]) for side in sides]), p=None)


def _paired(left: Side, right: Side) -> Floats:
    one, two = _episode_reader(left), _episode_reader(right)
    one.check_same(left[1], two, right[1])
    return one.values(left[1]) - two.values(right[1])


def _over_networks(sides: Sequence[Side], values: Sequence[Floats]) -> Figure:
    first = _episode_reader(sides[0])
    for side in sides[1:]:
        first.check_same(sides[0][1], _episode_reader(side), side[1])
    found = _from_estimate(estimate(np.mean(values, axis=0), *first.indexed(sides[0][1])))
    over = seed_statistics.estimate([100 * float(network.mean()) for network in values]).half_width
    intervals = {} if over is None else {"networks": over}
    return Figure(found.mean, {**found.intervals, **intervals}, found.p, len(values))


def _episode_reader(side: Side) -> EpisodeReader:
    reader = side[0]
    if not isinstance(reader, EpisodeReader):
        raise UserError(f"{reader.folder} is no run on episodes: it can't be averaged with others.")
    return reader


def _from_estimate(found: Estimate, *, level: bool = False) -> Figure:
    intervals = {"episodes": 100 * found.episode_half_width}
    if found.jackknife.half_width is not None:
        intervals["classes"] = 100 * found.jackknife.half_width
    return Figure(100 * found.mean, intervals, None if level else p_value(found))


def _from_seeds(found: seed_statistics.SeedEstimate, p: float | None = None) -> Figure:
    intervals = {} if found.half_width is None else {"seeds": 100 * found.half_width}
    return Figure(100 * found.mean, intervals, p, found.seeds)


def _intervals(record: Mapping[str, Any], names: Mapping[str, str], scale: float = 1.0) -> dict[str, float]:
    return {name: scale * record[key] for name, key in names.items() if record.get(key) is not None}
