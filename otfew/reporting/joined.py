"""Comparisons over seeds, numbers of shots and files of features, run together and joined in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otfew.errors import UserError
from otfew.evaluation.answers import FILE, to_bytes
from otfew.reporting import comparison as report
from otfew.reporting import frames
from otfew.reporting.cells import percent
from otfew.reporting.result import Comparison, given, load, read_json
from otfew.reporting.sentences import listed, mark, wide
from otfew.reporting.tables import NEEDS, Cell, Table, in_html, latex, plain_comment, sections, to_csv, to_html
from otfew.runs.directory import RunDirectory, to_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Record = dict[str, Any]
IDENTITY = ("command", "format", "axes", "panels", "versions")
ALL = "all"


@dataclass(frozen=True)
class Axes:
    """What a joined run goes over; an axis of one value has no part in names.

    Attributes:
        features: Names of files of features; ("",) where there is a data set, or one file.
        shots: Numbers of labelled images of each class.
        seeds: Of the episodes.
    """

    features: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]

    def key(self, features: str, shot: int, seed: int | None = None) -> str:
        """Name a panel; without a seed, all its seeds together."""
        parts = [features] if len(self.features) > 1 else []
        parts += [f"shot-{shot}"] if len(self.shots) > 1 else []
        parts += [f"seed-{seed}"] if len(self.seeds) > 1 and seed is not None else []
        return "-".join(parts) or ALL

    @property
    def columns(self) -> Iterator[tuple[str, int]]:
        """The columns of a joined table: features and shots."""
        return product(self.features, self.shots)

    def heading(self, features: str, shot: int) -> str:
        """Head a column."""
        parts = [features] if len(self.features) > 1 else []
        return "\n".join([*parts, f"{shot}-shot"])

    def to_json(self) -> Record:
        """Return them JSON-ready."""
        return {"features": list(self.features), "shots": list(self.shots), "seeds": list(self.seeds)}


@dataclass(frozen=True)
class Joined:
    """Comparisons over seeds, shots and features, joined.

    Attributes:
        results: As results.json has them: "axes", "panels" by key, "pooled" (those of all seeds together) by key
            without the seed, "between" (shots -> features -> method -> difference to the first features).
        panels: Key, such as "shot-5-seed-2" -> the comparison, which is that of ``compare`` with these values.
        folder: Where it is kept; None where it is not.
    """

    results: Record
    panels: Mapping[str, Comparison]
    folder: Path | None = None

    @property
    def axes(self) -> Axes:
        """What the run goes over."""
        own = self.results["axes"]
        return Axes(tuple(own["features"]), tuple(own["shots"]), tuple(own["seeds"]))

    @property
    def pooled(self) -> dict[tuple[str, int], Record]:
        """Features and shots -> the record of all seeds."""
        return {column: self.results["pooled"][self.axes.key(*column)] for column in self.axes.columns}

    @property
    def title(self) -> str:
        """Say what the tables show."""
        return f"accuracy on {self._first['protocol']['data']['dataset']}, % ± episodes ± {self._over}"

    @property
    def lines(self) -> list[str]:
        """On what the figures rest, in sentences."""
        axes = self.axes
        lines = []
        if len(axes.seeds) > 1:
            lines.append(
                f"seeds {listed(axes.seeds, ' and ')} of the episodes are pooled, as one run of all of them: intervals "
                f"over {self._over} do not narrow with them; table.csv has each seed's figures"
            )
        lines += self._features_lines()
        for (features, shot), record in self.pooled.items():
            where = ", ".join([*([features] if len(axes.features) > 1 else []), f"{shot}-shot"])
            several = len(self.results["pooled"]) > 1
            lines += [f"{where}: {line}" if several else line for line in report.transport_lines(record)]
        return [*lines, *report.contrast_lines(list(self.pooled.values())), *self._shared_lines()]

    def _shared_lines(self) -> list[str]:
        """Say what holds for every column alike; times and differences are those of one."""
        first = self._first
        methods = {n: {k: v for k, v in m.items() if k != "difference"} for n, m in first["methods"].items()}
        protocol = {**first["protocol"], "shots": self.axes.shots}
        if len(self.axes.features) > 1:
            protocol["data"] = {**protocol["data"], "notes": []}
        shown = {**first, "methods": methods, "protocol": protocol}
        shown.pop("across_groups", None)
        return [line for line in report.protocol_lines(shown) if not line.startswith("ms per episode")]

    def _features_lines(self) -> list[str]:
        """Say what the files of features are, and where they could not be paired."""
        axes = self.axes
        if len(axes.features) < 2:
            return []
        lines = []
        for features in axes.features:
            data = self.results["pooled"][axes.key(features, axes.shots[0])]["protocol"]["data"]
            lines.append(f"features {features}: {', '.join(data['notes'])}, sha256 {data['features_sha256'][:16]}")
        found = [name for by in self.results["between"].values() for name in by]
        if len(found) < len(axes.shots) * (len(axes.features) - 1):
            lines.append("some features have copies of images where others have none: their episodes are not paired")
        return lines

    def tables(self) -> list[Table]:
        """Lay out accuracies, differences to the reference, and those between features, a column for each case.

        Returns:
            The printed tables: two, and a third where there are several files of features.
        """
        axes, pooled = self.axes, self.pooled
        head = ["method", *(axes.heading(*column) for column in pooled)]
        accuracy = [[self._marked(name), *(_accuracy(r, name) for r in pooled.values())] for name in self._methods]
        differences = [[self._marked(name), *(_to_other(r, name) for r in pooled.values())] for name in self._methods]
        made = [
            Table(self.title, head, accuracy),
            Table(f"difference to the reference, points ± {self._over}, * where it counts", head, differences),
        ]
        first, *others = axes.features
        if others:
            pairs = [(features, shot) for features, shot in axes.columns if features != first]
            rows = [
                [self._marked(name), *(_difference(self._between(shot, f).get(name)) for f, shot in pairs)]
                for name in self._methods
            ]
            title = f"difference to features {first}, points ± {self._over}, * where it counts"
            made.append(Table(title, ["method", *(axes.heading(*pair) for pair in pairs)], rows))
        return made

    def rows(self) -> list[dict[str, Cell]]:
        """Return every method's figures behind "features", "shot" and "seed" ("all" of several together)."""
        axes, found = self.axes, []
        for features, shot in axes.columns:
            records: dict[Cell, Record] = {
                seed: self.panels[axes.key(features, shot, seed)].results for seed in axes.seeds
            }
            if len(axes.seeds) > 1:
                records = {ALL: self.results["pooled"][axes.key(features, shot)], **records}
            for seed, record in records.items():
                place: dict[str, Cell] = {"features": features} if len(axes.features) > 1 else {}
                found += [{**place, "shot": shot, "seed": seed, **row} for row in frames.rows(record)]
        return frames.aligned(found)

    def table(self) -> pd.DataFrame:
        """Return the figures as a DataFrame, indexed by features where there are several, shot, seed and method.

        Columns are those of ``Comparison.table`` without times; rows of seed "all" are of all seeds together.

        Raises:
            UserError: pandas is not installed.
        """
        found = self.rows()
        return frames.frame(found, [name for name in ("features", "shot", "seed", "method") if name in found[0]])

    def to_csv(self, file: str | Path | None = None) -> str:
        """Return the figures of ``table`` as CSV, as ``Comparison.to_csv`` does.

        Args:
            file: Also write it there.

        Raises:
            UserError: The file cannot be written.
        """
        found = self.rows()
        return given(to_csv(list(found[0]), [list(row.values()) for row in found]), file)

    def to_latex(self, file: str | Path | None = None) -> str:
        """Return each table as a ``tabular`` of LaTeX, as ``Comparison.to_latex`` does its one.

        Args:
            file: Also write it there.

        Raises:
            UserError: The file cannot be written.
        """
        parts = [f"{plain_comment(table.title)}{latex(table)}" for table in self.tables()]
        return given("\n".join([plain_comment(NEEDS), *parts]).encode(), file)

    def to_markdown(self) -> str:
        """Return the printed tables as Markdown."""
        return sections(self.tables(), []).rstrip("\n")

    @property
    def predictions(self) -> pd.DataFrame:
        """Every answer as a row, as of ``Comparison``, with "features" where there are several, "shot" and "seed".

        Raises:
            UserError: pandas is not installed, or as ``Comparison.answers`` says.
        """
        pandas = frames.need_pandas("predictions")
        parts = []
        axes = self.axes
        for (features, shot), seed in product(axes.columns, axes.seeds):
            place: dict[str, Any] = {"features": features} if len(axes.features) > 1 else {}
            part = self.panels[axes.key(features, shot, seed)].predictions
            for i, (name, value) in enumerate({**place, "shot": shot, "seed": seed}.items()):
                part.insert(i, name, value)
            parts.append(part)
        joined: pd.DataFrame = pandas.concat(parts, ignore_index=True)
        return joined

    def plot(self) -> Figure:
        """Draw every method's accuracy, a group for each column.

        Returns:
            The figure, matplotlib's.
        """
        from otfew.reporting.joined_plot import figure

        headings = [self.axes.heading(*column) for column in self.pooled]
        drawn: Figure = figure(self.title, headings, list(self.pooled.values()), self._methods)
        return drawn

    def save(self, folder: str | Path) -> Joined:
        """Write the report: results.json, timings.json, episodes.csv, report.md, tables, and answers of every panel.

        Args:
            folder: Where.

        Returns:
            Itself, with the folder.

        Raises:
            UserError: The folder holds another run or foreign files.
        """
        from otfew.reporting.canvas import to_png

        identity = {**{key: self.results[key] for key in IDENTITY if key != "panels"}, "panels": {}}
        identity["panels"] = {key: panel.results["protocol"] for key, panel in self.panels.items()}
        directory = RunDirectory(Path(folder), identity)
        for key, panel in self.panels.items():
            own = {**identity, "panels": {key: identity["panels"][key]}}
            inside = RunDirectory(directory.path / "panels" / key, own)
            inside.write("classes.csv", report.classes_csv(panel.classes, panel.results["class_names"]))
            inside.write(FILE, to_bytes(panel.answers))
        directory.write("results.json", to_json(self.results))
        directory.write("timings.json", to_json({key: panel.timings for key, panel in self.panels.items()}))
        directory.write("episodes.csv", report.panels_csv({key: panel.episodes for key, panel in self.panels.items()}))
        directory.write("table.csv", self.to_csv().encode())
        directory.write("table.tex", self.to_latex().encode())
        directory.write("accuracy.png", to_png(self.plot()))
        directory.write("report.md", sections(self.tables(), self.lines).encode())
        return replace(self, folder=directory.path)

    @property
    def _first(self) -> Record:
        return next(iter(self.pooled.values()))

    @property
    def _over(self) -> str:
        return "photos" if self._first["protocol"].get("fixed_classes") else "classes"

    @property
    def _methods(self) -> list[str]:
        """Name all methods, those that see one query at a time first, the best in the first column first."""
        first = {name: (m["transductive"], -m["accuracy"]["mean"]) for name, m in self._first["methods"].items()}
        others = dict.fromkeys(name for r in self.pooled.values() for name in r["methods"] if name not in first)
        return [*sorted(first, key=lambda name: first[name]), *others]

    def _marked(self, name: str) -> str:
        return next(mark(name, r["methods"][name]) for r in self.pooled.values() if name in r["methods"])

    def _between(self, shot: int, features: str) -> Record:
        found: Record = self.results["between"][str(shot)].get(features, {})
        return found

    def __str__(self) -> str:
        """Return the tables and the sentences below them."""
        return sections(self.tables(), self.lines)

    def _repr_html_(self) -> str:
        """Return the same for notebooks."""
        below = "".join(f"<li>{in_html(line)}</li>" for line in self.lines)
        return "".join(to_html(table, []) for table in self.tables()) + f"<ul>{below}</ul>"


