"""One run of solver-timings: which cells there are, what is kept of them, and who runs the episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from otfew.evaluation.episodes import Protocol, Sampler
from otfew.experiments.common.watch import ConsoleWatch, counted
from otfew.experiments.solver_timings import problems, report
from otfew.experiments.solver_timings.clock import GROWTH, POINT_GROWTH, History, Pace
from otfew.experiments.solver_timings.config import Config
from otfew.experiments.solver_timings.episodes import PRODUCT, REFERENCE, run_episodes, why_not
from otfew.experiments.solver_timings.measure import Row, in_a_line, measure_dense, measure_points
from otfew.features.extract import FeatureSet
from otfew.features.material import Material
from otfew.runs.blocks import Column, Form
from otfew.runs.directory import RunDirectory
from otfew.runs.identity import code_digest
from otfew.transport import ConvergenceError, Exact, Solver

CODE = (
    "otfew.experiments.solver_timings.clock",
    "otfew.experiments.solver_timings.measure",
    "otfew.experiments.solver_timings.problems",
    "otfew.transport",
)
"""What is timed, and what times it."""
SWEEP_NODES = 25
PATIENCE = 3
"""The few calls on point clouds and in the sweep may take so many times as long as others."""
SWEEPERS = ("sinkhorn", "pot-sinkhorn")
"""Solvers that the regularisation is swept with: the first that is there."""
EPISODES = ("dataset", "variant", "split", "classes", "images", "features_sha256")
"""What a run's protocol says of the data."""


@dataclass(frozen=True)
class _Cell:
    """One group of solvers on the same problems."""

    where: Row
    measure: Callable[[], list[Row]]


