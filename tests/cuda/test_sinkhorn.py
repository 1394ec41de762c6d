"""The entropic solvers on a device: at their tolerance, equal to the CPU's, with its gradients."""

from __future__ import annotations

import pytest
import torch

import otfew
from otfew import GeomLoss, KeOps, POTSinkhorn, Sinkhorn, Status

SOLVERS = {
    "plain domain": Sinkhorn(reg=0.1),
    "log domain": Sinkhorn(reg=0.002),
    "rounded": Sinkhorn(reg=0.05, round=True),
    "unrolled": Sinkhorn(reg=0.2, gradient="unrolled"),
    "pot": POTSinkhorn(reg=0.1),
}
TOL = 1e-6
"""Marginal error that solvers reach by default."""


def close(found, expected, rtol):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", ["bar", "zeros"])
def test_values_plans_and_errors(kind, name, dtype, place, problems):
    solver = SOLVERS[name]
    if not otfew.transport.registry.installed(type(solver)):
        pytest.skip(f"{solver.requires} is not installed")
    for n, m in place.all_or([(9, 9), (25, 25), (7, 33), (49, 49), (100, 90), (150, 20)], [(9, 9), (7, 33)]):
        cost, a, b = problems(kind, 5, n, m, dtype)
        a, b = (x / x.sum(-1, keepdim=True) for x in (a, b))
        expected = otfew.solve(cost, a, b, solver=solver, on_fail="ignore")
        found = otfew.solve(*place.away((cost, a, b)), solver=solver, on_fail="ignore")
        assert found.value.device == place.device
        assert (place.home(found.status) == expected.status).all()
        ended = expected.status == Status.OPTIMAL
        assert (place.home(found.marginal_error)[ended] <= max(TOL, 2e-5 * (dtype == torch.float32))).all()
        # Two answers of that error differ by as much; the plan's entries lie in [0, 1].
        close(place.home(found.value), expected.value.detach(), 2e-5)
        close(place.home(found.value_linear), expected.value_linear.detach(), 2e-5)
        close(place.home(found.plan).double(), expected.plan.detach().double(), 2e-5)


@pytest.mark.parametrize("name", ["plain domain", "log domain"])
def test_gradients(name, place, problems):
    cost, a, b = problems("bar", 5, 9, 12)
    given = tuple(x.clone().requires_grad_() for x in (cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)))

    def gradients(leaves):
        result = otfew.solve(*leaves, solver=SOLVERS[name])
        return torch.autograd.grad((result.value + result.value_linear).sum(), leaves)

    for x, y in zip(place.home(gradients(place.away(given))), gradients(given), strict=True):
        close(x, y, 2e-4)


def test_the_same_bits_whatever_the_batch(place, problems):
    given = problems("bar", 40, 25, dtype=torch.float32)
    whole = otfew.solve(*place.away(given), solver="sinkhorn")
    some = otfew.solve(*place.away(tuple(x[11:14] for x in given)), solver="sinkhorn")
    assert torch.equal(place.home(whole.value)[11:14], place.home(some.value))
    assert torch.equal(place.home(whole.plan)[11:14], place.home(some.plan))


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize(
    "solver", [KeOps(reg=0.3, backend="torch"), GeomLoss(), Sinkhorn(reg=0.3)], ids=lambda solver: solver.name
)
def test_point_clouds(solver, cost, place):
    if not otfew.transport.registry.installed(type(solver)):
        pytest.skip(f"{solver.requires} is not installed")
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, n, 3, generator=generator, dtype=torch.float64) for n in (30, 40))
    expected = otfew.solve_points(x, y, cost=cost, solver=solver, on_fail="ignore")
    found = otfew.solve_points(*place.away((x, y)), cost=cost, solver=solver, on_fail="ignore")
    assert found.value.device == place.device
    close(place.home(found.value), expected.value.detach(), 1e-5)
