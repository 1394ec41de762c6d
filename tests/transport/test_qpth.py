"""qpth's quadratic programs: the optimum by another solver, DeepEMD's own formulation, gradients of everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.autograd import gradcheck

import otfew

pytest.importorskip("qpth")

both = pytest.mark.parametrize("form", ["L2", "QP"])


def leaves(problem):
    return tuple(torch.from_numpy(x).requires_grad_() for x in problem)


def objective(form, reg, plan, cost):
    linear, squares = (plan * cost).sum(), reg * (plan**2).sum()
    return linear + squares / 2 if form == "L2" else np.sqrt(linear**2 + squares)


@both
@pytest.mark.parametrize("mass", [1.0, 4.0])
def test_optimum_by_a_general_optimiser(form, mass, batch):
    cost, a, b = batch(size=2, n=4, m=3, mass=mass)
    reg = 0.05
    result = otfew.solve(cost, a, b, solver=otfew.QPTH(form=form, reg=reg))
    sums = np.vstack([np.kron(np.eye(4), np.ones(3)), np.kron(np.ones(4), np.eye(3))])[:-1]
    for k in range(2):
        target = np.concatenate([a[k], b[k]])[:-1]
        found = minimize(
            lambda x, k=k: objective(form, reg, x.reshape(4, 3), cost[k]),
            np.outer(a[k], b[k]).ravel() / mass,
            bounds=[(0, None)] * 12,
            constraints={"type": "eq", "fun": lambda x, t=target: sums @ x - t, "jac": lambda x: sums},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert abs(result.value[k] - found.fun) <= 1e-7 * mass
        assert abs(result.value[k] - objective(form, reg, result.plan[k], cost[k])) <= 1e-12 * mass
        np.testing.assert_allclose(result.plan[k], found.x.reshape(4, 3), atol=1e-4 * mass)
    assert (np.abs(result.gap) <= 1e-8).all()
    assert (result.marginal_error <= 1e-10).all()


@both
def test_deepemds_own_formulation_has_the_same_plan(form):
    """Inequalities for the sums and one equality for the total, as in ``emd_inference_qpth``."""
    from qpth.qp import QPFunction

    rng = np.random.default_rng(0)
    n, reg = 4, 1e-4
    cost, a, b = 1 - rng.random((3, n, n)), rng.random((3, n)) + 0.1, rng.random((3, n)) + 0.1
    a, b = n * a / a.sum(1, keepdims=True), n * b / b.sum(1, keepdims=True)
    c = torch.from_numpy(cost).reshape(3, -1)
    eye = torch.eye(n * n, dtype=torch.float64).expand(3, -1, -1)
    quadratic, linear = (reg * eye, c) if form == "L2" else (c[:, :, None] * c[:, None] + reg * eye, 0 * c)
    sums = np.vstack([-np.eye(n * n), np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])
    limits = torch.from_numpy(np.hstack([np.zeros((3, n * n)), a, b]))
    total = torch.full((3, 1), float(n), dtype=torch.float64)
    everything = torch.ones(3, 1, n * n, dtype=torch.float64)
    layer = QPFunction(verbose=-1)
    flow = layer(quadratic, linear, torch.from_numpy(sums).expand(3, -1, -1), limits, everything, total)
    result = otfew.solve(cost, a, b, solver=otfew.QPTH(form=form, reg=reg))
    np.testing.assert_allclose(result.plan, flow.reshape(3, n, n).numpy(), atol=1e-5)


@both
@pytest.mark.parametrize(("reg", "mass"), [(0.1, 1.0), (0.01, 3.0), (1e-4, 1.0)])
def test_gradients_by_finite_differences(form, reg, mass, batch):
    solver = otfew.QPTH(form=form, reg=reg)
    cost, a, b = leaves(batch(size=2, n=3, m=3, mass=mass))

    def parts(*problem):
        result = otfew.solve(*problem, solver=solver)
        return result.value, result.value_linear, result.plan

    assert gradcheck(parts, (cost, a, b), atol=1e-4)
    assert gradcheck(lambda cost, b: otfew.solve(cost, None, b, solver=solver).value_linear, (cost, b), atol=1e-4)


@both
def test_gradients_in_the_weights_are_the_potentials(form, batch):
    cost, a, b = leaves(batch(mass=2.0))
    result = otfew.solve(cost, a, b, solver=otfew.QPTH(form=form, reg=0.01))
    by_cost, by_a, by_b = torch.autograd.grad(result.value.sum(), (cost, a, b))
    torch.testing.assert_close(by_a, result.potentials[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(by_b, result.potentials[1], rtol=0, atol=1e-6)
    if form == "L2":
        torch.testing.assert_close(by_cost, result.plan, rtol=0, atol=1e-6)


@both
def test_a_small_ridge_leaves_the_linear_program_and_its_gradient(form):
    """The layer of DeepEMD's training and the envelope of the exact solver agree."""
    rng = np.random.default_rng(1)
    problem = rng.random((4, 5, 5)), 5 * rng.dirichlet(np.ones(5), 4), 5 * rng.dirichlet(np.ones(5), 4)
    grads = []
    for solver in (otfew.QPTH(form=form, reg=1e-6), "exact"):
        cost, a, b = leaves(problem)
        value = otfew.solve(cost, a, b, solver=solver).value_linear
        grads.append((value, *torch.autograd.grad(value.sum(), (cost, a, b))))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


