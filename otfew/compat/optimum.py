"""Exact transport as the other libraries' names need it: numpy in, numpy out, one call and little around it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otfew.transport.problem import INVALID, Array, Problem, Status
from otfew.transport.simplex.exact import Exact
from otfew.transport.simplex.scales import RESOLUTION

LEAST_MASS = 1e-290
"""Below this a total counts as zero, as in ``otfew.solve``."""


@dataclass(slots=True, eq=False)
class Optimum:
    """Optimal plans and potentials of a flat batch.

    Attributes:
        value: (problems,) transport costs; infinity where the forbidden pairs leave no plan.
        f: (problems, n) potentials of the rows, f_i + g_j <= cost_ij.
        g: (problems, m) potentials of the columns.
        status: (problems,) of the values of ``otfew.Status``.
        rows: (problems, arcs) rows of the arcs that may carry flow.
        cols: (problems, arcs) columns of these arcs.
        flow: (problems, arcs) what they carry.
        shape: Numbers of rows and columns (n, m).
    """

    value: Array
    f: Array
    g: Array
    status: npt.NDArray[np.int8]
    rows: npt.NDArray[np.int32]
    cols: npt.NDArray[np.int32]
    flow: Array
    shape: tuple[int, int]

    def plan(self) -> Array:
        """Lay the plans out, (problems, n, m), zero where what flows may be rounding: callers look for zeros."""
        out = np.zeros((len(self.flow), *self.shape))
        if len(out) == 1:
            flow = self.flow[0]
            kept = (flow > sum(self.shape) * RESOLUTION * np.add.reduce(flow)).nonzero()[0]
            out[0, self.rows[0, kept], self.cols[0, kept]] = self.flow[0, kept]
            return out
        trifle = sum(self.shape) * RESOLUTION * self.flow.sum(-1, keepdims=True)
        problem, arc = (self.flow > trifle).nonzero()
        out[problem, self.rows[problem, arc], self.cols[problem, arc]] = self.flow[problem, arc]
        return out

    def infeasible(self) -> npt.NDArray[np.bool_]:
        """Tell (problems,) which of them have no plan."""
        out: npt.NDArray[np.bool_] = np.isposinf(self.value)
        return out


def optimum(cost: Array, a: Array, b: Array, name: str, max_iter: int | None = None) -> Optimum:
    """Solve a flat batch in which costs and weights may be shared.

    Args:
        cost: (problems, n, m), or (1, n, m) for all; infinity forbids a pair.
        a: (problems, n), or (1, n) for all; checked, of positive total.
        b: (problems, m), or (1, m) for all; likewise, of the totals of a to within rounding.
        name: What the caller's user calls the costs.
        max_iter: Pivots a problem may take; None means no limit that a known problem reaches.

    Raises:
        ValueError: A cost is NaN or minus infinity.
    """
    cost, a, b = _plain(cost), _plain(a), _plain(b)
    size = max(len(cost), len(a), len(b))
    each = np.arange(size)
    index = [each if len(x) == size else np.zeros(size, np.int64) for x in (cost, a, b)]
    problem = Problem(cost, a, b, index[0], index[1], index[2], (size,), checked=False)
    # Mostly all ends well at once; what the solver does about all else costs more than a small problem.
    found = _solver(max_iter)._run(problem)
    if np.count_nonzero(found.status) or not np.isfinite(found.gap).all():
        if INVALID in found.status:
            return _with_forbidden(cost, a, b, name, max_iter)
        found = _solver(max_iter).solve(problem)
    return Optimum(found.value, found.f, found.g, found.status, *found.arcs, cost.shape[1:])


def _plain(array: Array) -> Array:
    """Lay out for the compiled code, which wants memory that it may write to, though it does not."""
    array = np.ascontiguousarray(array)
    return array if array.flags.writeable else array.copy()


@functools.cache
def _solver(max_iter: int | None) -> Exact:
    return Exact(max_iter=max_iter)


def _with_forbidden(cost: Array, a: Array, b: Array, name: str, max_iter: int | None) -> Optimum:
    """Solve a batch in which some cost is not finite, or a total is off by rounding."""
    bad = np.isnan(cost) | np.isneginf(cost)
    if bad.any():
        where = f" at batch index {int(np.argwhere(bad)[0, 0])}" if len(cost) > 1 else ""
        raise ValueError(f"`{name}` holds NaN or minus infinity{where}: costs are numbers, infinity forbids a pair")
    from otfew.transport.api import solve

    result = solve(cost, a, b, solver=_solver(max_iter), on_fail="ignore")
    plan = result.plan
    n, m = cost.shape[1:]
    rows, cols = np.divmod(np.arange(n * m, dtype=np.int32), np.int32(m))
    size = len(plan)
    f, g = result.potentials
    return Optimum(
        result.value, f, g, result.status, np.broadcast_to(rows, (size, n * m)), np.broadcast_to(cols, (size, n * m)),
        plan.reshape(size, n * m), (n, m),
    )  # fmt: skip


def short(found: Optimum) -> bool:
    """Tell whether any problem stopped before its optimum for lack of pivots or of digits."""
    if not np.count_nonzero(found.status):
        return False
    return bool(np.count_nonzero((found.status == Status.MAX_ITER) | (found.status == Status.FAILED)) > 0)


def partial_optimum(
    cost: Array, a: Array, b: Array, mass: float, max_iter: int | None = None
) -> tuple[Array, Array, Array, np.int8]:
    """Transport part of the mass of one problem with finite costs, as ``Exact(mass=...)`` does.

    A dummy column takes what rows keep, a dummy row gives what columns lack; both cost the least cost of the problem,
    and between them nothing flows at a price above all costs: see ``otfew.transport.partial``.

    Args:
        cost: (n, m) finite.
        a: (n,) checked.
        b: (m,) checked.
        mass: At most the smaller total.
        max_iter: As in ``optimum``.

    Returns:
        Plan (n, m), the derivatives of its cost in a (n,) and in b (m,), and its status.
    """
    n, m = cost.shape
    low, high = float(cost.min()), float(cost.max())
    total, other = float(a.sum()), float(b.sum())
    padded = np.full((n + 1, m + 1), low)
    padded[:n, :m] = cost
    padded[n, m] = high + (high - low) if high > low else low + max(abs(low), 1.0)
    rows, cols = np.append(a, max(other - mass, 0.0)), np.append(b, max(total - mass, 0.0))
    found = optimum(padded[None], rows[None], cols[None], "cost", max_iter)
    f = found.f[0, :n] + (found.g[0, m] - low)
    g = found.g[0, :m] + (found.f[0, n] - low)
    if mass >= min(total, other):
        # One more unit on the smaller side is moved, too.
        level = 2 * low - found.f[0, n] - found.g[0, m]
        f, g = (f + level, g) if total <= other else (f, g + level)
    return found.plan()[0, :n, :m], f, g, found.status[0]
