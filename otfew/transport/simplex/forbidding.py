"""Forbidden pairs, costs of +inf, for solvers that know finite costs alone: what to put there, and what to mend.

Of a cost high enough, floor + min(n, m) (most - floor), no optimal plan uses a pair unless every plan does (see
``scales``). Potentials, though, may lie as far apart as that cost: where rows and columns hang together by forbidden
pairs alone, each part's potentials may be shifted. They are drawn together until an allowed pair is tight, which makes
them one-sided derivatives of the value; parts that no allowed pair joins get the gauge of a problem of their own.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.transport.certificate import dual_value, missed, rounding
from otfew.transport.forbidden import ROUNDINGS, feasibility
from otfew.transport.problem import Array, Problem, Solution, Status
from otfew.transport.simplex.mending import fill, mend_all, survey
from otfew.transport.simplex.scales import MARGIN, NEAR, RESOLUTION, SAME

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

TIGHT = 1e-12
"""Slack, relative to how far forbidden pairs are from the least cost, of pairs that are as good as tight."""


@dataclass(slots=True, eq=False)
class Survey:
    """What is found of costs.

    Attributes:
        cost: (costs, n, m), +inf where a pair is forbidden.
        low: (costs,) the least finite cost.
        near: (costs,) how far above it forbidden pairs are tried first.
        far: (costs,) how far above it no optimal plan uses them, unless every plan does.
        kind: (costs,) int8, of ``mending``: ``FINITE``, ``FORBIDS`` some pairs, ``UNSOUND`` with NaN or -inf.
    """

    cost: Floats
    low: Array
    near: Array
    far: Array
    kind: npt.NDArray[np.int8]

    @classmethod
    def of(cls, cost: Floats) -> Survey:
        """Look at costs (costs, n, m)."""
        size, n, m = cost.shape
        low, high, kind = np.empty(size), np.empty(size), np.empty(size, np.int8)
        survey(cost, low, high, kind)
        low, high = np.where(low < np.inf, low, 0.0), np.where(high > -np.inf, high, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            spread = high - low
            # Where allowed pairs cost the same, or as good as that, anything clearly above will do.
            least = np.maximum(np.abs(low), np.abs(high))
            least = SAME * np.where(least > 0, least, 1.0)
            near, far = (np.maximum(factor * spread, least) for factor in (NEAR, MARGIN * min(n, m)))
        return cls(cost, low, near, far, kind)

    def filled(self, room: Array, index: npt.NDArray[np.intp] | None = None) -> Floats:
        """Put something finite in place of +inf, in float64 where float32 could not hold it.

        Args:
            room: (some,) how far above the least cost.
            index: (some,) of which costs; by default of all.
        """
        cost, low = (self.cost, self.low) if index is None else (self.cost[index], self.low[index])
        with np.errstate(over="ignore", invalid="ignore"):
            top = low + room
            narrow = cost.dtype == np.float32 and (top <= np.finfo(np.float32).max).all()
            out = _room(cost.shape, np.dtype(np.float32 if narrow else np.float64))
            fill(cost, top.astype(out.dtype), out)
        return out


_KEPT = 2**23
"""Bytes that a thread keeps for filled costs: on fresh memory a system spends more time than filling it takes."""

_kept = threading.local()


def _room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Floats:
    """Memory for filled costs, of which a thread needs one at a time; nothing that is handed out holds it."""
    size = math.prod(shape)
    if size * dtype.itemsize > _KEPT:
        return np.empty(shape, dtype)
    if not hasattr(_kept, "memory"):
        _kept.memory = np.empty(_KEPT, np.uint8)
    memory: Floats = _kept.memory[: size * dtype.itemsize].view(dtype).reshape(shape)
    return memory


JOINED, LOOSE, ASSIGNED = 0, 1, 2
"""How potentials hang together: by tight allowed pairs; perhaps not; those of an assignment problem, which never do."""


@dataclass(slots=True, eq=False)
class Mended:
    """Which problems' potentials of nodes with mass have changed, and what they prove now; each (problems,).

    Attributes:
        moved: Whether they have; where not, the others hold nothing.
        dual: The dual value.
        hidden: What rounding hides of it at most.
    """

    moved: Bools
    dual: Array
    hidden: Array


def mend(
    cost: Floats,
    cost_index: npt.NDArray[np.int64],
    a: Array,
    b: Array,
    far: Array,
    f: Array,
    g: Array,
    loose: npt.NDArray[np.int8] | None = None,
) -> Mended:
    """Draw potentials of problems with forbidden pairs together, in place.

    Args:
        cost: (costs, n, m), +inf where a pair is forbidden.
        cost_index: (problems,) the cost of each.
        a: (problems, n).
        b: (problems, m), of the totals of a.
        far: (problems,) how far above the least cost a forbidden pair was at most for who found the potentials.
        f: (problems, n), feasible for allowed pairs and tight where the plan has mass.
        g: (problems, m).
        loose: (problems,) ``JOINED``, ``LOOSE`` or ``ASSIGNED``; by default all are ``LOOSE``.
    """
    size = len(cost_index)
    least = RESOLUTION / 2 * a.sum(-1, keepdims=True)
    loose = np.full(size, LOOSE, np.int8) if loose is None else loose
    done = Mended(np.empty(size, np.bool_), np.zeros(size), np.zeros(size))
    # Nodes that allowed pairs join are no further apart than this.
    reach = far / MARGIN
    mend_all(
        cost, cost_index, a > least, b > least, a, b, TIGHT * far, loose, reach,
        f, g, done.moved, done.dual, done.hidden,
    )  # fmt: skip
    return done


def solved(problem: Problem, seen: Survey, way: Callable[[Problem], Solution]) -> Solution:
    """Solve problems with forbidden pairs.

    Args:
        problem: The problems, of the costs that were surveyed.
        seen: Their costs.
        way: Solves them for finite costs; plans are kept as arcs.
    """
    found = way(replace(problem, cost=seen.filled(seen.near)))
    price = _prices(problem, found)
    used = np.flatnonzero((np.isinf(price) & (found.arcs[2] > 0)).any(-1))
    if len(used):
        costs, index = np.unique(problem.cost_index[used], return_inverse=True)
        part = replace(problem.part(used), cost=seen.filled(seen.far[costs], costs), cost_index=index)
        again = way(part)
        again.n_iter += found.n_iter[used]
        found.put(used, again)
        price[used] = _prices(problem.part(used), again)
    _finish(problem, found, seen.far[problem.cost_index], price)
    return found


def _prices(problem: Problem, found: Solution) -> Floats:
    """Costs (problems, arcs) of plans' arcs."""
    rows, cols, _ = found.arcs
    prices: Floats = problem.cost[problem.cost_index[:, None], rows, cols]
    return prices


