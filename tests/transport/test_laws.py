"""Laws of transport, and that an answer depends on nothing but its own problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otfew

SOLVERS = ["exact", "pot", "scipy"]
every = pytest.mark.parametrize("solver", SOLVERS)
TOLERANCE = {"exact": 1e-14, "pot": 1e-13, "scipy": 1e-9}


def value(cost, a, b, solver):
    return np.asarray(otfew.solve(cost, a, b, solver=solver).value)


def close(actual, expected, solver, scale=1.0):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[solver] * scale)


def same_bits(first, second):
    """Compare every tensor of two results bit for bit."""
    for name in ("value", "plan", "gap", "marginal_error", "status", "n_iter"):
        x, y = np.asarray(getattr(first, name)), np.asarray(getattr(second, name))
        assert x.tobytes() == y.tobytes(), name
    for x, y in zip(first.potentials, second.potentials, strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


class Row:
    """Problem k of a result, with the fields that ``same_bits`` compares."""

    def __init__(self, result, k):
        for name in ("value", "plan", "gap", "marginal_error", "status", "n_iter"):
            setattr(self, name, getattr(result, name)[k])
        self.potentials = tuple(p[k] for p in result.potentials)


@every
def test_order_of_rows_and_columns_does_not_matter(solver, batch):
    cost, a, b = batch()
    rows, cols = np.random.default_rng(1).permutation(7), np.random.default_rng(2).permutation(5)
    first = otfew.solve(cost, a, b, solver=solver)
    second = otfew.solve(cost[:, rows][:, :, cols], a[:, rows], b[:, cols], solver=solver)
    close(second.value, first.value, solver)
    # In general position plan and potentials are unique, so they move along.
    close(second.plan, first.plan[:, rows][:, :, cols], solver, 10)
    close(second.potentials[0], first.potentials[0][:, rows], solver, 100)
    close(second.potentials[1], first.potentials[1][:, cols], solver, 100)


@every
@pytest.mark.parametrize("factor", [1e-9, 3.0, 1e9])
def test_value_is_homogeneous_in_cost_and_in_mass(solver, factor, batch):
    cost, a, b = batch()
    expected = factor * value(cost, a, b, solver)
    close(value(factor * cost, a, b, solver), expected, solver, factor)
    close(value(cost, factor * a, factor * b, solver), expected, solver, factor)


@every
def test_potentials_and_plan_scale_with_cost_and_mass(solver, batch):
    cost, a, b = batch()
    first, second = otfew.solve(cost, a, b, solver=solver), otfew.solve(5 * cost, 3 * a, 3 * b, solver=solver)
    close(second.plan, 3 * first.plan, solver, 10)
    close(second.potentials[0], 5 * first.potentials[0], solver, 100)
    close(second.gap, 15 * first.gap, solver, 100)


@every
def test_offsets_of_rows_and_columns_are_paid_in_full(solver, batch):
    cost, a, b = batch(mass=2.0)
    rng = np.random.default_rng(3)
    u, v = rng.standard_normal((6, 7)), rng.standard_normal((6, 5))
    expected = value(cost, a, b, solver) + (u * a).sum(-1) + (v * b).sum(-1)
    close(value(cost + u[:, :, None] + v[:, None], a, b, solver), expected, solver, 10)


@every
def test_transposition(solver, batch):
    cost, a, b = batch()
    first, second = otfew.solve(cost, a, b, solver=solver), otfew.solve(cost.swapaxes(1, 2), b, a, solver=solver)
    close(second.value, first.value, solver)
    close(second.plan, first.plan.swapaxes(1, 2), solver, 10)


@every
def test_padding_with_nodes_without_weight_changes_nothing(solver, batch):
    cost, a, b = batch()
    rng = np.random.default_rng(4)
    padded = np.concatenate([cost, rng.standard_normal((6, 3, 5))], 1)
    padded = np.concatenate([rng.standard_normal((6, 10, 2)), padded], 2)
    wide_a, wide_b = np.pad(a, ((0, 0), (0, 3))), np.pad(b, ((0, 0), (2, 0)))
    first, second = otfew.solve(cost, a, b, solver=solver), otfew.solve(padded, wide_a, wide_b, solver=solver)
    close(second.value, first.value, solver)
    close(second.plan[:, :7, 2:], first.plan, solver, 10)
    assert (second.plan[:, 7:] == 0).all()
    assert (second.plan[:, :, :2] == 0).all()
    f, g = second.potentials
    assert (f[:, :, None] + g[:, None] <= padded + 1e-12).all()


@every
def test_triangle_inequality_and_symmetry(solver):
    rng = np.random.default_rng(5)
    points, (a, b, c) = rng.standard_normal((8, 2)), rng.dirichlet(np.ones(8), 3)
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    ab, ba, bc, ac = (value(distance, *pair, solver) for pair in ((a, b), (b, a), (b, c), (a, c)))
    close(ab, ba, solver, 10)
    assert ac <= ab + bc + 1e-9


@every
def test_a_batch_is_its_problems_one_by_one_bit_for_bit(solver, batch):
    cost, a, b = batch(size=9)
    whole = otfew.solve(cost, a, b, solver=solver)
    for k in range(9):
        same_bits(Row(whole, k), otfew.solve(cost[k], a[k], b[k], solver=solver))


@every
def test_order_of_the_batch_does_not_matter_bit_for_bit(solver, batch):
    cost, a, b = batch(size=9)
    order = np.random.default_rng(6).permutation(9)
    whole = otfew.solve(cost, a, b, solver=solver)
    shuffled = otfew.solve(cost[order], a[order], b[order], solver=solver)
    for k, source in enumerate(order):
        same_bits(Row(shuffled, k), Row(whole, source))


@pytest.mark.parametrize("threads", [2, 3, 100])
@pytest.mark.parametrize("size", [1, 2, 7, 200])
def test_number_of_threads_does_not_matter_bit_for_bit(threads, size, batch):
    problem = batch(size=size, n=12, m=9)
    same_bits(
        otfew.solve(*problem, solver=otfew.Exact(threads=1)), otfew.solve(*problem, solver=otfew.Exact(threads=threads))
    )


def test_batch_mates_of_very_different_difficulty_do_not_matter_bit_for_bit(batch):
    cost, a, b = batch(size=40, n=12, m=9)
    whole = otfew.solve(cost, a, b)
    spoiled = cost.copy()
    spoiled[::2] *= 1e12
    spoiled[1::4] = 0
    mixed = otfew.solve(spoiled, a, b)
    for k in range(3, 40, 4):
        same_bits(Row(mixed, k), Row(whole, k))


def layouts():
    """Name views of one cost (6, 7, 5), all equal in value, each laid out in another way."""
    base = np.random.default_rng(7).random((6, 7, 5))
    tensor = torch.from_numpy(base)
    wide = torch.zeros(12, 7, 15, dtype=torch.float64)
    wide[::2, :, ::3] = tensor
    read_only = base.copy()
    read_only.flags.writeable = False
    return {
        "torch": tensor,
        "torch needing gradients": tensor.clone().requires_grad_(),
        "strided": wide[::2, :, ::3],
        "transposed": tensor.mT.contiguous().mT,
        "batch last": tensor.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        "numpy": base,
        "numpy read-only": read_only,
        "numpy Fortran order": np.asfortranarray(base),
        "numpy reversed": np.ascontiguousarray(base[::-1, :, ::-1])[::-1, :, ::-1],
    }


@every
@pytest.mark.parametrize("layout", layouts())
def test_memory_layout_does_not_matter(solver, layout, batch):
    _, a, b = batch()
    cost = layouts()[layout]
    expected = otfew.solve(layouts()["numpy"], a, b, solver=solver)
    result = otfew.solve(cost, a, b, solver=solver)
    kind = np.ndarray if layout.startswith("numpy") else torch.Tensor
    for found in (result.value, result.plan, result.gap, result.marginal_error, result.status, *result.potentials):
        assert isinstance(found, kind)
    found = result.value.detach() if kind is torch.Tensor else result.value
    np.testing.assert_array_equal(np.asarray(found), expected.value)
    np.testing.assert_array_equal(np.asarray(result.plan), expected.plan)


@every
def test_memory_layout_of_weights_does_not_matter(solver, batch):
    cost, a, b = batch()
    expected = value(cost, a, b, solver)
    np.testing.assert_array_equal(value(cost, np.asfortranarray(a), np.repeat(b, 2, 1)[:, ::2], solver), expected)
    np.testing.assert_array_equal(value(cost, a[::-1].copy()[::-1], torch.from_numpy(b.T.copy()).T, solver), expected)
    shared = torch.from_numpy(a[0]).expand(6, 7)
    np.testing.assert_array_equal(value(cost, shared, b, solver), value(cost, np.tile(a[0], (6, 1)), b, solver))
    constant = torch.tensor(1 / 7, dtype=torch.float64).expand(7)
    np.testing.assert_array_equal(value(cost, constant, b, solver), value(cost, np.full(7, 1 / 7), b, solver))


@every
def test_batch_dimensions_broadcast(solver):
    rng = np.random.default_rng(8)
    cost, a, b = rng.random((5, 1, 4, 3)), rng.dirichlet(np.ones(4), (5, 7)), rng.dirichlet(np.ones(3))
    result = otfew.solve(cost, a, b, solver=solver)
    assert result.value.shape == result.gap.shape == result.status.shape == (5, 7)
    assert result.plan.shape == (5, 7, 4, 3)
    assert [p.shape for p in result.potentials] == [(5, 7, 4), (5, 7, 3)]
    for i in range(5):
        for j in range(7):
            assert result.value[i, j] == value(cost[i, 0], a[i, j], b, solver)
    # Weights alone may carry the batch, with fewer or more dimensions than the cost.
    assert value(cost[0, 0], a, b, solver).shape == (5, 7)
    assert value(cost, a[0], b, solver).shape == (5, 7)
    np.testing.assert_array_equal(value(cost, a[0], b, solver)[2, 3], value(cost[2, 0], a[0, 3], b, solver))
    expanded = torch.from_numpy(cost).expand(5, 7, 4, 3)
    np.testing.assert_array_equal(value(expanded, a, b, solver), result.value)


@every
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2)])
def test_an_empty_batch_has_empty_answers(solver, shape):
    cost = torch.zeros(*shape, 4, 3)
    result = otfew.solve(cost, None, torch.ones(3), solver=solver)
    assert result.value.shape == result.gap.shape == result.n_iter.shape == shape
    assert result.plan.shape == (*shape, 4, 3)
    assert [p.shape for p in result.potentials] == [(*shape, 4), (*shape, 3)]


@every
def test_missing_weights_are_uniform_with_the_other_sides_total(solver, batch):
    cost, a, b = batch(mass=2.5)
    ones_a, ones_b = np.ones((6, 7)), np.ones((6, 5))
    close(value(cost, None, None, solver), value(cost, ones_a / 7, ones_b / 5, solver), solver)
    close(value(cost, a, None, solver), value(cost, a, ones_b / 5 * 2.5, solver), solver)
    close(value(cost, None, b, solver), value(cost, ones_a / 7 * 2.5, b, solver), solver)


@every
def test_totals_that_nearly_agree_are_made_to_agree(solver, batch):
    cost, a, b = batch()
    expected = value(cost, a, b, solver)
    close(value(cost, a, b * (1 + 9e-5), solver), expected, solver, 10)
    close(value(cost, a * (1 + 9e-5), b, solver), expected * (1 + 9e-5), solver, 10)
    close(otfew.solve(cost, a, b * 1.01, solver=solver, validate=False).value, expected, solver, 10)


@every
def test_float32_inputs_are_solved_in_float64(solver, batch):
    """The answer for float32 numbers is that for the same numbers in float64; certificates are not rounded."""
    cost, a, b = (x.astype(np.float32) for x in batch())
    single = otfew.solve(cost, a, b, solver=solver)
    double = otfew.solve(*(x.astype(np.float64) for x in (cost, a, b)), solver=solver)
    assert single.plan.dtype == single.potentials[0].dtype == single.potentials[1].dtype == np.float32
    for name in ("value", "value_linear", "gap", "marginal_error"):
        assert getattr(single, name).dtype == np.float64
        np.testing.assert_array_equal(getattr(single, name), getattr(double, name))
    np.testing.assert_array_equal(single.plan, double.plan.astype(np.float32))


def test_dtype_of_the_plan_is_that_of_the_cost(batch):
    cost, a, b = batch()
    assert otfew.solve(cost.astype(np.float32), a, b).plan.dtype == np.float32
    assert otfew.solve(cost, a.astype(np.float32), b.astype(np.float32)).plan.dtype == np.float64
    assert otfew.solve(torch.from_numpy(cost).float(), a, b).plan.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_of_a_cuda_cost_live_there(batch):
    cost, a, b = (torch.from_numpy(x).cuda() for x in batch())
    cost.requires_grad_()
    result = otfew.solve(cost, a, b)
    result.value.sum().backward()
    assert {x.device.type for x in (result.value, result.plan, result.gap, cost.grad, *result.potentials)} == {"cuda"}
    torch.testing.assert_close(cost.grad, result.plan)


def test_value_linear_is_the_value_of_exact_solvers(batch):
    result = otfew.solve(*batch())
    np.testing.assert_array_equal(result.value_linear, result.value)


def test_inputs_are_left_as_they_were(batch):
    problem = batch()
    copies = [x.copy() for x in problem]
    otfew.solve(*problem)
    for given, copy in zip(problem, copies, strict=True):
        np.testing.assert_array_equal(given, copy)


def test_repr_names_size_and_solver(batch):
    assert repr(otfew.solve(*batch())) == "OTResult(batch=(6,), n=7, m=5, solver='exact', optimal 6)"