def load_joined(run: str | Path) -> Joined:
    """Read a joined run that was kept: the folder of ``compare`` with several seeds, shots or files of features.

    Args:
        run: The run's folder.

    Returns:
        The joined run, as ``compare_over`` gave it, without images.

    Raises:
        UserError: The folder is none of a finished joined run, or its files are damaged.
    """
    folder = Path(run)
    results = read_json(folder / "results.json")
    if missing := [key for key in ("axes", "panels", "pooled", "between") if not isinstance(results.get(key), dict)]:
        raise UserError(f"{folder / 'results.json'} has no {missing[0]!r}: give a run over seeds, shots or features.")
    joined = Joined(results, {key: load(folder, key) for key in results["panels"]}, folder)
    try:
        str(joined)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the run in {folder} is damaged ({error!r}): run the same command again.") from error
    return joined


def _accuracy(record: Record, name: str) -> str:
    """Format a method's accuracy with both intervals; a dash where it did not run."""
    if name not in record["methods"]:
        return "–"
    own = record["methods"][name]["accuracy"]
    return f"{percent(own['mean'])} ± {percent(own['episode_ci'])} ± {percent(wide(own))}"


def _to_other(record: Record, name: str) -> str:
    """Format a method's difference to its reference, and say to which where it is not that of the run."""
    if name not in record["methods"]:
        return "–"
    found = record["methods"][name].get("difference")
    if found is None:
        return "reference"
    to = found["to"]
    return _difference(found) + ("" if to == record["protocol"]["reference"] else f" to {to}")


def _difference(found: Record | None) -> str:
    """Format a difference with its wider kind of interval, a star where it counts."""
    if found is None:
        return "–"
    star = "*" if found["verdict"] in {"better", "worse"} else ""
    return f"{percent(found['mean'], sign=True)} ± {percent(wide(found))}{star}"


def names_of_files(files: Sequence[Any]) -> tuple[str, ...]:
    """Name files of features in tables: by their stems, with numbers where some are equal."""
    stems = [_stem(file) or "features" for file in files]
    alone = len({stem.lower() for stem in stems}) == len(stems)
    return tuple(stem if alone else f"{stem}-{i + 1}" for i, stem in enumerate(stems))


def _stem(file: Any) -> str:
    """Return the stem of a path, of what may stand in the name of a folder; "" of what is no path."""
    stem = Path(file).stem if isinstance(file, str | Path) else ""
    return "".join(c if c.isalnum() or c in "._" else "-" for c in stem).strip(".-")