class Session:
    """One run: its solvers, its features, and the times so far, from which the next are predicted.

    Args:
        config: The command line of solver-timings.
        material: Where nodes come from.
        chosen: Solvers to time.
        missing: Solvers whose library is not installed.
        device: Where to compute.
        console: Where progress goes.

    Raises:
        UserError: Episodes that the data cannot give.
    """

    def __init__(
        self,
        config: Config,
        material: Material,
        chosen: list[type[Solver]],
        missing: list[type[Solver]],
        device: str,
        console: Console,
    ) -> None:
        self.config = config
        self.device = device
        self.watch = ConsoleWatch(console)
        self.missing = [solver.name for solver in missing]
        self.solvers = {s.name: problems.construct(s, config.reg) for s in chosen}
        self.cloud_solvers = {s.name: problems.construct(s, config.point_reg) for s in chosen}
        self.histories = {name: History(GROWTH[solver.kind]) for name, solver in self.solvers.items()}
        self.cloud_histories = {
            name: History(POINT_GROWTH if solver.input == "points" else GROWTH[solver.kind])
            for name, solver in self.solvers.items()
        }
        self.pace = Pace(rounds=2, turn=0.0, budget=0.05) if config.quick else Pace()
        self.pace = replace(self.pace, limit=config.call_seconds)
        self.patient = replace(self.pace, limit=PATIENCE * config.call_seconds)
        self.material = material
        self.data = self.material.describe()
        keys = {name: self.data["data"][name] for name in ("dataset", "variant", "split")}
        protocol = Protocol(**keys, seed=config.seed, way=config.way, shot=config.shot, query=config.query)
        self.sampler = Sampler(protocol, self.material.labels, self.material.classes)
        self.features: dict[str, FeatureSet] = {}
        self.identified: Row = {}

    def identity(self, versions: dict[str, str]) -> Row:
        """Return what the run is, with the versions that it depends on: its folder belongs to it."""
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
                **{name: self.data["data"][name] for name in EPISODES if name in self.data["data"]},
                **{name: getattr(c, name) for name in ("way", "shot", "query", "episodes", "seed")},
            },
        }
        self.identified = {
            "command": "solver-timings",
            "format": report.FORMAT,
            "protocol": protocol,
            "versions": versions,
        }
        return self.identified

    def prepare(self) -> None:
        """Get the features: as given, and average-pooled to 3x3 cells, which slow solvers can bear."""
        given = self.material.features(self.material.nodes_spec("fcn"), self.device)
        small = problems.pooled(given, 3)
        self.features = ({} if small is None else {"pooled": small}) | {"given": given}

    def timings(self, directory: RunDirectory) -> list[Row]:
        """Measure cell after cell; finished ones are taken from the folder."""
        cells = list(self._cells())
        rows: list[Row] = []
        form = Form({"rows": Column(kind="U")}, code_digest(*CODE))
        with self.watch.task("timing") as step:
            for index, cell in enumerate(cells):
                step(index, len(cells), f"timing {cell.where['n']} nodes x {cell.where['batch']}")
                kept = directory.load_block(index, form, self.watch.note)
                if kept is None:
                    found = cell.measure()
                    directory.save_block(index, {"rows": np.array(json.dumps(found))}, form)
                else:
                    found = json.loads(str(kept["rows"]))
                    self._remember(found)
                rows += found
        return rows

    def episodes(self, directory: RunDirectory, rows: Sequence[Row]) -> dict[str, Row]:
        """Run DeepEMD with every solver that is quick enough, and on the given nodes at every reg."""
        results: dict[str, Row] = {}
        for nodes, features in self.features.items():
            solvers, left_out = self._quick_enough(nodes, features, rows)
            folder = f"episodes-{nodes}"
            while True:
                try:
                    found = self._episodes(features, solvers, directory.path / folder)
                    break
                except ConvergenceError as error:
                    # Of thousands of problems one may be too hard for a backend: then the others are measured.
                    failed = next((name for name in solvers if str(error).startswith(f"{name} ")), REFERENCE)
                    if failed == REFERENCE:
                        raise
                    left_out[failed] = in_a_line(error)
                    del solvers[failed]
                    folder += f"-without-{failed}"
            results[nodes] = {**found, **{name: {"skipped": reason} for name, reason in left_out.items()}}
        return results

    def _episodes(self, features: FeatureSet, solvers: dict[str, Solver], folder: Path) -> dict[str, Row]:
        """Run DeepEMD with some solvers; finished blocks of episodes are kept."""
        with self.watch.task("episodes") as step:
            return run_episodes(
                features,
                self.sampler,
                self.config.episodes,
                solvers,
                folder,
                self.identified,
                self.device,
                counted(step, self.config.episodes * (len(solvers) + 1), "episodes"),
                self.watch.note,
            )

    def _quick_enough(
        self, nodes: str, features: FeatureSet, rows: Sequence[Row]
    ) -> tuple[dict[str, Solver], dict[str, str]]:
        """Choose who runs the episodes, by the times of 50 problems of this size; say why the others do not."""
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
            yield self._dense("nodes", n, batch, dense, partial(problems.drawn, n, batch, self.device))
        given = self.features["given"]
        size = given.nodes.shape[1]
        for batch in sorted({*c.batches, report.TABLE_BATCH}):
            yield self._dense(
                "file", size, batch, dense, partial(problems.real, given, self.sampler, batch, self.device)
            )
        for n in sorted(set(c.point_sizes)):
            where: Row = {"panel": "points", "n": n, "batch": 1}
            yield _Cell(where, partial(self._points, where))
        if self._swept():
            batch = report.TABLE_BATCH
            sides = {
                "sweep": (SWEEP_NODES, partial(problems.drawn, SWEEP_NODES, batch, self.device)),
                "sweep file": (size, partial(problems.real, given, self.sampler, batch, self.device)),
            }
            for panel, (n, make) in sides.items():
                where = {"panel": panel, "n": n, "batch": batch}
                yield _Cell(where, partial(self._sweep, where, make))

    def _dense(
        self, panel: str, n: int, batch: int, dense: dict[str, Solver], make: Callable[[], problems.Problems]
    ) -> _Cell:
        where = {"panel": panel, "n": n, "batch": batch}
        return _Cell(where, lambda: measure_dense(where, make(), dense, self.histories, self.pace))

    def _swept(self) -> dict[str, Any]:
        """Make the solver of every reg, ascending."""
        name = next((name for name in SWEEPERS if name in self.solvers), None)
        if name is None:
            return {}
        solver: Any = self.solvers[name]
        return {report.regularised(reg): replace(solver, reg=reg) for reg in sorted(set(self.config.regs))}

    def _points(self, where: Row) -> list[Row]:
        """Time every solver on one pair of clouds."""
        clouds = problems.clouds(where["n"], self.device)
        return measure_points(where, clouds, self.cloud_solvers, self.cloud_histories, self.patient)

    def _sweep(self, where: Row, make: Callable[[], problems.Problems]) -> list[Row]:
        """Time every reg on the same problems, with the ends: exact and the product coupling."""
        batch = make()
        rows: list[Row] = []
        predicted = 0.0
        # From the strong to the weak, since iterations grow as 1 / reg.
        for name, solver in reversed(self._swept().items()):
            reg = solver.reg
            if predicted > self.patient.limit:
                rows.append(
                    {**where, "solver": name, "reg": reg, "skipped": f"a call would take about {predicted:.2g} s"}
                )
                continue
            history = {name: History(GROWTH["entropic"])}
            (row,) = measure_dense(where, batch, {name: solver}, history, self.patient)
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
