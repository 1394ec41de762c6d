"""Point clouds whose costs are never held: KeOps on the device, torch in blocks beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

import otfew
from otfew.experiments.device_check.bench import CARD, Bench, Row, Timing
from otfew.experiments.solver_timings.measure import in_a_line
from otfew.experiments.solver_timings.problems import clouds

Backend = Literal["keops", "torch"]

SIZES = (10_000, 100_000)
TOY_SIZES = (40,)
REG = 0.5
"""In units of the squared distance; the clouds are some 1 wide."""
PATIENCE = 8.0
"""Calls of torch that are predicted to take longer, in seconds, are not made: time grows as the points squared."""


def measure(bench: Bench) -> Iterator[Row]:
    """Yield a row a solver and size."""
    backends: tuple[Backend, ...] = ("torch",) if bench.toy else ("keops", "torch")  # KeOps compiles for a while
    for backend in backends:
        predicted = 0.0
        for n in TOY_SIZES if bench.toy else SIZES:
            by = CARD if backend == "keops" else "torch in blocks"
            where = {"what": "point clouds", "size": f"{n:,} points", "count": 1, "by": by}
            if backend == "torch" and predicted > min(PATIENCE, bench.left()):
                yield {**where, "skipped": f"would take about {predicted:.1f} s"}
                continue
            try:
                row = _timed(bench, n, otfew.KeOps(reg=REG, backend=backend))
            except Exception as error:  # KeOps without a compiler, or without memory: a finding
                yield {**where, "skipped": in_a_line(error)}
                break
            predicted = (SIZES[1] / SIZES[0]) ** 2 * row["least_ms"] / 1e3
            yield {**where, **row}


def _timed(bench: Bench, n: int, solver: otfew.KeOps) -> Row:
    """Time one pair of clouds; the first call may compile, and counts where no second one fits."""
    x, y, a, b = clouds(n, str(bench.device))
    found: list[otfew.OTResult] = []

    def call() -> None:
        with torch.no_grad():
            found[:] = [otfew.solve_points(x, y, a, b, solver=solver, on_fail="ignore")]

    first = bench.once(call)
    seconds = [first]
    if first < 0.5 * bench.left():
        seconds = [bench.once(call) for _ in range(1 + int(1.0 / first))]
    (result,) = found
    return {
        **Timing(tuple(seconds)).figures(1),
        "marginal_error": float(result.marginal_error.max()),
        "certified": bool((result.status == otfew.Status.OPTIMAL).all()),
    }
