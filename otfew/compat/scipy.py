"""``scipy.optimize.linear_sum_assignment`` on otfew's exact solver: SciPy's arguments, answers, errors; and batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.compat.optimum import Optimum, optimum, short
from otfew.transport.errors import ConvergenceError
from otfew.transport.problem import Array

Indices = npt.NDArray[np.int64]


def linear_sum_assignment(cost_matrix: Any, maximize: bool = False) -> tuple[Any, Any]:
    """Assign rows to columns, each at most once, at the least total cost, as SciPy's function of this name does.

    Args:
        cost_matrix: (n, m) numbers or truth values, numpy, torch or lists; infinity forbids a pair. Beyond SciPy,
            (*batch, n, m).
        maximize: Look for the greatest total; then minus infinity forbids a pair.

    Returns:
        Rows, in order, and their columns: each (min(n, m),), or (*batch, min(n, m)), int64; tensors on the device of a
        tensor, else numpy arrays.

    Raises:
        ValueError: Not a matrix; NaN, or an infinity of the wrong sign ("matrix contains invalid numeric entries"); no
            assignment of all rows or all columns without forbidden pairs ("cost matrix is infeasible").
        TypeError: It holds no real numbers.
        ConvergenceError: Costs that differ by more digits than float64 has.

    Examples:
        >>> linear_sum_assignment([[4, 1, 3], [2, 0, 5], [3, 2, 2]])
        (array([0, 1, 2]), array([1, 0, 2]))
    """
    cost = _read(cost_matrix)
    if maximize:
        cost = -cost
    batch, (n, m) = cost.shape[:-2], cost.shape[-2:]
    flat = cost.reshape(int(np.prod(batch)), n, m)
    columns = _columns(flat if n <= m else flat.transpose(0, 2, 1), batch)
    if n <= m:
        rows = np.broadcast_to(np.arange(n), columns.shape).copy()
    else:
        # What was assigned are rows, one to each column: put them into order.
        order = columns.argsort(-1)
        rows, columns = np.take_along_axis(columns, order, -1), order
    answer = (rows.reshape(*batch, min(n, m)), columns.reshape(*batch, min(n, m)))
    if isinstance(cost_matrix, Tensor):
        first, second = (torch.from_numpy(x).to(cost_matrix.device) for x in answer)
        return first, second
    return answer


def _read(given: Any) -> Array:
    """Read numbers as float64, as SciPy does."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.dtype in (torch.float16, torch.bfloat16) else given).numpy()
    elif hasattr(given, "tocoo"):
        raise ValueError("expected a matrix (2-D array) as `cost_matrix`, got a sparse one: call its .toarray() first")
    array = np.asarray(given)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"Cannot cast array data of `cost_matrix` from {array.dtype} to float64: give real numbers")
    if array.ndim < 2:
        raise ValueError(f"expected a matrix (2-D array) as `cost_matrix`, or (*batch, n, m), got {array.ndim} axes")
    return np.asarray(array, np.float64)


def _columns(cost: Array, batch: tuple[int, ...]) -> Indices:
    """Assign each row of (problems, n, m), n <= m, its column: (problems, n).

    The basic solutions of this transport problem are whole numbers (its matrix is totally unimodular); a dummy row
    takes the columns that are left over, at no cost.
    """
    size, n, m = cost.shape
    if not cost.size:
        return np.zeros((size, n), np.int64)
    low, high = cost.min((1, 2)), cost.max((1, 2))
    # Comparisons with NaN are false, and a NaN is its matrix's minimum.
    bad = ~(low > -np.inf)
    if bad.any():
        raise ValueError(
            "matrix contains invalid numeric entries: `cost_matrix` holds NaN or an infinity that forbids "
            f"nothing{_where(bad, batch)}"
        )
    a = np.ones((1, n))
    if n < m:
        cost = np.concatenate([cost, np.zeros((size, 1, m))], 1)
        a = np.append(a, m - n)[None]
    found = optimum(cost, a, np.ones((1, m)), "cost_matrix")
    impossible = found.infeasible()
    if np.count_nonzero(impossible):
        raise ValueError(
            f"cost matrix is infeasible: `cost_matrix` forbids every assignment{_where(impossible, batch)}"
        )
    if short(found):
        raise ConvergenceError("`cost_matrix` holds numbers that differ by too many digits to be told apart")
    columns = _assigned(found, n)
    # Where all assignments cost the same, SciPy's is the first.
    columns[low == high] = np.arange(n)
    return columns


def _assigned(found: Optimum, n: int) -> Indices:
    """Read the column of each of the first n rows off the plans."""
    out = np.zeros((len(found.flow), n), np.int64)
    problem, arc = ((found.flow > 0.5) & (found.rows < n)).nonzero()
    out[problem, found.rows[problem, arc]] = found.cols[problem, arc]
    return out


def _where(bad: npt.NDArray[np.bool_], batch: tuple[int, ...]) -> str:
    """Name the first bad problem of a batch."""
    if not batch:
        return ""
    index = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), batch))
    return f" at batch index {index[0] if len(index) == 1 else index}"
