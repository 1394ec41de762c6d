"""Warm starts change how long a solve takes, and nothing else."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otfew
from otfew.transport import jit, warm
from otfew.transport.entropic import newton
from otfew.transport.entropic.points import Potentials, sinkhorn_from
from otfew.transport.simplex import kernel
from otfew.transport.simplex.warm import restart


def draw(size=4, n=12, m=9, seed=0, off=0.0, reweigh=0.0, dtype=np.float64):
    """Problems in general position, and the same with costs and weights that have moved a little."""
    rng, moves = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    cost, a, b = rng.random((size, n, m)), rng.random((size, n)) + 0.1, rng.random((size, m)) + 0.1
    cost = cost + off * moves.standard_normal(cost.shape)
    a, b = (x * np.exp(reweigh * moves.standard_normal(x.shape)) for x in (a, b))
    return [x.astype(dtype) for x in (cost, a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True))]


def bits(found, expected):
    """Two results are the same to the last bit."""
    for field in ("value", "gap", "marginal_error", "status", "n_iter", "plan"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    for one, other in zip(found.potentials, expected.potentials, strict=True):
        np.testing.assert_array_equal(one, other)


# Exact


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_answer_proves_itself_whatever_it_started_from(examples, prove, data):
    example, other = data.draw(examples), data.draw(examples)
    n, m = example.cost.shape
    # Costs and weights of another problem, as many as are wanted.
    cost = np.resize(other.cost, (n, m))
    a, b = np.resize(other.a, n), np.resize(other.b, m)
    a[0], b[-1] = a.sum() + 1e-3, b.sum() + 1e-3
    before = otfew.solve(cost, a / a.sum(), b / b.sum(), on_fail="ignore")
    prove(otfew.solve(example.cost, example.a, example.b, warm=before), example)


@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_from_its_own_end(examples, prove, data):
    example = data.draw(examples)
    problem = example.cost, example.a, example.b
    prove(otfew.solve(*problem, warm=otfew.solve(*problem)), example)


@pytest.mark.parametrize("n", [12, 40, 140])
def test_from_its_own_end_no_pivot_is_needed(n):
    problem = draw(3, n=n, m=n - 3)
    before = otfew.solve(*problem)
    again = otfew.solve(*problem, warm=before)
    assert (again.n_iter == 0).all()
    np.testing.assert_allclose(again.plan, before.plan, rtol=0, atol=1e-15)
    np.testing.assert_allclose(again.value, before.value, rtol=1e-14)


@pytest.mark.parametrize(("off", "reweigh"), [(1e-3, 0), (0, 1e-3), (1e-3, 1e-3)])
@pytest.mark.parametrize("n", [25, 90])
def test_a_step_away_few_pivots_are_needed(n, off, reweigh):
    before = otfew.solve(*draw(8, n=n, m=n))
    problem = draw(8, n=n, m=n, off=off, reweigh=reweigh)
    cold, found = otfew.solve(*problem), otfew.solve(*problem, warm=before)
    np.testing.assert_allclose(found.value, cold.value, rtol=1e-12)
    assert found.n_iter.sum() < cold.n_iter.sum() / 4


def test_batch_mates_do_not_matter():
    before = otfew.solve(*draw(6))
    problem = draw(6, off=0.1, reweigh=0.3)
    together = otfew.solve(*problem, warm=before)
    for k in range(6):
        alone = otfew.solve(*(x[k : k + 1] for x in problem), warm=before[k : k + 1])
        bits(alone, together[k : k + 1])
    for threads in (1, 3):
        bits(otfew.solve(*problem, warm=before, solver=otfew.Exact(threads=threads)), together)


def test_a_start_is_broadcast_and_chosen():
    problem = draw(6, off=0.01)
    before = otfew.solve(*draw(6))
    one = otfew.solve(*problem, warm=before[2])
    bits(one[2:3], otfew.solve(*(x[2:3] for x in problem), warm=before[2:3]))
    np.testing.assert_allclose(one.value, otfew.solve(*problem).value, rtol=1e-12)
    shaped = otfew.solve(*(x.reshape(2, 3, *x.shape[1:]) for x in draw(6)))
    both = otfew.solve(*(x.reshape(2, 3, *x.shape[1:]) for x in problem), warm=shaped)
    np.testing.assert_array_equal(both.value.ravel(), otfew.solve(*problem, warm=before).value)


def test_a_result_that_was_kept_is_as_good():
    before, problem = otfew.solve(*draw()), draw(off=0.1)
    expected = otfew.solve(*problem, warm=before)
    bits(otfew.solve(*problem, warm=pickle.loads(pickle.dumps(before))), expected)
    tensors = [torch.from_numpy(x) for x in draw()]
    found = otfew.solve(*problem, warm=otfew.solve(*tensors).detach().to(torch.float32))
    bits(found, expected)


@pytest.mark.parametrize("solver", [otfew.Exact(mass="min"), otfew.Exact(mass=0.3), otfew.Exact(tol=1e-3)], ids=str)
def test_other_options(solver):
    before, problem = otfew.solve(*draw(), solver=solver), draw(off=1e-3, reweigh=1e-3)
    cold, found = (otfew.solve(*problem, solver=solver, warm=start) for start in (None, before))
    np.testing.assert_allclose(found.value, cold.value, rtol=0, atol=1e-9 if solver.tol == 0 else 2e-3)
    assert found.n_iter.sum() < cold.n_iter.sum()
    # What was kept of one serves the other.
    for other in (otfew.Exact(), otfew.Exact(mass="min")):
        np.testing.assert_allclose(
            otfew.solve(*problem, solver=other, warm=before).value,
            otfew.solve(*problem, solver=other).value,
            atol=1e-12,
        )


def test_assignments_start_afresh_and_serve_others():
    cost, a, b = draw(n=9, m=9)
    assigned = otfew.solve(cost)
    bits(otfew.solve(cost, warm=otfew.solve(cost, a, b)), assigned)
    np.testing.assert_allclose(otfew.solve(cost, a, b, warm=assigned).value, otfew.solve(cost, a, b).value, rtol=1e-12)


def test_nodes_that_come_and_go():
    cost, a, b = draw()
    without = a.copy()
    without[:, ::3] = 0
    without /= without.sum(-1, keepdims=True)
    for first, second in ((a, without), (without, a), (without, without[:, ::-1].copy())):
        found = otfew.solve(cost, second, b, warm=otfew.solve(cost, first, b))
        np.testing.assert_allclose(found.value, otfew.solve(cost, second, b).value, rtol=1e-12)
        assert (found.gap <= 1e-13).all()
    assert (otfew.solve(cost, without, b, warm=otfew.solve(cost, without, b)).n_iter == 0).all()


def test_costs_that_hide_others_start_from_the_tree_too():
    cost, a, b = draw()
    cost[:, np.arange(9), np.arange(9)] = 1e12
    before = otfew.solve(cost, a, b)
    again = otfew.solve(cost, a, b, warm=before)
    np.testing.assert_allclose(again.value, before.value, rtol=1e-12)
    assert again.n_iter.sum() <= 2 < before.n_iter.sum()


def test_gradients_are_those_of_a_cold_start():
    leaves = [torch.from_numpy(x).requires_grad_() for x in draw(off=0.05)]
    factor = torch.arange(1.0, 5.0)
    before = otfew.solve(*draw())
    found, expected = (
        torch.autograd.grad((otfew.solve(*leaves, warm=start).value * factor).sum(), leaves) for start in (before, None)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def rebuilt(cost, supply, demand, arcs):
    """Call ``restart`` on whole problems; returns root, parents, flows, masks and potentials."""
    n, m = cost.shape
    nodes, words = n + m, (n + m + 63) // 64
    potential, flow = np.empty(nodes), np.empty(nodes)
    parent, order = np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    mask, room = np.empty((nodes, words), np.int64), np.empty((8, nodes), np.int64)
    rows, cols = (np.ascontiguousarray(x, np.int32) for x in arcs)
    root = restart(
        cost, n, m, words, supply.copy(), demand.copy(), np.arange(n), np.arange(m), n, m, rows, cols,
        potential, parent, flow, mask, order, room,
    )  # fmt: skip
    return root, parent, flow, mask, potential


@pytest.mark.parametrize("seed", range(60))
def test_the_tree_is_strongly_feasible(seed):
    """From any arcs: flows meet the weights, those of zero go up from a row, arcs are tight, masks hold subtrees."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 45, 2)
    # Few units, so that many nodes are exhausted together.
    units = int(rng.integers(max(n, m), 4 * max(n, m)))
    supply, demand = (
        1.0 + np.bincount(rng.integers(0, k, units + n + m - k), minlength=k).astype(float) for k in (n, m)
    )
    assert supply.sum() == demand.sum()
    cost, count = rng.random((n, m)), n + m - 1 + int(rng.integers(3))
    arcs = rng.integers(-1, n + 1, count), rng.integers(-1, m + 1, count)
    root, parent, flow, mask, potential = rebuilt(cost, supply, demand, arcs)
    assert root < n
    assert parent[root] == -1
    below, plan = [{x} for x in range(n + m)], np.zeros((n, m))
    for x in range(n + m):
        y, steps = x, 0
        while y != root:
            y, steps = parent[y], steps + 1
            assert steps < n + m
            below[y].add(x)
        if x != root:
            i, j = min(x, parent[x]), max(x, parent[x]) - n
            assert 0 <= i < n
            assert 0 <= j < m
            assert flow[x] > 0 or (flow[x] == 0 and x < n)
            assert potential[i] + potential[n + j] == pytest.approx(cost[i, j], abs=1e-12)
            plan[i, j] += flow[x]
    np.testing.assert_array_equal(plan.sum(1), supply)
    np.testing.assert_array_equal(plan.sum(0), demand)
    for x in range(n + m):
        assert {y for y in range(n + m) if mask[x, y >> 6] >> (y & 63) & 1} == below[x]


