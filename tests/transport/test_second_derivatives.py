"""Gradients that cannot be differentiated again say so, where torch would take them for constants."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.autograd import grad, gradgradcheck

import otfew
from otfew import costs
from otfew.transport.backward import once
from otfew.transport.registry import SOLVERS, installed, lookup

AGAIN = r"cannot be differentiated again"
ZERO = r"piecewise linear in the cost and in the weights, so its second derivative is zero almost everywhere"

DENSE = {name: lookup(name)() for name in SOLVERS if lookup(name).input == "dense cost"}
DENSE |= {
    "sinkhorn rounded": otfew.Sinkhorn(round=True),
    "sinkhorn unbalanced": otfew.Sinkhorn(unbalanced=1.0),
    "partial": otfew.Exact(mass="min"),
}
POINTS = {"keops": otfew.KeOps(backend="torch"), "geomloss": otfew.GeomLoss(backend="tensorized")}
ARGUMENTS = ["cost", "a", "b"]


def usable(name, solver):
    return pytest.param(name, marks=pytest.mark.skipif(not installed(type(solver)), reason="not installed"))


def outputs(solver):
    """Parts of a result with a gradient of their own."""
    return ["value", "value_linear", "plan"] if solver.name in ("sinkhorn", "qpth") else ["value"]


@pytest.fixture
def problem(batch):
    """Inputs by name, each the image of a leaf, as in training."""
    leaves = [torch.from_numpy(x[:2]).requires_grad_() for x in batch()]
    return leaves, [2 * leaf for leaf in leaves]


def sentence(solver):
    return ZERO if solver.kind == "exact" else rf"^(?!.*piecewise).*{AGAIN}"


def refused(penalty, leaf, solver):
    for derive in (lambda: grad(penalty, leaf, retain_graph=True), lambda: penalty.backward(retain_graph=True)):
        with pytest.raises(RuntimeError, match=sentence(solver)) as caught:
            derive()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [usable(name, solver) for name, solver in DENSE.items()])
def test_a_penalty_on_the_gradient_is_refused(name, problem):
    solver = DENSE[name]
    leaves, given = problem
    for output in outputs(solver):
        result = otfew.solve(*given, solver=solver, on_fail="ignore")
        gradients = grad(getattr(result, output).sum(), given, create_graph=True)
        plain = grad(getattr(otfew.solve(*given, solver=solver, on_fail="ignore"), output).sum(), given)
        for argument, gradient, expected in zip(ARGUMENTS, gradients, plain, strict=True):
            assert gradient.requires_grad, (output, argument)
            torch.testing.assert_close(gradient.detach(), expected)
            for leaf in leaves:
                refused(gradient.square().sum(), leaf, solver)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("name", [usable(name, solver) for name, solver in POINTS.items()])
def test_points_refuse_it_too(name, cost):
    solver = POINTS[name]
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 2, generator=generator).requires_grad_() for n in (5, 4))
    for output in ("value", "value_linear"):
        result = otfew.solve_points(x, y, cost=cost, solver=solver, on_fail="ignore")
        for gradient in grad(getattr(result, output), (x, y), create_graph=True):
            refused(gradient.square().sum(), x, solver)
            refused(gradient.square().sum(), y, solver)


def test_dense_solvers_of_points_refuse_it_too():
    x, y = (torch.randn(n, 20).requires_grad_() for n in (5, 4))
    (gradient,) = grad(otfew.solve_points(x, y, solver="exact").value, x, create_graph=True)
    refused(gradient.square().sum(), x, otfew.Exact())


@pytest.mark.parametrize("argument", range(3))
def test_one_argument_alone_is_refused(argument, problem):
    leaves, given = problem
    given = [x if i == argument else x.detach() for i, x in enumerate(given)]
    for solver in (otfew.Exact(), otfew.Sinkhorn()):
        value = otfew.solve(*given, solver=solver).value
        (gradient,) = grad(value.sum(), given[argument], create_graph=True)
        refused(gradient.square().sum(), leaves[argument], solver)


@pytest.mark.parametrize("solver", [otfew.Exact(), otfew.Sinkhorn()], ids=["exact", "sinkhorn"])
def test_create_graph_alone_is_no_error(solver, problem):
    """Who differentiates another part twice, or detaches, is left alone."""
    leaves, given = problem
    value = otfew.solve(*given, solver=solver).value.sum()
    (gradient,) = grad(value, leaves[0], create_graph=True)
    assert not gradient.detach().requires_grad
    other = leaves[0].pow(3).sum()
    (both,) = grad(other + otfew.solve(*given, solver=solver).value.sum(), leaves[0], create_graph=True)
    torch.testing.assert_close(both.detach(), 3 * leaves[0].square() + gradient.detach())
    with pytest.raises(RuntimeError, match=AGAIN):
        both.sum().backward()
    (apart,) = grad(other, leaves[0], create_graph=True)
    (apart.sum() + (gradient.detach() * leaves[0]).sum()).backward()
    torch.testing.assert_close(leaves[0].grad, 6 * leaves[0] + gradient.detach())


def test_the_incoming_gradient_is_refused_too(problem):
    """The gradient is linear in it; that this is the one derivative at hand would surprise."""
    _, given = problem
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (gradient,) = grad(otfew.solve(*given).value, given[0], weight, create_graph=True)
    refused(gradient.sum(), weight, otfew.Exact())


@pytest.mark.parametrize("options", [{}, {"unbalanced": 0.7}], ids=["balanced", "unbalanced"])
def test_unrolled_gradients_can_be_differentiated_again(options):
    solver = otfew.Sinkhorn(reg=0.5, gradient="unrolled", tol=1e-12, **options)
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    a, b = (torch.rand(n, generator=generator, dtype=torch.float64).add(0.2).requires_grad_() for n in (3, 4))

    def parts(cost, a, b):
        result = otfew.solve(cost, a / a.sum(), b / b.sum(), solver=solver)
        return result.value, result.value_linear, result.plan

    assert gradgradcheck(parts, (cost, a, b), atol=1e-5)


def test_second_derivatives_of_the_unrolled_value_are_those_of_the_implicit_gradient():
    """The first gradient by envelope, differentiated by finite differences, is the unrolled second one."""
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    tight = otfew.Sinkhorn(reg=0.3, tol=1e-13)
    unrolled = dataclasses.replace(tight, gradient="unrolled")
    hessian = torch.autograd.functional.hessian(lambda c: otfew.solve(c, solver=unrolled).value, cost)
    step = 1e-5
    for i, j in ((0, 0), (2, 1), (3, 2)):
        moved = torch.zeros(4, 3, dtype=torch.float64)
        moved[i, j] = step
        up, down = (otfew.solve(cost.detach() + s * moved, solver=tight).plan for s in (1, -1))
        torch.testing.assert_close(hessian[i, j], (up - down) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("cost", ["cosine", "sqeuclidean", "euclidean"])
def test_costs_of_many_dimensions_can_be_differentiated_twice(cost):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 20, generator=generator, dtype=torch.float64).requires_grad_() for n in (3, 2))
    assert gradgradcheck(lambda x, y: costs.pairwise(cost, x, y), (x, y))


def test_a_backward_that_is_not_ours():
    """What another library computes under create_graph is not to be trusted."""
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y = once(x.square(), "not again", x)
    (gradient,) = grad(y.sum(), x, create_graph=True)
    torch.testing.assert_close(gradient.detach(), 2 * x.detach())
    for derive in (lambda: grad(gradient.sum(), x, retain_graph=True), lambda: gradient.sum().backward()):
        with pytest.raises(RuntimeError, match="not again"):
            derive()
