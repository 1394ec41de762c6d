"""Speed of entropic transport between point clouds: KeOps, torch in blocks of rows, and GeomLoss."""

from __future__ import annotations

import numpy as np
import pytest

import otfew
from otfew.transport.backends.keops_reductions import obstacle

pytest.importorskip("geomloss")

REG = 0.05


@pytest.mark.skipif(obstacle("cpu") is not None, reason=str(obstacle("cpu")))
@pytest.mark.parametrize(("n", "dtype", "rounds"), [(1000, "float32", 5), (1000, "float64", 5), (5000, "float32", 1)])
def test_point_clouds(n, dtype, rounds, race):
    """Clouds in the unit cube, squared Euclidean cost; GeomLoss tests no error, so each one's is printed."""
    rng = np.random.default_rng(0)
    x, y = rng.random((2, n, 3)).astype(dtype)
    tol = 1e-4 / n
    solvers = {
        "torch": otfew.KeOps(reg=REG, tol=tol, backend="torch"),
        "keops": otfew.KeOps(reg=REG, tol=tol, backend="keops"),
        "geomloss online": otfew.GeomLoss(reg=REG, backend="online"),
        "geomloss tensorized": otfew.GeomLoss(reg=REG, backend="tensorized"),
    }

    def run(solver):
        return otfew.solve_points(x, y, solver=solver, on_fail="ignore")

    contenders = {}
    for name, solver in solvers.items():
        result = run(solver)
        label = f"{name} (error {n * result.marginal_error:.1e} of a weight, {result.n_iter} iterations)"
        contenders[label] = lambda solver=solver: run(solver).value
    race(f"{n} x {n} points in 3 dimensions, {dtype}, reg {REG}", contenders, rounds)
