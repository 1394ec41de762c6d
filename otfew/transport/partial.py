"""Transport of only part of the mass, exactly, by dummy nodes that take what stays behind.

A dummy column takes the mass that rows keep, a dummy row sends what columns lack. Arcs to a dummy cost the least cost
of the problem; between the dummies nothing may flow. Let L(M) be the least cost of transporting M: it is convex with
L(0) = 0, so one more unit costs at least L(M) / M, which is no less than the least cost; hence any price above that
keeps the arc between the dummies empty. (The usual price is a number much larger than all costs, which costs digits.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from otfew.transport.certificate import EPS, dual_value, rounding
from otfew.transport.problem import Array, Problem, Solution, Status

Mass = float | Literal["min"]


def transported(a: Array, b: Array, mass: Mass, batch: tuple[int, ...]) -> Array:
    """Mass to transport (problems,).

    Args:
        a: (problems, n).
        b: (problems, m).
        mass: As in ``Exact``.
        batch: Shape that the problems unfold to.

    Raises:
        ValueError: There is less on one side; names the batch index.
    """
    least: Array = np.minimum(a.sum(-1), b.sum(-1))
    if mass == "min":
        return least
    short = np.flatnonzero(mass > least * (1 + 1e-9))
    if len(short):
        index = tuple(int(i) for i in np.unravel_index(short[0], batch)) if batch else ()
        where = f" at batch index {index[0] if len(index) == 1 else index}" if index else ""
        raise ValueError(
            f"mass {mass:.6g} is more than the smaller total of a and b{where}, {least[short[0]]:.6g}; "
            "transport less, or mass='min'"
        )
    moved: Array = np.minimum(mass, least)
    return moved


def with_dummies(problem: Problem, mass: Mass) -> tuple[Problem, Array]:
    """Add the dummy row and column to every problem; also returns the mass to transport (problems,)."""
    a, b = problem.a[problem.a_index], problem.b[problem.b_index]
    moved = transported(a, b, mass, problem.batch)
    kept, lacking = (np.maximum(weights.sum(-1) - moved, 0) for weights in (a, b))
    low, high = _extremes(problem.cost)
    padded = np.pad(problem.cost, ((0, 0), (0, 1), (0, 1)))
    padded[:, -1] = padded[:, :, -1] = low[:, None]
    padded[:, -1, -1] = np.where(high > low, high + (high - low), low + np.maximum(np.abs(low), 1))
    each = np.arange(len(problem))
    extended = replace(
        problem,
        cost=padded,
        a=np.concatenate([a, lacking[:, None]], -1),
        b=np.concatenate([b, kept[:, None]], -1),
        a_index=each,
        b_index=each,
    )
    return extended, moved


def without_dummies(problem: Problem, found: Solution, moved: Array, mass: Mass) -> Solution:
    """Take the dummies out of a solution and certify what is left.

    With the dual of "row sums at most a, column sums at most b, total M": f <= 0, g <= 0 and a level such that
    f_i + g_j + level <= cost_ij. The potentials returned are the derivatives of the value in a and b; if the mass is
    that of the smaller side, the level counts there.
    """
    n, m = problem.shape
    a, b = problem.a[problem.a_index], problem.b[problem.b_index]
    rows, cols, flow = found.arcs
    real = (rows < n) & (cols < m)
    rows, cols, flow = np.where(real, rows, 0), np.where(real, cols, 0), np.where(real, flow, 0.0)
    price = problem.cost[problem.cost_index[:, None], rows, cols]
    value = (flow * np.where(flow > 0, price, 0)).sum(-1)
    free = _extremes(problem.cost)[0][problem.cost_index].astype(np.float64)[:, None]
    f = found.f[:, :n] + found.g[:, m:] - free
    g = found.g[:, :m] + found.f[:, n:] - free
    level = 2 * free - found.f[:, n:] - found.g[:, m:]
    dual = dual_value(a, b, f, g) + level[:, 0] * moved
    cost = problem.cost[problem.cost_index].astype(np.float64)
    # Potentials above zero count for no more than the weights that they could be paid for.
    above = dual_value(a, b, np.maximum(f, 0), np.maximum(g, 0))
    sizes = dual_value(a, b, np.abs(f), np.abs(g)) + np.abs(level[:, 0]) * moved
    hidden = above + rounding(cost, a, b, f + level, g) + EPS * (n + m + 16) * sizes
    if mass == "min":
        smaller = (a.sum(-1) <= b.sum(-1))[:, None]
        f, g = f + np.where(smaller, level, 0), g + np.where(smaller, 0, level)
    sums = np.zeros((len(problem), n + m))
    each = np.arange(len(problem))[:, None]
    np.add.at(sums, (each, rows), flow)
    np.add.at(sums, (each, n + cols), flow)
    over = np.maximum(sums - np.concatenate([a, b], -1), 0).max(-1)
    error = np.maximum(over, np.abs(flow.sum(-1) - moved)) / moved
    rest = replace(
        found, value=value, f=f, g=g, gap=value - dual + hidden, marginal_error=error, rows=rows, cols=cols, flow=flow,
        balanced=False,
    )  # fmt: skip
    unserved = found.status == Status.INFEASIBLE
    if found.cut is not None:
        rest.cut = found.cut[0][:, :n], found.cut[1][:, :m]
        rest.f[unserved] = rest.g[unserved] = 0.0
        rest.value[unserved], rest.gap[unserved], rest.marginal_error[unserved] = np.inf, np.nan, np.nan
    return rest


def _extremes(cost: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Least and largest cost (costs,) of allowed pairs; zero where there are none."""
    low, high = cost.min((-2, -1)), cost.max((-2, -1))
    # NaN is the caller's to find.
    if np.isposinf(high).any():
        high = cost.max((-2, -1), where=~np.isposinf(cost), initial=-np.inf)
        none = np.isposinf(low)
        low, high = np.where(none, 0, low), np.where(none, 0, high)
    return low, high
