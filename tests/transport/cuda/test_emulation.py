"""The exact kernel, run by the emulator, against ``otfew.solve`` on the CPU and against its own certificates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import otfew
from otfew.transport.certificate import EPS
from otfew.transport.problem import INVALID, TOTALS_RTOL, UNSURE, build
from otfew.transport.simplex.exact import Exact

from . import running, suite
from .emulator import Emulator, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")

F32, F64 = torch.float32, torch.float64
MACHINE = Emulator()
NAN, INF = math.nan, math.inf


def judge(found, cost, a, b, note):
    """Prove answers from their plans and potentials alone; returns how many are left open."""
    _, n, m = cost.shape
    cost, total = cost.double(), a.sum(-1)
    largest, spread = cost.abs().amax((1, 2)), cost.amax((1, 2)) - cost.amin((1, 2))
    plan = found.plan(n, m)
    assert (plan >= 0).all(), note
    missed = torch.maximum((plan.sum(2) - a).abs().amax(1), (plan.sum(1) - b).abs().amax(1)) / total
    assert (missed <= 1e-14 * (n + m)).all(), note
    assert ((missed - found.error).abs() <= 1e-15 * (n + m)).all(), note
    paid = (plan * cost).sum((1, 2))
    gross = (plan * cost.abs()).sum((1, 2))
    assert ((paid - found.value).abs() <= 1e-15 * (n + m) * gross).all(), note
    over = (found.f[:, :, None] + found.g[:, None] - cost).amax((1, 2))
    assert (over <= 1e-15 * (spread + largest)).all(), note
    reach = spread + largest
    assert ((found.g * b).sum(-1).abs() <= 1e-15 * (n + m) * reach * total).all(), note
    dual = (found.f * a).sum(-1) + (found.g * b).sum(-1)
    # The gap bounds value - dual value, and by no more than rounding explains.
    assert (found.gap >= paid - dual - 1e-15 * (n + m) * (gross + reach * total)).all(), note
    assert (found.gap <= paid - dual + 2e-14 * (n + m) * reach * total).all(), note
    certain = found.status == otfew.Status.OPTIMAL
    assert (certain | (found.status == UNSURE)).all(), note
    least = cost.amin((1, 2))
    allowed = 1e-9 * (paid - least * total) + 3e-15 * (n + m + 16) * gross
    assert (found.gap <= allowed)[certain].all(), note
    assert int(found.flag) == (0 if certain.all() else 1 << UNSURE), note
    return int((~certain).sum())


def agree(found, cost, a, b, note):
    """Compare the values with the CPU's solver's: as far as is proven, but for the rounding of two sums over arcs."""
    here = otfew.solve(cost, a, b, on_fail="ignore")
    gross = (found.plan(*cost.shape[1:]) * cost.double().abs()).sum((1, 2))
    apart = (found.value - here.value).abs()
    certain = (found.status == 0) & (here.status == 0)
    assert (apart <= found.gap + here.gap + 2 * EPS * sum(cost.shape[1:]) * gross)[certain].all(), note
    assert (apart <= 1e-9 * gross)[certain].all(), note


def check_suite(seed, size, shapes, dtypes):
    """Solve, prove and compare; returns the numbers of problems and of those left open, by kind of cost."""
    seen = {}
    for note, (cost, a, b) in suite.batches(seed, size, shapes, dtypes):
        found = running.exact(MACHINE, cost, a, b)
        opened = judge(found, cost, a, b, note)
        agree(found, cost, a, b, note)
        kind = note.split()[1]
        before = seen.get(kind, (0, 0))
        seen[kind] = before[0] + size, before[1] + opened
    return seen


def settled_by_itself(seen):
    """Only costs that differ by more than float64 can tell may leave much open."""
    for kind, (solved, opened) in seen.items():
        if kind not in suite.LEFT_OPEN:
            assert opened <= 0.01 * solved, kind


@pytest.mark.parametrize("dtype", [F32, F64])
def test_answers_prove_themselves_and_are_the_cpus(dtype):
    shapes = ((1, 1), (1, 6), (7, 1), (3, 4), (9, 9), (25, 25), (32, 31), (5, 32))
    settled_by_itself(check_suite(0, 3, shapes, (dtype,)))


def test_larger_problems_take_more_slots():
    settled_by_itself(check_suite(1, 2, ((33, 33), (49, 49), (40, 64)), (F64,)))
    settled_by_itself(check_suite(2, 1, ((125, 125), (65, 128)), (F32,)))


@pytest.mark.slow
def test_thousands_of_problems():
    shapes = ((2, 2), (8, 5), (16, 16), (25, 25), (31, 9), (10, 40), (50, 20), (33, 64), (100, 30), (20, 128), (70, 50),
              (50, 70), (128, 128))  # fmt: skip
    seen = check_suite(10, 17, shapes, (F32, F64))
    assert sum(solved for solved, _ in seen.values()) >= 5_000
    settled_by_itself(seen)


@settings(derandomize=True, deadline=None, database=None, max_examples=150)
@given(data=st.data())
def test_random_problems(data, examples):
    example = data.draw(examples)
    cost, a, b = (torch.from_numpy(x)[None] for x in (example.cost, example.a, example.b))
    b = b * (a.sum(-1) / b.sum(-1))[:, None]
    dtype = data.draw(st.sampled_from([F32, F64]))
    found = running.exact(MACHINE, cost.to(dtype), a, b)
    judge(found, cost.to(dtype), a, b, example.kind)
    agree(found, cost.to(dtype), a, b, example.kind)


def test_few_problems_change_when_pivots_are_decided_in_float64():
    """Whole-number costs are exact for whole-number problems: the last word of float64 changes nothing."""
    cost, a, b = suite.batch(3, 20, 25, 25, "ties", "integers", "integers", F32)
    found = running.exact(MACHINE, cost, a, b)
    wide = running.exact(MACHINE, cost.double(), a, b)
    assert found.bits() == wide.bits()


SOUND = suite.batch(5, 4, 7, 5, "random", "random", "random", F64)


def spoilt(which, value, at=1):
    """A batch of which one problem holds a value it must not."""
    tensors = [x.clone() for x in SOUND]
    tensors[which][at].view(-1)[3] = value
    return tensors


FLAWS = {
    "cost NaN": spoilt(0, NAN),
    "cost inf": spoilt(0, INF),
    "cost -inf": spoilt(0, -INF),
    "a NaN": spoilt(1, NAN),
    "a inf": spoilt(1, INF),
    "a negative": spoilt(1, -1e-9),
    "b NaN": spoilt(2, NAN),
    "b negative": spoilt(2, -0.25),
    "b -inf": spoilt(2, -INF),
    "a zero": [SOUND[0], SOUND[1] * torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None], SOUND[2]],
    "both zero": [SOUND[0], *(x * torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None] for x in SOUND[1:])],
    "totals too small": [SOUND[0], *(x * torch.tensor([1.0, 1e-292, 1.0, 1.0])[:, None] for x in SOUND[1:])],
    "totals too large": [SOUND[0], *(x * torch.tensor([1.0, 1e292, 1.0, 1.0])[:, None] for x in SOUND[1:])],
    "totals disagree": [SOUND[0], SOUND[1] * torch.tensor([1.0, 1 + 3e-4, 1.0, 1.0])[:, None], SOUND[2]],
    "totals nearly agree": [SOUND[0], SOUND[1] * torch.tensor([1.0, 1 + 3e-5, 1.0, 1.0])[:, None], SOUND[2]],
    "largest totals": [SOUND[0], *(x / x.sum(-1, keepdim=True) * 0.9e290 for x in SOUND[1:])],
    "smallest totals": [SOUND[0], *(x / x.sum(-1, keepdim=True) * 1.1e-290 for x in SOUND[1:])],
    "cost of zero weight NaN": [*spoilt(0, NAN)[:1], *(x.index_fill(-1, torch.tensor([0]), 0.0) for x in SOUND[1:])],
}


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("flaw", list(FLAWS))
def test_unsound_problems_are_found_like_on_the_cpu(flaw, dtype):
    cost, a, b = FLAWS[flaw]
    if flaw == "cost of zero weight NaN":
        b = b * (a.sum(-1) / b.sum(-1))[:, None]
    cost = cost.to(dtype)
    here = Exact()._run(build(cost, a, b, cost.shape[:1], checked=False))
    found = running.exact(MACHINE, cost, a, b)
    unsound = found.status.numpy() == INVALID
    np.testing.assert_array_equal(unsound, here.status == INVALID)
    assert bool(int(found.flag) & 1 << INVALID) == unsound.any()
    for name in ("flow", "f", "g", "value", "gap", "error"):
        values = getattr(found, name).flatten(1) if getattr(found, name).ndim > 1 else getattr(found, name)[:, None]
        np.testing.assert_array_equal(values.isnan().all(1), unsound, name)
    assert not found.rows[unsound].any()
    assert not found.cols[unsound].any()
    assert not found.n_iter[unsound].any()
    sound = ~torch.from_numpy(unsound)
    torch.testing.assert_close(found.value[sound], torch.from_numpy(here.value)[sound], rtol=1e-9, atol=0)


def test_totals_are_compared_as_far_as_asked():
    cost, a, b = SOUND
    assert (running.exact(MACHINE, cost, a, 1.5 * b).status == INVALID).all()
    found = running.exact(MACHINE, cost, a, 1.5 * b, totals_rtol=INF)
    assert not found.status.any()
    torch.testing.assert_close(found.value, running.exact(MACHINE, cost, a, b).value, rtol=1e-12, atol=0)
    assert not running.exact(MACHINE, cost, a, (1 + TOTALS_RTOL / 2) * b).status.any()


def test_costs_whose_differences_overflow_have_no_answer():
    cost, a, b = SOUND
    found = running.exact(MACHINE, (cost - 0.5) * 3.4e307 * 10, a, b)
    assert (found.status == otfew.Status.FAILED).all()
    assert int(found.flag) == 1 << otfew.Status.FAILED


@pytest.mark.parametrize("scale", [1e-305, 1e-45, 1e39, 1e305])
def test_costs_beyond_the_range_of_float32(scale):
    cost, a, b = SOUND
    found, plain = running.exact(MACHINE, cost * scale, a, b), running.exact(MACHINE, cost, a, b)
    assert not found.status.any()
    torch.testing.assert_close(found.value / scale, plain.value, rtol=1e-9, atol=0)


def test_pivots_end_at_the_limit():
    cost, a, b = suite.batch(6, 10, 25, 25, "random", "random", "random", F32)
    full = running.exact(MACHINE, cost, a, b)
    for most in (0, 3):
        found = running.exact(MACHINE, cost, a, b, max_iter=most)
        assert (found.status == otfew.Status.MAX_ITER).all()
        assert (found.n_iter == most).all()
        assert int(found.flag) == 1 << otfew.Status.MAX_ITER
        # Still a plan, and a bound that holds.
        assert (found.error < 1e-14).all()
        assert (found.value - found.gap <= full.value + 1e-12).all()
        assert (found.value > full.value).all()
    # As many as it takes are enough: the count includes all pivots.
    most = int(full.n_iter.max())
    assert not running.exact(MACHINE, cost, a, b, max_iter=most).status.any()
    assert int(running.exact(MACHINE, cost, a, b, max_iter=most - 1).status.sum()) > 0


def test_a_tolerance_saves_pivots_and_is_kept():
    cost, a, b = suite.batch(7, 10, 25, 25, "random", "random", "random", F64)
    full = running.exact(MACHINE, cost, a, b)
    found = running.exact(MACHINE, cost, a, b, tol=0.05)
    assert not found.status.any()
    assert int(found.n_iter.sum()) < 0.9 * int(full.n_iter.sum())
    spread, total = cost.amax((1, 2)) - cost.amin((1, 2)), a.sum(-1)
    assert (found.value - full.value >= -1e-12).all()
    assert (found.gap <= 1.5 * 0.05 * spread * total).all()


def test_weights_left_out_are_uniform():
    cost, a, b = SOUND
    even, half = torch.full((4, 7), 1 / 7, dtype=F64), torch.full((4, 5), 0.2, dtype=F64)
    for given_a, given_b, used_a, used_b in (
        (None, None, even, half),
        (2 * a, None, 2 * a, 2 * a.sum(-1, keepdim=True) * half),
        (None, 2 * b, 2 * b.sum(-1, keepdim=True) * even, 2 * b),
    ):
        found = running.exact(MACHINE, cost, given_a, given_b)
        assert not found.status.any()
        judge(found, cost, used_a, used_b, "uniform")
        torch.testing.assert_close(found.value, otfew.solve(cost, used_a, used_b).value, rtol=1e-12, atol=0)


def test_assignments_leave_no_trifles():
    """Uniform weights are whole units: each row goes to one column, whole."""
    for kind in ("random", "ties", "self"):
        cost, _, _ = suite.batch(8, 5, 30, 30, kind, "uniform", "uniform", F32)
        plan = running.exact(MACHINE, cost).plan(30, 30)
        assert ((plan > 0).sum(1) == 1).all()
        assert ((plan > 0).sum(2) == 1).all()


def test_a_set_against_itself_costs_nothing_for_certain():
    cost, a, _ = suite.batch(9, 5, 12, 12, "self", "random", "random", F64)
    found = running.exact(MACHINE, cost, a, a)
    assert not found.value.any()
    assert not found.gap.any()
    assert not found.status.any()


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_potentials_are_one_sided_derivatives_where_one_side_has_zeros(side):
    cost, a, b = suite.batch(11, 3, 6, 6, "random", "random", "random", F64)
    held = a if side == "rows" else b
    held[:, [1, 4]] = 0.0
    b = b * (a.sum(-1) / b.sum(-1))[:, None]
    found = running.exact(MACHINE, cost, a, b)
    grown = 1e-7
    for node in (1, 4):
        more, other = (a.clone(), b.clone()) if side == "rows" else (b.clone(), a.clone())
        more[:, node] += grown
        heavier = (more, other * (1 + grown / other.sum(-1))[:, None])
        x, y = heavier if side == "rows" else heavier[::-1]
        change = (otfew.solve(cost, x, y).value - found.value) / grown
        f, g = (found.f, found.g) if side == "rows" else (found.g, found.f)
        # The other side is rescaled to the new total: it gains in proportion.
        expected = f[:, node] + (g * other).sum(-1) / other.sum(-1)
        torch.testing.assert_close(change, expected, rtol=1e-5, atol=1e-6)


WAYS = {
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "of steps": lambda x: x.repeat_interleave(3, -1).repeat_interleave(2, -2)[..., ::2, ::3],
    "in the middle": lambda x: torch.nn.functional.pad(x, (2, 3, 1, 4))[..., 1:-4, 2:-3],
    "problems last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "backwards": lambda x: x.flip(0).contiguous().flip(0),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_costs_and_weights_are_read_where_they_lie(way):
    cost, a, b = SOUND
    moved = WAYS[way](cost), *(WAYS[way](torch.stack([x, x], 1))[:, 0] for x in (a, b))
    assert running.exact(MACHINE, *moved).bits() == running.exact(MACHINE, cost, a, b).bits()


def test_batches_broadcast_over_six_dimensions():
    cost, a, b = suite.batch(12, 6, 4, 3, "random", "random", "random", F64)
    a, b = (x / x.sum(-1, keepdim=True) for x in (a, b))
    spread = cost.reshape(3, 1, 1, 2, 1, 1, 4, 3), a.reshape(1, 2, 1, 1, 3, 1, 4), b[:2].reshape(1, 1, 1, 1, 1, 2, 3)
    found = running.exact(MACHINE, *spread)
    shape = (3, 2, 1, 2, 3, 2)
    plain = [x.expand(*shape, *own).reshape(-1, *own) for x, own in zip(spread, ((4, 3), (4,), (3,)), strict=True)]
    assert found.bits() == running.exact(MACHINE, *plain).bits()
    shared = running.exact(MACHINE, cost[0], a, b[0])
    assert shared.bits() == running.exact(MACHINE, cost[:1].expand(6, 4, 3), a, b[:1].expand(6, 3)).bits()


def test_an_answer_does_not_depend_on_its_batch():
    cost, a, b = suite.batch(13, 6, 25, 25, "random", "random", "random", F32)
    whole = running.exact(MACHINE, cost, a, b)
    order = torch.tensor([4, 2, 0, 5])
    part = running.exact(MACHINE, cost[order], a[order], b[order])
    for name in ("rows", "cols", "flow", "f", "g", "value", "gap", "error", "n_iter"):
        assert torch.equal(getattr(whole, name)[order], getattr(part, name)), name


@pytest.mark.parametrize("dtype", [F32, F64])
def test_plans_are_laid_out_times_the_gradient(dtype):
    cost, a, b = suite.batch(14, 5, 9, 33, "random", "zeros", "random", F64)
    found = running.exact(MACHINE, cost, a, b)
    grad = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], dtype=F64)
    plan = found.plan(9, 33)
    for given_grad, factors in (
        (grad, grad),
        (grad[:1].expand(5), grad[:1]),
        (None, grad[:1]),
        (grad.flip(0), grad.flip(0)),
    ):
        out = running.plan_times(MACHINE, found, given_grad, 9, 33, dtype)
        assert torch.equal(out, (plan * factors[:, None, None]).to(dtype))


def test_plans_of_unsound_problems_are_not_numbers():
    found = running.exact(MACHINE, *FLAWS["a NaN"])
    out = running.plan_times(MACHINE, found, None, 7, 5, F64)
    np.testing.assert_array_equal(out.isnan().flatten(1).any(1), [False, True, False, False])
