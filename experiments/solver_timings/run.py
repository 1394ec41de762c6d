"""One run of all measurements, and its report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol
from otfew.experiments.common import setup
from otfew.experiments.common.options import WithBackbone, WithOneSet
from otfew.experiments.solver_timings import problems, report
from otfew.experiments.solver_timings.config import Config
from otfew.experiments.solver_timings.measure import Row
from otfew.experiments.solver_timings.session import Session
from otfew.features.material import Material
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.identity import short_hash, versions


@dataclass
class _Images(WithBackbone, WithOneSet):
    """What nodes come from: as in compare."""


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
    device = setup.pick_device(config.device)
    threads = setup.set_threads(config.threads)
    session = Session(config, _open_material(config, console), chosen, missing, device, console)
    identity = session.identity({**versions(), **_optional_versions()})
    output = config.output or Path("runs") / f"solver-timings-{short_hash(identity)}"
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
    Protocol(config.dataset or "", "", config.split, config.seed, way=config.way, shot=config.shot, query=config.query)


def _open_material(config: Config, console: Console) -> Material:
    """Open the user's features, or a split and a backbone, as compare does."""
    images = _Images(
        data_root=config.data_root,
        split=config.split,
        download=config.download,
        backbone=config.backbone,
        resolution=config.resolution,
    )
    return setup.open_material(images, config.dataset, config.features, "", console)


def _write(directory: RunDirectory, results: Row, console: Console) -> None:
    """Write the report's files and print the tables."""
    from otfew.experiments.solver_timings.plots import pictures
    from otfew.reporting.tables import sections, terminal

    tables = report.tables(results)
    for table in tables:
        console.print(terminal(table))
    lines = report.lines(results)
    for line in lines:
        console.print(f"- {line}", markup=False, highlight=False)
    directory.write("timings.csv", report.timings_csv(results["timings"]))
    directory.write("report.md", sections(tables, lines).encode())
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
