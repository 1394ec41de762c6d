"""What other data let expect of a candidate: its log-loss and its temperature, by way and shots.

The table beside this file is made by the command that it names, on classes that no judgement of the classifier uses.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otfew.classifier.candidates import Candidate, View
from otfew.statistics.temperature import Expected

TABLE = Path(__file__).with_name("prior.json")
FORMAT = 1
ELSEWHERE = 2.0
"""Factor of a temperature's spread where the table has the method on other views or networks only."""


@dataclass(frozen=True)
class Cell:
    """What a candidate did on the validation episodes of one way and one number of shots.

    Attributes:
        way: Classes of an episode.
        shot: Labelled images of each.
        loss: Mean log-loss over data sets at the common temperature.
        accuracy: Mean over data sets.
        log_temperature: Mean over data sets of the log of the fitted temperature.
        spread: Its standard deviation over data sets, with a floor.
    """

    way: int
    shot: int
    loss: float
    accuracy: float
    log_temperature: float
    spread: float


@dataclass(frozen=True)
class Prior:
    """The table.

    Attributes:
        cells: Candidate -> its cells.
        sources: Data sets behind it, one sentence each.
        command: What makes it.
    """

    cells: Mapping[Candidate, tuple[Cell, ...]]
    sources: tuple[str, ...] = ()
    command: str = ""

    def backbones(self) -> tuple[str, ...]:
        """Name the networks that it has."""
        return tuple(dict.fromkeys(candidate.view.backbone for candidate in self.cells))

    def loss(self, candidate: Candidate, way: int, shot: float) -> float | None:
        """Interpolate the log-loss to expect; None where the table does not have the candidate, or anything like it."""
        like = self._like(candidate)
        return None if like is None else _interpolate(self.cells[like], way, shot, "loss")

    def expected(self, candidate: Candidate, way: int, shot: float) -> Expected | None:
        """Interpolate the temperature to expect; None where the table has nothing like the candidate."""
        like = self._like(candidate)
        if like is None:
            return None
        cells = self.cells[like]
        mean, spread = (_interpolate(cells, way, shot, name) for name in ("log_temperature", "spread"))
        if like == candidate:
            return Expected(mean, spread, "validation classes of other data")
        return Expected(mean, spread * ELSEWHERE, f"validation classes of other data, {like} of {like.view.backbone}")

    def rank(self, candidates: Sequence[Candidate], way: int, shot: float) -> list[tuple[Candidate, float | None]]:
        """Put candidates into the order of the log-loss to expect; those without one go last, as they came."""
        losses = [(candidate, self.loss(candidate, way, shot)) for candidate in candidates]
        return sorted(losses, key=lambda item: math.inf if item[1] is None else item[1])

    def _like(self, candidate: Candidate) -> Candidate | None:
        """Find the candidate, or the nearest of the same method: kind of nodes first, network, then resolution."""
        if candidate in self.cells:
            return candidate
        same = [known for known in self.cells if known.method == candidate.method]

        def distance(known: Candidate) -> tuple[bool, bool, bool, float]:
            mine, other = candidate.view, known.view
            kinds = [view.nodes.partition(":")[0] for view in (mine, other)]
            apart = abs(math.log(mine.resolution / other.resolution))
            return kinds[0] != kinds[1], mine.nodes != other.nodes, mine.backbone != other.backbone, apart

        return min(same, key=distance, default=None)


def _interpolate(cells: Sequence[Cell], way: int, shot: float, name: str) -> float:
    """Go linearly in log way and log shots between cells, and not beyond the outer ones."""
    ways = sorted({cell.way for cell in cells})
    values = []
    for each in ways:
        row = sorted((cell.shot, getattr(cell, name)) for cell in cells if cell.way == each)
        shots, figures = zip(*row, strict=True)
        values.append(np.interp(math.log(shot), np.log(shots), figures))
    return float(np.interp(math.log(way), np.log(ways), values))


@functools.cache
def load(path: Path = TABLE) -> Prior:
    """Read the table that comes with the package."""
    return from_json(json.loads(path.read_text(encoding="utf-8")))


def from_json(record: Mapping[str, Any]) -> Prior:
    """Read a table from its JSON.

    Raises:
        ValueError: Of another format.
    """
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']} of the prior's table is not {FORMAT}")
    cells = {
        Candidate(row["method"], View(row["backbone"], row["resolution"], row["nodes"])): tuple(
            Cell(**cell) for cell in row["cells"]
        )
        for row in record["candidates"]
    }
    return Prior(cells, tuple(record["sources"]), record["command"])
