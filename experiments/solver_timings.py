"""Which solver when: times and accuracy of every installed solver: ``python -m experiments.solver_timings``."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from otfew.episodes import Protocol, Sampler
from otfew.errors import UserError
from otfew.experiments import _solver_problems as problems
from otfew.experiments import _solver_report as report
from otfew.experiments._cli import parse, run
from otfew.experiments._solver_clock import GROWTH, History, Pace
from otfew.experiments._solver_episodes import PRODUCT, REFERENCE, run_episodes, why_not
from otfew.experiments._solver_measure import Row, measure_dense, measure_points
from otfew.experiments.compare import _console, _device, _set_threads, _versions
from otfew.features import FeatureSet
from otfew.run_directory import RunDirectory, to_json
from otfew.transport import Solver

SWEEP_NODES = 25
SWEEP_PATIENCE = 3
"""The sweep's few calls may take so many times as long as others."""
SWEEPERS = ("sinkhorn", "pot-sinkhorn")
"""Solvers that the regularisation is swept with: the first that is there."""


@dataclass
class Config:
    """Time every installed solver over sizes and batches, and DeepEMD's accuracy with each.

    The run is kept in --output: the same command goes on where it was interrupted. Times want an idle machine.
    """

    solvers: tuple[str, ...] = ("all",)
    """Solvers, or all that are installed."""
    sizes: tuple[int, ...] = (5, 9, 25, 49, 100, 225)
    """Nodes on each side of a problem."""
    batches: tuple[int, ...] = (1, 16, 375)
    """Problems in a batch."""
    point_sizes: tuple[int, ...] = (100, 300, 1000, 3000)
    """Points in each of two clouds."""
    regs: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Strengths of regularisation at which accuracy is measured."""
    reg: float = 0.05
    """Strength for the timings of entropic solvers, in units of the cost."""
    point_reg: float = 0.1
    """The same for point clouds."""
    features: Path | None = None
    """Your own features (.safetensors or .npz), also timed, instead of a data set and a backbone."""
    dataset: str = "glyphs"
    """Data set of the episodes."""
    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""
    backbone: str | None = None
    """As in compare."""
    resolution: int | None = None
    """As in compare."""
    split: str = "test"
    """train, val or test."""
    way: int = 5
    """Classes in an episode."""
    shot: int = 1
    """Labelled images of each class."""
    query: int = 2
    """Images to classify of each class: with five classes, 50 problems an episode."""
    episodes: int = 300
    """How many episodes."""
    seed: int = 1
    """Seed of the episodes."""
    call_seconds: float = 1.0
    """Calls that are predicted to take longer are left out, and said."""
    episode_seconds: float = 20.0
    """The same for all episodes of one solver."""
    merge: Path | None = None
    """results.json of another run, say of an environment with qpth, whose solvers are added."""
    quick: bool = False
    """A few small sizes, few turns and few episodes: to see that all works."""
    output: Path | None = None
    """Folder of the run. Default: runs/solver-timings-HASH."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and measure.

    Args:
        arguments: Instead of those of the process.
    """
    measure(parse(Config, "solver-timings", arguments), _console())


def measure(config: Config, console: Console) -> Path:
    """Run all measurements and write the report.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    if config.quick:
        config = replace(config, sizes=(4, 9), batches=(1, 8), point_sizes=(20, 40), regs=(0.1, 1.0, 10.0), episodes=10)
    _check(config)
    chosen, missing = problems.choose(config.solvers)
    device = _device(config.device)
    threads = _set_threads(config.threads)
    session = _Session(config, chosen, missing, device, console)
    identity = session.identity()
    digest = hashlib.sha256(to_json(identity)).hexdigest()[:8]
    output = config.output or Path("runs") / f"solver-timings-{digest}"
    RunDirectory.check(output, identity)
    session.prepare()
    results = {
        **identity,
        "kinds": {solver.name: solver.kind for solver in chosen},
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "threads": threads},
    }
    if config.merge is not None:
        # A file that cannot be merged is refused before the work.
        report.merge({**results, "timings": [], "episodes": {}}, config.merge)
    directory = RunDirectory(output, identity)
    results["timings"] = session.timings(directory)
    results["episodes"] = session.episodes(directory, results["timings"])
    directory.write("results.json", to_json(results))
    if config.merge is not None:
        results = report.merge(results, config.merge)
    _write(directory, results, console)
    return output


