"""Large exact problems: the simplex on few arcs, priced against all; small problems are sent its way as well."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import otfew
from otfew.transport.problem import Status
from otfew.transport.simplex import exact, large, large_tree

COSTS = ("uniform", "points", "ties", "cosine", "flat", "signed", "far")
WEIGHTS = ("dirichlet", "uniform", "integer", "zeros", "wild")


@pytest.fixture
def forced(monkeypatch):
    """Send problems of any size the large way."""
    monkeypatch.setattr(exact, "LARGE", 0)


def cost_of(kind, n, m, rng):
    if kind == "points":
        return ((rng.standard_normal((n, 1, 3)) - rng.standard_normal((1, m, 3))) ** 2).sum(-1)
    if kind == "ties":
        return rng.integers(0, 4, (n, m)).astype(float)
    if kind == "cosine":
        x, y = (np.maximum(rng.standard_normal((k, 16)) + rng.standard_normal(16), 0.01) for k in (n, m))
        return 1 - x @ y.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)
    if kind == "flat":
        return np.full((n, m), rng.random())
    if kind == "signed":
        return 1e-5 * rng.standard_normal((n, m)) - 3.0
    cost = rng.random((n, m))
    if kind == "far":
        cost[rng.random((n, m)) < 0.3] = 1e4
    return cost


def weights_of(kind, n, rng):
    if kind == "uniform":
        return np.full(n, 1 / n)
    if kind == "integer":
        weights = rng.integers(1, 4, n).astype(float)
    elif kind == "zeros":
        weights = rng.random(n) * (rng.random(n) < 0.5)
        weights[rng.integers(n)] = 1.0
    elif kind == "wild":
        weights = rng.random(n) * 10.0 ** rng.integers(-18, 1, n)
    else:
        weights = rng.dirichlet(np.ones(n))
    return weights / weights.sum()


def problem_of(cost, weights, n, m, seed):
    rng = np.random.default_rng(seed)
    return cost_of(cost, n, m, rng), weights_of(weights, n, rng), weights_of(weights, m, rng)


def optimum(cost, a, b):
    n, m = cost.shape
    sums = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return linprog(cost.ravel(), A_eq=sums[:-1], b_eq=np.concatenate([a, b])[:-1], method="highs").fun


def check(cost, a, b, result, tol=1e-12):
    """Check a result's own proof, from its plan and potentials alone."""
    assert result.status == Status.OPTIMAL
    assert result.solver == "exact"
    plan, (f, g) = result.plan, result.potentials
    reach = np.abs(cost).max()
    assert plan.min() >= 0
    assert np.abs(plan.sum(1) - a).max() <= 1e-12
    assert np.abs(plan.sum(0) - b).max() <= 1e-12
    assert (cost - f[:, None] - g).min() >= -4e-15 * (reach + np.abs(f).max() + np.abs(g).max())
    assert abs((g * b).sum()) <= 1e-13 * reach
    assert result.value == pytest.approx((plan * cost).sum(), abs=tol * reach)
    assert result.value - (f @ a + g @ b) <= result.gap <= tol * reach


@settings(max_examples=150, deadline=None)
@given(
    cost=st.sampled_from(COSTS),
    weights=st.sampled_from(WEIGHTS),
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    seed=st.integers(0, 2**31),
    few=st.booleans(),
)
def test_it_finds_the_optimum_whatever_it_starts_from(cost, weights, n, m, seed, few):
    cost, a, b = problem_of(cost, weights, n, m, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "LARGE", 0)
        if few:
            # Bad lists, no potentials, and whatever can be forgotten is: each round goes on from its tree.
            for name, value in {
                "ROW_ARCS": 1, "COLUMN_ARCS": 1, "VIOLATORS": 1, "ANNEALING": (), "CROWDED": 0, "SAMPLE": 1,
            }.items():  # fmt: skip
                patch.setattr(large, name, value)
        result = otfew.solve(cost, a, b)
    check(cost, a, b, result)
    assert result.value == pytest.approx(otfew.solve(cost, a, b).value, abs=1e-12 * np.abs(cost).max())
    if weights != "wild":
        # HiGHS misses weights below its tolerance.
        assert result.value == pytest.approx(optimum(cost, a, b), rel=1e-7, abs=1e-7 * np.abs(cost).max())


@pytest.mark.parametrize("weights", ["dirichlet", "uniform", "integer"])
@pytest.mark.parametrize("cost", ["uniform", "points", "ties", "cosine"])
@pytest.mark.parametrize(("n", "m"), [(300, 300), (150, 700)])
def test_it_agrees_with_pot(forced, cost, weights, n, m):
    emd_c = pytest.importorskip("ot.lp.emd_wrap").emd_c
    cost, a, b = problem_of(cost, weights, n, m, 1)
    result = otfew.solve(cost, a, b)
    check(cost, a, b, result)
    assert result.value == pytest.approx(emd_c(a, b, cost, 10_000_000, 1)[1], abs=1e-11 * cost.max())


