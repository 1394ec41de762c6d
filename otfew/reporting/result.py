"""A comparison that has been run: its table, figures and sentences, and its files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError
from otfew.evaluation.episodes import Indices
from otfew.evaluation.worst import Worst
from otfew.features.material import Material
from otfew.reporting import comparison as report
from otfew.reporting.comparison_page import page
from otfew.reporting.tables import Table, in_csv, to_html
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.files import parse_json, reason
from otfew.runs.regular_file import GIB, read_regular

Floats = npt.NDArray[np.float64]
Record = dict[str, Any]
IDENTITY = ("command", "format", "protocol", "versions")
"""Entries of results.json that say what a run is; the others are what it found."""
NEEDED = (*IDENTITY, "methods", "transport_adds", "not_run", "class_names")
SAME = 1e-7
"""A mean of accuracies that are kept with eight digits is as close as that to the mean in results.json."""


@dataclass(frozen=True)
class Comparison:
    """Methods compared on the same episodes.

    Attributes:
        results: As results.json has them; accuracies and differences are fractions of 1.
        timings: As timings.json has them.
        episodes: Name of method -> (episodes,) accuracies, paired between methods.
        classes: (episodes, way) indices into the class names: the classes of each episode.
        folder: Where it is kept; None where it is not.
    """

    results: Record
    timings: Record
    episodes: Mapping[str, Floats]
    classes: Indices
    folder: Path | None = None

    @property
    def differences(self) -> dict[str, Record]:
        """Name -> its paired difference: "to" whom, "mean", "episode_ci", "class_ci", "p", "p_holm", "verdict"."""
        return {name: m["difference"] for name, m in self.results["methods"].items() if "difference" in m}

    @property
    def lines(self) -> list[str]:
        """What transport adds, on what the figures rest, and how times were taken, in sentences."""
        return [
            *report.transport_lines(self.results),
            *report.protocol_lines(self.results),
            *report.timing_lines(self.timings),
        ]

    @property
    def title(self) -> str:
        """Say what the table shows."""
        return f"accuracy on {self.results['protocol']['data']['dataset']}, %"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the table's head and rows as text, the best method first."""
        return report.table(self.results, self.timings)

    def table(self) -> str:
        """Return the table as Markdown."""
        return report.markdown(*self.cells(), []).rstrip("\n")

    def save(
        self,
        folder: str | Path,
        correct: Mapping[str, Indices] | None = None,
        worst: tuple[Worst, Material] | None = None,
    ) -> Comparison:
        """Write the report as ``compare`` does: results.json, timings.json, episodes.csv, report.md, a picture, a page.

        Args:
            folder: Where.
            correct: Name -> (episodes, way) right answers of each class, for the page; None leaves that part out.
            worst: What the best method is wrong about, and what it ran on, likewise.

        Returns:
            Itself, with the folder.

        Raises:
            UserError: The folder holds another run or foreign files.
        """
        from otfew.reporting.accuracy_plot import accuracy_vs_time

        directory = RunDirectory(Path(folder), {key: self.results[key] for key in IDENTITY})
        names = self.results["protocol"]["order"]
        directory.write("classes.csv", report.classes_csv(self.classes, self.results["class_names"]))
        directory.write("results.json", to_json(self.results))
        directory.write("timings.json", to_json(self.timings))
        directory.write("episodes.csv", report.episodes_csv({name: self.episodes[name] for name in names}))
        directory.write("report.md", report.markdown(*self.cells(), self.lines).encode())
        directory.write("accuracy_vs_time.png", accuracy_vs_time(self.results, self.timings))
        told = page(self.results, self.cells(), self.lines, self.classes, correct, worst)
        directory.write("report.html", told.encode())
        return replace(self, folder=directory.path)

    def __str__(self) -> str:
        """Return the table and the sentences below it."""
        return f"{self.title}\n\n{report.markdown(*self.cells(), self.lines)}"

    def _repr_html_(self) -> str:
        """Return the same for notebooks."""
        return to_html(Table(self.title, *self.cells()), self.lines)


