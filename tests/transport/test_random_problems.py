"""Random problems against HiGHS and POT's exact solver, each solution proved from its own plan and potentials."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otfew

ot = pytest.importorskip("ot")

reproducible = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def right_and_proved(example, highs, prove):
    """Solve exactly, prove the answer, and compare its value with HiGHS's and POT's."""
    result = otfew.solve(example.cost, example.a, example.b)
    assert result.status == otfew.Status.OPTIMAL
    prove(result, example)
    expected = highs(example.cost, example.a, example.b)
    assert abs(float(result.value) - expected) <= example.tolerance(), example.kind
    # POT compares totals in absolute terms: unit mass, unit range.
    low, spread = example.cost.min(), example.spread or 1.0
    a, b = example.a / example.a.sum(), example.b / example.b.sum()
    peer = example.mass * (low + spread * ot.emd2(a, b, (example.cost - low) / spread))
    assert abs(float(result.value) - peer) <= example.tolerance(), example.kind


@settings(reproducible, max_examples=500)
@given(data=st.data())
def test_exact_is_right_and_proves_it(data, examples, highs, prove):
    right_and_proved(data.draw(examples), highs, prove)


@pytest.mark.slow
@settings(reproducible, max_examples=2_000)
@given(data=st.data())
def test_exact_is_right_on_thousands_of_problems(data, examples, highs, prove):
    right_and_proved(data.draw(examples), highs, prove)


@pytest.mark.parametrize("solver", ["pot", "scipy"])
@settings(reproducible, max_examples=100)
@given(data=st.data())
def test_oracle_backends_are_right_and_prove_it(data, solver, examples, highs, prove):
    example = data.draw(examples)
    result = otfew.solve(example.cost, example.a, example.b, solver=solver)
    assert result.status == otfew.Status.OPTIMAL
    prove(result, example)
    expected = highs(example.cost, example.a, example.b)
    # HiGHS meets the sums to 1e-10 only, and what it leaves out is missing from the value.
    missed = sum(example.cost.shape) * float(result.marginal_error) * example.mass * np.abs(example.cost).max()
    assert abs(float(result.value) - expected) <= example.tolerance() + missed, example.kind


@settings(reproducible, max_examples=100)
@given(data=st.data(), size=st.integers(2, 12), seed=st.integers(0, 2**20), ties=st.booleans())
def test_uniform_square_problems_are_assignments(data, size, seed, ties):
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 3, (size, size)).astype(float) if ties else rng.standard_normal((size, size))
    expected = cost[linear_sum_assignment(cost)].sum() / size
    assert abs(float(otfew.solve(cost).value) - expected) <= 1e-14 * size


@pytest.mark.parametrize("cost_kind", ["uniform", "ties", "constant"])
@pytest.mark.parametrize(("n", "m"), [(64, 64), (63, 65), (1, 90), (90, 1), (40, 120), (130, 70)])
def test_degenerate_problems_end(n, m, cost_kind):
    """Uniform or integer masses make almost every pivot degenerate; sizes straddle the 64-node words of the kernel."""
    rng = np.random.default_rng(n * m)
    costs = {"uniform": rng.random((n, m)), "ties": rng.integers(0, 3, (n, m)) * 1.0, "constant": np.ones((n, m))}
    cost = costs[cost_kind]
    for a, b in ((np.full(n, 1 / n), np.full(m, 1 / m)), (np.eye(n)[0], np.eye(m)[-1])):
        result = otfew.solve(cost, a, b)
        assert result.status == otfew.Status.OPTIMAL
        assert abs(float(result.value) - ot.emd2(a, b, cost)) <= 1e-9
        assert -1e-13 <= result.gap <= 1e-9


def cosine_problem(n, m, channels, seed):
    rng = np.random.default_rng(seed)
    x, y = (np.maximum(rng.standard_normal((k, channels)) + 0.3, 0) for k in (n, m))
    a, b = x @ y.mean(0), y @ x.mean(0)
    cosine = (x @ y.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)
    return 1 - cosine, a / a.sum(), b / b.sum()


def squared_euclidean_problem(n, m, channels, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, channels)), rng.standard_normal((m, channels)) + 1
    a, b = rng.random(n), rng.random(m)
    return ((x[:, None] - y) ** 2).sum(-1), a / a.sum(), b / b.sum()


@pytest.mark.parametrize(
    ("draw", "n", "m", "channels"),
    [(cosine_problem, 125, 125, 64), (cosine_problem, 25, 125, 64), (squared_euclidean_problem, 300, 300, 2)],
)
def test_large_problems_agree_with_pot(draw, n, m, channels):
    cost, a, b = draw(n, m, channels, seed=0)
    result = otfew.solve(cost, a, b)
    allowed = 1e-9 * np.ptp(cost)
    assert abs(float(result.value) - ot.emd2(a, b, cost, numItermax=10_000_000)) <= allowed
    assert -1e-13 * cost.max() <= result.gap <= allowed
    assert result.marginal_error <= 1e-12
