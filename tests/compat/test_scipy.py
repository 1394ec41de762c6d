"""``linear_sum_assignment`` promises what SciPy's does, and takes batches."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from scipy import optimize

from otfew.compat.scipy import linear_sum_assignment


def total(cost, answer):
    return np.asarray(cost)[answer].sum()


def assert_an_assignment(cost, answer):
    """Rows in order, each row and column once, as many as there are of the fewer."""
    rows, columns = answer
    assert type(rows) is type(columns) is np.ndarray
    assert rows.dtype == columns.dtype == np.int64
    assert rows.shape == columns.shape == (min(np.shape(cost)),)
    assert (np.diff(rows) > 0).all()
    assert len(set(columns)) == len(columns)


def test_arguments():
    ours = [(x.name, x.default) for x in inspect.signature(linear_sum_assignment).parameters.values()]
    assert ours == [("cost_matrix", inspect.Parameter.empty), ("maximize", False)]


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("kind", ["float", "float32", "integers", "truth", "ties", "negative", "infinite"])
def test_totals_are_scipys(kind, maximize):
    rng = np.random.default_rng(0)
    for _ in range(60):
        n, m = rng.integers(1, 12, 2)
        cost = rng.standard_normal((n, m))
        if kind == "integers":
            cost = rng.integers(-1000, 1000, (n, m))
        elif kind == "float32":
            cost = cost.astype(np.float32)
        elif kind == "truth":
            cost = cost > 0
        elif kind == "ties":
            cost = np.round(cost)
        elif kind == "negative":
            cost = cost - 1e6
        elif kind == "infinite":
            cost[rng.random((n, m)) < 0.4] = -np.inf if maximize else np.inf
        given = cost.copy()
        given.flags.writeable = False
        try:
            expected = optimize.linear_sum_assignment(cost, maximize)
        except ValueError as error:
            with pytest.raises(ValueError, match=f"^{error}"):
                linear_sum_assignment(given, maximize)
            continue
        answer = linear_sum_assignment(given, maximize)
        assert_an_assignment(cost, answer)
        assert total(cost, answer) == pytest.approx(total(cost, expected), rel=1e-12)


@pytest.mark.parametrize("shape", [(150, 150), (3, 200), (200, 40)])
def test_larger_problems(shape):
    cost = np.random.default_rng(1).random(shape)
    answer = linear_sum_assignment(cost)
    assert_an_assignment(cost, answer)
    expected = optimize.linear_sum_assignment(cost)
    np.testing.assert_array_equal(answer, expected)


def test_what_may_be_given():
    cost = [[4, 1, 3], [2, 0, 5], [3, 2, 2]]
    for given in (cost, np.array(cost), np.array(cost, np.float16), np.asfortranarray(cost)):
        np.testing.assert_array_equal(linear_sum_assignment(given), [[0, 1, 2], [1, 0, 2]])
    for dtype in (torch.float64, torch.bfloat16, torch.int32):
        rows, columns = linear_sum_assignment(torch.tensor(cost, dtype=dtype))
        assert isinstance(rows, torch.Tensor)
        assert rows.tolist() == [0, 1, 2]
        assert columns.tolist() == [1, 0, 2]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_nothing_to_assign(shape):
    rows, columns = linear_sum_assignment(np.empty(shape))
    assert rows.shape == columns.shape == (0,)


def test_constant_costs_are_assigned_their_diagonal():
    np.testing.assert_array_equal(linear_sum_assignment(np.ones((8, 8))), [range(8)] * 2)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (7, 2)])
def test_batches_are_their_problems(shape, maximize):
    rng = np.random.default_rng(2)
    cost = rng.random((2, 5, *shape))
    cost[1, 1] = 3
    cost[0, 2][rng.random(shape) < 0.2] = -np.inf if maximize else np.inf
    rows, columns = linear_sum_assignment(cost, maximize)
    assert rows.shape == columns.shape == (2, 5, min(shape))
    for k in np.ndindex(2, 5):
        one = linear_sum_assignment(cost[k], maximize)
        np.testing.assert_array_equal((rows[k], columns[k]), one)
        assert total(cost[k], one) == pytest.approx(total(cost[k], optimize.linear_sum_assignment(cost[k], maximize)))
    assert linear_sum_assignment(cost[:0])[0].shape == (0, 5, min(shape))
    tensors = linear_sum_assignment(torch.tensor(cost), maximize)
    np.testing.assert_array_equal(tensors[1].numpy(), columns)


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        ([1, 2, 3], ValueError, "expected a matrix"),
        ([["a", "b"]], TypeError, "Cannot cast array data of `cost_matrix`"),
        ([[1 + 1j]], TypeError, "Cannot cast array data"),
        ([[np.nan, 1.0]], ValueError, "matrix contains invalid numeric entries: `cost_matrix`"),
        ([[-np.inf, 1.0]], ValueError, "matrix contains invalid numeric entries"),
        ([[np.inf, 1.0], [np.inf, 1.0]], ValueError, "cost matrix is infeasible: `cost_matrix`"),
        ([[[0.0]], [[np.inf]]], ValueError, "cost matrix is infeasible.* at batch index 1"),
        ([[[[0.0]], [[0.0]]], [[[0.0]], [[np.nan]]]], ValueError, r"invalid numeric entries.* at batch index \(1, 1\)"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_bad_input_is_one_sentence(cost, error, message):
    with pytest.raises(error, match=message) as caught:
        linear_sum_assignment(cost)
    assert "\n" not in str(caught.value)


def test_sparse_costs_are_refused():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(ValueError, match="expected a matrix"):
        linear_sum_assignment(sparse.coo_array(np.eye(3)))
