"""A comparison that has been run: its table, figures and sentences, and its files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from otfew.data import DataOptions, ImageSet
from otfew.errors import UserError
from otfew.evaluation.answers import FILE, Answers, from_bytes, to_bytes
from otfew.evaluation.episodes import Indices
from otfew.evaluation.figures import FORMAT
from otfew.evaluation.reopening import reopen
from otfew.evaluation.worst import Worst
from otfew.features.material import Material
from otfew.reporting import comparison as report
from otfew.reporting import frames
from otfew.reporting.comparison_page import page
from otfew.reporting.episode import Episode, episode
from otfew.reporting.tables import NEEDS, Table, in_csv, latex, plain_comment, to_csv, to_html
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.files import DamagedError, parse_json, reason, write_atomically
from otfew.runs.regular_file import GIB, read_regular

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

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
        source: The answers to every query, or the file that keeps them; None where nobody knows them.
        images: Of the evaluated split, for pictures; None where they are not at hand: see ``reopen``.
    """

    results: Record
    timings: Record
    episodes: Mapping[str, Floats]
    classes: Indices
    folder: Path | None = None
    source: Answers | Path | None = field(default=None, repr=False, compare=False)
    images: ImageSet | None = field(default=None, repr=False, compare=False)

    @property
    def differences(self) -> dict[str, Record]:
        """Name -> its paired difference: "to" whom, "mean", "episode_ci", "class_ci", "p", "p_holm", "verdict"."""
        return {name: m["difference"] for name, m in self.results["methods"].items() if "difference" in m}

    @property
    def lines(self) -> list[str]:
        """What transport adds, on what the figures rest, and how times were taken, in sentences."""
        return [
            *report.transport_lines(self.results),
            *report.contrast_lines([self.results]),
            *report.protocol_lines(self.results),
            *report.timing_lines(self.timings),
        ]

    @property
    def title(self) -> str:
        """Say what the table shows."""
        data = self.results["protocol"]["data"]
        across = f", queries {data['domains']['query']['name']}" if "domains" in data else ""
        return f"accuracy on {data['dataset']}{across}, %"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the table's head and rows as text, the best method first."""
        return report.table(self.results, self.timings)

    def tables(self) -> list[Table]:
        """Return the printed table, with its title."""
        return [Table(self.title, *self.cells())]

    def table(self) -> pd.DataFrame:
        """Return the figures as a DataFrame, a row for every method, in the order of the printed table.

        Returns:
            Indexed by method: "accuracy" and, "to" whom it is, "difference", both with half-widths of 95 % intervals
            ("..._episode_ci", "..._class_ci" or "..._photo_ci"), "p", "p_holm", "verdict", what transport adds over its
            controls ("adds_over_chamfer", ...; see ``otfew.reporting.frames.rows``), "nodes", "transductive", and
            times. Fractions of 1, not per cent.

        Raises:
            UserError: pandas is not installed.
        """
        return frames.frame(frames.rows(self.results, self.timings), ["method"])

    def to_markdown(self) -> str:
        """Return the printed table as Markdown, in per cent."""
        return report.markdown(*self.cells(), []).rstrip("\n")

    def to_csv(self, file: str | Path | None = None) -> str:
        """Return the figures of ``table`` as CSV, without times: the same text for the same protocol.

        Text that a spreadsheet would take for a formula has an apostrophe before it.

        Args:
            file: Also write it there.

        Raises:
            UserError: The file cannot be written.
        """
        rows = frames.rows(self.results)
        return given(to_csv(list(rows[0]), [list(row.values()) for row in rows]), file)

    def to_latex(self, file: str | Path | None = None) -> str:
        """Return the printed table, without times, as a ``tabular`` of LaTeX that wants the package booktabs.

        Args:
            file: Also write it there.

        Raises:
            UserError: The file cannot be written.
        """
        table = Table("", *report.table(self.results, self.timings, times=False))
        return given(f"{plain_comment(NEEDS)}{latex(table)}".encode(), file)

    def plot(self) -> Figure:
        """Draw accuracies, and differences to the reference, as a forest.

        Returns:
            The figure, matplotlib's, which shows itself in notebooks.
        """
        from otfew.reporting.accuracy_plot import figure

        drawn: Figure = figure(self.results, self.timings)
        return drawn

    @cached_property
    def answers(self) -> Answers:
        """What every method answered to every query.

        Raises:
            UserError: The run was made by an earlier version, which did not keep them, or their file is damaged.
        """
        if self.source is None:
            raise UserError("this run keeps no answers, since an earlier version made it: run the same command again.")
        if isinstance(self.source, Answers):
            return self.source
        try:
            answers = from_bytes(_read(self.source))
            _check_answers(self, answers)
        except DamagedError as error:
            raise UserError(f"{self.source} is damaged ({error}): run the same command again.") from error
        return answers

    @property
    def predictions(self) -> pd.DataFrame:
        """Every answer as a row: "episode", "query", "image", "label", "method", "predicted", "right".

        Where logits were kept, "logit" of the answer and "margin" to the next class follow.

        Raises:
            UserError: pandas is not installed, or as ``answers`` says.
        """
        return frames.predictions(self.answers)

    def episode(self, index: int) -> Episode:
        """Look at an episode: its images, and what each method took them for. It shows itself in notebooks.

        Args:
            index: From 0.

        Returns:
            The episode; its images have pictures where the run's are at hand, see ``reopen``.

        Raises:
            UserError: There is no such episode, or as ``answers`` says.
        """
        protocol = self.results["protocol"]
        return episode(self.answers, index, f"{protocol['data']['dataset']}, seed {protocol['seed']}", self.images)

    @property
    def of_images(self) -> bool:
        """True where the run was of images, and not of features."""
        return self.results["protocol"]["backbone"] is not None

    def reopen(
        self, data_root: str | Path | None = None, options: DataOptions | None = None, dataset: str = ""
    ) -> Comparison:
        """Find the images of a run that was read back, so that its episodes have pictures.

        Args:
            data_root: Folder of data sets; None takes $OTFEW_DATA, then a cache folder.
            options: What the run does not say of its data, such as the depth of class folders.
            dataset: As the run was given it, where its name alone does not lead there.

        Returns:
            Itself, with the images.

        Raises:
            UserError: They are missing or others, or the run was of features.
        """
        root = None if data_root is None else Path(data_root)
        return replace(self, images=reopen(self.results["protocol"], root, options, dataset))

    def save(
        self,
        folder: str | Path,
        correct: Mapping[str, Indices] | None = None,
        worst: tuple[Worst, Material] | None = None,
    ) -> Comparison:
        """Write the report as ``compare`` does: results.json and its like, answers, tables, a picture, a page.

        Args:
            folder: Where.
            correct: Name -> (episodes, way) right answers of each class, for the page; None leaves that part out.
            worst: What the best method is wrong about, and what it ran on, likewise.

        Returns:
            Itself, with the folder.

        Raises:
            UserError: The folder holds another run or foreign files.
        """
        from otfew.reporting.accuracy_plot import accuracies

        directory = RunDirectory(Path(folder), {key: self.results[key] for key in IDENTITY})
        names = self.results["protocol"]["order"]
        directory.write("classes.csv", report.classes_csv(self.classes, self.results["class_names"]))
        directory.write("results.json", to_json(self.results))
        directory.write("timings.json", to_json(self.timings))
        directory.write("episodes.csv", report.episodes_csv({name: self.episodes[name] for name in names}))
        directory.write("table.csv", self.to_csv().encode())
        directory.write("table.tex", self.to_latex().encode())
        if self.source is not None:
            directory.write(FILE, to_bytes(self.answers))
        directory.write("report.md", report.markdown(*self.cells(), self.lines).encode())
        directory.write("accuracy.png", accuracies(self.results, self.timings))
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

    Of runs of format 1, what transport adds is the difference to the control that was best on the very episodes, and is
    named as such wherever it is shown.

    Args:
        run: The run's folder.
        panel: Which panel, where the run is an analysis of several.

    Returns:
        The comparison, as ``compare`` gave it, without images: see ``Comparison.reopen``.

    Raises:
        UserError: The folder is none of a finished run, its files are damaged or do not belong together, or no panel
            has that name.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of a run.")
    results, timings = read_json(folder / "results.json"), read_json(folder / "timings.json")
    inside, prefix = folder, ""
    if "panels" in results:
        results, prefix = _panel(folder, results, panel)
        timings, inside = timings.get(prefix, {}), folder / "panels" / prefix
    elif panel:
        raise UserError(f"{folder} holds one comparison and no panel {panel!r}: leave `panel` out.")
    _check_format(results.get("format"), folder)
    missing = [key for key in NEEDED if key not in results]
    if missing:
        raise UserError(f"{folder / 'results.json'} has no {missing[0]!r}: give a run of compare or of an analysis.")
    try:
        episodes = _episodes(folder / "episodes.csv", prefix, results["protocol"]["order"])
        classes = _classes(inside / "classes.csv", results["class_names"])
        kept = inside / FILE
        comparison = Comparison(results, timings, episodes, classes, folder, kept if kept.exists() else None)
        _check(comparison)
        str(comparison)  # whatever else a report needs is there
    except UserError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise UserError(f"the run in {folder} is damaged ({error!r}): run the same command again.") from error
    return comparison


def _check_format(found: object, folder: Path) -> None:
    """Refuse what a later otfew wrote."""
    if isinstance(found, int) and found > FORMAT:
        raise UserError(
            f"the run in {folder} was made by a later otfew (format {found}; this one reads 1 to {FORMAT}): update "
            "otfew."
        )


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


def read_json(file: Path) -> Record:
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


def given(data: bytes, file: str | Path | None) -> str:
    """Return text, and write it where a file is given."""
    if file is not None:
        write_atomically(Path(file), data)
    return data.decode()


def _check_answers(comparison: Comparison, answers: Answers) -> None:
    """Raise ``DamagedError`` where answers are of another run."""
    order, classes = comparison.results["protocol"]["order"], comparison.classes
    if list(answers.methods) != order or not np.array_equal(answers.classes, classes):
        raise DamagedError("it is of another run")
    queries = comparison.results["protocol"]["query"] * classes.shape[1]
    right = (answers.answered == answers.truth)[..., :queries].mean(2)
    for name, own in zip(order, right, strict=True):
        if not np.allclose(own, comparison.episodes[name], rtol=0, atol=SAME):
            raise DamagedError(f"episodes.csv disagrees on {name}")


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
