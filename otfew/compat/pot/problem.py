"""Weights and costs as ``emd`` and ``emd2`` are given them, checked and laid out for the solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from otfew.compat.optimum import Optimum, optimum, short
from otfew.compat.pot.arrays import (
    TOTALS,
    Like,
    MarginalError,
    checked_totals,
    is_empty,
    like_of,
    same_library,
    to_numpy,
)
from otfew.compat.pot.sparse import SparseCost, sparse_cost
from otfew.transport.complaints import warn
from otfew.transport.problem import Array

UNLIMITED = 100_000
"""POT's limit of pivots where none is asked for. Ours are counted otherwise: from here on there is no limit."""

OPTIMAL, INFEASIBLE, STOPPED = 1, 0, 3
"""What POT calls the ends of a problem."""

MESSAGES = {
    INFEASIBLE: "Problem infeasible: the pairs that may carry mass cannot serve all of a and b",
    STOPPED: "numItermax reached before optimality: raise numItermax",
}


@dataclass(slots=True, eq=False)
class Histograms:
    """A batch of problems.

    Attributes:
        cost: (problems, n, m) float64, or (1, n, m) for all.
        a: (problems, n) float64, or (1, n) for all.
        b: (problems, m) float64, likewise, of the totals of a.
        like: What answers take the kind of.
        batch: Batch shape that the flat index unfolds to; empty for one problem.
        columns: Whether the problems are the columns of b.
        sparse: The pattern of sparse costs.
    """

    cost: Array
    a: Array
    b: Array
    like: Like
    batch: tuple[int, ...]
    columns: bool
    sparse: SparseCost | None

    def solve(self, limit: int) -> Optimum:
        """Solve all, and warn as POT does where a problem has no plan or ran out of pivots.

        Args:
            limit: ``numItermax``.
        """
        if isinstance(limit, bool) or limit != int(limit) or limit < 0:
            raise ValueError(f"`numItermax` must be a whole number from 0 on, got {limit!r}")
        found = optimum(self.cost, self.a, self.b, "M", int(limit) if 0 < limit < UNLIMITED else None)
        if np.count_nonzero(found.status):
            if found.infeasible().any():
                warn(MESSAGES[INFEASIBLE], UserWarning)
            if short(found):
                warn(MESSAGES[STOPPED], UserWarning)
        return found

    def code(self, found: Optimum, k: int) -> int:
        """Name the end of problem k as POT does."""
        if np.isposinf(found.value[k]):
            return INFEASIBLE
        return OPTIMAL if found.status[k] == 0 else STOPPED


def read(a: Any, b: Any, M: Any, check_marginals: bool, columns: bool = False) -> Histograms:
    """Check and lay out.

    Args:
        a: (n,) weights, empty or None for uniform ones; (*batch, n) for a batch of costs.
        b: (m,), (*batch, m), or (m, problems) where ``columns`` allows many histograms for one M.
        M: (n, m) costs, dense or sparse, or (*batch, n, m).
        check_marginals: Refuse totals that differ in the sixth decimal.
        columns: Whether b may hold many histograms.

    Raises:
        MarginalError: Weights do not fit M or each other.
        ValueError: Arguments of two libraries, or not of numbers.
    """
    a, b = ([] if x is None else x for x in (a, b))
    sparse = sparse_cost(M)
    tensors = same_library(a=a, b=b, M=M if sparse is None else sparse.values)
    like = like_of(tensors, (a, b), M if sparse is None else sparse.values)
    cost = to_numpy("M", M) if sparse is None else sparse.dense()
    if cost.ndim < 2 or 0 in cost.shape:
        raise ValueError(f"`M` must be (n, m), or (*batch, n, m), with at least one row and column, got {cost.shape}")
    n, m = cost.shape[-2:]
    batch = cost.shape[:-2]
    rows = _weights("a", a, n, batch)
    columns = columns and not batch and (np.ndim(b) if isinstance(b, list | tuple) else b.ndim) == 2
    if columns:
        cols = to_numpy("b", b).T
        if cols.shape[-1] != m or not len(cols):
            raise MarginalError(f"`b` must be ({m},) or ({m}, histograms) to fit M {(n, m)}, got {np.shape(b)}")
        batch = (len(cols),)
    else:
        cols = _weights("b", b, m, batch)
    total, other = checked_totals("a", rows), checked_totals("b", cols)
    if check_marginals and np.maximum.reduce(abs(total - other), None) >= TOTALS:
        k = int(abs(total - other).argmax())
        sums = " and ".join(f"{x.flat[k if x.size > 1 else 0]:.9g}" for x in (total, other))
        raise MarginalError(
            f"`a` and `b` must have the same sum, got {sums}: normalise them, or pass check_marginals=False"
        )
    flat = cost.reshape(-1, n, m) if cost.ndim > 2 else cost[None]
    return Histograms(flat, _flat(rows), _flat(cols * (total / other)), like, batch, columns, sparse)


def _weights(name: str, given: Any, size: int, batch: tuple[int, ...]) -> Array:
    """Read weights (size,), or (*batch, size), uniform where there are none."""
    if is_empty(given):
        return np.full(size, 1 / size)
    weights = to_numpy(name, given)
    if weights.shape not in ((size,), (*batch, size)):
        wanted = f"({size},)" + (f" or {(*batch, size)}" if batch else "")
        raise MarginalError(f"`{name}` must be {wanted} to fit M, got {weights.shape}")
    return weights


def _flat(weights: Array) -> Array:
    return weights[None] if weights.ndim == 1 else weights.reshape(-1, weights.shape[-1])


def tell_of_integers(like: Like) -> None:
    """Warn that answers are cut to whole numbers, as POT does and says."""
    if not like.floating:
        warn(
            "the weights are integers, and POT casts answers to their type: fractions of plan and cost are lost; "
            "give floating point weights",
            UserWarning,
        )


def tell_of_threads(threads: Any) -> None:
    """Warn as POT does of ``numThreads``, which does nothing.

    Raises:
        ValueError: Neither a positive whole number nor "max".
    """
    if threads != "max" and (not isinstance(threads, int | np.integer) or isinstance(threads, bool) or threads < 1):
        raise ValueError(f'`numThreads` must be "max" or a positive whole number, got {threads!r}')
    if threads != 1:
        warn("`numThreads` does nothing and is deprecated: one problem runs in one thread", DeprecationWarning)


def check_start(potentials: Any, n: int, m: int) -> None:
    """Refuse ``potentials_init`` of wrong shapes; else they are not needed: the optimum does not depend on them.

    Raises:
        ValueError: Not a pair, or of other sizes.
    """
    if potentials is None:
        return
    if len(potentials) != 2 or np.shape(potentials[0])[-1:] != (n,) or np.shape(potentials[1])[-1:] != (m,):
        raise ValueError(f"`potentials_init` must be a pair of arrays ({n},) and ({m},)")


def uses_graph(*given: Any) -> bool:
    """Tell whether any argument takes part in autograd."""
    return any(isinstance(x, Tensor) and x.requires_grad for x in given)
