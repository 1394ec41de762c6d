"""Gradients against finite differences where the value is smooth, and against inequalities where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import otfew

SOLVERS = ["exact", "pot", "scipy"]
every = pytest.mark.parametrize("solver", SOLVERS)


@pytest.fixture
def leaves(batch):
    """Draw a batch as float64 leaves that need gradients."""

    def draw(**options):
        return tuple(torch.from_numpy(x).requires_grad_() for x in batch(**options))

    return draw


@every
@pytest.mark.parametrize("mass", [1.0, 3.5])
def test_unnormalised_inputs(solver, mass, leaves):
    """Where totals differ, b is rescaled to the total of a, and the gradient knows."""
    cost, a, b = leaves(size=2, n=4, m=3, mass=mass)

    def value(cost, a, b):
        return otfew.solve(cost, a, b, solver=solver).value

    assert gradcheck(value, (cost, a, b))


@every
def test_one_side_given(solver, leaves):
    cost, a, b = leaves(size=2, n=4, m=3, mass=2.0)
    assert gradcheck(lambda cost, a: otfew.solve(cost, a, None, solver=solver).value, (cost, a))
    assert gradcheck(lambda cost, b: otfew.solve(cost, None, b, solver=solver).value, (cost, b))
    assert gradcheck(lambda cost: otfew.solve(cost, solver=solver).value, (leaves(size=2, n=2, m=3)[0],))


@every
def test_normalised_inside_the_function(solver, leaves):
    cost, a, b = leaves(size=2, n=4, m=3, mass=3.5)

    def to_one(cost, a, b):
        return otfew.solve(cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True), solver=solver).value

    def to_the_other(cost, a, b):
        return otfew.solve(cost, a, b / b.sum(-1, keepdim=True) * a.sum(-1, keepdim=True), solver=solver).value

    assert gradcheck(to_one, (cost, a, b))
    assert gradcheck(to_the_other, (cost, a, b))


def test_through_what_is_done_with_the_value(leaves):
    cost, a, b = leaves(size=3, n=5, m=4)

    def loss(cost, a, b):
        similarity = 12.5 * (1 - otfew.solve(cost.square(), a, b).value)
        return torch.log_softmax(similarity, 0)[1]

    assert gradcheck(loss, (cost, a, b))


@every
def test_upstream_gradient_scales_each_problem(solver, leaves):
    cost, a, b = leaves(size=3, n=5, m=4)
    upstream = torch.tensor([10.0, -1.0, 0.0], dtype=torch.float64)
    plain = torch.autograd.grad(otfew.solve(cost, a, b, solver=solver).value.sum(), (cost, a, b))
    scaled = torch.autograd.grad((otfew.solve(cost, a, b, solver=solver).value * upstream).sum(), (cost, a, b))
    for x, y in zip(plain, scaled, strict=True):
        torch.testing.assert_close(y, x * upstream.view(3, *[1] * (x.ndim - 1)))


@every
def test_gradients_are_plan_and_potentials(solver, leaves):
    cost, a, b = leaves(size=3, n=5, m=4, mass=2.0)
    result = otfew.solve(cost, a, b, solver=solver)
    grads = torch.autograd.grad(result.value.sum(), (cost, a, b))
    for found, expected in zip(grads, (result.plan, *result.potentials), strict=True):
        torch.testing.assert_close(found, expected)


def test_broadcast_inputs_get_gradients_of_their_own_shape(leaves):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64) + 0.05

    cost, a, b = draw(3, 1, 4, 3), draw(3, 2, 4), draw(3)
    a = a / a.sum(-1, keepdim=True)
    b = b / b.sum()
    inputs = tuple(x.requires_grad_() for x in (cost, a, b))
    grads = torch.autograd.grad(otfew.solve(*inputs).value.sum(), inputs)
    assert [g.shape for g in grads] == [x.shape for x in inputs]
    assert gradcheck(lambda *x: otfew.solve(*x).value, inputs)
    expanded = torch.autograd.grad(otfew.solve(cost.expand(3, 2, 4, 3), a, b.expand(3, 2, 3)).value.sum(), inputs)
    for x, y in zip(grads, expanded, strict=True):
        torch.testing.assert_close(x, y)


def test_float32_gradients_have_the_inputs_dtypes(leaves):
    cost, a, b = leaves(size=3, n=5, m=4)
    single = tuple(x.detach().float().requires_grad_() for x in (cost, a, b))
    grads = torch.autograd.grad(otfew.solve(*single).value.sum(), single)
    assert {g.dtype for g in grads} == {torch.float32}
    expected = torch.autograd.grad(otfew.solve(cost, a, b).value.sum(), (cost, a, b))
    for x, y in zip(grads, expected, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=1e-5, atol=1e-6)


@every
def test_empty_batch(solver):
    inputs = tuple(torch.zeros(0, *shape, dtype=torch.float64, requires_grad=True) for shape in ((4, 3), (4,), (3,)))
    grads = torch.autograd.grad(otfew.solve(*inputs, solver=solver).value.sum(), inputs)
    assert [g.shape for g in grads] == [x.shape for x in inputs]


@every
@pytest.mark.parametrize("kind", ["uniform", "ties"])
def test_degenerate_problems_get_a_super_and_a_subgradient(solver, kind):
    """The value is concave in the cost and convex in the weights, so tangents bound it everywhere."""
    rng = np.random.default_rng(0)
    n = 5
    cost = rng.integers(0, 3, (n, n)).astype(float) if kind == "ties" else rng.random((n, n))
    weights = np.full(n, 1 / n) if kind == "uniform" else rng.integers(1, 3, n) / 7
    inputs = tuple(torch.tensor(x, requires_grad=True) for x in (cost, weights, weights[::-1].copy()))
    result = otfew.solve(*inputs, solver=solver)
    by_cost, by_a, by_b = torch.autograd.grad(result.value, inputs)
    here = float(result.value.detach())
    for _ in range(30):
        step = rng.standard_normal((n, n)) * 10 ** rng.uniform(-3, 0)
        there = float(otfew.solve(cost + step, weights, weights[::-1].copy()).value)
        assert there <= here + float((by_cost.numpy() * step).sum()) + 1e-9
        a, b = rng.dirichlet(np.ones(n), 2) * weights.sum()
        there = float(otfew.solve(cost, a, b).value)
        tangent = by_a.numpy() @ (a - weights) + by_b.numpy() @ (b - weights[::-1])
        assert there >= here + float(tangent) - 1e-9


@every
@pytest.mark.parametrize("side", ["a", "b"])
def test_one_sided_derivative_at_zero_weights(solver, side):
    """Where one side holds zeros, its potentials there are the derivatives towards positive weight."""
    rng = np.random.default_rng(1)
    cost, a, b = rng.random((6, 5)), rng.random(6) + 0.1, rng.random(5) + 0.1
    (a if side == "a" else b)[[1, 3]] = 0
    a, b = 2 * a / a.sum(), 2 * b / b.sum()
    weights = torch.tensor(a if side == "a" else b, requires_grad=True)

    def value(weights):
        return otfew.solve(cost, *((weights, b) if side == "a" else (a, weights)), solver=solver).value

    (found,) = torch.autograd.grad(otfew.solve(torch.tensor(cost), *((weights, b) if side == "a" else (a, weights)),
                                               solver=solver).value, weights)  # fmt: skip
    step = 1e-6
    for k in range(len(weights)):
        moved = weights.detach().numpy().copy()
        moved[k] += step
        assert abs((value(moved) - value(weights.detach().numpy())) / step - float(found[k])) <= 1e-3, k


@every
def test_zero_weights_on_both_sides_get_feasible_subgradients(solver):
    rng = np.random.default_rng(2)
    cost, a, b = rng.random((6, 5)), rng.random(6), rng.random(5)
    a[[0, 2]] = 0
    b[4] = 0
    a, b = a / a.sum(), b / b.sum()
    result = otfew.solve(cost, a, b, solver=solver)
    f, g = result.potentials
    assert (f[:, None] + g <= cost + 1e-12).all()
    for _ in range(30):
        p, q = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(5))
        assert float(otfew.solve(cost, p, q).value) >= float(result.value) + f @ (p - a) + g @ (q - b) - 1e-9


def test_constant_shifts_of_normalised_weights_cancel(leaves):
    """Through a / sum(a) the gauge drops out: the gradient is orthogonal to the weights."""
    cost, a, b = leaves(size=3, n=5, m=4)
    result = otfew.solve(cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)).value.sum()
    by_a, by_b = torch.autograd.grad(result, (a, b))
    torch.testing.assert_close((by_a * a).sum(-1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close((by_b * b).sum(-1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-14)


def test_only_what_needs_a_gradient_gets_one(leaves):
    cost, a, b = leaves()
    otfew.solve(cost.detach(), a, b.detach()).value.sum().backward()
    assert cost.grad is None
    assert b.grad is None
    assert a.grad is not None
    result = otfew.solve(cost.detach(), a.detach(), b.detach())
    assert not result.value.requires_grad
    with torch.no_grad():
        assert not otfew.solve(cost, a, b).value.requires_grad
    with torch.inference_mode():
        assert otfew.solve(cost, a, b).value.shape == (6,)


def test_plan_and_certificates_are_constants(leaves):
    result = otfew.solve(*leaves())
    assert result.value.requires_grad
    for found in (result.plan, result.gap, result.marginal_error, *result.potentials):
        assert not found.requires_grad


@every
def test_writing_into_a_result_leaves_gradients_alone(solver, leaves):
    cost, _, b = leaves()
    expected = torch.autograd.grad(otfew.solve(cost, None, b, solver=solver).value.sum(), (cost, b))
    result = otfew.solve(cost, None, b, solver=solver)
    total = result.value.sum()
    for found in (result.value.detach(), result.plan, *result.potentials):
        found.zero_()
    again = torch.autograd.grad(total, (cost, b), retain_graph=True)
    twice = torch.autograd.grad(total, (cost, b))
    for x, y, z in zip(expected, again, twice, strict=True):
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(z, x)


def test_second_derivatives_are_refused(leaves):
    cost, a, b = leaves()
    (grad,) = torch.autograd.grad(otfew.solve(cost, a, b).value.square().sum(), cost, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        grad.sum().backward()


def test_numpy_inputs_give_numpy(batch):
    assert isinstance(otfew.solve(*batch()).value, np.ndarray)
