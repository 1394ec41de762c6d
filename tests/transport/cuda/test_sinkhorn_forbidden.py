"""Forbidden pairs on a pretended device, by the emulated kernel or in torch: as on the CPU, and no bit of others'."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import otfew
from otfew.transport import ConvergenceWarning
from otfew.transport.cuda.sinkhorn import solve_entropic
from otfew.transport.entropic.support import survey

from .emulator import Emulator, LanesMetError, compiler

needs_compiler = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
KERNELS = [pytest.param(True, marks=needs_compiler), False]
NAMES = ("value", "value_linear", "plan", "gap", "marginal_error", "status", "n_iter")
HARD = (None, None)


@pytest.fixture(params=KERNELS, ids=["kernel", "torch"])
def device(request, pretended):
    """A pretended device with kernels, and one without, entered."""
    with pretended(kernels=request.param) as machine:
        machine.kernels = request.param
        yield machine


def problems(size=6, n=9, m=7, dtype=torch.float64, seed=0, share=0.5):
    """Feasible problems with forbidden pairs: some without, some that fall apart, some in which pairs are barred."""
    rng = np.random.default_rng(seed)
    mask = rng.random((size, n, m)) < share
    live = mask.copy()
    for k in range(0, size, 3):
        mask[k] = live[k] = True
    for k in range(1, size, 3):
        live[k] = False
        live[k, : n // 2, : m // 2] = live[k, n // 2 :, m // 2 :] = True
        mask[k] = live[k]
        mask[k, : n // 2] |= k % 2 == 0
    plan = (rng.random((size, n, m)) + 0.02) * live
    plan[:, 0, 0] += 0.1
    mask[:, 0, 0] = True
    cost = torch.from_numpy(rng.random((size, n, m))).to(dtype)
    return cost, *(torch.from_numpy(x) for x in (plan.sum(2), plan.sum(1), mask))


OPTIONS = [
    ((9, 7), {}), ((7, 9), {"reg": 0.02}), ((7, 6), {"reg": 4e-3}), ((7, 9), {"round": True}),
    ((9, 7), {"unbalanced": 0.5}), ((7, 9), {"unbalanced": (None, 2.0), "reg": 0.05}),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "options"), OPTIONS, ids=str)
def test_as_on_the_cpu(device, shape, options, dtype):
    cost, a, b, mask = problems(6, *shape, dtype=dtype)
    if "unbalanced" in options:
        a, b = a + 0.01, b + 0.02
        mask[2, :, 3] = False
        b[2, 3] = 0 if options["unbalanced"] == 0.5 else b[2, 3]
        mask[2, 0] = True
        mask[2, :, 3] = options["unbalanced"] != 0.5
    solver = otfew.Sinkhorn(tol=1e-6 if dtype == torch.float32 else 1e-11, **options)
    expected = otfew.solve(cost, a, b, mask=mask, solver=solver)
    found = otfew.solve(*device.away((cost, a, b)), mask=device.away(mask), solver=solver)
    assert device.home(found.status).tolist() == expected.status.tolist() == [otfew.Status.OPTIMAL] * 6
    assert bool(sum(device.launches.values())) == device.kernels
    tol = 3e-5 if dtype == torch.float32 else 1e-8
    for name in NAMES[:5]:
        x, y = device.home(getattr(found, name)), getattr(expected, name)
        assert x.dtype == y.dtype
        torch.testing.assert_close(x, y, rtol=tol, atol=tol, msg=lambda text, name=name: f"{name}: {text}")
    assert (device.home(found.plan)[~mask] == 0).all()
    for x, y in zip(found.potentials, expected.potentials, strict=True):
        if options.get("reg", 1) >= 0.02:
            torch.testing.assert_close(device.home(x), y, rtol=tol, atol=30 * tol)
    assert found.plan.device == found.status.device == device.device


@pytest.mark.parametrize("options", [{}, {"reg": 0.01}, {"unbalanced": (0.5, None)}], ids=str)
def test_gradients(device, options):
    cost, a, b, mask = problems(4)
    if "unbalanced" in options:
        a = a + 0.01
        mask[:, :, 0] = True
        b[:, 0] += 0.1

    def grads(cost, a, b, mask):
        leaves = [x.detach().requires_grad_() for x in (cost, a, b)]
        result = otfew.solve(*leaves, mask=mask, solver=otfew.Sinkhorn(tol=1e-12, **options))
        return torch.autograd.grad(result.value.sum() + result.value_linear.sum() + result.plan.square().sum(), leaves)

    found = [device.home(x) for x in grads(*(device.away(x) for x in (cost, a, b, mask)))]
    expected = grads(cost, a, b, mask)
    assert (found[0][~mask] == 0).all()
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=1e-7)
    for x, y in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


def spoiled(size=6):
    cost, a, b, mask = problems(size)
    mask[2, 3], a[2, 3] = False, 0.4
    b[2] *= a[2].sum() / b[2].sum()
    return cost, a, b, mask


def test_infeasible_problems_are_told_and_change_no_bit_of_others(device):
    given = spoiled()
    away = [device.away(x) for x in given]
    with pytest.warns(ConvergenceWarning, match="1 of 6 problems are infeasible, first at batch index 2"):
        result = otfew.solve(*away[:3], mask=away[3], solver="sinkhorn")
    home = {name: device.home(getattr(result, name)) for name in NAMES}
    assert home["status"].tolist() == [0, 0, otfew.Status.INFEASIBLE, 0, 0, 0]
    assert home["value"][2] == math.inf
    assert home["gap"][2].isnan()
    assert (home["plan"][2] == 0).all()
    assert device.home(result.cut[0])[2].nonzero().tolist() == [[3]]
    index = torch.tensor([0, 1, 3, 4, 5])
    rest = otfew.solve(
        *(device.away(x[index]) for x in given[:3]), mask=device.away(given[3][index]), solver="sinkhorn"
    )
    for name in NAMES:
        assert torch.equal(device.home(getattr(rest, name)), home[name][index]), name


def test_problems_without_forbidden_pairs_keep_their_bits(device):
    cost, a, b, mask = problems()
    solver = otfew.Sinkhorn(reg=0.05)
    both = otfew.solve(*(device.away(x) for x in (cost, a, b)), mask=device.away(mask), solver=solver)
    index = torch.tensor([0, 3])
    alone = otfew.solve(*(device.away(x[index]) for x in (cost, a, b)), solver=solver)
    for name in NAMES:
        assert torch.equal(device.home(getattr(both, name))[index], device.home(getattr(alone, name))), name


def test_shared_and_missing_weights(device):
    cost, _, _, mask = problems(4, 8, 8)
    mask |= torch.eye(8, dtype=torch.bool)
    a = torch.full((8,), 0.25, dtype=torch.float64)
    for weights in ((None, None), (a, None), (None, 2 * a)):
        expected = otfew.solve(cost, *weights, mask=mask, solver="sinkhorn")
        away = [None if x is None else device.away(x) for x in weights]
        found = otfew.solve(device.away(cost), *away, mask=device.away(mask), solver="sinkhorn")
        torch.testing.assert_close(device.home(found.value), expected.value, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_other_infinities_are_refused_beside_forbidden_pairs(device, bad):
    cost, a, b, mask = problems(3)
    cost = cost.where(mask, math.inf)
    cost[1, 0, 0] = bad
    with pytest.raises(ValueError, match=r"^cost holds NaN or -inf at batch index 1"):
        otfew.solve(*(device.away(x) for x in (cost, a, b)), solver="sinkhorn")


def test_points(device):
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 6, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(2, 6, 6, generator=rng) < 0.5
    mask |= torch.eye(6, dtype=torch.bool)
    for solver in (otfew.Sinkhorn(reg=0.5), otfew.Sinkhorn(reg=5.0, gradient="unrolled")):
        expected = otfew.solve_points(x, y, mask=mask, solver=solver)
        given = [device.away(z) for z in (x, y, mask)]
        found = otfew.solve_points(*given[:2], mask=given[2], solver=solver, on_fail="ignore", validate=False)
        torch.testing.assert_close(device.home(found.value), expected.value, rtol=1e-6, atol=1e-6)


def within(machine, cost, a, b, mask, reg, rhos=HARD):
    """What the kernel alone says of feasible problems, within the pairs that plans use."""
    found = survey(mask, a, b, rhos, 2.0**-53)
    assert not found.infeasible.any()
    answers = []
    for index, support in found.groups:
        costs = support.filled(cost[index]).masked_fill(support.closed(), math.inf)
        total = a[index].sum(-1, keepdim=True)
        seen = support.seen(a[index] / total, b[index] / b[index].sum(-1, keepdim=True))
        parts = support.row_part, support.column_part
        solved = solve_entropic(machine, costs, *seen, reg, rhos, 1e-6, 1000, parts=parts).solved
        answers.append(
            [getattr(solved, name) for name in ("plan", "phi", "psi", "offset", "error", "status", "n_iter")]
        )
    return answers


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "reg"), [((9, 7), 0.3), ((7, 33), 0.01), ((40, 25), 0.05)])
def test_lanes_in_any_order_and_never_in_each_others_way(shape, dtype, reg):
    given = problems(3, *shape, dtype=dtype)
    first = within(Emulator(), *given, reg)
    assert all(status.tolist() == [0] * len(status) for *_, status, _ in first)
    for machine in (Emulator(last_lane_first=True), Emulator(watched=True)):
        try:
            again = within(machine, *given, reg)
        except LanesMetError as fault:
            pytest.fail(str(fault))
        for x, y in zip(first, again, strict=True):
            assert all(torch.equal(p, q) for p, q in zip(x, y, strict=True))


@needs_compiler
def test_the_kernel_takes_infinite_costs_for_unsound_where_nobody_speaks_of_parts():
    cost, a, b, mask = problems(3)
    found = solve_entropic(Emulator(), cost.where(mask, math.inf), a, b, 0.1, HARD, 1e-6, 1000, 1e-4)
    assert found.flag.invalid()
