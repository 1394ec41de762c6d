"""Point clouds whose costs are never held: KeOps on the device, torch in blocks beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

import otfew
from otfew.experiments.device_check.bench import CARD, Bench, Row
from otfew.experiments.solver_timings.measure import in_a_line
from otfew.experiments.solver_timings.problems import clouds

Backend = Literal["keops", "torch"]

SIZES = (10_000, 100_000)
TOY_SIZES = (40,)
REG = 0.5
"""In units of the squared distance; the clouds are some 1 wide."""
PATIENCE = 8.0
"""Calls that are predicted to take longer, in seconds, are not made: time grows as the square of the points."""


def measure(bench: Bench) -> Iterator[Row]:
    """Yield a row a solver and size; a first call compiles, and is not counted."""
    backends: tuple[Backend, ...] = ("torch",) if bench.toy else ("keops", "torch")  # KeOps compiles for a while
    for backend in backends:
        predicted = 0.0
        for n in TOY_SIZES if bench.toy else SIZES:
            by = CARD if backend == "keops" else "torch in blocks"
            where = {"what": "point clouds", "size": f"{n} points", "count": 1, "by": by}
            if predicted > min(PATIENCE, bench.left()):
                yield {**where, "skipped": f"would take about {predicted:.1f} s"}
                continue
            try:
                row = _timed(bench, n, otfew.KeOps(reg=REG, backend=backend))
            except Exception as error:  # KeOps without a compiler, or without memory: a finding
                yield {**where, "skipped": in_a_line(error)}
                break
            predicted = 100 * row["least_ms"] / 1e3
            yield {**where, **row}


def _timed(bench: Bench, n: int, solver: otfew.KeOps) -> Row:
    """Time one pair of clouds."""
    x, y, a, b = clouds(n, str(bench.device))
    with torch.no_grad():
        found = otfew.solve_points(x, y, a, b, solver=solver, on_fail="ignore")
        timing = bench.turns(
            lambda: otfew.solve_points(x, y, a, b, solver=solver, on_fail="ignore"), seconds=1.5, most=5
        )
    return {
        **timing.figures(1),
        "marginal_error": float(found.marginal_error.max()),
        "certified": bool((found.status == otfew.Status.OPTIMAL).all()),
    }
