"""Forbidden pairs on a pretended device, whose kernels an emulator runs, against those on the CPU."""

from __future__ import annotations

import math

import pytest
import torch

import otfew
from otfew.transport.simplex.exact import Exact

from .emulator import Emulator, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")


@pytest.fixture
def gpu(pretended):
    """A pretended GPU, entered."""
    with pretended(Emulator()) as machine:
        yield machine


def draw(size, n, m, kind="random", dtype=torch.float64, forbidden=0.4, seed=0):
    """Costs, masks and weights: random ones, uniform, or with zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    cost, mask = (torch.rand(size, n, m, generator=generator, dtype=torch.float64) for _ in range(2))
    a, b = (torch.rand(size, k, generator=generator, dtype=torch.float64) + 0.05 for k in (n, m))
    if kind == "uniform":
        a, b = torch.ones_like(a) / n, torch.ones_like(b) / m
    if kind == "zeros":
        a[:, -2:], b[:, 1] = 0, 0
    b = b * (a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True))
    return cost.to(dtype), a.to(dtype), b.to(dtype), mask > forbidden


def found(machine, cost, a, b, mask, solver="exact", **options):
    """All that is found, and gradients of a squared loss, which is infinite where nothing is served."""
    leaves = [
        x.clone().requires_grad_() if machine is None else machine.away(x.clone()).requires_grad_()
        for x in (cost, a, b)
    ]
    mask = mask if machine is None else machine.away(mask)
    result = otfew.solve(*leaves, mask=mask, solver=solver, on_fail="ignore", **options)
    result.value.square().sum().backward()
    names = ("value", "value_linear", "plan", "gap", "marginal_error", "status")
    parts = {name: getattr(result, name) for name in names} | dict(zip("fg", result.potentials, strict=True))
    parts |= dict(zip(("rows", "columns"), result.cut, strict=True))
    parts |= {f"d{name}": x.grad for name, x in zip("cab", leaves, strict=True)}
    return {name: x.detach() if machine is None else machine.home(x) for name, x in parts.items()}, result


def prove(parts, cost, a, b, mask):
    """Prove every answer from what it holds: plan, potentials, or cut."""
    single = parts["plan"].dtype == torch.float32
    tolerance = 1e-5 if single else 1e-9
    forbidden = torch.where(mask, cost.double(), math.inf)
    served = parts["status"] == otfew.Status.OPTIMAL
    assert (served | (parts["status"] == otfew.Status.INFEASIBLE)).all()
    for k in range(len(cost)):
        plan, f, g = (parts[name][k].double() for name in ("plan", "f", "g"))
        assert not plan[~mask[k]].any()
        assert not parts["dc"][k][~mask[k]].any()
        if served[k]:
            torch.testing.assert_close(plan.sum(1), a[k].double(), rtol=0, atol=tolerance)
            assert (f[:, None] + g <= forbidden[k] + tolerance).all()
            dual = (f * a[k]).sum() + (g * b[k]).sum()
            torch.testing.assert_close(dual.double(), parts["value"][k], rtol=0, atol=tolerance)
            continue
        rows, columns = parts["rows"][k], parts["columns"][k]
        assert a[k][rows].sum() > b[k][columns].sum()
        assert not (mask[k][rows] & ~columns).any()
        assert parts["value"][k] == math.inf
        assert parts["gap"][k].isnan()
        for name in ("plan", "f", "g", "dc", "da", "db"):
            assert not parts[name][k].any(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("forbidden", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("kind", ["random", "uniform", "zeros"])
def test_answers_are_proven_and_those_of_the_cpu(gpu, kind, forbidden, dtype):
    tensors = draw(12, 8, 8, kind, dtype, forbidden)
    here, _ = found(None, *tensors)
    there, result = found(gpu, *tensors)
    assert result.solver == "exact (a warp a problem)"
    assert gpu.launches.total() >= 2
    prove(here, *tensors)
    prove(there, *tensors)
    assert torch.equal(here["status"], there["status"])
    torch.testing.assert_close(here["value"], there["value"], rtol=1e-6 if dtype == torch.float32 else 1e-9, atol=0)
    if kind == "random":
        # Optima in general position: everything is the same.
        for name, value in here.items():
            torch.testing.assert_close(
                there[name], value, rtol=1e-5, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("mass", [0.5, "min"])
def test_part_of_the_mass(gpu, mass):
    cost, a, b, mask = draw(12, 7, 5, forbidden=0.6, seed=1)
    a = 1.5 * a / a.sum(-1, keepdim=True)
    b = b / b.sum(-1, keepdim=True)
    here, _ = found(None, cost, a, b, mask, Exact(mass=mass))
    there, _ = found(gpu, cost, a, b, mask, Exact(mass=mass))
    assert torch.equal(here["status"], there["status"])
    served = here["status"] == otfew.Status.OPTIMAL
    assert served.any()
    if mass == "min":
        assert not served.all()
    for name in ("value", "plan", "dc", "rows", "columns", "marginal_error"):
        torch.testing.assert_close(there[name], here[name], rtol=1e-9, atol=1e-9, equal_nan=True)
    assert not there["plan"][~mask].any()
    for name in ("f", "g", "dc", "da", "db"):
        assert not there[name][~served].any(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_that_balance_but_for_rounding(gpu, dtype):
    a = torch.tensor([[0.1, 0.2, 0.7]], dtype=dtype)
    b = torch.tensor([[0.3, 0.7]], dtype=dtype)
    mask = torch.tensor([[True, False], [True, False], [False, True]])
    there, _ = found(gpu, torch.rand(1, 3, 2, dtype=dtype), a, b, mask[None])
    assert there["status"].item() == otfew.Status.OPTIMAL
    assert there["marginal_error"] < 1e-6


def test_padded_batches_stay_on_the_device(gpu, monkeypatch):
    monkeypatch.setattr(Exact, "solve_all", None)
    costs = [torch.rand(n, m, dtype=torch.float64) for n, m in ((3, 4), (7, 2), (5, 5))]
    padded = otfew.pad(costs)
    result = otfew.solve(*gpu.away((padded.cost, padded.a, padded.b)), mask=gpu.away(padded.mask))
    for k, plan in enumerate(padded.crop(gpu.home(result.plan))):
        alone = otfew.pad(costs[k : k + 1])
        one = otfew.solve(*gpu.away((alone.cost, alone.a, alone.b)))
        torch.testing.assert_close(plan, gpu.home(one.plan)[0])
        for side, single in zip(padded.crop(tuple(map(gpu.home, result.potentials)))[k], one.potentials, strict=True):
            torch.testing.assert_close(side, gpu.home(single)[0])
    f, g = map(gpu.home, result.potentials)
    assert not f[0, 3:].any()
    assert not g[1, 2:].any()


def test_the_sentence_is_that_of_the_cpu(gpu):
    cost, a, b, mask = draw(4, 5, 5, forbidden=0, seed=2)
    mask[1, 3] = False
    for policy, caught in (
        ("raise", pytest.raises(otfew.ConvergenceError)),
        ("warn", pytest.warns(otfew.ConvergenceWarning)),
    ):
        with caught as here:
            otfew.solve(cost, a, b, mask=mask, on_fail=policy)
        with caught as there:
            otfew.solve(*gpu.away((cost, a, b)), mask=gpu.away(mask), on_fail=policy)
        said = [str(x.value) if policy == "raise" else str(x[0].message) for x in (here, there)]
        assert said[0] == said[1]
        assert "first at batch index 1 (INFEASIBLE): its row 3 holds more" in said[0]


def test_without_validation_a_mask_is_looked_at_all_the_same(gpu):
    cost, a, b, mask = draw(6, 5, 5, seed=3)
    mask[2] = False
    expected = otfew.solve(cost, a, b, mask=mask, on_fail="ignore")
    for options in ({"validate": False}, {}):
        there = otfew.solve(*gpu.away((cost, a, b)), mask=gpu.away(mask), on_fail="ignore", **options)
        torch.testing.assert_close(gpu.home(there.value), expected.value)
    # Nobody looks at these costs.
    blind = otfew.solve(*gpu.away((torch.where(mask, cost, math.inf), a, b)), validate=False, on_fail="ignore")
    assert set(gpu.home(blind.status).tolist()) == {otfew.Status.FAILED}
