"""Forbidden pairs in ``Sinkhorn``: plain Sinkhorn for long, cropped and separate problems, HiGHS, proofs and bits."""

from __future__ import annotations

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import otfew
from otfew.transport import ConvergenceError, ConvergenceWarning
from otfew.transport.entropic import flows
from otfew.transport.entropic.newton import schur_solve

NAMES = ("value", "value_linear", "plan", "gap", "marginal_error", "status", "n_iter")
UNBALANCED = [(0.5, None), (None, 0.5), (1.0, 1.0), (0.2, 3.0)]


def precise(reg, **options):
    return otfew.Sinkhorn(reg=reg, tol=options.pop("tol", 1e-11), **options)


def draw(seed=0, size=3, n=7, m=6, share=0.5, zeros=0.0, kind="random", mass=1.0):
    """Costs, weights and masks of feasible problems: weights are the sums of a plan within the mask."""
    rng = np.random.default_rng(seed)
    mask = rng.random((size, n, m)) < share
    if kind == "triangle":
        mask[:] = np.tril(np.ones((n, m), bool))
    plan = rng.random((size, n, m)) + 0.05
    if kind == "whole":
        plan = rng.integers(0, 4, (size, n, m)).astype(float)
    plan = plan * mask * (rng.random((size, n, m)) >= zeros)
    # Nobody is left without any mass at all.
    plan[:, 0, 0] += 0.1
    mask[:, 0, 0] = True
    plan *= mass / plan.sum((1, 2), keepdims=True)
    return rng.random((size, n, m)), plan.sum(2), plan.sum(1), mask


def lp(cost, a, b, mask):
    """Optimum of the linear program within the mask by HiGHS, None where it is infeasible."""
    n, m = cost.shape
    rows = np.vstack([np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))])
    bounds = [(0, None if allowed else 0) for allowed in mask.ravel()]
    found = linprog(np.where(mask, cost, 0).ravel(), A_eq=rows, b_eq=np.concatenate([a, b]), bounds=bounds)
    assert found.status in (0, 2), found.message
    return found.fun if found.status == 0 else None


def used(a, b, mask):
    """Pairs that some plan uses, by a linear program for each."""
    pairs = np.zeros_like(mask)
    for i, j in zip(*(mask & (a > 0)[:, None] & (b > 0)).nonzero(), strict=True):
        towards = np.zeros(mask.shape)
        towards[i, j] = -1
        pairs[i, j] = lp(towards, a, b, mask) < -1e-9
    return pairs


def soft(x, axis):
    """-log sum exp, infinite where nothing is to be summed."""
    top = np.where(np.isfinite(x.max(axis, keepdims=True)), x.max(axis, keepdims=True), 0)
    with np.errstate(divide="ignore"):
        return -(top + np.log(np.exp(x - top).sum(axis, keepdims=True))).squeeze(axis)


