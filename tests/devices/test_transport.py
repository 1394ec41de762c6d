"""Solvers, point clouds and certificates on a device."""

import pytest
import torch

import otfew
from otfew.transport.registry import SOLVERS, lookup

from .both import on_both

DENSE = [name for name in SOLVERS if lookup(name).input == "dense cost"]
COSTS = ("sqeuclidean", "euclidean", "cosine", "lp:3")
LOOSE = {"sinkhorn": 1e-4, "qpth": 1e-6}
"""Where a device's way stops at another iteration than the CPU's."""


def problems(dtype=torch.float64, batch=(3, 4), n=5, m=6, grad=True):
    """Costs of a batch, weights of rows for each, of columns for all."""
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(*batch, n, m, generator=generator, dtype=torch.float64)
    a = torch.rand(*batch, n, generator=generator, dtype=torch.float64) + 0.1
    b = torch.rand(m, generator=generator, dtype=torch.float64) + 0.1
    parts = (cost, a / a.sum(-1, keepdim=True), b / b.sum())
    return [x.to(dtype).requires_grad_(grad) for x in parts]


def clouds(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.rand(2, n, 3, generator=generator, dtype=torch.float64) for n in (6, 7))
    a = torch.rand(2, 6, generator=generator, dtype=torch.float64) + 0.1
    return [z.to(dtype).requires_grad_() for z in (x, y, a / a.sum(-1, keepdim=True))]


def everything(result):
    measures = (result.value, result.value_linear, result.gap, result.marginal_error)
    return [*measures, result.plan, *result.potentials]


@pytest.mark.parametrize("solver", DENSE)
def test_the_value_and_its_gradient(pretended, solver):
    def work(cost, a, b):
        return otfew.solve(cost, a, b, solver=solver).value

    on_both(pretended, f"solve, {solver}", work, problems(), tolerance=LOOSE.get(solver))


@pytest.mark.parametrize("solver", DENSE)
def test_all_that_a_result_has(pretended, solver):
    def work(cost, a, b):
        return everything(otfew.solve(cost, a, b, solver=solver))

    on_both(pretended, f"all of a result, {solver}", work, problems(), tolerance=LOOSE.get(solver, 1e-9))


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_with_and_without_kernels(pretended, dtype, kernels):
    def work(cost, a, b):
        return everything(otfew.solve(cost, a, b))

    name = f"exact, {dtype}, {'by' if kernels else 'without'} kernels".replace("torch.", "")
    machine = on_both(pretended, name, work, problems(dtype), kernels=kernels, tolerance=1e-6)
    assert bool(machine.launches) <= kernels


@pytest.mark.parametrize("given", ["neither", "rows", "columns"])
def test_weights_that_are_missing(pretended, given):
    def work(cost, a, b):
        return otfew.solve(cost, a if given == "rows" else None, b if given == "columns" else None).value

    on_both(pretended, f"exact, weights of {given}", work, problems())


@pytest.mark.parametrize("mass", ["min", 0.5])
def test_partial_mass(pretended, mass):
    def work(cost, a, b):
        return otfew.solve(cost, a, 2 * b, solver=otfew.Exact(mass=mass)).value

    on_both(pretended, f"exact, mass {mass}", work, problems())


def test_solve_and_backward_validated_wait_at_most_twice(pretended):
    """The bar of the design, whatever solves: kernels wait once, a solver on the CPU for its three inputs."""
    with pretended() as machine:
        cost, a, b = machine.away(problems())
        otfew.solve(cost, a, b).value.sum().backward()
    if machine.launches:
        assert machine.waits <= 1
        assert machine.uploads == 0


def test_unvalidated_problems_are_solved_without_any_wait(pretended):
    with pretended() as machine:
        cost, a, b = machine.away(problems())
        result = otfew.solve(cost, a, b, validate=False, on_fail="ignore")
        result.value.sum().backward()
        assert result.plan.shape == (3, 4, 5, 6)
    if machine.launches:
        assert machine.waits == machine.uploads == 0


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(
    "broken", [(0, torch.nan), (0, -torch.inf), (1, -1.0), (1, torch.nan), (2, -1.0), (2, 0.5)], ids=str
)
def test_sentences_about_unsound_input_are_the_same(pretended, broken, kernels):
    inputs = problems(grad=False)
    place, value = broken
    inputs[place].view(-1)[3] = value
    with pytest.raises(ValueError, match=r"\w") as here:
        otfew.solve(*inputs)
    with pretended(kernels=kernels) as machine, pytest.raises(ValueError, match=r"\w") as there:
        otfew.solve(*machine.away(inputs))
    assert str(here.value) == str(there.value)


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_sinkhorns_options(pretended, gradient, validate):
    solver = otfew.Sinkhorn(reg=0.3, gradient=gradient)

    def work(cost, a, b):
        result = otfew.solve(cost, a, b, solver=solver, validate=validate)
        return result.value, result.value_linear, result.plan

    checked = "checked" if validate else "unchecked"
    on_both(pretended, f"sinkhorn, {gradient}, {checked}", work, problems(), tolerance=1e-4)


@pytest.mark.parametrize("solver", ["exact", "sinkhorn", "geomloss"])
@pytest.mark.parametrize("cost", COSTS)
def test_point_clouds(pretended, cost, solver):
    """KeOps compiles for addresses that a pretended device does not have."""
    if solver == "geomloss" and cost == "lp:3":
        pytest.skip("GeomLoss has no such cost")

    def work(x, y, a):
        result = otfew.solve_points(x, y, a, cost=cost, solver=solver, on_fail="ignore")
        return result.value, result.value_linear, result.plan @ y.detach()

    on_both(pretended, f"points, {cost}, {solver}", work, clouds(), tolerance=LOOSE.get(solver, 1e-6))


@pytest.mark.parametrize("cost", COSTS)
def test_costs(pretended, cost):
    def work(x, y, _):
        return otfew.costs.pairwise(cost, x, y)

    on_both(pretended, f"costs, {cost}", work, clouds())


def test_certificates(pretended):
    cost, a, b = problems(grad=False)
    plan = otfew.solve(cost, a, b, solver="sinkhorn").plan

    def work(*arguments):
        found = otfew.certify(*arguments)
        return found.value, found.gap, found.marginal_error, *found.potentials

    on_both(pretended, "certify", work, [plan, cost, a, b])
