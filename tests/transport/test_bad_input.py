"""Bad input is a ValueError that names the argument and the place in the batch, whatever the backend."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import otfew
from otfew.transport.registry import SOLVERS, lookup

every = pytest.mark.parametrize("solver", [name for name in SOLVERS if lookup(name).input == "dense cost"])


def spoil(array, index, value):
    spoiled = array.copy()
    spoiled[index] = value
    return spoiled


CASES = {
    "NaN in cost": (lambda c, a, b: (spoil(c, (4, 0, 1), np.nan), a, b), r"cost holds NaN .* batch index 4"),
    "-infinite cost": (lambda c, a, b: (spoil(c, (2, 3, 1), -np.inf), a, b), r"cost holds NaN or -inf at .* index 2"),
    "both infinities": (
        lambda c, a, b: (spoil(c, (slice(1, 3), 0, 0), [np.inf, -np.inf]), a, b),
        r"cost holds NaN or -inf at batch index 2",
    ),
    "negative a": (lambda c, a, b: (c, spoil(a, (3, 2), -0.1), b), r"a holds a negative weight at batch index 3"),
    "negative b": (lambda c, a, b: (c, a, spoil(b, (1, 0), -1e-9)), r"b holds a negative weight at batch index 1"),
    "NaN in a": (lambda c, a, b: (c, spoil(a, (5, 2), np.nan), b), r"a holds NaN .* batch index 5"),
    "infinity in b": (lambda c, a, b: (c, a, spoil(b, (5, 2), np.inf)), r"b holds .*infinity at batch index 5"),
    "no mass in a": (lambda c, a, b: (c, spoil(a, 2, 0), b), r"a has total weight zero at batch index 2"),
    "no mass in b": (lambda c, a, b: (c, a, spoil(b, 0, 0)), r"b has total weight zero at batch index 0"),
    "no mass in b, a missing": (lambda c, a, b: (c, None, spoil(b, 0, 0)), r"b has total weight zero at batch index 0"),
    "totals": (lambda c, a, b: (c, a, spoil(b, 4, 2 * b[4])), r"totals of a and b disagree at batch index 4: 1 and 2"),
    "totals, by little": (lambda c, a, b: (c, a * 1.0002, b), r"totals of a and b disagree at batch index 0"),
    "length of a": (lambda c, a, b: (c, a[:, :-1], b), r"a must be .*7.*got \(6, 6\)"),
    "length of b": (lambda c, a, b: (c, a, a), r"b must be .*5.*got \(6, 7\)"),
    "swapped weights": (lambda c, a, b: (c, b, a), r"a must be"),
    "batch shapes": (lambda c, a, b: (c, a[:4], b), r"batch shapes .*do not broadcast"),
    "cost without columns": (lambda c, a, b: (c[:, :, :0], a, None), r"cost must have at least one row and one column"),
    "vector as cost": (lambda c, a, b: (c[0, 0], None, None), r"cost must be \(\*batch, n, m\), got shape \(5,\)"),
    "scalar as weights": (lambda c, a, b: (c, np.array(1.0), b), r"a must be"),
    "cost as list": (lambda c, a, b: (c.tolist(), a, b), r"cost must be a torch tensor or a numpy array, got list"),
    "weights as list": (lambda c, a, b: (c, a.tolist(), b), r"a must be a torch tensor or a numpy array, got list"),
    "no cost": (lambda c, a, b: (None, a, b), r"cost must be a torch tensor or a numpy array, got NoneType|got None"),
    "integer cost": (
        lambda c, a, b: (c.astype(np.int64), a, b),
        r"cost must be float32 or float64, got (torch\.)?int64",
    ),
    "boolean weights": (lambda c, a, b: (c, a > 0, b), r"a must be float32 or float64"),
    "complex cost": (lambda c, a, b: (c.astype(complex), a, b), r"cost must be float32 or float64"),
    "objects as cost": (lambda c, a, b: (c.astype(object), a, b), r"cost must be float32 or float64"),
    "foreign byte order": (lambda c, a, b: (c.astype(">f8"), a, b), r"cost must be float32 or float64, got >f8"),
    "vanishing mass": (lambda c, a, b: (c, a * 1e-300, b * 1e-300), r"a has a total outside .* at batch index 0"),
    "overflowing mass": (lambda c, a, b: (c, a, spoil(b, 2, 1e308)), r"b has a total outside .* at batch index 2"),
    "extended precision": (lambda c, a, b: (c, a.astype(np.longdouble), b), r"a must be float32 or float64"),
}


@every
@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, solver, batch):
    change, message = CASES[case]
    with pytest.raises(ValueError, match=message) as caught:
        otfew.solve(*change(*batch()), solver=solver)
    assert "\n" not in str(caught.value)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_input_is_checked_alike(dtype, solver, batch):
    cost, a, b = (torch.from_numpy(x).to(dtype) for x in batch())
    cost[3, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="cost holds NaN or -inf at batch index 3"):
        otfew.solve(cost, a, b, solver=solver)


def test_index_in_a_batch_of_several_dimensions(batch):
    cost, a, b = batch()
    cost = spoil(cost, (4, 0, 1), np.nan).reshape(2, 3, 7, 5)
    with pytest.raises(ValueError, match=r"cost holds NaN or -inf at batch index \(1, 1\)"):
        otfew.solve(cost, a.reshape(2, 3, 7), b.reshape(2, 3, 5))


def test_one_problem_has_no_batch_index(batch):
    cost, a, b = batch()
    with pytest.raises(ValueError, match=r"^a holds a negative weight$"):
        otfew.solve(cost[0], -a[0], b[0])


def test_costs_of_any_finite_size_pass(batch):
    """A sum that overflows is not yet a bad cost."""
    cost, a, b = batch()
    largest = float(np.finfo(np.float32).max)
    result = otfew.solve((cost * largest / 2).astype(np.float32), a, b)
    np.testing.assert_allclose(result.value, otfew.solve(cost, a, b).value * largest / 2, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-280, 1e280])
def test_masses_of_extreme_size_are_solved(scale, batch):
    cost, a, b = batch()
    found = otfew.solve(cost, a * scale, b * scale)
    np.testing.assert_allclose(found.value / scale, otfew.solve(cost, a, b).value, rtol=1e-13)


def test_validate_false_looks_at_no_values(batch):
    cost, a, b = batch()
    expected = otfew.solve(cost, a, b).value
    found = otfew.solve(cost, a, 2 * b, validate=False).value
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="a must be"):
        otfew.solve(cost, b, a, validate=False)


# The kernel of ``exact`` looks at each problem as it comes to it; nothing of a batch with a bad one is handed back.
@pytest.mark.parametrize("solver", [name for name in SOLVERS if lookup(name).input == "dense cost" and name != "exact"])
def test_one_bad_problem_is_found_before_any_work(solver, batch, monkeypatch):
    def work(*_):
        raise AssertionError("solved")

    for name in ("solve", "solve_rounded"):
        if hasattr(lookup(solver), name):
            monkeypatch.setattr(lookup(solver), name, work)
    cost, a, b = batch()
    with pytest.raises(AssertionError, match="solved"):
        otfew.solve(cost, a, b, solver=solver)
    with pytest.raises(ValueError, match="b holds a negative weight at batch index 0"):
        otfew.solve(cost, a, spoil(b, (0, 0), -1), solver=solver)


def test_unknown_solver_offers_the_nearest_name(batch):
    names = ", ".join(SOLVERS)
    with pytest.raises(ValueError, match=rf"unknown solver 'exakt'; did you mean 'exact'\?.*{names}"):
        otfew.solve(*batch(), solver="exakt")
    with pytest.raises(ValueError, match=rf"unknown solver 'qqq'.*{names}"):
        otfew.solve(*batch(), solver="qqq")


def test_solver_that_is_neither_name_nor_solver(batch):
    with pytest.raises(TypeError, match=r"solver must be a name or a solver such as otfew\.Exact\(\)"):
        otfew.solve(*batch(), solver=3)


def test_missing_library_is_named_with_its_remedy(batch, monkeypatch):
    monkeypatch.setattr(otfew.POT, "requires", "no_such_module_at_all")
    with pytest.raises(ImportError, match=r"solver 'pot' needs no_such_module_at_all: pip install"):
        otfew.solve(*batch(), solver="pot")


OPTIONS = [
    (otfew.POT, {"max_iter": 0}, r"^POT: max_iter must be an integer of at least 1, got 0$"),
    (otfew.SciPy, {"method": "simplex"}, r"^SciPy: method must be one of highs, highs-ds, highs-ipm, got 'simplex'$"),
    (otfew.POTSinkhorn, {"reg": 0.0}, r"^POTSinkhorn: reg must be positive and finite, got 0\.0$"),
    (otfew.POTSinkhorn, {"reg": float("nan")}, r"^POTSinkhorn: reg must be"),
    (otfew.POTSinkhorn, {"method": "greenkhorn"}, r"^POTSinkhorn: method must be one of .*, got 'greenkhorn'$"),
    (otfew.POTSinkhorn, {"tol": 0.0}, r"^POTSinkhorn: tol must be between 0 and 1, got 0\.0$"),
    (otfew.POTSinkhorn, {"max_iter": 0}, r"^POTSinkhorn: max_iter must be an integer of at least 1, got 0$"),
    (otfew.QPTH, {"form": "LP"}, r"^QPTH: form must be 'L2' or 'QP', got 'LP'$"),
    (otfew.QPTH, {"reg": 0.0}, r"^QPTH: reg must be positive and finite, got 0\.0$"),
    (otfew.QPTH, {"max_iter": 0}, r"^QPTH: max_iter must be an integer of at least 1, got 0$"),
    (otfew.QPTH, {"tol": -1.0}, r"^QPTH: tol must be between 0 and 1, got -1\.0$"),
]


@pytest.mark.parametrize(
    ("options", "message"), [(lambda k=kind, o=options: k(**o), m) for kind, options, m in OPTIONS]
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        options()


def test_solvers_are_frozen_options():
    solver = otfew.Exact(threads=2)
    assert solver == otfew.Exact(threads=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        solver.threads = 3


def test_a_column_of_pandas_is_told_its_way_in():
    pandas = pytest.importorskip("pandas")
    weights = pandas.Series([0.5, 0.5])
    with pytest.raises(ValueError, match=r"^a must be .*, got Series: call its \.to_numpy\(\) first$"):
        otfew.solve(np.eye(2), weights)
    with pytest.raises(ValueError, match=r"^`a` must be .*, got Series: call its \.to_numpy\(\) first$"):
        otfew.emd2(weights, [], np.eye(2))
    assert otfew.solve(np.eye(2), weights.to_numpy()).value == 0