@both
@pytest.mark.parametrize(
    "kind", ["constant", "zero", "signed", "ties", "offset", "tiny", "one row", "one column", "zero weights"]
)
def test_special_problems(form, kind):
    rng = np.random.default_rng(2)
    cost, a = rng.random((2, 3, 4)), None
    if kind == "constant":
        cost[:] = 0.7
    elif kind == "zero":
        cost[:] = 0
    elif kind == "signed":
        cost = rng.standard_normal((2, 3, 4))
    elif kind == "ties":
        cost = rng.integers(0, 3, (2, 3, 4)) * 1.0
    elif kind == "offset":
        cost += 10
    elif kind == "tiny":
        cost *= 1e-12
    elif kind == "one row":
        cost = cost[:, :1]
    elif kind == "one column":
        cost = cost[:, :, :1]
    else:
        a = np.array([[0.5, 0.0, 0.5], [0.2, 0.3, 0.5]])
    result, best = otfew.solve(cost, a, solver=otfew.QPTH(form=form)), otfew.solve(cost, a)
    assert (result.status == otfew.Status.OPTIMAL).all()
    assert (result.value_linear >= best.value - 1e-9).all()
    np.testing.assert_allclose(result.value_linear, best.value, atol=1e-4)
    assert (result.plan >= 0).all()
    if kind == "zero weights":
        assert (result.plan[0, 1] == 0).all()
        assert abs(result.plan[1, 1].sum() - 0.3) <= 1e-9


def test_batches(batch):
    cost, a, b = batch()
    whole = otfew.solve(cost, a, b, solver="qpth")
    for k in range(6):
        one = otfew.solve(cost[k], a[k], b[k], solver="qpth")
        assert abs(one.value - whole.value[k]) <= 1e-6
    assert otfew.solve(np.zeros((0, 3, 4)), solver="qpth").plan.shape == (0, 3, 4)
    assert otfew.solve(torch.zeros(0, 3, 4, requires_grad=True), solver="qpth").value.shape == (0,)


def test_an_early_stop_is_a_warning_and_a_status(batch, capfd):
    with pytest.warns(otfew.ConvergenceWarning, match=r"qpth did not reach .*MAX_ITER.*raise max_iter or reg"):
        result = otfew.solve(*batch(), solver=otfew.QPTH(max_iter=1))
    assert (result.status == otfew.Status.MAX_ITER).any()
    best = otfew.solve(*batch()).value
    missed = 12 * result.marginal_error * sum(np.abs(p).max() for p in result.potentials)
    assert (result.value_linear - best <= result.gap + missed + 1e-9).all()
    assert capfd.readouterr() == ("", "")
