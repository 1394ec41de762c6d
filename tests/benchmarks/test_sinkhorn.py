"""Speed of ``sinkhorn`` beside the batched entropic solvers of POT and GeomLoss at the same marginal error."""

from __future__ import annotations

import pytest
import torch

import otfew

REG, ERROR = 0.05, 1e-5


@pytest.fixture
def problem(nodes_batch):
    return tuple(torch.from_numpy(x).float() for x in nodes_batch(375, 25))


def error(plan, a, b):
    """Largest deviation of a marginal over all problems, of total 1."""
    plan = plan.double()
    return float(max((plan.sum(2) - a).abs().max(), (plan.sum(1) - b).abs().max()))


def ours(problem, **options):
    solver = otfew.Sinkhorn(reg=REG, tol=ERROR, **options)
    return lambda: otfew.solve(*problem, solver=solver)


def pot(problem, method, max_iter):
    """POT looks at the error after iterations 1, 11, 21 ...: told when to stop, it does not overshoot."""
    ot = pytest.importorskip("ot")
    cost, a, b = problem
    return lambda: ot.solve_batch(
        cost, REG, a, b, max_iter=max_iter, tol=ERROR, method=method, reg_type="kl", grad="detach"
    )


def geomloss(problem, max_iter):
    batch = pytest.importorskip("geomloss.ot")
    cost, a, b = problem
    return lambda: batch.solve_batch(cost, reg=REG, a=a, b=b, max_iter=max_iter)


def test_forward(race, problem):
    """Value and plan of all; GeomLoss has no stopping rule and is timed at an error a hundred times as large."""
    _, a, b = problem
    runs = {
        "sinkhorn": ours(problem),
        "ot.solve_batch, plain, stopped by hand": pot(problem, "sinkhorn", 5),
        "ot.solve_batch, plain": pot(problem, "sinkhorn", 1000),
        "ot.solve_batch, log (its default)": pot(problem, "log_sinkhorn", 1000),
        "geomloss": geomloss(problem, 10),
    }
    errors = {name: error(run().plan, a, b) for name, run in runs.items()}
    assert errors["sinkhorn"] <= 1.01 * ERROR
    assert 0.5 * ERROR <= errors["ot.solve_batch, plain, stopped by hand"] <= 1.01 * ERROR
    assert errors["geomloss"] >= ERROR

    def taker(name):
        def take():
            result = runs[name]()
            return result.value, result.plan

        return take

    contenders = {f"{name} (error {errors[name]:.1g})": taker(name) for name in runs}
    contenders["sinkhorn, value alone"] = lambda: runs["sinkhorn"]().value
    race("375 x 25x25 entropic, reg 0.05, float32", contenders, rounds=15)


def test_forward_and_backward(race, problem):
    leaves = tuple(x.requires_grad_() for x in problem)

    def grads(part, **options):
        run = ours(leaves, **options)
        return lambda: torch.autograd.grad(getattr(run(), part).sum(), leaves)

    contenders = {
        "value, envelope": grads("value"),
        "value_linear, implicit": grads("value_linear"),
        "value_linear, unrolled": grads("value_linear", gradient="unrolled"),
    }
    race("375 x 25x25 entropic, forward and backward, float32", contenders, rounds=8)


def test_small_reg(race, problem):
    """Where the plain domain ends: Newton steps in the log domain."""
    contenders = {
        f"reg {reg}": lambda reg=reg: otfew.solve(*problem, solver=otfew.Sinkhorn(reg=reg)).value
        for reg in (0.02, 0.005, 0.001)
    }
    race("375 x 25x25 entropic, tol 1e-6, float32", contenders, rounds=5)