def test_a_tree_that_serves_the_weights_is_kept():
    rng = np.random.default_rng(0)
    n, m = 8, 7
    before = otfew.solve(rng.random((n, m)), *(rng.dirichlet(np.ones(k)) for k in (n, m)))
    rows, cols, _ = before.plan_sparse
    flows = rng.integers(1, 9, n + m - 1).astype(float)
    supply, demand = np.bincount(rows, flows, n), np.bincount(cols, flows, m)
    root, parent, flow, *_ = rebuilt(rng.random((n, m)), supply, demand, (rows, cols))
    found = {(min(x, parent[x]), max(x, parent[x]) - n): flow[x] for x in range(n + m) if x != root}
    assert found == {(i, j): amount for i, j, amount in zip(rows, cols, flows, strict=True)}


def test_compiled_code_is_known_by_the_start_that_is_compiled_in():
    assert {kernel.__name__, "otfew.transport.simplex.warm"} <= set(jit._compiled_in(kernel._solve_batch))


# Sinkhorn

WAYS = {
    "plain": otfew.Sinkhorn(reg=0.05, tol=1e-9),
    "log domain": otfew.Sinkhorn(reg=1e-3, tol=1e-9),
    "unbalanced": otfew.Sinkhorn(reg=0.05, tol=1e-9, unbalanced=1.0),
    "half unbalanced": otfew.Sinkhorn(reg=0.05, tol=1e-9, unbalanced=(None, 0.5)),
    "rounded": otfew.Sinkhorn(reg=0.05, tol=1e-9, round=True),
}
every_way = pytest.mark.parametrize("way", WAYS)


