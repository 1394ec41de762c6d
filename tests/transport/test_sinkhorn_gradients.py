"""Envelope, implicit and unrolled gradients against finite differences and against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import otfew

PARTS = {
    "value": lambda result, _: result.value,
    "value_linear": lambda result, _: result.value_linear,
    "plan": lambda result, weights: (result.plan * weights).sum((-2, -1)),
}
part = pytest.mark.parametrize("part", PARTS)
either = pytest.mark.parametrize("gradient", ["implicit", "unrolled"])


@pytest.fixture
def leaves(batch):
    """Draw a batch as float64 leaves that need gradients."""

    def draw(**options):
        return tuple(torch.from_numpy(x).requires_grad_() for x in batch(**options))

    return draw


def constants(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def solver(gradient="implicit", reg=0.1, **options):
    return otfew.Sinkhorn(reg=reg, tol=1e-13, max_iter=20_000, gradient=gradient, **options)


@part
@either
@pytest.mark.parametrize(("n", "m"), [(4, 3), (3, 4), (1, 3)])
@pytest.mark.parametrize(("reg", "mass"), [(0.4, 1.0), (0.15, 2.5)])
def test_finite_differences(part, gradient, n, m, reg, mass, leaves):
    """Weights are neither uniform nor normalised; b is rescaled to the total of a, and the gradient knows."""
    size = 2 if gradient == "implicit" else 1  # other problems are other iterations, which are many to go back through
    weights = constants(size, n, m)

    def function(*inputs):
        return PARTS[part](otfew.solve(*inputs, solver=solver(gradient, reg), validate=False), weights)

    assert gradcheck(function, leaves(size=size, n=n, m=m, mass=mass), rtol=1e-4, atol=1e-6)


@part
@pytest.mark.parametrize("reg", [1.0, 0.1, 0.02])
@pytest.mark.parametrize("unbalanced", [None, 0.5, (None, 0.3)], ids=str)
def test_implicit_is_unrolled(part, reg, unbalanced, leaves):
    inputs = leaves(size=3, n=7, m=5, mass=2.5)
    weights = constants(3, 7, 5)

    def grads(gradient):
        result = otfew.solve(*inputs, solver=solver(gradient, reg, unbalanced=unbalanced))
        return torch.autograd.grad(PARTS[part](result, weights).sum(), inputs)

    for x, y in zip(grads("implicit"), grads("unrolled"), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8)


@part
def test_one_side_given(part, leaves):
    weights = constants(2, 4, 3)
    cost, a, b = leaves(size=2, n=4, m=3, mass=2.0)

    def function(cost, a, b):
        return PARTS[part](otfew.solve(cost, a, b, solver=solver(), validate=False), weights)

    assert gradcheck(lambda cost, a: function(cost, a, None), (cost, a), rtol=1e-4, atol=1e-6)
    assert gradcheck(lambda cost, b: function(cost, None, b), (cost, b), rtol=1e-4, atol=1e-6)


@part
@pytest.mark.parametrize("unbalanced", [1.0, (None, 0.5), (0.7, None), (0.3, 2.0)], ids=str)
def test_unbalanced_finite_differences(part, unbalanced, leaves):
    weights = constants(2, 4, 3)

    def function(cost, a, b):
        result = otfew.solve(cost, a, 1.4 * b, solver=solver(reg=0.2, unbalanced=unbalanced))
        return PARTS[part](result, weights)

    assert gradcheck(function, leaves(size=2, n=4, m=3, mass=2.5), rtol=1e-4, atol=1e-6)


@part
@either
@pytest.mark.parametrize("unbalanced", [None, 0.5], ids=str)
def test_zero_weights_have_the_gradients_of_the_problem_without_them(part, gradient, unbalanced, batch):
    cost, a, b = batch(size=2, n=6, m=5, mass=2.0)
    rows, columns = [0, 2, 3, 5], [1, 2, 4]
    a[:, [1, 4]], b[:, [0, 3]] = 0, 0
    b *= a.sum(-1, keepdims=True) / b.sum(-1, keepdims=True)
    weights = constants(2, 6, 5)
    how = solver(gradient, unbalanced=unbalanced)

    def grads(cost, a, b, weights):
        inputs = tuple(torch.tensor(x, requires_grad=True) for x in (cost, a, b))
        result = otfew.solve(*inputs, solver=how)
        return torch.autograd.grad(PARTS[part](result, weights).sum(), inputs)

    by_cost, by_a, by_b = grads(cost, a, b, weights)
    cropped = (cost[:, rows][:, :, columns], a[:, rows], b[:, columns], weights[:, rows][:, :, columns])
    cost_grad, a_grad, b_grad = grads(*cropped)
    for found in (by_cost, by_a, by_b):
        assert torch.isfinite(found).all()
    torch.testing.assert_close(by_cost[:, rows][:, :, columns], cost_grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(by_a[:, rows], a_grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(by_b[:, columns], b_grad, rtol=1e-7, atol=1e-9)
    assert (by_cost[:, [1, 4]] == 0).all()
    assert (by_cost[:, :, [0, 3]] == 0).all()


@part
@either
@pytest.mark.parametrize("side", ["a", "b"])
def test_one_sided_derivative_at_zero_weights(part, gradient, side, batch):
    cost, a, b = batch(size=1, n=5, m=6)
    (a if side == "a" else b)[:, [1, 3]] = 0
    b *= a.sum() / b.sum()
    weights = constants(1, 5, 6)

    def value(moved):
        result = otfew.solve(*(torch.as_tensor(x) for x in (cost, *moved)), solver=solver(gradient), validate=False)
        return PARTS[part](result, weights).sum()

    leaf = torch.tensor(a if side == "a" else b, requires_grad=True)
    (found,) = torch.autograd.grad(value((leaf, b) if side == "a" else (a, leaf)), leaf)
    step = 1e-7
    for k in (0, 1, 3):
        moved = leaf.detach().clone()
        moved[0, k] += step
        other = value((moved, b) if side == "a" else (a, moved))
        here = value((a, b))
        assert abs(float(other - here) / step - float(found[0, k])) <= 1e-4, k


def test_gradients_of_the_value_are_plan_and_potentials(leaves):
    cost, a, b = leaves(size=3, n=5, m=4, mass=2.0)
    for reg in (0.2, 0.002):
        result = otfew.solve(cost, a, b, solver=solver(reg=reg))
        grads = torch.autograd.grad(result.value.sum(), (cost, a, b))
        for found, expected in zip(grads, (result.plan, *result.potentials), strict=True):
            torch.testing.assert_close(found, expected.detach())


def test_upstream_gradient_scales_each_problem(leaves):
    inputs = leaves(size=3, n=5, m=4)
    upstream = torch.tensor([10.0, -1.0, 0.0], dtype=torch.float64)
    weights = constants(3, 5, 4)
    for pick in PARTS.values():
        plain = torch.autograd.grad(pick(otfew.solve(*inputs, solver=solver()), weights).sum(), inputs)
        scaled = torch.autograd.grad((pick(otfew.solve(*inputs, solver=solver()), weights) * upstream).sum(), inputs)
        for x, y in zip(plain, scaled, strict=True):
            torch.testing.assert_close(y, x * upstream.view(3, *[1] * (x.ndim - 1)))


@pytest.mark.parametrize("reg", [0.1, 0.005])
def test_float32_gradients(reg, leaves):
    double = leaves(size=3, n=6, m=5)
    single = tuple(x.detach().float().requires_grad_() for x in double)
    for name in ("value", "value_linear"):
        how = otfew.Sinkhorn(reg=reg, tol=1e-7)
        grads = torch.autograd.grad(PARTS[name](otfew.solve(*single, solver=how), None).sum(), single)
        assert {x.dtype for x in grads} == {torch.float32}
        expected = torch.autograd.grad(PARTS[name](otfew.solve(*double, solver=solver(reg=reg)), None).sum(), double)
        for x, y in zip(grads, expected, strict=True):
            torch.testing.assert_close(x.double(), y, rtol=1e-3, atol=1e-3)


def test_offsets_of_the_cost_do_not_reach_the_gradient(leaves):
    cost, a, b = leaves(size=2, n=5, m=4)
    how = solver(reg=0.05)

    def grads(offset):
        result = otfew.solve(cost + offset, a, b, solver=how)
        return torch.autograd.grad(result.value_linear.sum(), cost)[0]

    torch.testing.assert_close(grads(1e4), grads(0.0), rtol=1e-6, atol=1e-8)


def test_nearly_separate_blocks_have_finite_gradients():
    """At small reg the plan falls apart into blocks, and the system of the adjoint is singular in all but name."""
    cost = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    for reg in (0.1, 0.01, 0.001):
        result = otfew.solve(cost, solver=otfew.Sinkhorn(reg=reg))
        (grad,) = torch.autograd.grad(result.value_linear, cost)
        assert torch.isfinite(grad).all()
        assert abs(float(grad.sum()) - 1) <= 1e-6


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_rounding_has_the_gradient_of_the_plan_before(gradient, leaves):
    inputs = leaves(size=2, n=5, m=4, mass=2.0)
    weights = constants(2, 5, 4)
    for pick in PARTS.values():
        rounded, plain = (
            torch.autograd.grad(pick(otfew.solve(*inputs, solver=how), weights).sum(), inputs)
            for how in (solver(gradient, round=True), solver(gradient))
        )
        for x, y in zip(rounded, plain, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)


def test_descent_on_the_linear_value_moves_weights_as_the_gradient_says(leaves):
    """Through a softmax, as a method learns them."""
    cost, _, _ = leaves(size=1, n=5, m=4)
    logits = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)

    def loss(logits):
        return otfew.solve(cost.detach(), logits.softmax(-1), solver=solver()).value_linear.sum()

    assert gradcheck(loss, (logits,), rtol=1e-4, atol=1e-7)


def test_what_is_constant_for_autograd(leaves):
    for gradient in ("implicit", "unrolled"):
        result = otfew.solve(*leaves(), solver=otfew.Sinkhorn(gradient=gradient))
        assert result.value.requires_grad
        assert result.plan.requires_grad
        assert result.value_linear.requires_grad
        for found in (result.gap, result.marginal_error, *result.potentials):
            assert not found.requires_grad


def test_second_derivatives_are_refused(leaves):
    cost, a, b = leaves()
    for pick in PARTS.values():
        found = pick(otfew.solve(cost, a, b, solver="sinkhorn"), 1.0).square().sum()
        (grad,) = torch.autograd.grad(found, cost, create_graph=True)
        with pytest.raises(RuntimeError, match="cannot be differentiated again"):
            grad.sum().backward()


@pytest.mark.parametrize("reg", [0.1, 0.002])
def test_writing_into_a_result_leaves_gradients_alone(reg, leaves):
    cost, a, b = leaves()
    how = otfew.Sinkhorn(reg=reg)
    expected = torch.autograd.grad(otfew.solve(cost, a, b, solver=how).value.sum(), (cost, a, b))
    result = otfew.solve(cost, a, b, solver=how)
    total = result.value.sum()
    for found in (result.value.detach(), result.plan.detach(), *result.potentials, result.status, result.n_iter):
        found.zero_()
    for x, y in zip(expected, torch.autograd.grad(total, (cost, a, b)), strict=True):
        torch.testing.assert_close(y, x)


def test_numpy_and_torch_agree(batch):
    arrays = batch()
    with_graph = otfew.solve(*(torch.from_numpy(x).requires_grad_() for x in arrays), solver="sinkhorn")
    plain = otfew.solve(*arrays, solver="sinkhorn")
    assert isinstance(plain.value_linear, np.ndarray)
    np.testing.assert_array_equal(plain.value, with_graph.value.detach())
    np.testing.assert_array_equal(plain.plan, with_graph.plan.detach())