def load(run: str | Path, panel: str = "") -> Comparison:
    """Read a comparison that was kept: the folder of ``compare``, or one panel of an analysis.

    Args:
        run: The run's folder.
        panel: Which panel, where the run is an analysis of several.

    Raises:
        UserError: The folder is none of a finished run, its files are damaged or do not belong together, or no panel
            has that name.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of a run.")
    results, timings = _read_json(folder / "results.json"), _read_json(folder / "timings.json")
    inside, prefix = folder, ""
    if "panels" in results:
        results, prefix = _panel(folder, results, panel)
        timings, inside = timings.get(prefix, {}), folder / "panels" / prefix
    elif panel:
        raise UserError(f"{folder} holds one comparison and no panel {panel!r}: leave `panel` out.")
    missing = [key for key in NEEDED if key not in results]
    if missing:
        raise UserError(f"{folder / 'results.json'} has no {missing[0]!r}: give a run of compare or of an analysis.")
    try:
        episodes = _episodes(folder / "episodes.csv", prefix, results["protocol"]["order"])
        classes = _classes(inside / "classes.csv", results["class_names"])
        comparison = Comparison(results, timings, episodes, classes, folder)
        _check(comparison)
        str(comparison)  # whatever else a report needs is there
    except UserError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise UserError(f"the run in {folder} is damaged ({error!r}): run the same command again.") from error
    return comparison


def _panel(folder: Path, results: Record, given: str) -> tuple[Record, str]:
    """Find a panel's record, in the shape of a comparison's results, and its name."""
    panels = results["panels"]
    if not isinstance(panels, dict) or not panels:
        raise UserError(f"{folder / 'results.json'} is damaged: run the same command again.")
    if given not in panels and (given or len(panels) > 1):
        said = f"has no panel {given!r}" if given else "holds several panels"
        raise UserError(f"the run in {folder} {said}: give `panel`, one of {', '.join(panels)}.")
    name = given or next(iter(panels))
    if not isinstance(panels[name], dict):
        raise UserError(f"{folder / 'results.json'} is damaged: run the same command again.")
    shared = {key: results[key] for key in ("command", "format", "versions") if key in results}
    return {**shared, **panels[name]}, name


def _read(file: Path) -> bytes:
    """Read a file of a run."""
    try:
        return read_regular(file, GIB)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({reason(error)}): give the folder of a finished run.") from error


def _read_json(file: Path) -> Record:
    """Read a JSON object of a run."""
    try:
        found = parse_json(_read(file))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: run the same command again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} is damaged: run the same command again.")
    return found


def _episodes(file: Path, panel: str, names: Sequence[str]) -> dict[str, Floats]:
    """Read the accuracies of every method, episode after episode."""
    found: dict[str, list[float]] = {in_csv(name): [] for name in names}
    for row in csv.DictReader(io.StringIO(_read(file).decode())):
        if row.get("panel", "") != in_csv(panel):
            continue
        values = found[row["method"]]
        if int(row["episode"]) != len(values):
            raise ValueError(f"episodes of {row['method']} are out of order")
        values.append(float(row["accuracy"]))
    return {name: np.array(found[in_csv(name)]) for name in names}


def _classes(file: Path, names: Sequence[str]) -> Indices:
    """Read the classes of every episode: (episodes, way) indices into the names."""
    place = {in_csv(name): i for i, name in enumerate(names)}
    _, *rows = csv.reader(io.StringIO(_read(file).decode()))
    return np.array([[place[name] for name in row[1:]] for row in rows], dtype=np.int64)


def _check(comparison: Comparison) -> None:
    """Raise ``ValueError`` where files of a run do not belong together."""
    protocol, methods = comparison.results["protocol"], comparison.results["methods"]
    if comparison.classes.shape != (protocol["episodes"], protocol["way"]):
        raise ValueError("classes.csv has another number of episodes or classes")
    for name in protocol["order"]:
        values = comparison.episodes[name]
        if len(values) != protocol["episodes"]:
            raise ValueError(f"episodes.csv has {len(values)} episodes of {name}")
        if not abs(values.mean() - methods[name]["accuracy"]["mean"]) < SAME:
            raise ValueError(f"results.json and episodes.csv disagree on {name}")