def _check(config: Config) -> None:
    """Refuse numbers out of range; what needs no data is checked first."""
    for name in ("sizes", "batches", "point_sizes", "regs"):
        values = getattr(config, name)
        if not values or min(values) <= 0:
            raise UserError(f"--{name.replace('_', '-')} must be positive numbers, at least one, not {list(values)}.")
    for name in ("reg", "point_reg", "call_seconds", "episode_seconds"):
        if not getattr(config, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} must be above 0, not {getattr(config, name)}.")
    if config.episodes < 1:
        raise UserError(f"--episodes must be at least 1, not {config.episodes}.")
    Protocol(config.dataset, "", config.split, config.seed, way=config.way, shot=config.shot, query=config.query)


@dataclass(frozen=True)
class _Cell:
    """One group of solvers on the same problems."""

    where: Row
    measure: Callable[[], list[Row]]


class _Session:
    """One run: its solvers, its features, and the times so far, from which the next are predicted."""

    def __init__(
        self,
        config: Config,
        chosen: list[type[Solver]],
        missing: list[type[Solver]],
        device: str,
        console: Console,
    ) -> None:
        from otfew.experiments.compare import _material

        self.config = config
        self.device = device
        self.console = console
        self.missing = [solver.name for solver in missing]
        self.solvers = {s.name: problems.construct(s, config.reg) for s in chosen}
        self.cloud_solvers = {s.name: problems.construct(s, config.point_reg) for s in chosen}
        self.histories = {name: History(GROWTH[solver.kind]) for name, solver in self.solvers.items()}
        self.cloud_histories = {name: History(GROWTH[solver.kind]) for name, solver in self.solvers.items()}
        self.pace = Pace(rounds=2, turn=0.0, budget=0.05) if config.quick else Pace()
        self.pace = replace(self.pace, limit=config.call_seconds)
        self.material = _material(_as_compare(config), console)
        self.data = self.material.describe()
        keys = {name: self.data["data"][name] for name in ("dataset", "variant", "split")}
        protocol = Protocol(**keys, seed=config.seed, way=config.way, shot=config.shot, query=config.query)
        self.sampler = Sampler(protocol, self.material.labels, self.material.classes)
        self.features: dict[str, FeatureSet] = {}

    def identity(self) -> Row:
        """Return what the run is: its folder belongs to it."""
        c = self.config
        protocol = {
            **{name: list(getattr(c, name)) for name in ("sizes", "batches", "point_sizes", "regs")},
            **{name: getattr(c, name) for name in ("reg", "point_reg", "call_seconds", "episode_seconds", "quick")},
            "solvers": {name: repr(solver) for name, solver in self.solvers.items()},
            "missing": self.missing,
            "device": self.device.partition(":")[0],
            "threads": c.threads,
            "backbone": self.data["backbone"],
            "episodes": {
                **{name: self.data["data"][name] for name in ("dataset", "variant", "split", "classes", "images")},
                **{name: getattr(c, name) for name in ("way", "shot", "query", "episodes", "seed")},
            },
        }
        return {
            "command": "solver-timings",
            "format": report.FORMAT,
            "protocol": protocol,
            "versions": {**_versions(), **_optional_versions()},
        }

    def prepare(self) -> None:
        """Get the features: as given, and average-pooled to 3x3 cells, which slow solvers can bear."""
        given = self.material.features(self.material.nodes_spec("fcn"), self.device)
        small = problems.pooled(given, 3)
        self.features = ({} if small is None else {"pooled": small}) | {"given": given}

    def timings(self, directory: RunDirectory) -> list[Row]:
        """Measure cell after cell; finished ones are taken from the folder."""
        cells = list(self._cells())
        rows: list[Row] = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task("timing", total=len(cells))
            for index, cell in enumerate(cells):
                bar.update(task, description=f"timing {cell.where['n']} nodes x {cell.where['batch']}")
                kept = directory.load_block(index, self._note)
                if kept is None:
                    found = cell.measure()
                    directory.save_block(index, {"rows": np.array(json.dumps(found))})
                else:
                    found = json.loads(str(kept["rows"]))
                    self._remember(found)
                rows += found
                bar.update(task, advance=1)
        return rows

    def episodes(self, directory: RunDirectory, rows: Sequence[Row]) -> dict[str, Row]:
        """Run DeepEMD with every solver that is quick enough, and on the given nodes at every reg."""
        results: dict[str, Row] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        for nodes, features in self.features.items():
            contenders, left_out = self._contenders(nodes, features, rows)
            with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
                task = bar.add_task("episodes", total=self.config.episodes * (len(contenders) + 1))
                found = run_episodes(
                    features,
                    self.sampler,
                    self.config.episodes,
                    contenders,
                    directory.path / f"episodes-{nodes}",
                    self.identity(),
                    self.device,
                    lambda done, name: bar.update(task, advance=done, description=f"episodes: {name}"),  # noqa: B023
                    self._note,
                )
            results[nodes] = {**found, **{name: {"skipped": reason} for name, reason in left_out.items()}}
        return results

    def _contenders(
        self, nodes: str, features: FeatureSet, rows: Sequence[Row]
    ) -> tuple[dict[str, Solver], dict[str, str]]:
        """Choose who runs the episodes, by the times of 50 problems of this size; say why the others do not."""
        from otfew.transport import Exact

        n = features.nodes.shape[1]
        dense = {name: solver for name, solver in self.solvers.items() if solver.input != "points"}
        wanted: dict[str, Solver] = {REFERENCE: Exact(), **dense}
        seconds = {name: self.histories[name].predict(n, report.TABLE_BATCH) for name in dense}
        if nodes == "given":
            for name, solver in self._swept().items():
                wanted[name] = solver
                timed = [r for r in rows if r["panel"] == "sweep file" and r["solver"] == name and "forward_ms" in r]
                seconds[name] = timed[0]["forward_ms"] / 1e3 if timed else None
        left_out: dict[str, str] = {}
        for name, solver in list(wanted.items()):
            if name == REFERENCE:
                continue
            each = seconds.get(name)
            pairs = self.config.way**2 * self.config.query / report.TABLE_BATCH
            total = None if each is None else each * pairs * self.config.episodes
            if total is not None and total > self.config.episode_seconds:
                left_out[name] = f"would take about {total:.0f} s"
            elif total is None:
                left_out[name] = "its time is not known"
            elif reason := why_not(solver, features, self.sampler):
                left_out[name] = reason
        return {name: solver for name, solver in wanted.items() if name not in left_out}, left_out

    def _cells(self) -> Iterator[_Cell]:
        """List the cells, small ones first, so that large ones can be predicted."""
        c = self.config
        dense = {name: solver for name, solver in self.solvers.items() if solver.input != "points"}
        table = {(n, report.TABLE_BATCH) for n in report.TABLE_NODES if n <= max(c.sizes)}
        for n, batch in sorted({(n, batch) for n in c.sizes for batch in c.batches} | table):
            yield self._dense("nodes", n, batch, dense, lambda n=n, b=batch: problems.drawn(n, b, self.device))
        given = self.features["given"]
        size = given.nodes.shape[1]
        for batch in sorted({*c.batches, report.TABLE_BATCH}):
            yield self._dense(
                "file", size, batch, dense, lambda b=batch: problems.real(given, self.sampler, b, self.device)
            )
        for n in sorted(set(c.point_sizes)):
            where = {"panel": "points", "n": n, "batch": 1}
            yield _Cell(
                where,
                lambda w=where: measure_points(
                    w, problems.clouds(w["n"], self.device), self.cloud_solvers, self.cloud_histories, self.pace
                ),
            )
        if self._swept():
            batch = report.TABLE_BATCH
            sides = {
                "sweep": (SWEEP_NODES, lambda: problems.drawn(SWEEP_NODES, batch, self.device)),
                "sweep file": (size, lambda: problems.real(given, self.sampler, batch, self.device)),
            }
            for panel, (n, make) in sides.items():
                where = {"panel": panel, "n": n, "batch": batch}
                yield _Cell(where, lambda w=where, m=make: self._sweep(w, m()))

    def _dense(
        self, panel: str, n: int, batch: int, dense: dict[str, Solver], make: Callable[[], problems.Problems]
    ) -> _Cell:
        where = {"panel": panel, "n": n, "batch": batch}
        return _Cell(where, lambda: measure_dense(where, make(), dense, self.histories, self.pace))

    def _swept(self) -> dict[str, Solver]:
        """Make the solver of every reg."""
        name = next((name for name in SWEEPERS if name in self.solvers), None)
        if name is None:
            return {}
        return {report.regularised(reg): replace(self.solvers[name], reg=reg) for reg in self.config.regs}  # type: ignore[type-var]

    def _sweep(self, where: Row, batch: problems.Problems) -> list[Row]:
        """Time every reg on the same problems, with the ends: exact and the product coupling."""
        rows: list[Row] = []
        predicted = 0.0
        # From the strong to the weak, since iterations grow as 1 / reg.
        for reg, (name, solver) in sorted(zip(self.config.regs, self._swept().items(), strict=True), reverse=True):
            if predicted > SWEEP_PATIENCE * self.pace.limit:
                rows.append(
                    {**where, "solver": name, "reg": reg, "skipped": f"a call would take about {predicted:.2g} s"}
                )
                continue
            history = {name: History(GROWTH["entropic"])}
            (row,) = measure_dense(where, batch, {name: solver}, history, self.pace)
            rows.append({**row, "reg": reg})
            predicted = 3 * row.get("forward_ms", 0.0) / 1e3
        ends = [{**where, "solver": REFERENCE, "reg": 0.0, "value_error": 0.0}]
        ends.append({**where, "solver": PRODUCT, "reg": None, "value_error": problems.product_error(batch)})
        return [*rows, *ends]

    def _remember(self, rows: list[Row]) -> None:
        """Let times of an earlier session predict those of this one."""
        for row in rows:
            histories = {"nodes": self.histories, "file": self.histories, "points": self.cloud_histories}
            if row["panel"] in histories and "forward_ms" in row:
                histories[row["panel"]][row["solver"]].seen[row["n"], row["batch"]] = row["forward_ms"] / 1e3

    def _note(self, text: str) -> None:
        """Say something in passing."""
        self.console.print(text, markup=False, highlight=False)


