"""Assignment problems - uniform weights, as many rows as columns - take a path of their own through ``exact``."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import otfew

PATHS, BOTH = "exact (shortest augmenting paths)", "exact (simplex and shortest augmenting paths)"


def draw(kind, n, seed=0):
    rng = np.random.default_rng(seed)
    if kind == "ties":
        return rng.integers(0, 4, (n, n)).astype(float)
    if kind == "constant":
        return np.full((n, n), -3.0)
    if kind == "sum":
        return rng.random((n, 1)) + rng.random(n)
    if kind == "duplicates":
        x, y = rng.standard_normal((2, 3, 2))[:, rng.integers(0, 3, n)] + 1e-9 * rng.standard_normal((2, n, 2))
        return ((x[:, None] - y) ** 2).sum(-1)
    if kind == "huge":
        return 1e300 * rng.standard_normal((n, n))
    assert kind == "points"
    x, y = rng.standard_normal((2, n, 2))
    return ((x[:, None] - y) ** 2).sum(-1)


@pytest.mark.parametrize("n", [1, 2, 3, 31, 32, 100, 128, 129, 200])
@pytest.mark.parametrize("kind", ["ties", "constant", "sum", "duplicates", "huge", "points"])
def test_value_is_that_of_the_best_assignment(kind, n):
    cost = draw(kind, n)
    spread = np.ptp(cost) or 1.0
    result = otfew.solve(cost)
    rows, cols = linear_sum_assignment(cost)
    assert abs(result.value - (cost[rows, cols] / n).sum()) <= 1e-13 * spread
    # The gap bounds what the rounding of large costs can hide.
    assert abs(result.gap) <= 1e-12 * spread + 1e-14 * np.abs(cost).max()
    f, g = result.potentials
    assert (f[:, None] + g <= cost + 1e-13 * spread).all()
    assert result.marginal_error <= n * 2.0**-52
    assert result.solver == (PATHS if n <= 128 else "exact")


def test_weights_that_are_zero_do_not_count(batch):
    """Three rows and three columns of equal weight are left: an assignment of three."""
    cost, _, _ = batch(size=5)
    a, b = np.zeros(7), np.zeros(5)
    a[[1, 4, 6]] = b[[0, 2, 3]] = 2.0
    result = otfew.solve(cost, a, b)
    assert result.solver == PATHS
    for k in range(5):
        inner = cost[k][np.ix_([1, 4, 6], [0, 2, 3])]
        assert abs(result.value[k] - 2 * inner[linear_sum_assignment(inner)].sum()) <= 1e-14
        f, g = (x[k] for x in result.potentials)
        assert (f[:, None] + g <= cost[k] + 1e-14).all()
        # A row without mass may be as dear as the columns with mass allow.
        np.testing.assert_allclose(f[0], (cost[k][0] - g)[[0, 2, 3]].min(), rtol=0, atol=1e-14)


def test_each_problem_of_a_batch_takes_its_own_path(batch):
    cost, a, b = batch(n=6, m=6)
    a[::2] = b[::2] = 1 / 6
    together = otfew.solve(cost, a, b)
    assert together.solver == BOTH
    for k in range(len(cost)):
        alone = otfew.solve(cost[k], a[k], b[k])
        assert alone.solver == (PATHS if k % 2 == 0 else "exact")
        assert alone.value == together.value[k]
        assert (alone.plan == together.plan[k]).all()


def test_nearly_uniform_weights_go_through_the_simplex(batch):
    cost, _, _ = batch(n=6, m=6)
    a = np.full(6, 1 / 6)
    nearly = a.copy()
    nearly[0] += 1e-12
    expected, found = otfew.solve(cost, a, a), otfew.solve(cost, nearly, nearly)
    assert found.solver == "exact"
    np.testing.assert_allclose(found.value, expected.value, rtol=0, atol=1e-11)
