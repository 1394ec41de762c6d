"""The entropic kernels on an emulated warp: certificates, the CPU's solver, lanes in any order, and independence."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otfew
from otfew.transport.cuda import sinkhorn
from otfew.transport.cuda.programs import ROOM, entropic
from otfew.transport.cuda.sinkhorn import solve_entropic
from otfew.transport.entropic.solved import entropic_gap, marginal_error, primal_value
from otfew.transport.problem import INVALID, Status

from . import entropic_golden
from .emulator import Emulator, LanesMetError, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")

HARD = (None, None)
FIELDS = ("plan", "a", "b", "scale", "phi", "psi", "offset", "error", "status", "n_iter")


def solve(cost, a=None, b=None, reg=0.1, rhos=HARD, tol=1e-6, max_iter=1000, rtol=math.inf, machine=None):
    found = solve_entropic(machine or Emulator(), cost, a, b, reg, rhos, tol, max_iter, rtol)
    assert found is not None
    return found


def same_bits(first, second, index=slice(None)):
    """Whether two answers, or part of the second, are the same to the last bit."""
    pairs = [(getattr(first.solved, name), getattr(second.solved, name)[index]) for name in FIELDS]
    pairs.append((first.value, second.value[index]))
    return all(np.array_equal(x.numpy(), y.numpy(), equal_nan=True) for x, y in pairs)


def draw_weights(rng, kind, size, k):
    if kind == "uniform":
        return np.full((size, k), 1.0 / k)
    weights = 10.0 ** rng.uniform(-9, 0, (size, k)) if kind == "wild" else rng.random((size, k)) + 0.01
    if kind == "zeros":
        weights *= rng.random((size, k)) < 0.6
        weights[:, k // 2] = 1
    return weights / weights.sum(-1, keepdims=True)


def problems(seed=0, size=3, n=25, m=25, dtype=torch.float64, kinds=("random", "random"), mass=1.0, spread=1.0):
    """A batch of problems with costs from 0 to ``spread`` and weights of the total ``mass``."""
    rng = np.random.default_rng(seed)
    cost = torch.from_numpy(spread * rng.random((size, n, m))).to(dtype)
    a, b = (torch.from_numpy(mass * draw_weights(rng, kind, size, k)) for kind, k in zip(kinds, (n, m), strict=True))
    return cost, a, b


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (25, 25), (5, 75), (128, 128), (3, 1000), (110, 90)])
def test_python_and_c_agree_on_arguments_and_memory(shape, dtype):
    kernel, plain = entropic(*shape, dtype)
    arguments = kernel.arguments(plain=int(plain), n=shape[0], m=shape[1])
    assert Emulator().sizes(kernel, arguments) == (ctypes.sizeof(arguments), kernel.shared_bytes)
    assert kernel.shared_bytes <= ROOM


def test_which_problems_a_warp_takes():
    assert entropic(128, 128, torch.float32)[1]
    assert not entropic(128, 128, torch.float64)[1]
    assert entropic(3, 2000, torch.float32)[1]
    for shape in ((129, 129), (100, 1000), (1, 20_000)):
        assert entropic(*shape, torch.float32) is None


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**20),
    n=st.one_of(st.integers(1, 12), st.integers(1, 40), st.integers(60, 128)),
    m=st.one_of(st.integers(1, 12), st.integers(1, 40), st.integers(60, 128)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    reg=st.sampled_from([10.0, 1.0, 0.1, 0.05, 0.01]),
    kinds=st.tuples(*[st.sampled_from(["random", "uniform", "zeros", "wild"])] * 2),
    mass=st.sampled_from([1.0, 7.5, 1e-3]),
)
def test_answers_are_certified_and_those_of_the_cpu(seed, n, m, dtype, reg, kinds, mass):
    cost, a, b = problems(seed, 2, n, m, dtype, kinds, mass)
    found = solve(cost, a, b, reg)
    solved = found.solved
    assert solved.status.tolist() == [Status.OPTIMAL] * 2
    assert found.flag.sound()
    assert found.flag.fits()
    torch.testing.assert_close(solved.scale, a.sum(-1))
    # In float32 the plan's entries are rounded, and so are sums of them.
    eps = torch.finfo(dtype).eps
    assert (marginal_error(solved) <= 1e-6 + 4 * eps).all()
    assert (solved.error <= 1e-6).all()
    # An exact dual value is at most the optimum and misses it by little: this bounds both by a plan of our own.
    rounding = mass * (20 * eps * (1 + reg) + 1e-13)
    assert (entropic_gap(solved) <= mass * 1e-5 + rounding).all()
    precise = otfew.solve(cost.double(), a, b, solver=otfew.Sinkhorn(reg=reg, tol=1e-11))
    assert ((found.value - precise.value).abs() <= rounding + mass * 1e-8).all()
    assert ((solved.plan.double() * mass - precise.plan).abs() <= mass * 1e-5).all()


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    reg=st.sampled_from([1.0, 0.1, 0.01]),
    rhos=st.sampled_from([(0.3, None), (None, 0.05), (1.0, 1.0), (10.0, 0.1), (1e4, 1e4)]),
    kinds=st.tuples(*[st.sampled_from(["random", "zeros", "wild"])] * 2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_soft_marginals(seed, n, m, reg, rhos, kinds, dtype):
    cost, a, b = problems(seed, 2, n, m, dtype, kinds)
    a, b = 3 * a, 0.5 * b
    found = solve(cost, a, b, reg, rhos).solved
    expected = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, unbalanced=rhos))
    assert torch.equal(found.status, expected.status)
    # The same steps, but for rounding.
    assert ((found.n_iter - expected.n_iter).abs() <= 2).all()
    scale = math.sqrt(1.5)
    torch.testing.assert_close(found.scale, torch.full((2,), scale, dtype=torch.float64))
    assert (marginal_error(found) <= 1e-6 + 4 * torch.finfo(dtype).eps).all()
    value = found.scale * primal_value(found, found.density())
    torch.testing.assert_close(value, expected.value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scale * found.plan, expected.plan, rtol=0, atol=1e-5)


HARD_KINDS = ("points", "ties", "outlier", "sum", "huge", "tiny", "offset")


@pytest.mark.parametrize("kind", HARD_KINDS)
@pytest.mark.parametrize("weights", ["random", "uniform", "wild", "zeros"])
@pytest.mark.parametrize("fraction", [0.05, 1e-3, 1e-4])
def test_hard_problems_converge_as_on_the_cpu(kind, weights, fraction):
    rng = np.random.default_rng(7)
    size, n, m, spread = 3, 9, 8, 1.0
    cost = rng.random((size, n, m))
    if kind == "points":
        x, y = rng.standard_normal((size, n, 3)), rng.standard_normal((size, m, 3))
        cost = ((x[:, :, None] - y[:, None]) ** 2).sum(-1)
    elif kind == "ties":
        cost = rng.integers(0, 4, (size, n, m)).astype(float)
    elif kind == "outlier":
        cost[:, 0, 0] = 1e6
    elif kind == "sum":
        cost = rng.random((size, n, 1)) + rng.random((size, 1, m))
    elif kind in {"huge", "tiny"}:
        spread = 1e12 if kind == "huge" else 1e-12
        cost = cost * spread
    elif kind == "offset":
        cost = cost + 1e3
    a, b = (torch.from_numpy(draw_weights(rng, weights, size, k)) for k in (n, m))
    for dtype in (torch.float32, torch.float64):
        costs = torch.from_numpy(cost).to(dtype)
        found = solve(costs, a, b, fraction * spread)
        expected = otfew.solve(costs, a, b, solver=otfew.Sinkhorn(reg=fraction * spread))
        assert torch.equal(found.solved.status, expected.status)
        if fraction < 0.05:
            # Beyond the plain domain the steps are the same, but for rounding.
            assert ((found.solved.n_iter - expected.n_iter).abs() <= 2).all()
        assert (marginal_error(found.solved) <= 1e-6 + 4 * torch.finfo(dtype).eps).all()
        assert found.solved.phi.isfinite().all()
        assert found.solved.psi.isfinite().all()
        size_of = np.ptp(cost, axis=(1, 2)).max() + fraction * spread
        assert ((found.value - expected.value).abs() <= 1e-6 * size_of).all()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    reg=st.sampled_from([1.0, 0.1, 0.03, 0.01]),
    max_iter=st.sampled_from([12, 25, 50, 100, 200]),
    kinds=st.tuples(*[st.sampled_from(["random", "uniform", "zeros"])] * 2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_what_the_cpu_solves_in_so_many_iterations_is_solved_here(seed, n, m, reg, max_iter, kinds, dtype):
    cost, a, b = problems(seed, 4, n, m, dtype, kinds)
    here = solve(cost, a, b, reg, max_iter=max_iter).solved
    there = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, max_iter=max_iter), on_fail="ignore")
    assert (here.n_iter <= max_iter).all()
    assert not ((there.status == Status.OPTIMAL) & (here.status != Status.OPTIMAL)).any()


@pytest.mark.parametrize("max_iter", [1, 2, 5])
@pytest.mark.parametrize("reg", [0.1, 1e-3])
def test_too_few_iterations_are_said(max_iter, reg):
    cost, a, b = problems(size=4, kinds=("wild", "random"))
    found = solve(cost, a, b, reg, tol=1e-10, max_iter=max_iter)
    assert found.solved.status.tolist() == [Status.MAX_ITER] * 4
    assert found.solved.n_iter.tolist() == [max_iter] * 4
    assert not found.flag.sound()
    assert (found.solved.error > 1e-10).all()
    # What is handed out is the plan of the potentials, with the sums of one side.
    plan = found.solved.plan64()
    torch.testing.assert_close(found.solved.plan, plan, rtol=1e-9, atol=1e-14)
    rows = (plan.sum(2) - found.solved.a).abs().amax(-1)
    assert (rows <= 1e-12).all()
    torch.testing.assert_close((plan.sum(1) - found.solved.b).abs().amax(-1), found.solved.error, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_fails_and_harms_nobody_else(bad):
    cost, a, b = problems(size=3)
    alone = solve(cost[1:2], a[1:2], b[1:2])
    cost[0, 3, 4], a[2, 1] = bad, math.nan
    found = solve(cost, a, b)
    assert found.solved.status.tolist() == [Status.FAILED, Status.OPTIMAL, Status.FAILED]
    assert not found.flag.sound()
    assert not found.flag.invalid()
    assert same_bits(alone, found, slice(1, 2))


def spoil_cost(cost, a, b):
    cost[1, 2, 3] = math.nan


def spoil_sign(cost, a, b):
    # The total stays as it is.
    a[1, 3] += a[1, 2] + 0.1
    a[1, 2] = -0.1


def spoil_weight(cost, a, b):
    b[2, 0] = math.inf


def spoil_total(cost, a, b):
    a[0] = 0


def spoil_totals(cost, a, b):
    b[1] *= 1.001


def spoil_range(cost, a, b):
    a[2] *= 1e-300
    b[2] *= 1e-300


@pytest.mark.parametrize("spoil", [spoil_cost, spoil_sign, spoil_weight, spoil_total, spoil_totals, spoil_range])
def test_validation(spoil):
    cost, a, b = problems(n=6, m=5)
    assert not solve(cost, a, b, rtol=1e-4).flag.invalid()
    spoil(cost, a, b)
    found = solve(cost, a, b, rtol=1e-4)
    assert found.flag.invalid()
    assert (found.solved.status == INVALID).sum() == 1
    assert not solve(cost, a, b).flag.invalid()


def test_soft_marginals_need_no_equal_totals():
    cost, a, b = problems(n=6, m=5)
    assert not solve(cost, a, 3 * b, rhos=(1.0, None), rtol=1e-4).flag.invalid()
    assert solve(cost, a, 3 * b, rtol=1e-4).flag.invalid()


def test_masses_beyond_the_dtype_are_told():
    cost, a, b = problems(n=6, m=5, dtype=torch.float32)
    assert solve(cost, a, b).flag.fits()
    assert not solve(cost, 1e-39 * a, 1e-39 * b).flag.fits()
    assert solve(cost.double(), 1e-39 * a, 1e-39 * b).flag.fits()


CASES = [
    (25, 25, 0.1, HARD), (25, 25, 0.003, HARD), (5, 75, 0.1, HARD), (75, 5, 0.01, HARD), (1, 1, 0.1, HARD),
    (1, 40, 0.1, HARD), (33, 64, 0.05, HARD), (64, 33, 1e-3, HARD), (70, 100, 0.01, HARD), (25, 30, 0.1, (0.3, None)),
    (30, 25, 0.02, (1.0, 0.5)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_lanes_in_any_order_and_never_in_each_others_way(case, dtype):
    n, m, reg, rhos = case
    cost, a, b = problems(1, 2, n, m, dtype, ("zeros", "zeros"))
    first = solve(cost, a, b, reg, rhos)
    assert same_bits(first, solve(cost, a, b, reg, rhos, machine=Emulator(last_lane_first=True)))
    try:
        assert same_bits(first, solve(cost, a, b, reg, rhos, machine=Emulator(watched=True)))
    except LanesMetError as fault:
        pytest.fail(str(fault))


@pytest.mark.parametrize("rhos", [HARD, (0.5, None)])
@pytest.mark.parametrize("reg", [0.1, 0.004])
def test_an_answer_does_not_depend_on_batch_mates(reg, rhos):
    cost, a, b = problems(3, 8, 20, 17, torch.float32, ("wild", "zeros"))
    cost[::2] *= 30
    together = solve(cost, a, b, reg, rhos)
    order = torch.randperm(8)
    assert same_bits(solve(cost[order], a[order], b[order], reg, rhos), together, order)
    for k in range(8):
        one = slice(k, k + 1)
        assert same_bits(solve(cost[one], a[one], b[one], reg, rhos), together, one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reg", [0.1, 0.004])
def test_strides_are_read_as_they_are(reg, dtype):
    cost, a, b = problems(3, 6, 20, 17, dtype)
    plain = solve(cost, a, b, reg)
    assert same_bits(solve(cost.mT.contiguous().mT, a, b, reg), plain)
    wide = torch.zeros(6, 40, 51, dtype=dtype)[:, ::2, ::3]
    wide.copy_(cost)
    assert same_bits(solve(wide, torch.stack([a, a], 2)[..., 1], b.T.contiguous().T, reg), plain)
    shared = solve(cost[2:3].expand(6, 20, 17), a[2:3].expand(6, 20), b[2:3].expand(6, 17), reg)
    assert same_bits(shared, plain, torch.full((6,), 2))
    flat = solve(cost[:, :1].expand(6, 20, 17), a, b, reg)
    assert same_bits(flat, solve(cost[:, :1].expand(6, 20, 17).contiguous(), a, b, reg))


def test_missing_weights_are_uniform():
    cost, a, b = problems(n=6, m=5, mass=2.5)
    even_a, even_b = torch.full_like(a, 2.5 / 6), torch.full_like(b, 0.5)
    cases = [((None, b), (even_a, b)), ((a, None), (a, even_b)), ((None, None), (even_a / 2.5, even_b / 2.5))]
    for left_out, written in cases:
        first, second = solve(cost, *left_out), solve(cost, *written)
        torch.testing.assert_close(first.value, second.value, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(first.solved.scale, second.solved.scale)
        torch.testing.assert_close(first.solved.plan, second.solved.plan, rtol=1e-9, atol=1e-13)


def test_few_problems_of_many_are_left_to_newton(monkeypatch):
    """Both ways to an answer, told apart by the iterations they take."""
    cost, a, b = problems(size=3, n=25, m=25, dtype=torch.float32)
    cost[1] *= 40
    # Beyond 20 reg float32 has no plain domain: cold, from the range of the costs.
    quick = solve(cost, a, b, 0.1).solved
    assert (quick.status == Status.OPTIMAL).all()
    monkeypatch.setattr(sinkhorn, "PLAIN", 4)
    switched = solve(cost, a, b, 0.1).solved
    assert (switched.status == Status.OPTIMAL).all()
    assert switched.n_iter[1] == quick.n_iter[1]
    assert (switched.n_iter[[0, 2]] < quick.n_iter[[0, 2]]).all()
    assert (switched.n_iter[[0, 2]] > 4).all()
    torch.testing.assert_close(switched.plan, quick.plan, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "case"), list(entropic_golden.cases()), ids=[name for name, _ in entropic_golden.cases()]
)
def test_answers_are_the_same_bits_as_ever(name, case):
    assert entropic_golden.answer(Emulator(), case) == entropic_golden.stored()[name]


@pytest.mark.parametrize("rhos", [HARD, (0.5, None), (None, 0.5), (2.0, 1.0)], ids=str)
@pytest.mark.parametrize("shape", [(20, 17), (17, 20)])
@pytest.mark.parametrize("reg", [0.1, 0.004])
def test_nodes_without_weight_have_the_potentials_that_they_would_have_with_a_little(reg, shape, rhos):
    cost, a, b = problems(5, 3, *shape, kinds=("zeros", "zeros"))
    found = solve(cost, a, b, reg, rhos, tol=1e-12).solved
    unbalanced = None if rhos == HARD else rhos
    expected = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, tol=1e-12, unbalanced=unbalanced))
    assert (a == 0).any()
    assert (b == 0).any()
    torch.testing.assert_close(found.potentials(), expected.potentials, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_goes_between_two_nodes_without_weight_however_cheap(dtype):
    cost, a, b = problems(5, 2, 20, 17, dtype)
    a[:, 3], b[:, 4] = 0, 0
    cost[:, 3, 4] = -20
    found = solve(cost, a, b, 0.004).solved
    assert found.status.tolist() == [Status.OPTIMAL] * 2
    assert found.plan[:, 3, 4].tolist() == [0, 0]
    assert found.plan.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (1, 1)])
def test_steps_of_no_length(shape):
    """One row or column has what it is to carry from the start, to the last bit."""
    cost, _, _ = problems(5, 2, *shape)
    found = solve(cost, reg=1e-3)
    assert found.solved.status.tolist() == [Status.OPTIMAL] * 2
    torch.testing.assert_close(found.solved.plan, torch.full_like(cost, 1 / 8 if shape != (1, 1) else 1.0))
    torch.testing.assert_close(found.value, cost.mean((1, 2)))


@pytest.mark.parametrize("far", [0, 1, 10, 100])
@pytest.mark.parametrize("light", [1e-9, 1e-12, 1e-15, 1e-30])
def test_columns_that_carry_next_to_nothing_hold_nobody_up(far, light):
    cost, a, b = problems(int(far), 16, 9, 8)
    cost[:, :, 2] += far
    cost[:, 3, 5] -= far / 2
    b[:, 2], b[:, 5] = light, 10 * light
    found = solve(cost, a, b * (a.sum(-1) / b.sum(-1))[:, None], 1e-3, max_iter=400).solved
    assert (found.status == Status.OPTIMAL).all()