@every_way
@pytest.mark.parametrize(("n", "m"), [(12, 9), (9, 12)])
def test_sinkhorn_ends_where_it_ends_afresh(way, n, m):
    solver = WAYS[way]
    before = otfew.solve(*draw(n=n, m=m), solver=solver)
    for off in (0.0, 1e-4, 0.1, 3.0):
        problem = draw(n=n, m=m, off=off, reweigh=off)
        cold, found = (otfew.solve(*problem, solver=solver, warm=start) for start in (None, before))
        assert (found.status == otfew.Status.OPTIMAL).all()
        np.testing.assert_allclose(found.value, cold.value, rtol=0, atol=1e-8)
        np.testing.assert_allclose(found.plan, cold.plan, rtol=0, atol=1e-7)
        # Potentials that were made feasible for the linear program are a little off.
        if off == 0 and not solver.round:
            assert found.n_iter.max() <= 2 < cold.n_iter.min()
        if off == 1e-4 and not solver.round:
            assert found.n_iter.sum() < cold.n_iter.sum()


@every_way
def test_sinkhorn_from_anything(way):
    """Potentials that are far off, or no numbers, cost time only."""
    solver, problem = WAYS[way], draw()
    cold = otfew.solve(*problem, solver=solver)
    rng = np.random.default_rng(5)
    for size in (1.0, 1e3, 1e200, np.nan):
        start = otfew.solve(*(torch.from_numpy(x) for x in problem), solver=solver)
        far = tuple(torch.from_numpy(size * rng.standard_normal((4, k))) for k in (12, 9))
        start._parts.potentials = lambda far=far: far
        found = otfew.solve(*problem, solver=solver, warm=start)
        assert (found.status == otfew.Status.OPTIMAL).all()
        np.testing.assert_allclose(found.value, cold.value, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sinkhorn_starts_from_any_solver(dtype):
    problem = draw(dtype=dtype)
    for solver in (otfew.Sinkhorn(reg=0.05), otfew.Sinkhorn(reg=1e-3)):
        cold = otfew.solve(*problem, solver=solver)
        for other in ("exact", otfew.Sinkhorn(reg=1.0), otfew.SciPy()):
            found = otfew.solve(*problem, solver=solver, warm=otfew.solve(*problem, solver=other))
            np.testing.assert_allclose(found.value, cold.value, rtol=0, atol=1e-6)


def test_what_does_not_get_to_its_end_starts_afresh():
    """As many iterations as a cold start takes are too few from far away."""
    problem = draw()
    needed = int(otfew.solve(*problem, solver=otfew.Sinkhorn(reg=1e-3)).n_iter.max())
    solver = otfew.Sinkhorn(reg=1e-3, max_iter=needed)
    far = otfew.solve(*draw(off=30.0), solver=otfew.Sinkhorn(reg=1e-3))
    found = otfew.solve(*problem, solver=solver, warm=far)
    assert (found.status == otfew.Status.OPTIMAL).all()
    assert found.n_iter.max() > needed
    np.testing.assert_allclose(found.value, otfew.solve(*problem, solver=solver).value, rtol=0, atol=1e-7)


def test_the_regularisation_falls_from_as_far_as_a_start_is_off(monkeypatch):
    levels, begin = [], newton._begin

    def noted(*args):
        now = begin(*args)
        levels.append(now.level[:, 0].numpy())
        return now

    monkeypatch.setattr(newton, "_begin", noted)
    solver, cost = otfew.Sinkhorn(reg=1e-3), torch.from_numpy(draw()[0])
    before = otfew.solve(cost, solver=solver)
    for off in (0.0, 0.02, 0.2):
        levels.clear()
        moved = cost.clone()
        moved[:, :, 0] += off
        moved[:, :, 1] -= off
        otfew.solve(moved, solver=solver, warm=before)
        assert (levels[0] >= max(off / 2, 1e-3)).all()
        assert (levels[0] <= 2 * off + 2e-3).all()


def test_gradients_of_sinkhorn_are_those_of_a_cold_start():
    solver = otfew.Sinkhorn(reg=0.1, tol=1e-12)
    leaves = [torch.from_numpy(x).requires_grad_() for x in draw(off=0.05)]
    before = otfew.solve(*draw(), solver=solver)
    for field in ("value", "value_linear"):
        found, expected = (
            torch.autograd.grad(getattr(otfew.solve(*leaves, solver=solver, warm=start), field).sum(), leaves)
            for start in (before, None)
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


# Points


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
def test_points_start_from_potentials(cost):
    solver = otfew.KeOps(reg=0.2, tol=1e-8, backend="torch")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 20, 3)), rng.standard_normal((3, 15, 3))
    x[:, 0] = y[:, 0] = 0  # zero vectors have costs of their own under "cosine"
    before = otfew.solve_points(x, y, cost=cost, solver=solver)
    again = otfew.solve_points(x, y, cost=cost, solver=solver, warm=before)
    assert again.n_iter.max() <= 2
    for off in (1e-3, 1.0):
        moved = x + off * rng.standard_normal(x.shape)
        cold = otfew.solve_points(moved, y, cost=cost, solver=solver)
        found = otfew.solve_points(moved, y, cost=cost, solver=solver, warm=before)
        assert (found.status == otfew.Status.OPTIMAL).all()
        np.testing.assert_allclose(found.value, cold.value, rtol=1e-7, atol=1e-8)
    dense = otfew.solve_points(x, y, cost=cost, solver=otfew.Sinkhorn(reg=0.2, tol=1e-8))
    assert otfew.solve_points(x, y, cost=cost, solver=solver, warm=dense).n_iter.max() <= 4


