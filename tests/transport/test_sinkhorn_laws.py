"""Laws of entropic transport, and that an answer depends on nothing but its own problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otfew

REGS = [0.3, 0.02, 0.001]
every = pytest.mark.parametrize("reg", REGS)
kinds = pytest.mark.parametrize("unbalanced", [None, 0.5, (None, 0.4)], ids=str)


def run(cost, a, b, reg, unbalanced=None, **options):
    solver = otfew.Sinkhorn(reg=reg, tol=1e-12, unbalanced=unbalanced, **options)
    return otfew.solve(cost, a, b, solver=solver)


def close(actual, expected, scale=1.0):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10 * scale)


@every
@kinds
def test_order_of_rows_and_columns_does_not_matter(reg, unbalanced, batch):
    cost, a, b = batch()
    rows, cols = np.random.default_rng(1).permutation(7), np.random.default_rng(2).permutation(5)
    first = run(cost, a, b, reg, unbalanced)
    second = run(cost[:, rows][:, :, cols], a[:, rows], b[:, cols], reg, unbalanced)
    close(second.value, first.value)
    close(second.plan, first.plan[:, rows][:, :, cols])
    close(second.potentials[0], first.potentials[0][:, rows])
    close(second.potentials[1], first.potentials[1][:, cols])


@every
@pytest.mark.parametrize("unbalanced", [None, 0.5, (0.3, 0.9)], ids=str)
def test_transposition(reg, unbalanced, batch):
    cost, a, b = batch()
    turned = unbalanced[::-1] if isinstance(unbalanced, tuple) else unbalanced
    b = b if unbalanced is None else 1.7 * b
    first, second = run(cost, a, b, reg, unbalanced), run(cost.swapaxes(1, 2), b, a, reg, turned)
    close(second.value, first.value)
    close(second.plan, first.plan.swapaxes(1, 2))
    if unbalanced is not None:
        close(second.potentials[0], first.potentials[1])
        close(second.potentials[1], first.potentials[0])


@every
@pytest.mark.parametrize("factor", [1e-9, 3.0, 1e9])
def test_cost_and_reg_scale_together(reg, factor, batch):
    cost, a, b = batch()
    for unbalanced in (None, 0.5):
        first = run(cost, a, b, reg, unbalanced)
        second = run(factor * cost, a, b, factor * reg, None if unbalanced is None else factor * unbalanced)
        close(second.value, factor * first.value, factor)
        close(second.plan, first.plan)
        close(second.potentials[0], factor * first.potentials[0], factor)


@every
@kinds
@pytest.mark.parametrize("factor", [1e-9, 3.0, 1e9])
def test_everything_but_potentials_scales_with_mass(reg, unbalanced, factor, batch):
    cost, a, b = batch()
    first, second = run(cost, a, b, reg, unbalanced), run(cost, factor * a, factor * b, reg, unbalanced)
    close(second.value, factor * first.value, factor)
    close(second.value_linear, factor * first.value_linear, factor)
    close(second.plan, factor * first.plan, factor)
    close(second.potentials[0], first.potentials[0])


@every
def test_offsets_of_rows_and_columns_are_paid_in_full(reg, batch):
    cost, a, b = batch(mass=2.0)
    rng = np.random.default_rng(3)
    u, v = rng.standard_normal((6, 7)), rng.standard_normal((6, 5))
    first, second = run(cost, a, b, reg), run(cost + u[:, :, None] + v[:, None], a, b, reg)
    close(second.value, first.value + (u * a).sum(-1) + (v * b).sum(-1))
    close(second.plan, first.plan)


@every
@kinds
def test_padding_with_nodes_without_weight_changes_nothing(reg, unbalanced, batch):
    cost, a, b = batch()
    rng = np.random.default_rng(4)
    padded = np.concatenate([cost, rng.standard_normal((6, 3, 5))], 1)
    padded = np.concatenate([rng.standard_normal((6, 10, 2)), padded], 2)
    wide_a, wide_b = np.pad(a, ((0, 0), (0, 3))), np.pad(b, ((0, 0), (2, 0)))
    first, second = run(cost, a, b, reg, unbalanced), run(padded, wide_a, wide_b, reg, unbalanced)
    close(second.value, first.value)
    close(second.plan[:, :7, 2:], first.plan)
    assert (second.plan[:, 7:] == 0).all()
    assert (second.plan[:, :, :2] == 0).all()
    close(second.potentials[0][:, :7], first.potentials[0])
    close(second.potentials[1][:, 2:], first.potentials[1])
    assert np.isfinite(second.potentials[0]).all()
    assert np.isfinite(second.potentials[1]).all()


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unbalanced", [None, 0.5])
def test_an_answer_does_not_depend_on_batch_mates_or_place(reg, dtype, unbalanced, batch):
    """Ranges of costs from far below reg to far above put neighbours on every path."""
    cost, a, b = batch(size=12)
    cost = (cost * 10.0 ** np.random.default_rng(5).uniform(-2, 1, (12, 1, 1))).astype(dtype)
    solver = otfew.Sinkhorn(reg=reg, unbalanced=unbalanced)
    whole = otfew.solve(cost, a, b, solver=solver)
    order = np.random.default_rng(6).permutation(12)
    moved = otfew.solve(cost[order], a[order], b[order], solver=solver)
    atol = 1e-6 if dtype == np.float32 else 1e-9
    for k in range(12):
        one = otfew.solve(cost[k], a[k], b[k], solver=solver)
        there = int(np.flatnonzero(order == k)[0])
        assert one.n_iter == whole.n_iter[k] == moved.n_iter[there]
        for name in ("value", "value_linear", "plan"):
            x = getattr(one, name)
            np.testing.assert_allclose(getattr(whole, name)[k], x, rtol=1e-6, atol=atol)
            np.testing.assert_allclose(getattr(moved, name)[there], x, rtol=1e-6, atol=atol)


def test_the_plain_domain_is_the_same_bit_for_bit_whatever_the_threads(batch):
    cost, a, b = (torch.from_numpy(x) for x in batch(size=40, n=9, m=11))
    solver = otfew.Sinkhorn(reg=0.5)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(otfew.solve(cost, a, b, solver=solver).plan)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_broadcast_inputs(batch):
    cost, a, b = (torch.from_numpy(x) for x in batch(size=3))
    result = otfew.solve(cost[:, None], a[None, :2], b[0], solver="sinkhorn")
    assert result.plan.shape == (3, 2, 7, 5)
    for i in range(3):
        for j in range(2):
            one = otfew.solve(cost[i], a[j], b[0], solver="sinkhorn")
            torch.testing.assert_close(result.plan[i, j], one.plan)
            torch.testing.assert_close(result.value[i, j], one.value)
