"""Half precision and autocast: computed in float32 all the same; masked arrays are refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

import otfew
from otfew import costs
from otfew.transport.precision import in_full_precision
from otfew.transport.registry import SOLVERS, installed, lookup

HALF = [torch.float16, torch.bfloat16]
COSTS = ["sqeuclidean", "euclidean", "cosine", "lp:3"]

half = pytest.mark.parametrize("dtype", HALF)


def solvers(kind):
    return [
        pytest.param(name, marks=pytest.mark.skipif(not installed(lookup(name)), reason="not installed"))
        for name in SOLVERS
        if lookup(name).input == kind
    ]


def autocasts(dtype):
    return contextlib.nullcontext(), torch.autocast("cpu", dtype=dtype)


def everything(result):
    plan = result.plan
    plan = plan.dense() if hasattr(plan, "dense") else plan
    return (result.value, result.value_linear, plan, *result.potentials, result.gap, result.marginal_error)


@pytest.fixture
def problems(batch):
    return tuple(torch.from_numpy(x) for x in batch())


@pytest.fixture
def points():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 8, 20, generator=generator) / 4, torch.randn(3, 6, 20, generator=generator) / 4


@half
@pytest.mark.parametrize("solver", solvers("dense cost"))
def test_half_precision_is_solved_as_float32(solver, dtype, problems):
    given = [x.to(dtype).requires_grad_() for x in problems]
    wide = [x.detach().float().requires_grad_() for x in given]
    quiet = {"solver": solver, "on_fail": "ignore"}
    # In half precision weights of total 1 have one of about 1.
    right = otfew.solve(*wide, **quiet, validate=False)
    right.value.sum().backward()
    for surroundings in autocasts(dtype):
        with surroundings:
            found = otfew.solve(*given, **quiet)
            parts = everything(found)
        for part, expected in zip(parts, everything(right), strict=True):
            assert part.dtype == expected.dtype
            torch.testing.assert_close(part, expected, rtol=0, atol=0, equal_nan=True)
        gradients = torch.autograd.grad(found.value.sum(), given, allow_unused=True)
        for gradient, expected in zip(gradients, wide, strict=True):
            assert gradient.dtype == dtype
            torch.testing.assert_close(gradient, expected.grad.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("solver", solvers("dense cost"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_changes_nothing(solver, dtype, problems):
    given = [x.to(dtype) for x in problems]
    right = everything(otfew.solve(*given, solver=solver, on_fail="ignore"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = everything(otfew.solve(*given, solver=solver, on_fail="ignore"))
    for part, expected in zip(found, right, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=0)


@half
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("solver", ["exact", "sinkhorn", *solvers("points")])
def test_points_in_half_precision(solver, cost, dtype, points):
    if solver == "geomloss" and cost.startswith("lp"):
        pytest.skip("GeomLoss has no such cost")
    if solver == "geomloss":
        solver = otfew.GeomLoss(reg=0.5, backend="tensorized")
    if solver == "keops":
        solver = otfew.KeOps(reg=0.5, backend="torch")
    given = [x.to(dtype).requires_grad_() for x in points]
    wide = [x.detach().float().requires_grad_() for x in given]
    right = otfew.solve_points(*wide, cost=cost, solver=solver, on_fail="ignore")
    right.value.sum().backward()
    for surroundings in autocasts(dtype):
        with surroundings:
            found = otfew.solve_points(*given, cost=cost, solver=solver, on_fail="ignore")
            parts = (*everything(found), found.plan @ torch.ones(3, 6, dtype=dtype))
        for part, expected in zip(parts, (*everything(right), right.plan @ torch.ones(3, 6)), strict=True):
            torch.testing.assert_close(part, expected, rtol=0, atol=0)
        for gradient, expected in zip(torch.autograd.grad(found.value.sum(), given), wide, strict=True):
            assert gradient.dtype == dtype
            torch.testing.assert_close(gradient, expected.grad.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dims", [3, 64])
@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
@pytest.mark.parametrize("cost", COSTS)
def test_costs_of_near_points_under_autocast(cost, dtype, dims):
    """Near-duplicates come out right, where half precision would have nothing left."""
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(4, dims, generator=generator)).repeat_interleave(8, 0)
    x = (x + 0.6 * torch.randn(32, dims, generator=generator)).to(dtype)
    right = costs.pairwise(cost, x.double(), x.double())
    for surroundings in autocasts(torch.bfloat16):
        with surroundings:
            found = costs.pairwise(cost, x, x)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=1e-5)


def test_mixed_precision_meets_in_the_wider(problems):
    """Points or weights from under autocast meet those that were not."""
    cost, a, b = problems
    a, b = a.half().double(), b.float().double()
    b = b * (a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True))
    right = otfew.solve(cost, a, b).value
    torch.testing.assert_close(otfew.solve(cost, a.half(), b).value, right, rtol=0, atol=0)
    x, y = torch.rand(5, 3).bfloat16(), torch.rand(4, 3)
    assert otfew.solve_points(x, y, solver="exact").plan.dtype == torch.float32


def test_float16_arrays(batch):
    cost, a, b = (x.astype(np.float16) for x in batch())
    found = otfew.solve(cost, a, b)
    right = otfew.solve(*(x.astype(np.float32) for x in (cost, a, b)), validate=False)
    np.testing.assert_array_equal(found.value, right.value)
    assert found.plan.dtype == np.float32
    x = np.arange(6, dtype=np.float16).reshape(3, 2)
    assert otfew.solve_points(x, x + 1, solver="exact").value == pytest.approx(2)


@half
def test_totals_may_differ_by_the_rounding_of_half_precision(dtype):
    a = torch.full((300,), 1 / 300).to(dtype)
    b = torch.full((7,), 1 / 7).to(dtype)
    cost = torch.rand(300, 7, generator=torch.Generator().manual_seed(0))
    right = otfew.solve(cost, a.float(), b.float(), validate=False).value
    torch.testing.assert_close(otfew.solve(cost, a, b).value, right)
    x, y = torch.rand(300, 2), torch.rand(7, 2)
    assert otfew.solve_points(x, y, a, b, solver="exact").value > 0
    for solve in (lambda b: otfew.solve(cost, a, b), lambda b: otfew.solve_points(x, y, a, b, solver="exact")):
        with pytest.raises(ValueError, match="totals of a and b disagree"):
            solve(b * 1.05)


@pytest.mark.parametrize(
    "solve",
    [
        lambda x, solver: otfew.solve(x, solver=solver),
        lambda x, solver: otfew.solve_points(x, x[:, ::-1], solver=solver),
    ],
)
def test_warnings_point_at_the_caller(solve):
    with pytest.warns(otfew.ConvergenceWarning) as caught:
        solve(np.random.default_rng(0).random((9, 9)), otfew.Sinkhorn(reg=0.001, max_iter=1))
    assert {warning.filename for warning in caught} == {__file__}


def test_certificates_take_half_precision(problems):
    cost, a, b = problems
    plan = (a[..., None] * b[:, None]).half()
    right = otfew.certify(plan.float(), cost.half().float(), a, b).gap
    torch.testing.assert_close(otfew.certify(plan, cost.half(), a, b).gap, right, rtol=0, atol=0)


def masked(x):
    return np.ma.masked_array(x, mask=np.arange(x.size).reshape(x.shape) % 2)


ENTRIES = {
    "cost": otfew.solve,
    "a": lambda m: otfew.solve(np.eye(2), m[0]),
    "b": lambda m: otfew.solve(np.eye(2), b=m[0]),
    "x": lambda m: otfew.solve_points(m, np.eye(2)),
    "y": lambda m: otfew.solve_points(np.eye(2), m, solver="exact"),
    "a of points": lambda m: otfew.solve_points(np.eye(2), np.eye(2), m[0]),
    "plan": lambda m: otfew.certify(m, np.eye(2)),
    "v": lambda m: otfew.solve_points(np.eye(2), np.eye(2), solver="exact").plan @ m,
    "x of a cost": lambda m: costs.sqeuclidean(m, m),
    "y of a named cost": lambda m: costs.pairwise("cosine", torch.eye(2), m),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("nothing", [False, True])
def test_masked_arrays_are_refused(entry, nothing):
    """Also with a mask that hides nothing: it could be another one next time."""
    array = np.ma.masked_array(np.eye(2)) if nothing else masked(np.eye(2))
    with pytest.raises(ValueError, match=rf"^{entry.split()[0]} is a masked array, .*\.filled\(\)") as caught:
        ENTRIES[entry](array)
    assert "\n" not in str(caught.value)


def test_arguments_keep_their_names_and_kinds():
    @in_full_precision
    def seen(first, *rest, option=None):
        return first, rest, option

    x = torch.ones(2, dtype=torch.bfloat16)
    first, rest, option = seen(x, x.double(), 3, option=x.long())
    assert (first.dtype, rest[0].dtype, rest[1], option.dtype) == (torch.float32, torch.float64, 3, torch.int64)
    with pytest.raises(ValueError, match="rest is a masked array"):
        seen(1, masked(np.eye(2)), masked(np.eye(2)))
    with pytest.raises(ValueError, match="option is a masked array"):
        seen(1, option=masked(np.eye(2)))