def test_points_that_do_not_get_to_their_end_start_afresh():
    asked = []

    def solve(index, start):
        asked.append((index.tolist(), start is not None))
        f = 10.0 * index[:, None] + (0.0 if start is None else 1.0)
        ended = (
            torch.zeros(len(index), dtype=torch.int8) if start is None else torch.tensor([0, 1, 2], dtype=torch.int8)
        )
        return Potentials(f, f, f, torch.full((len(index),), 4), ended)

    found = sinkhorn_from((torch.zeros(3, 5), torch.zeros(3, 4)), solve)
    assert asked == [([0, 1, 2], True), ([1, 2], False)]
    assert found.f[:, 0].tolist() == [1.0, 10.0, 20.0]
    assert found.status.tolist() == [0, 0, 0]
    assert found.n_iter.tolist() == [4, 8, 8]


# Elsewhere


def test_kernels_of_a_device_start_afresh(pretended):
    problem = [torch.from_numpy(x) for x in draw(off=0.1)]
    for solver in ("exact", "sinkhorn"):
        before = otfew.solve(*(torch.from_numpy(x) for x in draw()), solver=solver)
        with pretended() as machine:
            there = [machine.away(x) for x in problem]
            cold, found = (otfew.solve(*there, solver=solver, warm=start) for start in (None, before))
            bits(found.cpu(), cold.cpu())