def long_run(cost, a, b, pairs, reg, rhos=(None, None), rounds=50_000, tol=1e-14):
    """Sinkhorn in the log domain over some of the pairs, of weights as they are; returns the plan."""
    scale = math.sqrt(a.sum() * b.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        log_a, log_b = np.log(a), np.log(b / scale)
        scores = np.where(pairs, -cost / reg, -np.inf)
    tau_a, tau_b = (1.0 if rho is None else rho / (rho + reg) for rho in rhos)
    g, before = np.zeros(len(b)), np.zeros_like(scores)
    for _ in range(rounds):
        f = soft(log_b + g + scores, 1)
        f = np.where(np.isfinite(f), tau_a * f, 0.0)
        plan = np.exp(log_a[:, None] + log_b + f[:, None] + g + scores)
        if np.abs(plan - before).max() <= tol * scale:
            break
        before = plan
        # Weights of the rows enter over the scale, those of the columns do not.
        g = soft(log_a[:, None] - math.log(scale) + f[:, None] + scores, 0)
        g = np.where(np.isfinite(g), tau_b * g, 0.0)
    return plan


def divergence(x, y):
    """KL(x | y) = sum x log(x / y) - x + y."""
    held = x > 0
    return (x * np.log(np.where(held, x, 1) / np.where(held, y, 1))).sum() - x.sum() + y.sum()


def objective(plan, cost, a, b, reg, rhos=(None, None)):
    """<P, C> + reg KL(P | a b' / s) over all pairs, and the prices of the marginals."""
    value = np.where(plan > 0, plan * np.where(plan > 0, cost, 0), 0).sum()
    value += reg * divergence(plan, a[:, None] * b / math.sqrt(a.sum() * b.sum()))
    value += 0 if rhos[0] is None else rhos[0] * divergence(plan.sum(1), a)
    return value + (0 if rhos[1] is None else rhos[1] * divergence(plan.sum(0), b))


def dual_bound(result, k, cost, a, b, mask, reg):
    """The dual at the potentials that were handed out, over all allowed pairs: at most the optimum."""
    f, g = (x[k].astype(float) for x in result.potentials)
    total = a.sum()
    density = np.exp((f[:, None] + g - cost) / reg, where=mask, out=np.zeros_like(cost))
    return (f * a).sum() + (g * b).sum() - reg * ((a[:, None] * b / total * density).sum() - total)


@pytest.mark.parametrize("reg", [2.0, 0.2, 0.08])
@pytest.mark.parametrize("kind", ["random", "whole", "triangle"])
@pytest.mark.parametrize("shape", [(6, 5), (4, 6)])
def test_against_a_long_run_over_the_pairs_that_plans_use(reg, kind, shape):
    for seed, zeros in ((0, 0.0), (1, 0.4), (2, 0.6)):
        cost, a, b, mask = draw(seed, 2, *shape, 0.7, zeros, kind, mass=2.5)
        result = otfew.solve(cost, a, b, mask=mask, solver=precise(reg))
        assert (result.status == otfew.Status.OPTIMAL).all()
        for k in range(2):
            pairs = used(a[k], b[k], mask[k])
            plan = long_run(cost[k], a[k], b[k], pairs, reg)
            np.testing.assert_allclose(plan.sum(0), b[k], atol=1e-11)
            assert (result.plan[k][~pairs] == 0).all()
            np.testing.assert_allclose(result.plan[k], plan, rtol=0, atol=2e-9)
            value = objective(plan, cost[k], a[k], b[k], reg)
            assert abs(result.value[k] - value) <= 1e-10
            assert abs(result.value_linear[k] - (plan * cost[k]).sum()) <= 1e-8
            assert -1e-12 <= result.gap[k] <= 1e-9
            bound = dual_bound(result, k, cost[k], a[k], b[k], mask[k], reg)
            assert abs(bound - value) <= 1e-10
            assert result.marginal_error[k] <= 2e-11
        f, g = result.potentials
        assert np.isfinite(f).all()
        assert np.isfinite(g).all()
        np.testing.assert_allclose((g * b).sum(-1), 0, atol=1e-10)


def test_the_value_is_the_limit_of_rising_costs():
    cost, a, b, mask = draw(3, 1, share=0.7)
    expected = float(otfew.solve(cost, a, b, mask=mask, solver=precise(0.5)).value[0])
    values = [float(otfew.solve(np.where(mask, cost, high), a, b, solver=precise(0.5)).value[0]) for high in (2, 4, 9)]
    assert values == sorted(values)
    assert values[-1] < expected
    assert expected - values[-1] <= 1e-3 * (expected - values[0])
    infinite = otfew.solve(np.where(mask, cost, np.inf), a, b, solver=precise(0.5))
    assert float(infinite.value[0]) == expected


def test_one_plan_alone():
    """Below a triangle with equal weights only the diagonal is a plan: scalings would creep towards it for ever."""
    n = 12
    cost, mask = np.random.default_rng(0).random((n, n)), np.tril(np.ones((n, n), bool))
    for reg in (10.0, 0.1, 1e-3):
        result = otfew.solve(cost, mask=mask, solver=precise(reg))
        assert result.status == otfew.Status.OPTIMAL
        np.testing.assert_array_equal(result.plan != 0, np.eye(n, dtype=bool))
        np.testing.assert_allclose(result.plan.diagonal(), 1 / n, rtol=1e-12)
        np.testing.assert_allclose(result.value, cost.diagonal().mean() + reg * math.log(n), rtol=1e-12)
        assert abs(result.gap) <= 1e-12 * (1 + reg)
        f, g = result.potentials
        density = np.exp((f[:, None] + g - cost) / reg, where=mask, out=np.zeros_like(cost))
        # Allowed pairs that nothing can use have none, nearly; that of the others is 1 / (a b).
        assert density[np.tri(n, k=-1, dtype=bool)].max() <= 1e-12
        np.testing.assert_allclose(density.diagonal(), n, rtol=1e-9)


@pytest.mark.parametrize("reg", [1.0, 0.05, 0.002])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_padding_is_cropped(reg, dtype):
    cost, a, b, mask = draw(4, 4, 9, 8, 0.6)
    cost = cost.astype(dtype)
    sizes = [(9, 8), (5, 8), (9, 3), (4, 4)]
    inside = np.zeros_like(mask)
    for k, (n, m) in enumerate(sizes):
        inside[k, :n, :m] = True
    cost, mask = np.where(inside, cost, 7), mask & inside
    plan = np.where(mask, np.random.default_rng(1).random(mask.shape), 0)
    a, b = plan.sum(2), plan.sum(1)
    tol = 1e-11 if dtype == np.float64 else 1e-6
    together = otfew.solve(cost, a, b, mask=mask, solver=precise(reg, tol=tol))
    near = partial(np.testing.assert_allclose, rtol=1e-5 if dtype == np.float32 else 1e-9, atol=1e-4 * tol**0.5)
    for k, (n, m) in enumerate(sizes):
        crop = np.s_[k, :n, :m]
        alone = otfew.solve(cost[crop], a[k, :n], b[k, :m], mask=mask[crop], solver=precise(reg, tol=tol))
        assert together.status[k] == alone.status == otfew.Status.OPTIMAL
        near(together.value[k], alone.value)
        np.testing.assert_allclose(together.plan[crop], alone.plan, atol=1e-2 * tol**0.5)
        assert together.plan[k].sum() == pytest.approx(alone.plan.sum(), rel=1e-5)
        for whole, part, size in zip(together.potentials, alone.potentials, (n, m), strict=True):
            assert (whole[k, size:] == 0).all()
            np.testing.assert_allclose(whole[k, :size], part, atol=2e-3 * reg if dtype == np.float32 else 1e-6)


@pytest.mark.parametrize("reg", [1.0, 0.1, 0.004])
def test_blocks_are_problems_of_their_own(reg):
    """Their plans, and the sum of their values but for what KL charges against the product of all weights."""
    first, second = draw(5, 2, 5, 4, 0.8, mass=0.7), draw(6, 2, 3, 6, 0.8, mass=1.8)
    cost = np.random.default_rng(0).random((2, 8, 10))
    mask = np.zeros((2, 8, 10), bool)
    for (part, _, _, allowed), where in ((first, np.s_[:, :5, :4]), (second, np.s_[:, 5:, 4:])):
        cost[where], mask[where] = part, allowed
    a, b = (np.concatenate([first[k], second[k]], 1) for k in (1, 2))
    together = otfew.solve(cost, a, b, mask=mask, solver=precise(reg))
    one, two = (otfew.solve(part, x, y, mask=allowed, solver=precise(reg)) for part, x, y, allowed in (first, second))
    np.testing.assert_allclose(together.plan[:, :5, :4], one.plan, atol=1e-8)
    np.testing.assert_allclose(together.plan[:, 5:, 4:], two.plan, atol=1e-8)
    extra = reg * sum(mass * math.log(2.5 / mass) for mass in (0.7, 1.8))
    np.testing.assert_allclose(together.value, one.value + two.value + extra, rtol=0, atol=1e-10)
    np.testing.assert_allclose(together.value_linear, one.value_linear + two.value_linear, atol=1e-8)
    assert (abs(together.gap) <= 1e-9).all()


def test_blocks_that_balance_but_for_rounding():
    """In float32 the blocks' totals differ by more than float64 would explain; the plan meets them to a rounding."""
    rng = np.random.default_rng(0)
    a, b = rng.random((20, 6)).astype(np.float32), rng.random((20, 8)).astype(np.float32)
    for where in (np.s_[:, :3], np.s_[:, 3:]):
        wide = np.s_[:, :4] if where[1].stop == 3 else np.s_[:, 4:]
        b[wide] *= (a[where].sum(1) / b[wide].sum(1))[:, None]
    mask = np.kron(np.eye(2, dtype=bool), np.ones((3, 4), bool))
    cost = rng.random((20, 6, 8)).astype(np.float32)
    result = otfew.solve(cost, a, b, mask=mask, solver=precise(0.1, tol=1e-10))
    assert (result.status == otfew.Status.OPTIMAL).all()
    np.testing.assert_allclose(result.plan.sum(1), b, rtol=3e-6)
    np.testing.assert_allclose(result.plan.sum(2), a, rtol=3e-6)
    assert np.isfinite(result.gap).all()


@pytest.mark.parametrize("kind", ["random", "whole", "triangle"])
def test_small_reg_approaches_the_masked_linear_program_within_its_certificate(kind):
    cost, a, b, mask = draw(7, 4, 8, 7, 0.6, 0.4, kind, mass=3.0)
    exact = np.array([lp(*problem) for problem in zip(cost, a, b, mask, strict=True)])
    excess = []
    for reg in (0.3, 0.03, 0.003, 3e-4):
        result = otfew.solve(cost, a, b, mask=mask, solver=otfew.Sinkhorn(reg=reg, round=True))
        assert (result.status == otfew.Status.OPTIMAL).all()
        assert (result.plan >= 0).all()
        assert (result.plan[~mask] == 0).all()
        np.testing.assert_allclose(result.plan.sum(2), a, rtol=0, atol=1e-14)
        np.testing.assert_allclose(result.plan.sum(1), b, rtol=0, atol=1e-14)
        assert (result.marginal_error <= 1e-14).all()
        np.testing.assert_allclose(result.value_linear, (result.plan * np.where(mask, cost, 0)).sum((1, 2)), atol=1e-13)
        f, g = result.potentials
        # Of all allowed pairs, also of those that no plan uses.
        assert (f[:, :, None] + g[:, None] <= np.where(mask, cost, np.inf) + 1e-13).all()
        np.testing.assert_allclose(result.gap, result.value_linear - (f * a).sum(-1) - (g * b).sum(-1), atol=1e-12)
        assert (result.value_linear >= exact - 1e-9).all()
        assert (result.value_linear - result.gap <= exact + 1e-9).all()
        excess.append((result.value_linear - exact).max())
    assert excess[-1] <= 2e-3
    assert excess == sorted(excess, reverse=True) or excess[0] <= 1e-9


@pytest.mark.parametrize("round_", [False, True])
def test_bounds_hold_where_nothing_converged(round_):
    """Far from the end flows make the marginals exact, within the mask."""
    cost, a, b, mask = draw(8, 6, 9, 8, 0.4, 0.3)
    solver = otfew.Sinkhorn(reg=0.004, max_iter=4, round=round_)
    result = otfew.solve(cost, a, b, mask=mask, solver=solver, on_fail="ignore")
    assert (result.status == otfew.Status.MAX_ITER).all()
    if round_:
        np.testing.assert_allclose(result.plan.sum(2), a, atol=1e-14)
        np.testing.assert_allclose(result.plan.sum(1), b, atol=1e-14)
        assert (result.plan[~mask] == 0).all()
        exact = np.array([lp(*problem) for problem in zip(cost, a, b, mask, strict=True)])
        assert (result.value_linear >= exact - 1e-9).all()
        assert (result.value_linear - result.gap <= exact + 1e-9).all()
    else:
        optimum = otfew.solve(cost, a, b, mask=mask, solver=precise(0.004)).value
        assert (optimum - result.value <= result.gap + 1e-12).all()
        assert (result.gap > 1e-6).all()


def oracle_of_unbalanced(cost, a, b, mask, reg, rhos):
    plan = long_run(cost, a, b, mask, reg, rhos)
    return plan, objective(plan, cost, a, b, reg, rhos)


@pytest.mark.parametrize("rhos", UNBALANCED, ids=str)
@pytest.mark.parametrize("reg", [1.0, 0.1, 0.01])
def test_soft_marginals_against_a_long_run(reg, rhos):
    cost, a, b, mask = draw(9, 4, 6, 5, 0.5, mass=1.5)
    a, b = a + 0.01, 2 * b + 0.01
    mask[1, 2], mask[2, :, 3] = False, False
    a[1, 2] = 0.0 if rhos[0] is None else a[1, 2]
    b[2, 3] = 0.0 if rhos[1] is None else b[2, 3]
    for side, hard in ((2, rhos[0] is None), (1, rhos[1] is None)):
        lost = ~mask.any(side)
        (a if side == 2 else b)[lost & hard] = 0.0
    result = otfew.solve(cost, a, b, mask=mask, solver=precise(reg, unbalanced=rhos))
    assert (result.status == otfew.Status.OPTIMAL).all()
    for k in range(4):
        plan, value = oracle_of_unbalanced(cost[k], a[k], b[k], mask[k], reg, rhos)
        np.testing.assert_allclose(result.plan[k], plan, rtol=0, atol=1e-8)
        assert abs(result.value[k] - value) <= 1e-9
        assert -1e-11 <= result.gap[k] <= 1e-8
        # The conditions that define the potentials hold for those that carry nothing, too.
        for potential, rho, weights, axis in zip(result.potentials, rhos, (a, b), (1, 0), strict=True):
            sums = weights[k] if rho is None else weights[k] * np.exp(-potential[k] / rho)
            np.testing.assert_allclose(result.plan[k].sum(axis), sums, atol=1e-8)
    assert (result.plan[~mask] == 0).all()


def test_soft_marginals_where_everything_is_forbidden():
    cost, a, b, mask = draw(10, 2, 4, 3)
    mask[0] = False
    result = otfew.solve(cost, a, b, mask=mask, solver=precise(0.1, unbalanced=(0.5, 2.0)))
    assert (result.status == otfew.Status.OPTIMAL).all()
    assert (result.plan[0] == 0).all()
    np.testing.assert_allclose(result.value[0], 0.5 * a[0].sum() + 2.0 * b[0].sum() + 0.1, rtol=1e-12)
    assert abs(result.gap[0]) <= 1e-12


@pytest.mark.parametrize("hard", [0, 1])
def test_one_hard_side_that_nothing_serves_is_infeasible(hard):
    cost, a, b, mask = draw(11, 3, 5, 4, 0.7)
    b, a = b + 0.01, a + 0.01
    if hard == 0:
        mask[1, 3] = False
    else:
        mask[1, :, 2] = False
    rhos = (None, 1.0) if hard == 0 else (1.0, None)
    mask[[0, 2]] = True
    result = otfew.solve(cost, a, b, mask=mask, solver=otfew.Sinkhorn(unbalanced=rhos), on_fail="ignore")
    assert result.status.tolist() == [0, otfew.Status.INFEASIBLE, 0]
    rows, columns = (x[1].nonzero()[0].tolist() for x in result.cut)
    assert (rows, columns) == (([3], []) if hard == 0 else ([], [2]))


def refused(seed=0, size=5, where=(1, 3)):
    """Feasible problems but for some, in which two rows share one column that is too light."""
    cost, a, b, mask = draw(seed, size, 6, 5, 0.9)
    for k in where:
        mask[k, 1:3] = [False, True, False, False, False]
        a[k] = [0.1, 0.2, 0.2, 0.2, 0.2, 0.1]
        b[k] = [0.3, 0.3, 0.2, 0.1, 0.1]
        mask[k, [0, 3, 4, 5]] = True
    return cost, a, b, mask


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_infeasible_problems(gradient):
    cost, a, b, mask = refused()
    solver = otfew.Sinkhorn(gradient=gradient, round=gradient == "implicit")
    leaves = [torch.from_numpy(x).requires_grad_() for x in (cost, a, b)]
    with pytest.warns(ConvergenceWarning, match=r"2 of 5 problems are infeasible, first at batch index 1.*rows 1, 2"):
        result = otfew.solve(*leaves, mask=torch.from_numpy(mask), solver=solver)
    assert result.status.tolist() == [0, 5, 0, 5, 0]
    bad = result.status == otfew.Status.INFEASIBLE
    assert result.value[bad].tolist() == [math.inf] * 2
    assert result.value_linear[bad].tolist() == [math.inf] * 2
    assert result.gap[bad].isnan().all()
    assert result.marginal_error[bad].isnan().all()
    for zeros in (result.plan[bad], *(x[bad] for x in result.potentials)):
        assert (zeros == 0).all()
    for each in (result.value, result.value_linear, result.gap, result.plan.flatten(1)):
        assert each[~bad].isfinite().all()
    rows, columns = result.cut
    assert rows[bad].tolist() == [[False, True, True, False, False, False]] * 2
    assert columns[bad].tolist() == [[False, True, False, False, False]] * 2
    assert not rows[~bad].any()
    assert (leaves[1] * rows).sum(-1)[bad].gt((leaves[2] * columns).sum(-1)[bad]).all()
    for part in (result.value, result.value_linear, result.plan):
        # Whatever comes from infinite values, even NaN, goes nowhere.
        upstream = torch.linspace(1, 2, part.numel(), dtype=part.dtype).reshape(part.shape)
        upstream[bad] = math.nan
        grads = torch.autograd.grad(part, leaves, upstream, retain_graph=True)
        assert all((x[bad] == 0).all() and x.isfinite().all() for x in grads)
        assert all((x[~bad] != 0).any() for x in grads[:1])


def test_infeasible_problems_alone_can_be_differentiated():
    cost, a, b, mask = refused(size=2, where=(0, 1))
    leaves = [torch.from_numpy(x).requires_grad_() for x in (cost, a, b)]
    result = otfew.solve(*leaves, mask=torch.from_numpy(mask), solver="sinkhorn", on_fail="ignore")
    for part in (result.value, result.value_linear, result.plan):
        for found, leaf in zip(torch.autograd.grad(part.sum(), leaves, retain_graph=True), leaves, strict=True):
            assert torch.equal(found, torch.zeros_like(leaf))


def test_policies_about_infeasible_problems():
    cost, a, b, mask = refused()
    with pytest.raises(ConvergenceError, match="2 of 5 problems are infeasible"):
        otfew.solve(cost, a, b, mask=mask, solver="sinkhorn", on_fail="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        otfew.solve(cost, a, b, mask=mask, solver="sinkhorn", on_fail="ignore")
        feasible = np.delete(np.arange(5), [1, 3])
        otfew.solve(cost[feasible], a[feasible], b[feasible], mask=mask[feasible], solver="sinkhorn")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**20), n=st.integers(1, 7), m=st.integers(1, 7), share=st.sampled_from([0.1, 0.3, 0.5, 0.9])
)
def test_what_is_feasible_is_what_highs_finds_feasible(seed, n, m, share):
    rng = np.random.default_rng(seed)
    cost, mask = rng.random((4, n, m)), rng.random((4, n, m)) < share
    a, b = (rng.integers(0, 4, (4, k)).astype(float) for k in (n, m))
    a[:, 0] += 1
    b[:, 0] += 1
    b *= a.sum(-1, keepdims=True) / b.sum(-1, keepdims=True)
    result = otfew.solve(cost, a, b, mask=mask, solver=otfew.Sinkhorn(reg=1e-3, round=True), on_fail="ignore")
    for k in range(4):
        exact = lp(cost[k], a[k], b[k], mask[k])
        if exact is None:
            assert result.status[k] == otfew.Status.INFEASIBLE
            rows, columns = result.cut[0][k], result.cut[1][k]
            assert (mask[k][rows].any(0) == columns).all()
            assert a[k][rows].sum() > b[k][columns].sum()
        else:
            assert result.status[k] == otfew.Status.OPTIMAL
            assert exact - 1e-8 <= result.value_linear[k] <= exact + 0.05 * a[k].sum()
            assert result.value_linear[k] - result.gap[k] <= exact + 1e-8


