"""Results by problem, device, dtype and arc."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import otfew
from otfew.transport import api, points, precision, result

SOLVERS = {
    "exact": otfew.Exact(),
    "partial": otfew.Exact(mass="min"),
    "sinkhorn": otfew.Sinkhorn(),
    "rounded": otfew.Sinkhorn(round=True),
    "unbalanced": otfew.Sinkhorn(unbalanced=1.0),
    "scipy": otfew.SciPy(),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS)
FIELDS = ["value", "value_linear", "gap", "marginal_error", "status", "n_iter"]
FLOATS = ["value", "value_linear", "gap", "marginal_error"]


def draw(*batch, n=7, m=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    cost, a, b = (torch.rand(*batch, *sides, generator=generator) for sides in ((n, m), (n,), (m,)))
    a, b = a + 0.05, b + 0.05
    return cost.to(dtype), (a / a.sum(-1, keepdim=True)).to(dtype), (b / b.sum(-1, keepdim=True)).to(dtype)


def same(found, expected):
    for field in FIELDS:
        torch.testing.assert_close(getattr(found, field), getattr(expected, field), rtol=0, atol=0)
    for one, other in zip((found.plan, *found.potentials), (expected.plan, *expected.potentials), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


class Part:
    """What a result of some of the problems should hold: every field, indexed."""

    def __init__(self, whole, key):
        for field in (*FIELDS, "plan"):
            setattr(self, field, getattr(whole, field)[key])
        self.potentials = tuple(x[key] for x in whole.potentials)


KEYS = {
    "one": (1,),
    "last": (-1,),
    "two": (1, 2),
    "negative": (-1, -3),
    "slice": (slice(None, None, 2),),
    "slices": (slice(1, None), slice(-2, None)),
    "backwards": (slice(None, None, -1),),
    "dots": (0, ...),
    "list": ([1, 0, 1],),
    "pairs": (np.array([0, 1]), np.array([2, 0])),
    "none of them": (slice(0, 0),),
}


@every_solver
@pytest.mark.parametrize("key", KEYS)
def test_an_index_chooses_as_it_does_in_an_array(solver, key):
    whole = otfew.solve(*draw(2, 3), solver=SOLVERS[solver])
    key = KEYS[key] if len(KEYS[key]) > 1 else KEYS[key][0]
    expected = Part(whole, key if key != slice(None, None, -1) else [1, 0])
    same(whole[key], expected)


@pytest.mark.parametrize("as_array", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_masks_choose(as_array):
    whole = otfew.solve(*draw(2, 3))
    whole_mask = as_array([[True, False, True], [False, False, True]])
    same(whole[whole_mask], Part(whole, ([0, 0, 1], [0, 2, 2])))
    same(whole[as_array([False, True])], Part(whole, [1]))
    same(whole[whole.status == 0], Part(whole, ([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2])))


def test_indices_of_indices_and_what_is_chosen_once_more():
    whole = otfew.solve(*draw(4, 3))
    same(whole[1:][::2][1][2], Part(whole, (3, 2)))
    same(whole[1][::-1], Part(whole, (1, [2, 1, 0])))
    same(copy.copy(whole)[2], Part(whole, 2))
    same(pickle.loads(pickle.dumps(whole[2])), Part(whole, 2))
    same(pickle.loads(pickle.dumps(whole))[2], Part(whole, 2))


def test_arrays_stay_arrays():
    whole = otfew.solve(*(x.numpy() for x in draw(4)))
    assert type(whole[2].value) is np.ndarray
    assert whole[2].value.shape == ()
    assert whole[2].value == whole.value[2]
    np.testing.assert_array_equal(whole[1:].plan, whole.plan[1:])
    np.testing.assert_array_equal(
        whole[whole.value > np.median(whole.value)].value, whole.value[whole.value > np.median(whole.value)]
    )


def test_points_are_chosen_with_their_plans():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(4, n, 3, generator=generator, dtype=torch.float64) for n in (6, 5))
    v = torch.rand(4, 5, 2, generator=generator, dtype=torch.float64)
    for solver in (otfew.KeOps(backend="torch"), otfew.Exact()):
        whole = otfew.solve_points(x, y, solver=solver)
        part = whole[[3, 1]]
        torch.testing.assert_close(part.plan @ v[[3, 1]], (whole.plan @ v)[[3, 1]])
        torch.testing.assert_close(part.plan.dense(), whole.plan.dense()[[3, 1]])
        torch.testing.assert_close(part.value_linear, whole.value_linear[[3, 1]])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (6, r"result\[6\] does not fit the batch shape \(2, 3\)"),
        ((0, 3), r"result\[0, 3\] does not fit"),
        ((0, 0, 0), r"result\[0, 0, 0\] does not fit"),
        (0.5, r"result\[0\.5\] does not fit"),
        (torch.ones(5, dtype=torch.bool), r"result\[array of shape \(5,\) and type torch\.bool\] does not fit"),
    ],
)
def test_what_does_not_fit_is_said(key, said):
    with pytest.raises(IndexError, match=said):
        otfew.solve(*draw(2, 3))[key]


def test_length_and_iteration():
    whole = otfew.solve(*draw(2, 3))
    assert len(whole) == 2
    assert [len(row) for row in whole] == [3, 3]
    torch.testing.assert_close(torch.stack([one.value for row in whole for one in row]), whole.value.flatten())
    nothing, one = otfew.solve(*draw(0)), otfew.solve(*draw())
    assert (len(nothing), list(nothing), bool(nothing)) == (0, [], True)
    same(one[()], one)
    same(one[...], one)
    assert bool(one)
    for wrong in (lambda: len(one), lambda: list(one)):
        with pytest.raises(TypeError, match="one problem without a batch"):
            wrong()
    with pytest.raises(IndexError, match="one problem without a batch"):
        one[0]


def test_only_chosen_plans_are_laid_out(monkeypatch):
    sizes, lay_out = [], result.dense_arcs
    monkeypatch.setattr(
        result, "dense_arcs", lambda arcs, shape, *rest: sizes.append(shape) or lay_out(arcs, shape, *rest)
    )
    whole = otfew.solve(*draw(50))
    assert whole[7].plan.shape == (7, 5)
    assert sizes == [(1, 7, 5)]


@every_solver
def test_gradients_go_through_an_index(solver):
    cost, a, b = (x.requires_grad_() for x in draw(4))
    chosen = otfew.solve(cost, a, b, solver=SOLVERS[solver])[[2, 0]]
    found = torch.autograd.grad((chosen.value * torch.tensor([2.0, 3.0])).sum(), (cost, a, b))
    whole = otfew.solve(cost, a, b, solver=SOLVERS[solver])
    expected = torch.autograd.grad(3 * whole.value[0] + 2 * whole.value[2], (cost, a, b))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_detached_results_hold_no_graph():
    cost = draw(4)[0].requires_grad_()
    for solver in ("exact", otfew.Sinkhorn()):
        result = otfew.solve(cost, solver=solver)
        plain = result.detach()
        assert result.value.requires_grad
        assert not any(x.requires_grad for x in (plain.value, plain.value_linear, plain.plan, plain.potentials[0]))
        torch.testing.assert_close(plain.value, result.value.detach())


@every_solver
def test_a_dtype_is_given_to_all_but_counts(solver):
    whole = otfew.solve(*draw(4), solver=SOLVERS[solver])
    narrow = whole.to(torch.float32)
    for field in FLOATS:
        torch.testing.assert_close(getattr(narrow, field), getattr(whole, field).float(), rtol=0, atol=0)
    torch.testing.assert_close(narrow.plan, whole.plan.float(), rtol=1e-6, atol=1e-9)
    assert {x.dtype for x in (narrow.plan, *narrow.potentials, narrow.plan_sparse.mass)} == {torch.float32}
    assert (narrow.status.dtype, narrow.n_iter.dtype) == (torch.int8, torch.int64)
    assert whole.cpu().value.dtype == torch.float64


@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
def test_moving_leads_gradients_back(pretended, solver):
    cost, a, b = (x.requires_grad_() for x in draw(4))
    with pretended() as machine:
        there = [machine.away(x.detach()).requires_grad_() for x in (cost, a, b)]
        home = otfew.solve(*there, solver=solver).cpu()
        assert {x.device.type for x in (home.value, home.plan, *home.potentials, home.plan_sparse.mass)} == {"cpu"}
        home.value.sum().backward()
        found = [machine.home(x.grad) for x in there]
    expected = otfew.solve(cost, a, b, solver=solver)
    # Within Sinkhorn's tolerance: kernels of a device do not extrapolate.
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(home.value, expected.value, **close)
    torch.testing.assert_close(home.plan, expected.plan, **close)
    for one, other in zip(found, torch.autograd.grad(expected.value.sum(), (cost, a, b)), strict=True):
        torch.testing.assert_close(one, other, **close)


def test_arrays_cannot_be_moved():
    result = otfew.solve(draw(4)[0].numpy())
    assert type(result.to("cpu").value) is np.ndarray
    with pytest.raises(ValueError, match="numpy arrays cannot be moved to meta"):
        result.to("meta")
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        result.to(torch.float16)


# Arcs


def laid_out(arcs, shape):
    plan = np.zeros(shape)
    rows, columns, mass = (np.asarray(x) for x in arcs)
    for index in np.ndindex(mass.shape):
        where = (*index[:-1], rows[index], columns[index])
        # No pair is named twice with mass.
        assert mass[index] == 0 or plan[where] == 0
        plan[where] += mass[index]
    return plan


@every_solver
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_arcs_make_the_plan(solver, batch):
    result = otfew.solve(*draw(*batch), solver=SOLVERS[solver])
    arcs = result.plan_sparse
    assert (arcs.rows.dtype, arcs.columns.dtype, arcs.mass.dtype) == (torch.int64, torch.int64, torch.float64)
    np.testing.assert_allclose(laid_out(arcs, result.plan.shape), result.plan, rtol=1e-15)
    if solver in ("exact", "scipy"):
        assert arcs.mass.shape[-1] <= 7 + 5 - 1


def test_arcs_of_zero_weights_carry_nothing():
    cost, a, b = draw(3)
    a[1, 2:] = 0
    a = a / a.sum(-1, keepdim=True)
    result = otfew.solve(*(x.numpy() for x in (cost, a, b)))
    assert type(result.plan_sparse.rows) is np.ndarray
    np.testing.assert_allclose(laid_out(result.plan_sparse, (3, 7, 5)), result.plan, rtol=1e-15)
    np.testing.assert_allclose(result.plan_sparse.mass.sum(-1), 1)


def test_arcs_of_a_large_plan_take_no_matrix(monkeypatch):
    result = otfew.solve(draw(2, n=40, m=30)[0].float())
    monkeypatch.setattr("otfew.transport.result.dense_arcs", None)
    assert result.plan_sparse.mass.shape == (2, 69)
    # Not rounded to the dtype of the cost.
    torch.testing.assert_close(result.plan_sparse.mass.sum(-1), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-15)


def test_mass_has_the_graph_of_the_plan():
    cost = draw(2)[0].requires_grad_()
    result = otfew.solve(cost, solver=otfew.Sinkhorn())
    rows, columns, mass = result.plan_sparse
    weights = torch.rand(2, 7, 5, dtype=torch.float64)
    picked = torch.stack([weights[k][rows[k], columns[k]] for k in range(2)])
    (found,) = torch.autograd.grad((mass * picked).sum(), cost, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad((result.plan * weights).sum(), cost)[0])


def test_an_operator_has_no_arcs():
    x = torch.rand(2, 6, 3)
    with pytest.raises(ValueError, match=r"operator that spreads over all pairs .* plan @ v"):
        _ = otfew.solve_points(x, x, solver=otfew.KeOps(backend="torch")).plan_sparse
    assert otfew.solve_points(x, x, solver="exact").plan_sparse.rows.shape == (2, 6 + 6 - 1)


# The dtype of the value


@every_solver
@pytest.mark.parametrize("dtype", [torch.float32, np.float32, "float32"], ids=str)
def test_a_value_of_another_dtype_is_rounded(solver, dtype):
    problem = draw(4)
    wide, narrow = (otfew.solve(*problem, solver=SOLVERS[solver], dtype=d) for d in (None, dtype))
    for field in FLOATS:
        assert getattr(narrow, field).dtype == torch.float32
        torch.testing.assert_close(getattr(narrow, field), getattr(wide, field).float(), rtol=0, atol=0)
    assert narrow.plan.dtype == torch.float64
    assert narrow.plan_sparse.mass.dtype == torch.float32
    arrays = otfew.solve(*(x.numpy() for x in problem), solver=SOLVERS[solver], dtype=dtype)
    assert (arrays.value.dtype, arrays.gap.dtype) == (np.float32, np.float32)


@every_solver
def test_gradients_do_not_depend_on_the_dtype_of_the_value(solver):
    leaves = [x.requires_grad_() for x in draw(4)]
    factor = torch.tensor([1.0, 2.0, 4.0, 8.0])
    gradients = []
    for dtype in (torch.float64, torch.float32):
        value = otfew.solve(*leaves, solver=SOLVERS[solver], dtype=dtype).value
        gradients.append(torch.autograd.grad((value * factor.to(dtype)).sum(), leaves))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_values_of_points_are_rounded():
    x, y = (torch.rand(2, n, 3, dtype=torch.float64) for n in (5, 4))
    for solver in (otfew.KeOps(backend="torch"), otfew.Exact()):
        wide, narrow = (otfew.solve_points(x, y, solver=solver, dtype=dtype) for dtype in (None, torch.float32))
        torch.testing.assert_close(narrow.value, wide.value.float())
        torch.testing.assert_close(narrow.gap, wide.gap.float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, np.int8, "wide", 3])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="dtype must be float32 or float64, of torch or numpy"):
        otfew.solve(np.eye(2), dtype=dtype)


@pytest.fixture
def without_doubles(pretended, monkeypatch):
    """Pretend a device that has no float64, as MPS."""
    narrow = frozenset({"meta"})
    for module in (api, points, precision, result):
        monkeypatch.setattr(module, "WITHOUT_DOUBLES", narrow)

    def no_double(tensors):
        assert not any(x.dtype == torch.float64 for x in tensors)

    return pretended, no_double


@pytest.mark.parametrize("name", ["exact", "sinkhorn", "partial", "unbalanced"])
def test_a_device_without_float64(without_doubles, name):
    pretended, no_double = without_doubles
    here = [x.requires_grad_() for x in draw(4, dtype=torch.float32)]
    expected = otfew.solve(*here, solver=SOLVERS[name])
    slopes = torch.autograd.grad(expected.value.sum(), here)
    with pretended() as machine:
        there = [machine.away(x.detach()).requires_grad_() for x in here]
        result = otfew.solve(*there, solver=SOLVERS[name])
        parts = [getattr(result, field) for field in FIELDS] + [result.plan, *result.potentials, *result.plan_sparse]
        no_double(parts)
        assert {x.device.type for x in parts} == {"meta"}
        result.value.sum().backward()
        found = [machine.home(x.grad) for x in there]
        values = machine.home(result.value)
        with pytest.raises(ValueError, match="dtype float64 does not exist on"):
            otfew.solve(*there, dtype=torch.float64)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, expected.value.float())
    for one, other in zip(found, slopes, strict=True):
        torch.testing.assert_close(one, other)


def test_points_on_a_device_without_float64(without_doubles):
    pretended, no_double = without_doubles
    x, y = (torch.rand(2, n, 3) for n in (5, 4))
    for solver in (otfew.KeOps(backend="torch"), otfew.Exact()):
        expected = otfew.solve_points(x, y, solver=solver)
        with pretended() as machine:
            result = otfew.solve_points(machine.away(x), machine.away(y), solver=solver)
            no_double([result.value, result.gap, *result.potentials])
            torch.testing.assert_close(machine.home(result.value), expected.value.float())
            product = result.plan @ torch.ones(2, 4)
            product = machine.home(product) if product.device.type == "meta" else product
            torch.testing.assert_close(product, expected.plan @ torch.ones(2, 4))


# What is written of a result


def test_repr_counts_how_problems_ended():
    cost, a, b = draw(5)
    text = "OTResult(batch=(5,), n=7, m=5, solver='exact', optimal 5)"
    assert repr(otfew.solve(cost, a, b)) == repr(otfew.solve(cost, a, b, on_fail="ignore")) == text
    stopped = otfew.solve(cost, a, b, solver=otfew.Exact(max_iter=1), on_fail="ignore")
    ended = [int((stopped.status == k).sum()) for k in (0, 1)]
    assert ended[1] > 0
    counts = ", ".join(f"{name} {count}" for name, count in zip(("optimal", "max_iter"), ended, strict=True) if count)
    assert repr(stopped) == f"OTResult(batch=(5,), n=7, m=5, solver='exact', {counts})"
    assert repr(stopped[stopped.status == 1]).endswith(f"solver='exact', max_iter {ended[1]})")
    assert repr(otfew.solve(cost[:0])).endswith("solver='exact')")


def test_repr_does_not_wait_for_a_device(pretended):
    with pretended() as machine:
        there = [machine.away(x) for x in draw(4)]
        for policy, counted in (("raise", True), ("ignore", False)):
            for solver in ("exact", "sinkhorn"):
                found = otfew.solve(*there, solver=solver, on_fail=policy, validate=policy != "ignore")
                machine.clear()
                assert ("optimal 4" in repr(found)) == counted
                assert machine.waits == 0