def test_without_kernels_a_device_starts_warm(pretended):
    """Operations of torch do there what compiled code does here."""
    for solver in (otfew.Sinkhorn(reg=0.05), otfew.Sinkhorn(reg=1e-3)):
        problem = [torch.from_numpy(x) for x in draw()]
        before = otfew.solve(*problem, solver=solver)
        with pretended(kernels=False) as machine:
            there = [machine.away(x) for x in problem]
            found = otfew.solve(*there, solver=solver, warm=before).cpu()
            again = otfew.solve(*there, solver=solver, warm=otfew.solve(*there, solver=solver)).cpu()
        assert max(int(found.n_iter.max()), int(again.n_iter.max())) <= 3
        torch.testing.assert_close(found.value, before.value, rtol=0, atol=1e-7)


# What is refused


@pytest.mark.parametrize(
    ("given", "solver", "said"),
    [
        (lambda: 3, "exact", "warm must be what otfew.solve or otfew.solve_points returned, got int"),
        (
            lambda: otfew.solve(np.eye(5)),
            "exact",
            r"warm holds problems of 5 x 5 nodes in a batch of shape \(\), which",
        ),
        (
            lambda: otfew.solve(*draw(3)),
            "exact",
            r"shape \(3,\), which do not fit those of 12 x 9 in one of shape \(4,\)",
        ),
        (lambda: otfew.solve(*draw(), solver="sinkhorn"), "exact", "warm holds no tree, since sinkhorn keeps none"),
        (lambda: otfew.solve(*draw()), "scipy", "solver 'scipy' cannot start from an earlier result: leave warm out"),
        (
            lambda: otfew.solve(*draw()),
            otfew.Sinkhorn(gradient="unrolled"),
            "gradient='unrolled' differentiates all iterations",
        ),
    ],
)
def test_what_does_not_fit_is_said(given, solver, said):
    with pytest.raises(ValueError, match=said):
        otfew.solve(*draw(), solver=solver, warm=given())


def test_a_larger_batch_does_not_fit_a_smaller_one():
    before = otfew.solve(*draw(4))
    with pytest.raises(ValueError, match="do not fit"):
        otfew.solve(*(x[:2] for x in draw(4)), warm=before)
    otfew.solve(*(x[:2] for x in draw(4)), warm=before[:2])
    assert warm._spreads(torch.Size([1, 4]), torch.Size([3, 4]))
    assert not warm._spreads(torch.Size([3, 4]), torch.Size([4]))
