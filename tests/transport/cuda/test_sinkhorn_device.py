"""``Sinkhorn`` on tensors of a pretended device, by the emulated kernel or in torch, against that on the CPU."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import otfew
from otfew.transport import ConvergenceWarning

from .emulator import compiler

KERNELS = [pytest.param(True, marks=pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")), False]


@pytest.fixture(params=KERNELS, ids=["kernel", "torch"])
def device(request, pretended):
    """A pretended device with kernels, and one without, entered; what was counted so far says which."""
    with pretended(kernels=request.param) as machine:
        machine.kernels = request.param
        yield machine


def problems(*batch, n=9, m=7, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    cost = torch.rand(*batch, n, m, generator=rng, dtype=torch.float64).to(dtype)
    a, b = (torch.rand(*batch, k, generator=rng, dtype=torch.float64) + 0.05 for k in (n, m))
    return cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


def launched(device):
    return sum(device.launches.values())


OPTIONS = [
    {}, {"reg": 0.02}, {"reg": 1e-3}, {"round": True}, {"unbalanced": 0.5}, {"unbalanced": (None, 2.0)},
    {"unbalanced": (0.1, 3.0), "reg": 0.01},
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_everything_that_is_handed_out(device, options, dtype):
    inputs = problems(4, dtype=dtype)
    solver = otfew.Sinkhorn(tol=1e-6 if dtype == torch.float32 else 1e-11, **options)
    expected = otfew.solve(*inputs, solver=solver)
    found = otfew.solve(*device.away(inputs), solver=solver)
    assert launched(device) == device.kernels
    tol = 2e-5 if dtype == torch.float32 else 1e-8
    for name in ("value", "value_linear", "plan", "gap", "marginal_error"):
        x, y = device.home(getattr(found, name)), getattr(expected, name)
        assert x.dtype == y.dtype
        torch.testing.assert_close(x, y, rtol=tol, atol=tol)
    for x, y in zip(found.potentials, expected.potentials, strict=True):
        torch.testing.assert_close(device.home(x), y, rtol=tol, atol=tol)
    assert device.home(found.status).tolist() == expected.status.tolist()
    assert found.n_iter.device == found.plan.device == found.status.device == device.device


def gradients(inputs, make, solver):
    leaves = [x.detach().requires_grad_() for x in inputs]
    return torch.autograd.grad(make(otfew.solve(*leaves, solver=solver)), leaves)


@pytest.mark.parametrize("options", [{}, {"reg": 0.01}, {"unbalanced": (0.5, None)}], ids=str)
@pytest.mark.parametrize("part", ["value", "value_linear", "plan"])
def test_gradients(device, options, part):
    inputs = problems(3)
    weights = torch.linspace(-1, 1, 63, dtype=torch.float64).reshape(9, 7)
    solver = otfew.Sinkhorn(tol=1e-12, **options)

    def loss(result):
        made = getattr(result, part)
        return (
            (made * (device.away(weights) if made.device == device.device else weights)).sum()
            if part == ("plan")
            else made.square().sum()
        )

    found = gradients(device.away(inputs), loss, solver)
    for x, y in zip(found, gradients(inputs, loss, solver), strict=True):
        torch.testing.assert_close(device.home(x), y, rtol=1e-7, atol=1e-8)


def test_gradients_of_weights_that_are_shared_or_missing(device):
    cost, a, b = problems(3)

    def grads(cost, a, b):
        leaves = [x.detach().requires_grad_() for x in (cost, a, b) if x is not None]
        rest = iter(leaves)
        given = [None if x is None else next(rest) for x in (cost, a, b)]
        result = otfew.solve(*given, solver=otfew.Sinkhorn(tol=1e-12))
        return torch.autograd.grad(result.value.sum() + result.value_linear.sum(), leaves)

    for given in ((cost, a[0], None), (cost, None, b[:1] * 2), (cost[:1], a, b), (cost[0], a, None)):
        found = grads(*(None if x is None else device.away(x) for x in given))
        for x, y in zip(found, grads(*given), strict=True):
            torch.testing.assert_close(device.home(x), y, rtol=1e-7, atol=1e-9)


def test_batches_broadcast(device):
    cost, a, b = problems(2, 3)
    expected = otfew.solve(cost[:, :1], a, b[0, 0], solver="sinkhorn")
    found = otfew.solve(*(device.away(x) for x in (cost[:, :1], a, b[0, 0])), solver="sinkhorn")
    assert found.value.shape == (2, 3)
    torch.testing.assert_close(device.home(found.value), expected.value, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(device.home(found.plan), expected.plan, rtol=0, atol=5e-6)


def test_half_precision_and_weights_of_other_dtypes(device):
    cost, a, b = problems(3)
    given = cost.half(), a.float(), b.half()
    expected = otfew.solve(*given, solver="sinkhorn")
    found = otfew.solve(*device.away(given), solver="sinkhorn")
    assert found.plan.dtype == torch.float32
    torch.testing.assert_close(device.home(found.plan), expected.plan, rtol=0, atol=5e-6)


@pytest.mark.parametrize("options", [{}, {"unbalanced": 1.0}, {"round": True}], ids=str)
def test_no_problems_at_all(device, options):
    inputs = device.away([torch.zeros(0, *shape, requires_grad=True) for shape in ((4, 3), (4,), (3,))])
    result = otfew.solve(*inputs, solver=otfew.Sinkhorn(**options))
    assert result.plan.shape == (0, 4, 3)
    total = result.value.sum() + result.value_linear.sum() + result.plan.sum()
    assert [x.shape for x in torch.autograd.grad(total, inputs)] == [x.shape for x in inputs]


def spoiled(what):
    cost, a, b = problems(3)
    if what == "cost":
        cost[1, 2, 3] = math.nan
    elif what == "sign":
        a[2, 1] = -1
    elif what == "nan":
        b[1, 1] = math.nan
    elif what == "zero":
        a[0] = 0
    else:
        b[2] *= 2
    return cost, a, b


@pytest.mark.parametrize("what", ["cost", "sign", "nan", "zero", "totals"])
def test_what_is_unsound_is_refused_as_on_the_cpu(device, what):
    inputs = spoiled(what)
    with pytest.raises(ValueError, match=r"^(cost|a|b|totals)") as expected:
        otfew.solve(*inputs, solver="sinkhorn")
    with pytest.raises(ValueError, match=r"^(cost|a|b|totals)") as found:
        otfew.solve(*device.away(inputs), solver="sinkhorn")
    assert str(found.value) == str(expected.value)


def test_costs_whose_sum_overflows_are_not_taken_for_unsound_ones(device):
    cost = torch.rand(2, 5, 4, dtype=torch.float64) * 1e308
    solver = otfew.Sinkhorn(reg=1e307)
    for given in (cost, device.away(cost)):
        with pytest.warns(ConvergenceWarning, match="FAILED"):
            result = otfew.solve(given, solver=solver)
        assert result.status.tolist() == [otfew.Status.FAILED] * 2


def test_totals_of_half_precision_may_differ_by_more(device):
    cost, a, b = problems(2)
    given = cost, a.half(), 1.001 * b
    expected = otfew.solve(*given, solver="sinkhorn")
    found = otfew.solve(*device.away(given), solver="sinkhorn")
    torch.testing.assert_close(device.home(found.value), expected.value, rtol=1e-6, atol=1e-6)


def test_a_problem_that_is_short_of_its_optimum_is_named(device):
    cost, a, b = problems(3)
    solver = otfew.Sinkhorn(reg=0.01, max_iter=4, tol=1e-9)
    with pytest.warns(ConvergenceWarning, match="sinkhorn did not reach the optimum of 3 of 3 problems.*MAX_ITER"):
        otfew.solve(*device.away((cost, a, b)), solver=solver)
    with pytest.raises(otfew.ConvergenceError, match="sinkhorn did not reach the optimum of 3"):
        otfew.solve(*device.away((cost, a, b)), solver=solver, on_fail="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = otfew.solve(*device.away((cost, a, b)), solver=solver, on_fail="ignore")
    assert (device.home(result.status) == otfew.Status.MAX_ITER).all()


def test_plans_that_their_dtype_does_not_hold_are_refused(device):
    cost, a, b = problems(2, dtype=torch.float32)
    result = otfew.solve(*device.away((cost, 1e-40 * a, 1e-40 * b)), solver="sinkhorn")
    assert (device.home(result.value) > 0).all()
    with pytest.raises(ValueError, match=r"does not fit torch\.float32"):
        _ = result.plan


def test_unrolled_gradients_go_another_way(device):
    inputs = problems(2)
    solver = otfew.Sinkhorn(gradient="unrolled")
    found = gradients(device.away(inputs), lambda result: result.value_linear.sum(), solver)
    assert not launched(device)
    expected = gradients(inputs, lambda result: result.value_linear.sum(), otfew.Sinkhorn(tol=1e-10))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(device.home(x), y, rtol=1e-3, atol=1e-4)


def test_larger_problems_need_no_kernel(device):
    cost, a, b = problems(2, n=140, m=150)
    expected = otfew.solve(cost, a, b, solver="sinkhorn")
    found = otfew.solve(*device.away((cost, a, b)), solver="sinkhorn")
    assert not launched(device)
    torch.testing.assert_close(device.home(found.value), expected.value, rtol=1e-7, atol=1e-8)


def test_nothing_is_asked_of_a_device_whose_user_asks_for_nothing(device):
    inputs = device.away([x.requires_grad_() for x in problems(4, dtype=torch.float32)])
    result = otfew.solve(*inputs, solver="sinkhorn", validate=False, on_fail="ignore")
    loss = result.value.sum() + result.value_linear.sum() + result.plan.square().sum()
    _ = result.potentials, result.gap, result.status
    torch.autograd.grad(loss, inputs)
    if device.kernels:
        assert device.waits == 0
        assert device.uploads == 0


@pytest.mark.parametrize("options", [{"reg": 1e-3}, {"reg": 0.05, "unbalanced": 0.5}, {"reg": 0.1}], ids=str)
def test_a_problem_keeps_what_it_ended_with_while_others_go_on(pretended, options):
    """In torch, where a device is looked at every few steps: iterations and answers are those of each alone."""
    cost, a, b = problems(8)
    cost = cost * torch.logspace(-1, 1, 8, dtype=torch.float64)[:, None, None]
    solver = otfew.Sinkhorn(**options)
    with pretended(kernels=False) as machine:
        together = otfew.solve(*machine.away((cost, a, b)), solver=solver)
        steps = machine.home(together.n_iter).tolist()
        assert len(set(steps)) > 3
        for k in range(8):
            alone = otfew.solve(*machine.away((cost[k], a[k], b[k])), solver=solver)
            assert int(alone.n_iter) == steps[k]
            torch.testing.assert_close(machine.home(together.value)[k], machine.home(alone.value), rtol=1e-12, atol=0)
            torch.testing.assert_close(machine.home(together.plan)[k], machine.home(alone.plan), rtol=1e-9, atol=1e-14)
