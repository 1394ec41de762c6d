"""Problems whose optimum is known without a solver."""

from __future__ import annotations

import numpy as np
import pytest

import otfew

every = pytest.mark.parametrize("solver", ["exact", "pot", "scipy"])


def close(result, expected, atol=1e-10):
    np.testing.assert_allclose(result.value, expected, rtol=0, atol=atol)


def wasserstein_on_the_line(x, a, y, b, power):
    """Integrate |F^-1 - G^-1|^p over the quantile levels at which either quantile function jumps."""
    order_x, order_y = np.argsort(x), np.argsort(y)
    x, a, y, b = x[order_x], a[order_x], y[order_y], b[order_y]
    above_x, above_y = np.cumsum(a), np.cumsum(b)
    levels = np.sort(np.concatenate([[0.0], above_x[:-1], above_y[:-1], [1.0]]))
    middle = (levels[1:] + levels[:-1]) / 2
    at_x = x[np.minimum(np.searchsorted(above_x, middle), len(x) - 1)]
    at_y = y[np.minimum(np.searchsorted(above_y, middle), len(y) - 1)]
    return float((np.abs(at_x - at_y) ** power * np.diff(levels)).sum())


@every
@pytest.mark.parametrize("power", [1, 2, 3.5])
@pytest.mark.parametrize("seed", range(4))
def test_points_on_a_line_match_in_order(solver, power, seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 12, 2)
    x, y, a, b = rng.standard_normal(n), rng.standard_normal(m) + 1, rng.random(n), rng.random(m)
    a, b = a / a.sum(), b / b.sum()
    cost = np.abs(x[:, None] - y) ** power
    expected = wasserstein_on_the_line(x, a, y, b, power)
    close(otfew.solve(cost, a, b, solver=solver), expected, 1e-9 * max(1, np.ptp(cost)))


@every
def test_two_by_two(solver):
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost, a, b = rng.standard_normal((2, 2)), rng.dirichlet([1, 1]), rng.dirichlet([1, 1])
        # One number is free, the mass from the first row to the first column; the value is linear in it.
        ends = [max(0.0, a[0] - b[1]), min(a[0], b[0])]
        values = [
            t * cost[0, 0] + (a[0] - t) * cost[0, 1] + (b[0] - t) * cost[1, 0] + (a[1] - b[0] + t) * cost[1, 1]
            for t in ends
        ]
        result = otfew.solve(cost, a, b, solver=solver)
        close(result, min(values))
        np.testing.assert_allclose(result.plan[0, 0], ends[int(np.argmin(values))], atol=1e-10)


@every
def test_cost_of_rows_plus_cost_of_columns_leaves_no_choice(solver):
    rng = np.random.default_rng(1)
    u, v, a, b = rng.standard_normal(6), rng.standard_normal(9), rng.random(6), rng.random(9)
    b *= a.sum() / b.sum()
    close(otfew.solve(u[:, None] + v, a, b, solver=solver), u @ a + v @ b)


@every
def test_a_translation_costs_its_squared_length(solver):
    rng = np.random.default_rng(2)
    x, shift = rng.standard_normal((10, 3)), np.array([0.3, -2.0, 1.0])
    a, order = rng.dirichlet(np.ones(10)), rng.permutation(10)
    y, b = (x + shift)[order], a[order]
    close(otfew.solve(((x[:, None] - y) ** 2).sum(-1), a, b, solver=solver), shift @ shift, 1e-8)


@every
def test_identical_measures_are_at_distance_zero(solver):
    rng = np.random.default_rng(3)
    x, a = rng.standard_normal((8, 2)), rng.dirichlet(np.ones(8))
    distance = np.linalg.norm(x[:, None] - x, axis=-1)
    result = otfew.solve(distance, a, a, solver=solver)
    close(result, 0)
    np.testing.assert_allclose(result.plan, np.diag(a), atol=1e-9)


@every
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_one_row_or_column_leaves_no_choice(solver, shape):
    rng = np.random.default_rng(4)
    cost, a, b = rng.standard_normal(shape), rng.dirichlet(np.ones(shape[0])), rng.dirichlet(np.ones(shape[1]))
    result = otfew.solve(cost, a, b, solver=solver)
    np.testing.assert_allclose(result.plan, np.outer(a, b), atol=1e-12)
    close(result, (cost * np.outer(a, b)).sum())


@every
def test_discrete_metric_gives_total_variation(solver):
    rng = np.random.default_rng(5)
    a, b = rng.dirichlet(np.ones(9)), rng.dirichlet(np.ones(9))
    close(otfew.solve(1 - np.eye(9), a, b, solver=solver), np.abs(a - b).sum() / 2)
