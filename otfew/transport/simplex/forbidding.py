"""Forbidden pairs, costs of +inf, for solvers that know finite costs alone: what to put there, and what to mend.

Of a cost high enough, floor + min(n, m) (most - floor), no optimal plan uses a pair unless every plan does (see
``scales``). Potentials, though, may lie as far apart as that cost: where rows and columns hang together by forbidden
pairs alone, each part's potentials may be shifted. They are drawn together until an allowed pair is tight, which makes
them one-sided derivatives of the value; parts that no allowed pair joins get the gauge of a problem of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otfew.transport.certificate import dual_value, missed, rounding
from otfew.transport.forbidden import ROUNDINGS, feasibility
from otfew.transport.problem import Array, Problem, Solution, Status
from otfew.transport.simplex.mending import fill, mend_all, survey
from otfew.transport.simplex.scales import MARGIN, RESOLUTION

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

TIGHT = 1e-12
"""Slack, relative to how far forbidden pairs are from the least cost, of pairs that are as good as tight."""


@dataclass(slots=True, eq=False)
class Filled:
    """Costs with something finite in place of +inf.

    Attributes:
        cost: (costs, n, m), float64 where float32 could not hold it.
        room: (costs,) how far forbidden pairs lie above the least cost.
        kind: (costs,) int8, of ``mending``: ``FINITE``, ``FORBIDS`` some pairs, ``UNSOUND`` with NaN or -inf.
    """

    cost: Floats
    room: Array
    kind: npt.NDArray[np.int8]

    @classmethod
    def of(cls, cost: Floats) -> Filled:
        """Fill costs (costs, n, m); those of the kind ``UNSOUND`` stay so."""
        size, n, m = cost.shape
        low, high, kind = np.empty(size), np.empty(size), np.empty(size, np.int8)
        survey(cost, low, high, kind)
        low, high = np.where(low < np.inf, low, 0.0), np.where(high > -np.inf, high, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            room = MARGIN * min(n, m) * (high - low)
            # Where allowed pairs cost the same, or as good as that, anything clearly above will do.
            size_of_costs = np.maximum(np.abs(low), np.abs(high))
            size_of_costs = np.where(size_of_costs > 0, size_of_costs, 1.0)
            room = np.where(room > 1e-6 * size_of_costs, room, room + size_of_costs)
            top = low + room
            narrow = cost.dtype == np.float32 and (top <= np.finfo(np.float32).max).all()
            out = np.empty(cost.shape, np.float32 if narrow else np.float64)
            fill(cost, top.astype(out.dtype), out)
        return cls(out, room, kind)


def mend(cost: Floats, cost_index: npt.NDArray[np.int64], a: Array, b: Array, room: Array, f: Array, g: Array) -> Bools:
    """Draw potentials of problems with forbidden pairs together, in place.

    Args:
        cost: (costs, n, m), +inf where a pair is forbidden.
        cost_index: (problems,) the cost of each.
        a: (problems, n).
        b: (problems, m), of the totals of a.
        room: (problems,) how far above the least cost a forbidden pair was for who found the potentials.
        f: (problems, n), feasible for allowed pairs and tight where the plan has mass.
        g: (problems, m).

    Returns:
        Which problems' (problems,) potentials of nodes with mass have changed.
    """
    least = RESOLUTION / 2 * a.sum(-1, keepdims=True)
    moved = np.empty(len(cost_index), np.bool_)
    mend_all(cost, cost_index, a > least, b > least, b, TIGHT * room, f, g, moved)
    return moved


def finish(problem: Problem, found: Solution, room: Array) -> None:
    """Judge solutions for filled costs as those of problems with forbidden pairs, in place.

    Args:
        problem: The problems, +inf where a pair is forbidden.
        found: Their plans as arcs, and potentials, for costs that were filled.
        room: (problems,) how far above the least cost forbidden pairs were.
    """
    a, b = problem.a[problem.a_index], problem.b[problem.b_index]
    total = a.sum(-1)
    b = b * (total / b.sum(-1))[:, None]
    moved = mend(problem.cost, problem.cost_index, a, b, room, found.f, found.g)
    rows, cols, flow = found.arcs
    price = problem.cost[problem.cost_index[:, None], rows, cols]
    astray = np.where(np.isinf(price), flow, 0.0).sum(-1)
    bad = np.flatnonzero(astray > 0)
    if len(bad):
        _drop(problem, found, bad, astray[bad], (a[bad], b[bad]), price[bad])
        moved[bad] |= found.status[bad] != Status.INFEASIBLE
    moved &= found.status != Status.INFEASIBLE
    if moved.any():
        cost = problem.cost[problem.cost_index[moved]].astype(np.float64)
        a, b, f, g = a[moved], b[moved], found.f[moved], found.g[moved]
        # What little mass is missing could at most be paid for by these potentials.
        lacking = missed(rows[moved], cols[moved], flow[moved], a, b)
        unpaid = (np.concatenate([np.abs(f), np.abs(g)], -1) * lacking).sum(-1)
        found.gap[moved] = found.value[moved] - dual_value(a, b, f, g) + rounding(cost, a, b, f, g) + unpaid


def _drop(
    problem: Problem,
    found: Solution,
    bad: npt.NDArray[np.intp],
    astray: Array,
    weights: tuple[Array, Array],
    price: Floats,
) -> None:
    """Take mass off forbidden pairs, and say of which problems no plan can do without them."""
    a, b = weights
    total = a.sum(-1)
    rows, cols, flow = found.arcs
    flow[bad] = np.where(np.isinf(price), 0.0, flow[bad])
    found.value[bad] = (flow[bad] * np.where(np.isinf(price), 0.0, price)).sum(-1)
    found.marginal_error[bad] = missed(rows[bad], cols[bad], flow[bad], a, b).max(-1) / total
    proof = feasibility(np.isfinite(problem.cost[problem.cost_index[bad]]), a, b, problem.rounding)
    # What weights that balance but for rounding leave is no more than this.
    hidden = (2 * ROUNDINGS * problem.rounding + sum(problem.shape) * RESOLUTION) * total
    found.status[bad[(astray > hidden) & (found.status[bad] == Status.OPTIMAL)]] = Status.FAILED
    if not proof.infeasible.any():
        return
    unserved = bad[proof.infeasible]
    found.status[unserved] = Status.INFEASIBLE
    found.value[unserved], found.gap[unserved], found.marginal_error[unserved] = np.inf, np.nan, np.nan
    flow[unserved] = found.f[unserved] = found.g[unserved] = 0.0
    rows[unserved] = cols[unserved] = 0
    if found.cut is None:
        found.cut = np.zeros_like(found.f, np.bool_), np.zeros_like(found.g, np.bool_)
    found.cut[0][unserved], found.cut[1][unserved] = proof.rows[proof.infeasible], proof.columns[proof.infeasible]