@pytest.mark.parametrize(
    ("cost", "weights", "n", "m"),
    [("uniform", "dirichlet", 1500, 1500), ("points", "uniform", 2000, 2000), ("cosine", "dirichlet", 500, 2500)],
)
def test_problems_that_are_large_indeed(cost, weights, n, m):
    cost, a, b = problem_of(cost, weights, n, m, 2)
    result = otfew.solve(cost, a, b)
    check(cost, a, b, result)
    f, g = result.potentials
    assert result.value == pytest.approx(f @ a + g @ b, abs=1e-12)


def test_sizes_decide_which_way_it_goes(monkeypatch):
    went = []
    solve_all = large.solve_all
    monkeypatch.setattr(large, "solve_all", lambda *args: went.append(1) or solve_all(*args))
    rng = np.random.default_rng(3)
    otfew.solve(rng.random((600, 999)))
    assert not went
    otfew.solve(rng.random((600, 1001)))
    assert went


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weights", ["dirichlet", "uniform", "zeros"])
def test_bits_do_not_depend_on_threads_or_batch_mates(dtype, weights):
    cost, a, b = problem_of("points", weights, 900, 800, 4)
    cost = cost.astype(dtype)
    one, two = (otfew.solve(cost, a, b, solver=otfew.Exact(threads=threads)) for threads in (1, 2))
    batch = otfew.solve(np.stack([cost, cost[::-1]]), a, b, solver=otfew.Exact(threads=2))
    for name in ("value", "gap", "plan", "n_iter"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        np.testing.assert_array_equal(getattr(one, name), getattr(batch, name)[0])
    for x, y in zip(one.potentials, two.potentials, strict=True):
        np.testing.assert_array_equal(x, y)


def test_float32_costs_are_read_as_what_they_are(forced):
    cost, a, b = problem_of("cosine", "dirichlet", 120, 90, 5)
    narrow = cost.astype(np.float32)
    wide = otfew.solve(narrow.astype(np.float64), a, b)
    assert otfew.solve(narrow, a, b).value == pytest.approx(wide.value, rel=1e-14)


def test_few_pivots_are_said_to_be_too_few(forced):
    cost, a, b = problem_of("points", "dirichlet", 200, 200, 6)
    best = otfew.solve(cost, a, b).value
    with pytest.raises(otfew.ConvergenceError):
        otfew.solve(cost, a, b, solver=otfew.Exact(max_iter=3))
    short = otfew.solve(cost, a, b, solver=otfew.Exact(max_iter=3), on_fail="ignore")
    assert short.status == Status.MAX_ITER
    assert short.n_iter == 3
    assert 0 < short.value - best <= short.gap


def test_a_tolerance_is_kept_and_saves_pivots(forced):
    cost, a, b = problem_of("points", "dirichlet", 200, 200, 7)
    best, rough = otfew.solve(cost, a, b), otfew.solve(cost, a, b, solver=otfew.Exact(tol=1e-2))
    assert rough.status == Status.OPTIMAL
    assert 0 <= rough.value - best.value <= rough.gap <= 1e-2 * np.ptp(cost)
    assert rough.n_iter < best.n_iter


@pytest.mark.parametrize("mass", [0.4, "min"])
def test_part_of_the_mass(monkeypatch, mass):
    cost, a, b = problem_of("uniform", "dirichlet", 70, 90, 8)
    solver = otfew.Exact(mass=mass)
    expected = otfew.solve(cost, a, 1.5 * b, solver=solver)
    monkeypatch.setattr(exact, "LARGE", 0)
    found = otfew.solve(cost, a, 1.5 * b, solver=solver)
    assert found.value == pytest.approx(expected.value, abs=1e-13)
    assert found.gap <= 1e-12


@pytest.mark.parametrize("far", [1e6, 1e12, 1e30, 1e300])
def test_very_large_costs_in_place_of_forbidden_pairs(forced, far):
    rng = np.random.default_rng(9)
    cost, a, b = problem_of("uniform", "uniform", 60, 60, 9)
    allowed = rng.random((60, 60)) < 0.3
    allowed[np.arange(60), rng.permutation(60)] = True
    result = otfew.solve(np.where(allowed, cost, far), a, b)
    assert result.status == Status.OPTIMAL
    assert result.plan[~allowed].sum() == 0
    assert result.value == pytest.approx(otfew.solve(np.where(allowed, cost, 1e3), a, b).value, abs=1e-12)
    assert result.gap <= 1e-9


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e305])
def test_costs_near_the_ends_of_the_range(forced, scale):
    cost, a, b = problem_of("points", "integer", 40, 50, 10)
    expected = otfew.solve(cost, a, b).value
    assert otfew.solve(cost * scale, a, b).value / scale == pytest.approx(expected, rel=1e-9)


