"""Marginals at a price: against a direct minimisation, a plain loop, POT, and the limits of free and of hard ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

import otfew

PAIRS = [(0.5, 0.5), (0.2, 3.0), (None, 0.4), (0.7, None)]
pairs = pytest.mark.parametrize("rhos", PAIRS, ids=str)


def kl(p, q):
    return float((p * np.log(p / q) - p + q).sum())


def objective(plan, cost, a, b, reg, rhos):
    value = (plan * cost).sum() + reg * kl(plan, a[:, None] * b / np.sqrt(a.sum() * b.sum()))
    if rhos[0] is not None:
        value += rhos[0] * kl(plan.sum(1), a)
    if rhos[1] is not None:
        value += rhos[1] * kl(plan.sum(0), b)
    return float(value)


def by_hand(cost, a, b, reg, rhos, rounds=20_000):
    """Scaling in numpy; returns the plan."""
    kernel = np.exp(-cost / reg) * a[:, None] * b / np.sqrt(a.sum() * b.sum())
    powers = [1.0 if rho is None else rho / (rho + reg) for rho in rhos]
    u, v = np.ones(len(a)), np.ones(len(b))
    for _ in range(rounds):
        u = (a / (kernel @ v)) ** powers[0]
        v = (b / (kernel.T @ u)) ** powers[1]
    return u[:, None] * kernel * v


@pytest.fixture
def problem(batch):
    cost, a, b = batch(size=1, n=4, m=3)
    return 2 * cost[0] - 0.5, 1.5 * a[0], 0.8 * b[0]


@pytest.mark.parametrize("reg", [0.5, 0.1])
@pytest.mark.parametrize("rho", [0.3, 2.0])
def test_against_a_direct_minimisation(reg, rho, problem):
    cost, a, b = problem
    rhos = (rho, 2 * rho)

    def loss(logs):
        plan = np.exp(logs).reshape(4, 3)
        product = a[:, None] * b / np.sqrt(a.sum() * b.sum())
        slope = cost + reg * np.log(plan / product)
        slope = slope + rhos[0] * np.log(plan.sum(1) / a)[:, None] + rhos[1] * np.log(plan.sum(0) / b)
        return objective(plan, cost, a, b, reg, rhos), (plan * slope).ravel()

    options = {"ftol": 1e-16, "gtol": 1e-11, "maxiter": 5000, "maxfun": 50_000, "maxcor": 30}
    best = minimize(loss, np.full(12, -2.0), jac=True, method="L-BFGS-B", bounds=[(-60, 5)] * 12, options=options)
    result = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, tol=1e-12, unbalanced=rhos))
    assert abs(float(result.value) - best.fun) <= 1e-9
    np.testing.assert_allclose(result.plan, np.exp(best.x).reshape(4, 3), atol=1e-4)


@pairs
@pytest.mark.parametrize("reg", [1.0, 0.1, 0.03])
def test_against_a_plain_loop(reg, rhos, batch):
    cost, a, b = batch(size=4, n=6, m=8)
    b = 1.8 * b
    result = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, tol=1e-13, unbalanced=rhos))
    assert (result.status == otfew.Status.OPTIMAL).all()
    f, g = result.potentials
    for k in range(4):
        plan = by_hand(cost[k], a[k], b[k], reg, rhos)
        np.testing.assert_allclose(result.plan[k], plan, rtol=0, atol=1e-10)
        assert abs(result.value[k] - objective(plan, cost[k], a[k], b[k], reg, rhos)) <= 1e-11
        assert abs(result.value_linear[k] - (plan * cost[k]).sum()) <= 1e-10
        product = a[k][:, None] * b[k] / np.sqrt(a[k].sum() * b[k].sum())
        np.testing.assert_allclose(product * np.exp((f[k][:, None] + g[k] - cost[k]) / reg), plan, atol=1e-10)
        if rhos[0] is not None:
            np.testing.assert_allclose(plan.sum(1), a[k] * np.exp(-f[k] / rhos[0]), atol=1e-10)
    assert (np.abs(result.gap) <= 1e-11).all()
    assert (result.marginal_error <= 1e-12).all()


def test_against_pot(problem):
    """POT's reference measure is a b', ours is divided by the geometric mean of the totals: here it is 1."""
    ot = pytest.importorskip("ot")
    cost, a, b = problem
    b = b / (a.sum() * b.sum())
    plan = ot.unbalanced.sinkhorn_unbalanced(
        a, b, cost, 0.2, (0.5, 0.9), reg_type="kl", numItermax=100_000, stopThr=1e-15
    )
    found = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=0.2, tol=1e-12, unbalanced=(0.5, 0.9))).plan
    np.testing.assert_allclose(found, plan, atol=1e-8)


@pytest.mark.parametrize("reg", [0.1, 0.001])
def test_a_high_price_is_a_hard_marginal(reg, batch):
    cost, a, b = batch(mass=2.0)
    hard = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, tol=1e-10))
    soft = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, tol=1e-10, unbalanced=1e6))
    np.testing.assert_allclose(soft.value, hard.value, rtol=1e-5)
    np.testing.assert_allclose(soft.plan, hard.plan, atol=1e-5)


def test_a_low_price_buys_nothing(batch):
    """Where moving costs more than both prices together, nothing moves, and both prices are paid."""
    cost, a, b = batch(mass=2.0)
    result = otfew.solve(cost + 10, a, 3 * b, solver=otfew.Sinkhorn(reg=0.01, unbalanced=0.1))
    assert (result.plan <= 1e-12).all()
    np.testing.assert_allclose(result.value, 0.1 * 2 + 0.1 * 6 + 0.01 * np.sqrt(12), rtol=1e-5)


@pairs
@pytest.mark.parametrize("reg", [0.1, 1e-3])
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_hard_problems_converge(rhos, reg, scale, batch):
    cost, a, b = batch(size=5, n=9, m=12)
    a, b = scale * a, 3 * scale * b
    a[:, 2], b[:, [0, 5]] = 0, 0
    result = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, unbalanced=rhos))
    assert (result.status == otfew.Status.OPTIMAL).all()
    assert (result.marginal_error <= 1.1e-6).all()
    assert (np.abs(result.gap) <= 1e-4 * scale).all()
    assert np.isfinite(result.potentials[0]).all()
    assert np.isfinite(result.potentials[1]).all()


def test_equal_totals_are_asked_for_only_where_both_marginals_are_hard(batch):
    cost, a, b = batch()
    with pytest.raises(ValueError, match="totals of a and b disagree"):
        otfew.solve(cost, a, 2 * b, solver="sinkhorn")
    with pytest.raises(ValueError, match="totals of a and b disagree"):
        otfew.solve(cost, a, 2 * b, solver=otfew.Sinkhorn(unbalanced=(None, None)))
    for rhos in (1.0, (1.0, None), (None, 1.0)):
        plan = otfew.solve(cost, a, 2 * b, solver=otfew.Sinkhorn(unbalanced=rhos)).plan
        if rhos == (None, 1.0):
            np.testing.assert_allclose(plan.sum(2), a, atol=1e-5)
        if rhos == (1.0, None):
            np.testing.assert_allclose(plan.sum(1), 2 * b, atol=1e-5)


def test_float32(batch):
    cost, a, b = batch(size=10)
    solver = otfew.Sinkhorn(reg=0.05, unbalanced=0.5)
    single, double = otfew.solve(cost.astype(np.float32), a, b, solver=solver), otfew.solve(cost, a, b, solver=solver)
    assert single.plan.dtype == np.float32
    np.testing.assert_allclose(single.value, double.value, rtol=1e-6)


def test_what_does_not_converge_is_reported(batch):
    cost, a, b = batch()
    with pytest.warns(otfew.ConvergenceWarning, match="sinkhorn did not reach"):
        result = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=1e-3, unbalanced=1.0, max_iter=2))
    assert (result.status == otfew.Status.MAX_ITER).all()
    assert (result.marginal_error > 1e-6).all()