def _as_compare(config: Config) -> Any:
    """Ask for data as compare does."""
    from otfew.experiments.compare import Config as Compare

    names = ("dataset", "data_root", "features", "backbone", "resolution", "split")
    return Compare(**{name: getattr(config, name) for name in names})


def _write(directory: RunDirectory, results: Row, console: Console) -> None:
    """Write the report's files and print the tables."""
    from otfew.experiments._solver_plots import pictures
    from otfew.experiments._table import render
    from otfew.report import markdown

    pieces = []
    for title, head, rows in report.tables(results):
        console.print(render(title, head, rows))
        pieces.append(f"## {title}\n\n{markdown(head, rows, [])}")
    lines = report.lines(results)
    for line in lines:
        console.print(f"- {line}", markup=False, highlight=False)
    pieces.append("".join(f"- {line}\n" for line in lines))
    directory.write("timings.csv", report.timings_csv(results["timings"]))
    directory.write("report.md", "\n".join(pieces).encode())
    for name, picture in pictures(results).items():
        directory.write(name, picture)
    console.print(f"report: {directory.path}", markup=False, highlight=False, soft_wrap=True)


def _processor() -> str:
    """Name the processor as well as the system can."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _optional_versions() -> dict[str, str]:
    """Versions of the backends' libraries that are installed."""
    wanted = {"pot", "geomloss", "pykeops", "opencv-python-headless", "qpth"}
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {name: found[name] for name in sorted(wanted & found.keys())}


if __name__ == "__main__":
    run(main)