def test_unsound_input_is_refused(forced):
    for bad in (np.nan, -np.inf):
        cost = np.ones((2, 9, 8))
        cost[1, 4, 7] = bad
        with pytest.raises(ValueError, match="cost holds NaN or -inf at batch index 1"):
            otfew.solve(cost)


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_forbidden_pairs_and_infeasible_problems(monkeypatch, share):
    """What the kernel of small problems says of the same masks; problem 0 leaves a row with nothing allowed."""
    rng = np.random.default_rng(12)
    cost, mask = rng.random((4, 30, 26)), rng.random((4, 30, 26)) > share
    mask[0, 3] = False
    a, b = rng.dirichlet(np.ones(30), 4), rng.dirichlet(np.ones(26), 4)
    small = otfew.solve(cost, a, b, mask=mask, on_fail="ignore")
    monkeypatch.setattr(exact, "LARGE", 0)
    large = otfew.solve(cost, a, b, mask=mask, on_fail="ignore")
    assert small.status[0] == large.status[0] == otfew.Status.INFEASIBLE
    np.testing.assert_array_equal(large.status, small.status)
    solved = small.status == otfew.Status.OPTIMAL
    assert solved.any()
    np.testing.assert_allclose(large.value[solved], small.value[solved], rtol=1e-12)
    assert not large.plan[~mask].any()


def test_a_warm_start_is_passed_over(forced):
    rng = np.random.default_rng(13)
    cost = rng.random((40, 30))
    first = otfew.solve(cost)
    again = otfew.solve(cost, warm=first)
    assert again.value == first.value
    np.testing.assert_array_equal(again.n_iter, first.n_iter)


def test_a_set_against_itself_is_proven_by_equal_potentials(forced):
    rng = np.random.default_rng(11)
    x, a = rng.random((50, 2)), rng.dirichlet(np.ones(50))
    a[:5] = 0
    result = otfew.solve(((x[:, None] - x) ** 2).sum(-1), a, a)
    assert result.value == 0
    assert result.gap == 0


def test_gradients_are_plan_and_potentials(forced):
    cost, a, b = (torch.from_numpy(x).requires_grad_() for x in problem_of("cosine", "dirichlet", 40, 30, 12))
    result = otfew.solve(cost, a, b)
    result.value.backward()
    torch.testing.assert_close(cost.grad, result.plan, rtol=0, atol=0)
    torch.testing.assert_close(a.grad - a.grad.mean(), result.potentials[0] - result.potentials[0].mean())


@pytest.mark.parametrize("weights", ["integer", "dirichlet"])
def test_each_pivot_leaves_a_threaded_tree_that_is_strongly_feasible(forced, monkeypatch, weights):
    pivot, empty = large_tree._pivot.py_func, []

    def watched(i, j, reduced, n, count, potential, parent, flow, thread, back, size, last):
        pivot(i, j, reduced, n, count, potential, parent, flow, thread, back, size, last)
        root = int(np.flatnonzero(parent == -1)[0])
        order, x = [root], thread[root]
        while x != root:
            order.append(int(x))
            x = thread[x]
        assert len(order) == count
        place = {x: k for k, x in enumerate(order)}
        below = dict.fromkeys(order, 1)
        for x in reversed(order[1:]):
            below[int(parent[x])] += below[x]
        for x in order:
            assert back[thread[x]] == x
            assert size[x] == below[x]
            assert last[x] == order[place[x] + below[x] - 1]
            assert x == root or place[int(parent[x])] < place[x]
            assert x == root or flow[x] > 0 or x < n
        # Where arcs without flow lead from a row up to a column, pivots without gain cannot cycle (Cunningham 1976).
        assert (flow >= 0).all()
        empty.append(sum(flow[x] == 0 for x in order if x != root))

    monkeypatch.setattr(large_tree, "_pivot", watched)
    compiled = large._compiled("float64")
    code = SimpleNamespace(**{**vars(compiled), "improve": large_tree.improve.py_func})
    monkeypatch.setattr(large, "_compiled", lambda dtype: code)
    monkeypatch.setattr(large, "ANNEALING", ())
    for seed in range(8):
        cost, a, b = problem_of("ties" if seed % 2 else "points", weights, 14, 17, seed)
        assert otfew.solve(cost, a, b).value == pytest.approx(optimum(cost, a, b), abs=1e-9)
    assert len(empty) > 100
    assert weights == "dirichlet" or sum(empty) > 100


MEMORY = """
import resource, sys
import numpy as np, otfew
rng = np.random.default_rng(0)
solver = otfew.Exact(threads=2)
otfew.solve(rng.random((800, 800)), solver=solver)
cost = rng.random((4000, 4000))
a, b = rng.dirichlet(np.ones(4000), 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert otfew.solve(cost, a, b, solver=solver).gap < 1e-12
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024) / 1e6)
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_memory_beside_the_costs_is_small():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=200, check=True)
    assert float(run.stdout) <= 100