def _finish(problem: Problem, found: Solution, far: Array, price: Floats) -> None:
    """Judge solutions for filled costs as those of problems with forbidden pairs, in place.

    Args:
        problem: The problems, +inf where a pair is forbidden.
        found: Their plans as arcs, and potentials, for costs that were filled.
        far: (problems,) how far above the least cost forbidden pairs were at most.
        price: (problems, arcs) costs of the arcs.
    """
    n, m = problem.shape
    a, b = problem.a[problem.a_index], problem.b[problem.b_index]
    total = a.sum(-1)
    b = b * (total / b.sum(-1))[:, None]
    rows, cols, flow = found.arcs
    barred = np.isinf(price)
    loose = np.where(barred.any(-1), np.int8(LOOSE), np.int8(JOINED))
    if n == m:
        # Of an assignment problem there are n arcs, and nothing but zeros after them.
        loose[~(rows[:, n:] | cols[:, n:]).any(-1)] = ASSIGNED
    done = mend(problem.cost, problem.cost_index, a, b, far, found.f, found.g, loose)
    found.gap[done.moved] = (found.value - done.dual + done.hidden)[done.moved]
    astray = (barred * flow).sum(-1)
    bad = np.flatnonzero(astray > 0)
    if len(bad):
        _drop(problem, found, bad, astray[bad], (a[bad], b[bad]), price[bad])


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
    lacking = missed(rows[bad], cols[bad], flow[bad], a, b)
    found.marginal_error[bad] = lacking.max(-1) / total
    proof = feasibility(np.isfinite(problem.cost[problem.cost_index[bad]]), a, b, problem.rounding)
    # What weights that balance but for rounding leave is no more than this.
    hidden = (2 * ROUNDINGS * problem.rounding + sum(problem.shape) * RESOLUTION) * total
    found.status[bad[(astray > hidden) & (found.status[bad] == Status.OPTIMAL)]] = Status.FAILED
    # What little mass is missing could at most be paid for by these potentials.
    f, g = found.f[bad], found.g[bad]
    unpaid = (np.concatenate([np.abs(f), np.abs(g)], -1) * lacking).sum(-1)
    cost = problem.cost[problem.cost_index[bad]].astype(np.float64)
    found.gap[bad] = found.value[bad] - dual_value(a, b, f, g) + rounding(cost, a, b, f, g) + unpaid
    found.refuse(bad, proof)
