"""POT's Sinkhorn behind the interface: value, potentials, certificate and gradients of the entropic problem."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.autograd import gradcheck

import otfew

pytest.importorskip("ot")

METHODS = ["sinkhorn_log", "sinkhorn", "sinkhorn_stabilized"]
every = pytest.mark.parametrize("method", METHODS)


def leaves(problem):
    return tuple(torch.from_numpy(x).requires_grad_() for x in problem)


def entropic_value(plan, cost, a, b, reg):
    """<P, C> + reg KL(P | a b^T / total), written out."""
    product = np.outer(a, b) / a.sum()
    used = plan > 0
    kl = (plan[used] * np.log(plan[used] / product[used])).sum() - plan.sum() + product.sum()
    return (plan * cost).sum() + reg * kl


@every
@pytest.mark.parametrize("mass", [1.0, 3.5])
def test_value_is_that_of_the_dual_by_a_general_optimiser(method, mass, batch):
    cost, a, b = batch(size=2, n=5, m=4, mass=mass)
    reg = 0.2
    result = otfew.solve(cost, a, b, solver=otfew.POTSinkhorn(reg=reg, method=method))
    for k in range(2):

        def minus_dual(x, k=k):
            f, g = x[:5], x[5:]
            q = np.outer(a[k], b[k]) / mass
            p = q * np.exp((f[:, None] + g - cost[k]) / reg)
            return -(f @ a[k] + g @ b[k] + reg * (q - p).sum()), -np.concatenate([a[k] - p.sum(1), b[k] - p.sum(0)])

        best = minimize(minus_dual, np.zeros(9), jac=True, method="BFGS", options={"gtol": 1e-9})
        assert abs(result.value[k] + best.fun) <= 1e-9 * mass
        assert abs(result.value[k] - entropic_value(result.plan[k], cost[k], a[k], b[k], reg)) <= 1e-12 * mass


@every
def test_potentials_make_the_plan(method, batch):
    cost, a, b = batch(mass=2.5)
    reg = 0.1
    result = otfew.solve(cost, a, b, solver=otfew.POTSinkhorn(reg=reg, method=method))
    f, g = result.potentials
    expected = a[:, :, None] * b[:, None] / 2.5 * np.exp((f[:, :, None] + g[:, None] - cost) / reg)
    np.testing.assert_allclose(result.plan, expected, rtol=1e-10)
    np.testing.assert_allclose((g * b).sum(-1), 0, atol=1e-13)
    np.testing.assert_allclose(result.plan.sum(-1), a, rtol=1e-12)
    assert (result.marginal_error <= 1e-9).all()
    np.testing.assert_allclose(result.value_linear, (result.plan * cost).sum((1, 2)), rtol=1e-13)
    assert (np.abs(result.gap) <= 1e-8).all()
    assert (result.n_iter > 0).all()


@every
def test_gradients_by_finite_differences(method, batch):
    solver = otfew.POTSinkhorn(reg=0.5, method=method, tol=1e-12)
    cost, a, b = leaves(batch(size=2, n=3, m=2, mass=2.5))
    assert gradcheck(lambda *x: otfew.solve(*x, solver=solver).value, (cost, a, b))
    assert gradcheck(lambda cost, a: otfew.solve(cost, a, None, solver=solver).value, (cost, a))
    assert gradcheck(lambda cost, b: otfew.solve(cost, None, b, solver=solver).value, (cost, b))
    result = otfew.solve(cost, a, b, solver=solver)
    assert not result.value_linear.requires_grad
    assert not result.plan.requires_grad


@pytest.mark.parametrize("side", [0, 1])
def test_derivative_towards_a_weight_of_zero(side, batch):
    cost, *weights = (x[0] for x in batch(size=1, n=5, m=4))
    weights[side][2] = 0
    weights = [2 * w / w.sum() for w in weights]
    solver = otfew.POTSinkhorn(reg=0.2, tol=1e-12)
    here = otfew.solve(cost, *weights, solver=solver)
    assert (np.take(here.plan, 2, axis=side) == 0).all()
    step = 1e-6
    moved = [w.copy() for w in weights]
    moved[side][2] += step
    slope = (otfew.solve(cost, *moved, solver=solver).value - here.value) / step
    # Where b grows it is scaled back to the total of a; in the gauge of the potentials that costs nothing.
    assert abs(slope - here.potentials[side][2]) <= 1e-5


def test_value_is_homogeneous_in_mass_and_in_cost_with_reg(batch):
    cost, a, b = batch()
    first = otfew.solve(cost, a, b, solver=otfew.POTSinkhorn(reg=0.1))
    heavy = otfew.solve(cost, 7 * a, 7 * b, solver=otfew.POTSinkhorn(reg=0.1))
    dear = otfew.solve(3 * cost, a, b, solver=otfew.POTSinkhorn(reg=0.3))
    for name in ("value", "value_linear", "gap"):
        np.testing.assert_allclose(getattr(heavy, name), 7 * getattr(first, name), atol=1e-9)
        np.testing.assert_allclose(getattr(dear, name), 3 * getattr(first, name), atol=1e-9)
    np.testing.assert_allclose(heavy.potentials[0], first.potentials[0], atol=1e-8)
    np.testing.assert_allclose(dear.potentials[0], 3 * first.potentials[0], atol=1e-8)


def test_between_the_linear_program_and_the_product_coupling(batch):
    cost, a, b = batch(size=3)
    best = otfew.solve(cost, a, b).value
    sharp = otfew.solve(cost, a, b, solver=otfew.POTSinkhorn(reg=5e-3, max_iter=100_000))
    assert (sharp.value >= best).all()
    np.testing.assert_allclose(sharp.value_linear, best, atol=2e-3)
    blurred = otfew.solve(cost, a, b, solver=otfew.POTSinkhorn(reg=1e6))
    np.testing.assert_allclose(blurred.plan, a[:, :, None] * b[:, None], rtol=1e-5)
    np.testing.assert_allclose(blurred.value, (cost * a[:, :, None] * b[:, None]).sum((1, 2)), rtol=1e-5)


def test_an_early_stop_is_a_warning_and_a_status(batch):
    solver = otfew.POTSinkhorn(reg=5e-3, max_iter=3)
    with pytest.warns(
        otfew.ConvergenceWarning, match="pot-sinkhorn did not reach .*MAX_ITER.*raise max_iter"
    ) as caught:
        result = otfew.solve(*batch(), solver=solver)
    # One warning, ours: POT's own are not passed on.
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (result.status == otfew.Status.MAX_ITER).all()
    assert (result.marginal_error > 1e-9).all()
    with pytest.raises(otfew.ConvergenceError):
        otfew.solve(*batch(), solver=solver, on_fail="raise")


def test_underflow_of_the_plain_domain_is_reported(batch):
    cost, a, b = batch(size=2)
    cost[1] *= 1e5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = otfew.solve(cost, a, b, solver=otfew.POTSinkhorn(reg=0.1, method="sinkhorn"), on_fail="ignore")
    assert result.status[0] == otfew.Status.OPTIMAL
    assert result.status[1] != otfew.Status.OPTIMAL


def test_a_problem_does_not_depend_on_its_batch_mates(batch):
    cost, a, b = batch(size=4)
    whole = otfew.solve(cost, a, b, solver="pot-sinkhorn")
    for k in range(4):
        one = otfew.solve(cost[k], a[k], b[k], solver="pot-sinkhorn")
        assert one.value.tobytes() == whole.value[k].tobytes()
        assert one.plan.tobytes() == whole.plan[k].tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_one_row_or_column(shape):
    rng = np.random.default_rng(0)
    cost, a, b = rng.standard_normal(shape), rng.dirichlet(np.ones(shape[0])), rng.dirichlet(np.ones(shape[1]))
    result = otfew.solve(cost, a, b, solver="pot-sinkhorn")
    np.testing.assert_allclose(result.plan, np.outer(a, b), atol=1e-12)
    np.testing.assert_allclose(result.value, (cost * np.outer(a, b)).sum(), atol=1e-12)