def answer(index, cost, a, b, mask, solver):
    """All that is handed out of some problems, and gradients, as arrays."""
    leaves = [torch.from_numpy(x[index].copy()).requires_grad_() for x in (cost, a, b)]
    result = otfew.solve(*leaves, mask=torch.from_numpy(mask[index]), solver=solver, on_fail="ignore")
    served = result.status != otfew.Status.INFEASIBLE
    loss = result.value[served].sum() + result.value_linear[served].sum() + result.plan.square().sum()
    parts = [*(getattr(result, name) for name in NAMES), *result.potentials, *torch.autograd.grad(loss, leaves)]
    return [part.detach().numpy() for part in parts]


@pytest.mark.parametrize("options", [{}, {"round": True}, {"unbalanced": (0.5, None)}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reg", [1.0, 0.1, 0.01, 0.001])
def test_no_bit_depends_on_batch_mates(reg, dtype, options):
    cost, a, b, mask = refused(3, 8, (2, 5))
    cost = cost.astype(dtype)
    mask[::3] = True
    if options == {}:
        mask[1] = np.eye(6, 5, dtype=bool)
        a[1], b[1] = [0.2, 0.2, 0.2, 0.2, 0.2, 0.0], 0.2
    solver = otfew.Sinkhorn(reg=reg, **options)
    problems = cost, a, b, mask, solver
    together = answer(np.arange(8), *problems)
    for index in ([0, 1, 3, 4, 6, 7], *([k] for k in range(8)), [7, 2, 1, 4], [3, 3, 5]):
        for whole, some in zip(together, answer(np.array(index), *problems), strict=True):
            np.testing.assert_array_equal(whole[index], some)


@pytest.mark.parametrize("options", [{}, {"unbalanced": 0.5}, {"gradient": "unrolled"}, {"round": True}], ids=str)
def test_a_mask_that_forbids_nothing_changes_no_bit(options):
    cost, a, b, _ = draw(12, 3)
    leaves = [torch.from_numpy(x).requires_grad_() for x in (cost, a, b)]
    solver = otfew.Sinkhorn(reg=0.05, max_iter=100, **options)
    plain, masked = (
        otfew.solve(*leaves, mask=mask, solver=solver, on_fail="ignore") for mask in (None, np.ones((7, 6), bool))
    )
    for name in NAMES:
        np.testing.assert_array_equal(*(getattr(result, name).detach().numpy() for result in (plain, masked)))
    for x, y in zip(*(torch.autograd.grad(result.value.sum(), leaves) for result in (plain, masked)), strict=True):
        assert torch.equal(x, y)


def losses(result):
    weights = torch.linspace(-1, 1, result.plan[0].numel(), dtype=torch.float64).reshape(result.plan[0].shape)
    return {"value": result.value.sum(), "linear": result.value_linear.sum(), "plan": (result.plan * weights).sum()}


def balanced_direction(rng, mask, live):
    """A change of both weights that leaves plans: the sums of one of the pairs that plans use."""
    change = rng.standard_normal(mask.shape) * live
    return torch.from_numpy(change.sum(2)), torch.from_numpy(change.sum(1))


@pytest.mark.parametrize("name", ["value", "linear", "plan"])
@pytest.mark.parametrize("kind", ["random", "blocks", "barred"])
@pytest.mark.parametrize("shape", [(6, 5), (5, 6)])
def test_gradients_by_finite_differences(shape, kind, name):
    """In costs, and in weights along the directions in which plans remain."""
    cost, a, b, mask = draw(13, 2, *shape, 0.8)
    live = mask.copy()
    if kind != "random":
        n, m = shape
        low = np.zeros(shape, bool)
        low[: n // 2, : m // 2], low[n // 2 :, m // 2 :] = True, True
        live = np.broadcast_to(low, mask.shape)
        plan = np.random.default_rng(2).random(mask.shape) * live
        a, b, mask = plan.sum(2), plan.sum(1), live.copy()
        if kind == "barred":
            mask[:, : n // 2] = True
    inputs = [torch.from_numpy(x) for x in (cost, a, b)]
    solver = precise(0.3, tol=1e-13)

    def loss(cost, a, b):
        return losses(otfew.solve(cost, a, b, mask=torch.from_numpy(mask), solver=solver, on_fail="ignore"))[name]

    leaves = [x.clone().requires_grad_() for x in inputs]
    grads = torch.autograd.grad(loss(*leaves), leaves)
    assert (grads[0].numpy()[~live] == 0).all()
    rng, step = np.random.default_rng(1), 1e-5
    for turn in range(4):
        along = [torch.from_numpy(rng.standard_normal(cost.shape)) * (turn != 1), torch.zeros_like(inputs[1]),
                 torch.zeros_like(inputs[2])]  # fmt: skip
        if turn:
            along[1:] = balanced_direction(rng, mask, live)
        ahead, back = (loss(*(x + s * step * d for x, d in zip(inputs, along, strict=True))) for s in (1, -1))
        expected = float(ahead - back) / (2 * step)
        found = float(sum((g * d).sum() for g, d in zip(grads, along, strict=True)))
        assert abs(found - expected) <= 1e-6 * (1 + abs(expected)), turn


@pytest.mark.parametrize("unbalanced", [None, (0.5, None), (0.7, 0.3)], ids=str)
def test_unrolled_gradients_agree(unbalanced):
    cost, a, b, mask = draw(14, 2, 5, 4, 0.7)
    a, b = a + 0.0, b + 0.0
    leaves = [torch.from_numpy(x).requires_grad_() for x in (cost, a, b)]
    found = []
    for gradient in ("implicit", "unrolled"):
        solver = precise(0.4, tol=1e-13, gradient=gradient, unbalanced=unbalanced, max_iter=3000)
        result = otfew.solve(*leaves, mask=torch.from_numpy(mask), solver=solver, on_fail="ignore")
        found.append([torch.autograd.grad(loss, leaves, retain_graph=True) for loss in losses(result).values()])
    assert torch.equal(result.plan != 0, torch.from_numpy(mask) & (leaves[1] > 0)[..., None] & (leaves[2] > 0)[:, None])
    rng = np.random.default_rng(0)
    for implicit, unrolled in zip(*found, strict=True):
        torch.testing.assert_close(implicit[0], unrolled[0], rtol=1e-6, atol=1e-8)
        # Weights of hard marginals are differentiated along directions in which totals agree.
        along = balanced_direction(rng, mask, mask)
        first, second = (sum((g * d).sum() for g, d in zip(x[1:], along, strict=True)) for x in (implicit, unrolled))
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-8)


def test_soft_gradients_by_finite_differences_also_of_nodes_that_nothing_serves():
    cost, a, b, mask = draw(15, 2, 5, 4, 0.7)
    a, b, mask[:, 2] = a + 0.1, b + 0.2, False
    inputs = [torch.from_numpy(x) for x in (cost, a, b)]
    solver = precise(0.3, tol=1e-13, unbalanced=(0.8, 0.5))

    def loss(*inputs):
        return sum(losses(otfew.solve(*inputs, mask=torch.from_numpy(mask), solver=solver)).values())

    leaves = [x.clone().requires_grad_() for x in inputs]
    grads = torch.autograd.grad(loss(*leaves), leaves)
    for k in (1, 2):
        for at in range(inputs[k].shape[1]):
            change = torch.zeros_like(inputs[k])
            change[:, at] = 1e-6
            moved = [[*inputs[:k], inputs[k] + s * change, *inputs[k + 1 :]] for s in (1, -1)]
            expected = float(loss(*moved[0]) - loss(*moved[1])) / 2e-6
            assert abs(float(grads[k][:, at].sum()) - expected) <= 1e-6 * (1 + abs(expected))


def test_nodes_without_weight_have_the_gradient_that_a_little_would_have():
    cost, a, b, mask = draw(16, 1, 6, 5, 0.7)
    a[:, 3], b[:, 2] = 0, 0
    plan = np.random.default_rng(0).random((1, 6, 5)) * mask * (a > 0)[..., None] * (b > 0)[:, None]
    a, b = plan.sum(2), plan.sum(1)
    mask[:, 3, [1, 2]], mask[:, 0, 2] = [True, False], True

    leaves = [torch.from_numpy(x).requires_grad_() for x in (cost, a, b)]
    result = otfew.solve(*leaves, mask=torch.from_numpy(mask), solver=precise(0.2, tol=1e-13))
    by_a = torch.autograd.grad(result.value.sum(), leaves)[1][0]
    little = a.copy()
    little[:, 3] = 1e-9
    little[:, 0] -= 1e-9
    change = (
        otfew.solve(cost, little, b, mask=mask, solver=precise(0.2, tol=1e-13)).value - result.value.detach().numpy()
    )
    assert abs(float(change[0]) / 1e-9 - float(by_a[3] - by_a[0])) <= 1e-3
    assert (result.plan[:, 3] == 0).all()


def test_nodes_that_nothing_serves_have_no_gradient():
    cost, _, _, mask = draw(17, 2, 6, 5, 0.7)
    mask[:, 2], mask[:, :, 4] = False, False
    plan = np.random.default_rng(0).random(mask.shape) * mask
    leaves = [torch.from_numpy(x).requires_grad_() for x in (cost, plan.sum(2), plan.sum(1))]
    for gradient in ("implicit", "unrolled"):
        result = otfew.solve(*leaves, mask=torch.from_numpy(mask), solver=otfew.Sinkhorn(reg=0.3, gradient=gradient))
        assert (result.status == otfew.Status.OPTIMAL).all()
        assert (result.potentials[0][:, 2] == 0).all()
        assert (result.potentials[1][:, 4] == 0).all()
        for loss in losses(result).values():
            grads = torch.autograd.grad(loss, leaves, retain_graph=True)
            assert all(x.isfinite().all() for x in grads)
            assert (grads[0][~torch.from_numpy(mask)] == 0).all()
            if gradient == "implicit":
                assert (grads[1][:, 2].abs() <= 1e-15).all()
                assert (grads[2][:, 4].abs() <= 1e-15).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precisions(dtype):
    cost, a, b, mask = (torch.from_numpy(x) for x in draw(18, 4, 8, 7, 0.7))
    a, b, cost = a.to(dtype), b.to(dtype), cost.to(dtype)
    result = otfew.solve(cost, a, b, mask=mask, solver=otfew.Sinkhorn(reg=0.1))
    assert result.plan.dtype == torch.float32
    assert (result.status == otfew.Status.OPTIMAL).all()
    assert (result.plan[~mask] == 0).all()
    wide_b = b.double() * (a.double().sum(-1) / b.double().sum(-1))[:, None]
    torch.testing.assert_close(result.plan.double().sum(2), a.double(), rtol=0, atol=3e-6)
    torch.testing.assert_close(result.plan.double().sum(1), wide_b, rtol=0, atol=3e-6)


@pytest.mark.parametrize("fraction", [100.0, 1.0, 0.01, 1e-3, 1e-4])
@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e9])
def test_any_reg_at_any_scale(spread, fraction):
    cost, a, b, mask = draw(19, 6, 9, 8, 0.5, 0.3)
    result = otfew.solve(spread * cost, a, b, mask=mask, solver=otfew.Sinkhorn(reg=fraction * spread))
    assert (result.status == otfew.Status.OPTIMAL).all()
    assert (result.gap >= -1e-9 * spread).all()
    assert (result.gap <= (1e-5 * fraction + 1e-6) * spread).all()


def test_masks_broadcast_and_come_as_anything():
    cost, a, b, mask = draw(20, 6)
    cost, a, b = cost[0], a[0], b[0]
    mask = mask[:, None] | mask[0]
    result = otfew.solve(cost, a, b, mask=mask[:, 0], solver=otfew.Sinkhorn(reg=0.2))
    assert result.value.shape == (6,)
    shared = otfew.solve(np.stack([cost, cost + 1]), a, b, mask=torch.from_numpy(mask[0]), solver="sinkhorn")
    np.testing.assert_allclose(shared.value[1] - shared.value[0], a.sum(), rtol=1e-6)
    infinite = np.where(mask[:, 0], cost, np.inf)
    for costs in (infinite, np.asfortranarray(infinite), torch.from_numpy(infinite)):
        weights = (a, b) if isinstance(costs, np.ndarray) else (torch.from_numpy(a), torch.from_numpy(b))
        same = otfew.solve(costs, *weights, solver=otfew.Sinkhorn(reg=0.2), validate=False)
        np.testing.assert_array_equal(np.asarray(same.value), result.value)
    empty = otfew.solve(np.zeros((0, 3, 2)), mask=np.zeros((3, 2), bool), solver="sinkhorn")
    assert empty.plan.shape == (0, 3, 2)


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_other_infinities_are_refused_beside_forbidden_pairs(bad):
    cost, a, b, mask = draw(21)
    cost = np.where(mask, cost, np.inf)
    cost[2, 0, 0] = bad
    with pytest.raises(ValueError, match=r"^cost holds NaN or -inf at batch index 2"):
        otfew.solve(cost, a, b, solver="sinkhorn")


def test_problems_larger_than_what_newton_serves():
    """Sinkhorn's own steps in the log domain, over pairs within two blocks and one way between them."""
    rng = np.random.default_rng(0)
    n = 1100
    mask = rng.random((n, n)) < 0.02
    mask[: n // 2, n // 2 :] = False
    mask[n // 2 :, : n // 2] &= rng.random((n // 2, n // 2)) < 0.1
    plan = np.where(mask, rng.random((n, n)), 0)
    plan[n // 2 :, : n // 2] = 0
    a, b = plan.sum(1), plan.sum(0)
    mask |= (plan > 0) | np.eye(n, dtype=bool)
    plan += np.diag(np.full(n, 0.5))
    a, b = plan.sum(1), plan.sum(0)
    cost = rng.random((n, n))
    result = otfew.solve(cost, a, b, mask=mask, solver=otfew.Sinkhorn(reg=0.3))
    assert result.status == otfew.Status.OPTIMAL
    assert (result.plan[n // 2 :, : n // 2] == 0).all()
    assert 0 <= result.gap <= 1e-5 * a.sum()


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**20), n=st.integers(1, 5), m=st.integers(1, 5), share=st.sampled_from([0.3, 0.6, 0.9]))
def test_the_pairs_that_flows_use(seed, n, m, share):
    rng = np.random.default_rng(seed)
    mask = rng.random((1, n, m)) < share
    whole = rng.integers(0, 3, (1, n, m)) * mask
    rows, columns = whole.sum(2), whole.sum(1)
    live, part, parts = np.empty_like(mask), np.empty((1, n + m), np.int64), np.empty(1, np.int64)
    flows.survey(mask, rows * 1000, columns * 1000, n + m, live, part, parts)
    held = (rows[0] > 0)[:, None] & (columns[0] > 0)
    np.testing.assert_array_equal(live[0] & held, used(rows[0] * 1.0, columns[0] * 1.0, mask[0]))
    of_rows, of_columns = part[0, :n, None], part[0, None, n:]
    assert ((of_rows >= 0)[:, 0] == (rows[0] > 0)).all()
    # Allowed pairs lead from parts to themselves or to those of smaller numbers.
    assert (of_columns <= of_rows)[mask[0] & held].all()
    assert part.max() + 1 == parts[0]


def clouds(seed=0, size=2, n=7, m=6):
    rng = np.random.default_rng(seed)
    x, y, mask = rng.standard_normal((size, n, 3)), rng.standard_normal((size, m, 3)), rng.random((size, n, m)) < 0.7
    plan = rng.random((size, n, m)) * mask
    return x, y, plan.sum(2), plan.sum(1), mask


@pytest.mark.parametrize("solver", ["exact", otfew.Sinkhorn(reg=0.5, tol=1e-9)], ids=str)
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
def test_points_with_a_mask(cost, solver):
    x, y, a, b, mask = clouds()
    leaves = [torch.from_numpy(z).requires_grad_() for z in (x, y)]
    result = otfew.solve_points(*leaves, torch.from_numpy(a), torch.from_numpy(b), mask=mask, cost=cost, solver=solver)
    assert (result.plan.dense().detach().numpy()[~mask] == 0).all()
    grads = torch.autograd.grad(result.value.sum(), leaves)
    assert all(z.isfinite().all() for z in grads)
    values = []
    for step in (1e-6, -1e-6):
        moved = x.copy()
        moved[0, 2, 1] += step
        values.append(otfew.solve_points(moved, y, a, b, mask=mask, cost=cost, solver=solver).value.sum())
    assert abs((values[0] - values[1]) / 2e-6 - float(grads[0][0, 2, 1])) <= 1e-4


def test_points_that_no_plan_serves():
    x, y, a, b, mask = clouds()
    mask[1, 3] = False
    result = otfew.solve_points(x, y, a, b, mask=mask, solver="sinkhorn", on_fail="ignore")
    assert result.status.tolist() == [0, otfew.Status.INFEASIBLE]
    assert result.value[1] == math.inf
    assert (result.plan.dense()[1] == 0).all()
    assert result.cut[0][1].nonzero()[0].tolist() == [3]
    with pytest.warns(ConvergenceWarning, match="1 of 2 problems are infeasible, first at batch index 1"):
        otfew.solve_points(x, y, a, b, mask=mask, solver="sinkhorn")
    with pytest.raises(ConvergenceError, match="infeasible"):
        otfew.solve_points(x, y, a, b, mask=mask, solver="exact")


def test_masks_of_points_broadcast():
    x, y, _, _, mask = clouds(size=3, n=6)
    mask = mask | np.eye(6, dtype=bool)
    for solver in ("exact", "sinkhorn"):
        many = otfew.solve_points(x[0], y[0], mask=mask, solver=solver)
        assert many.value.shape == (3,)
        for k in range(3):
            assert float(otfew.solve_points(x[0], y[0], mask=mask[k], solver=solver).value) == many.value[k]


@pytest.mark.parametrize("solver", ["keops", "geomloss"])
def test_solvers_that_keep_no_pairs_take_no_masks(solver):
    x, y, a, b, mask = clouds()
    with pytest.raises(ValueError, match=rf"^mask holds n x m pairs, of which {solver} keeps none: pass"):
        otfew.solve_points(x, y, a, b, mask=mask, solver=solver)


def test_masks_of_points_that_do_not_fit():
    x, y, a, b, mask = clouds()
    with pytest.raises(ValueError, match=r"^mask must be \(\*batch, 7, 6\)"):
        otfew.solve_points(x, y, a, b, mask=mask[:, :3], solver="sinkhorn")
    with pytest.raises(ValueError, match=r"^mask must be bool"):
        otfew.solve_points(x, y, a, b, mask=mask * 1.0, solver="sinkhorn")


def test_the_systems_of_parts_have_one_solution_for_each():
    """Within each part orthogonal to what its columns carry, though sums within parts are off by rounding errors."""
    rng = np.random.default_rng(0)
    plan = np.zeros((1, 8, 7))
    plan[:, :5, :3], plan[:, 5:, 3:6] = rng.random((5, 3)), rng.random((3, 3))
    rows, columns = plan.sum(2), plan.sum(1)
    right = rng.standard_normal((1, 7))
    part = np.array([[0, 0, 0, 1, 1, 1, -1]])
    for k in (0, 1):
        right[part == k] -= right[part == k].mean() - 1e-13
    right[0, 6] = 0
    given = [torch.from_numpy(x) for x in (plan, rows, columns, np.ones((1, 1)), right)]
    y = schur_solve(*given, True, torch.from_numpy(part)).numpy()
    for k in (0, 1):
        assert abs((columns * y)[part == k].sum()) <= 1e-10
    matrix = np.diag(columns[0]) - plan[0].T @ np.diag(1 / rows[0]) @ plan[0]
    np.testing.assert_allclose(matrix @ y[0], right[0], atol=1e-9)


def test_ragged_batches():
    """What ``otfew.pad`` makes of problems of several shapes is solved as they are alone."""
    rng = np.random.default_rng(0)
    plans = [rng.random(shape) for shape in ((3, 5), (6, 2), (4, 4))]
    costs, a, b = [rng.random(x.shape) for x in plans], [x.sum(1) for x in plans], [x.sum(0) for x in plans]
    padded = otfew.pad(costs, a, b)
    together = otfew.solve(padded.cost, padded.a, padded.b, mask=padded.mask, solver=precise(0.1))
    for k, plan in enumerate(padded.crop(together.plan)):
        alone = otfew.solve(costs[k], a[k], b[k], solver=precise(0.1))
        np.testing.assert_allclose(plan, alone.plan, rtol=0, atol=1e-10)
        np.testing.assert_allclose(together.value[k], alone.value, rtol=1e-12)
