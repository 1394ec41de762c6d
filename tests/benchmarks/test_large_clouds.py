"""Large point clouds on the CPU: merged, annealed and truncated, beside all points at once, by KeOps and by torch.

CPU seconds and the wall clock's, in turns. What takes minutes is timed once a turn; OTFEW_TURNS sets how many.
"""

from __future__ import annotations

import os
import statistics
import time

import numpy as np
import pytest

import otfew
from otfew.transport.backends.keops_reductions import obstacle

TURNS = int(os.environ.get("OTFEW_TURNS", "3"))


def run(x, y, backend, reg, tol):
    return otfew.solve_points(x, y, solver=otfew.KeOps(reg=reg, tol=tol, backend=backend), on_fail="ignore")


@pytest.mark.parametrize(
    ("n", "d", "reg", "backends"),
    [
        (2000, 3, 0.05, "torch"),
        (5000, 3, 0.05, "torch"),
        (5000, 3, 0.005, "torch"),
        (5000, 3, 5.0, "torch"),
        (5000, 64, 1.0, "torch"),
        (5000, 64, 20.0, "torch"),
        (20_000, 3, 0.05, "torch keops"),
    ],
)
def test_large_clouds(n, d, reg, backends, summarise, benchmark):
    """Clouds in the unit cube, squared Euclidean cost, float32, a tenth of a thousandth of a weight."""
    rng = np.random.default_rng(0)
    x, y = rng.random((2, n, d)).astype("float32")
    tol = 1e-4 / n
    names = ["auto", *(name for name in backends.split() if name != "keops" or obstacle("cpu") is None)]
    small = rng.random((2, 1100, d)).astype("float32")
    for name in names:
        # Compiled before it is timed.
        assert run(*small, name, reg, tol).gap >= 0
    spent = {name: ([], []) for name in names}
    values = {}
    for _ in range(TURNS):
        for name in names:
            start, cpu = time.perf_counter(), time.process_time()
            result = run(x, y, name, reg, tol)
            spent[name][0].append(time.perf_counter() - start)
            spent[name][1].append(time.process_time() - cpu)
            values[name] = float(result.value)
            assert result.status == otfew.Status.OPTIMAL
            assert result.marginal_error <= tol
    for value in values.values():
        assert abs(value - values["auto"]) <= 1e-4 * abs(value)
    title = f"{n} x {n} points in {d} dimensions, reg {reg}"
    for place, kind in enumerate(("seconds", "CPU seconds")):
        summarise(f"{title}, {kind}", {name: statistics.median(spent[name][place]) for name in names})
    benchmark.pedantic(lambda: None, rounds=1)
