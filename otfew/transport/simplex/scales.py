"""Exact plans where some costs are far above those that a plan uses, as huge costs in place of forbidden pairs.

A solver decides to the rounding of the largest costs, and what is smaller is noise to it. But once any feasible plan is
known whose costs lie between ``floor``, the least of all, and ``most``, the others may be lowered to
floor + min(n, m) (most - floor) or any cost above: no optimal plan of the lowered problem uses them, for in each of the
cycles that lead to the known plan one such arc would be replaced by at most min(n, m) arcs that cost less in all. So
the lowered problem has the same optimal plans, and its potentials are feasible for the costs as they were given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.transport.certificate import CERTAIN, EPS, PROVEN, c_transform, dual_value, rounding
from otfew.transport.problem import Array, Status

Bools = npt.NDArray[np.bool_]

MARGIN = 4.0
"""Costs are lowered to this many times what is needed, so that the arithmetic decides clearly."""

NEAR = 1.25
"""Where forbidden pairs are tried first, in units of the range of the allowed ones: near enough not to slow the search,
and where no plan uses them there, they are high enough."""

SAME = 1e-6
"""Range of costs, relative to the largest, that counts as none: forbidden pairs are put this much above at least."""

RESOLUTION = 2.0**-52
"""Share of the mass in which the kernel counts flows."""


@dataclass
class Scale:
    """What the costs of problems range over, each (problems,).

    Attributes:
        floor: The least cost between nodes with mass.
        top: The largest cost of all, or as far above the floor as the least of all is below.
        ceiling: What the costs were lowered to, infinite where they were not.
    """

    floor: Array
    top: Array
    ceiling: Array

    @classmethod
    def of(cls, cost: Array, held: Bools) -> Scale:
        """Measure costs (problems, n, m) where ``held``."""
        floor = cost.min((1, 2), where=held, initial=np.inf)
        reach = np.maximum(cost.max((1, 2)) - floor, floor - cost.min((1, 2)))
        return cls(floor, floor + reach, np.full(len(cost), np.inf))

    def __getitem__(self, index: npt.NDArray[np.intp]) -> Scale:
        """Take some of the problems."""
        return Scale(self.floor[index], self.top[index], self.ceiling[index])

    def lowered(self, most: Array, shape: tuple[int, int]) -> Array:
        """Find what costs may be lowered to (problems,), where that is much less; NaN elsewhere."""
        room = MARGIN * min(shape) * (most - self.floor)
        helps = (most > self.floor) & (2 * room < np.minimum(self.top, self.ceiling) - self.floor)
        return np.where(helps, self.floor + room, np.nan)


@dataclass
class Measured:
    """A plan's flows and costs, each (problems,) but for the flows.

    Attributes:
        flow: (problems, arcs), without those of rounding errors on arcs that cost more than the ceiling.
        value: Cost of the plan.
        gross: The same of costs without signs.
        most: Largest cost of an arc with more than a trifle of flow.
        paid: Cost of the plan above that of one whose every arc costs ``floor``.
        gap: Value less dual value.
        error: What rounding can hide of the gap.
    """

    flow: Array
    value: Array
    gross: Array
    most: Array
    paid: Array
    gap: Array
    error: Array

    def __getitem__(self, index: Any) -> Measured:
        """Take some of the problems."""
        return Measured(*(getattr(self, field.name)[index] for field in fields(self)))

    def __setitem__(self, index: Any, other: Measured) -> None:
        """Replace some of the problems."""
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(other, field.name)


def measure(
    cost: Array, a: Array, b: Array, f: Array, g: Array, flow: Array, price: Array, scale: Scale, trifle: Array
) -> Measured:
    """Measure plans by potentials.

    Flows of at most ``trifle`` on arcs dearer than the ceiling are dropped where that brings the value nearer to the
    dual value: weights that balance block by block before they are rounded leave such flows between the blocks.

    Args:
        cost: (problems, n, m) as given.
        a: (problems, n).
        b: (problems, m), same totals as a.
        f: (problems, n).
        g: (problems, m).
        flow: (problems, arcs).
        price: (problems, arcs) their costs.
        scale: Of the costs.
        trifle: (problems,) flow that may be a rounding error.
    """
    dual = dual_value(a, b, f, g)
    small = flow <= trifle[:, None]
    astray = small & (price > scale.ceiling[:, None])
    without = np.where(astray, 0.0, flow)
    value, other = ((x * price).sum(-1) for x in (flow, without))
    nearer = np.abs(other - dual) < np.abs(value - dual)
    flow, value = np.where(nearer[:, None], without, flow), np.where(nearer, other, value)
    most = price.max(-1, where=~small, initial=-np.inf)
    gross = (flow * np.abs(price)).sum(-1)
    paid = (flow * (price - scale.floor[:, None])).sum(-1)
    return Measured(flow, value, gross, most, paid, value - dual, rounding(cost, a, b, f, g))


@dataclass(frozen=True)
class Rule:
    """When a plan is good enough.

    Attributes:
        certain: Gap up to which nothing more is done, relative to the cost paid above the least cost.
        proven: The same up to which a plan is optimal.
        reach: The same, relative to mass times the largest cost used above the least (to 100 times the cost paid, if
            that is less), plus a tenth of this relative to the plan's cost without signs, for missed sums.
        short: Status of a plan whose gap is larger.
    """

    certain: float = CERTAIN
    proven: float = PROVEN
    reach: float = 0.0
    short: Status = Status.FAILED

    def allows(self, seen: Measured, scale: Scale, total: Array, terms: int, slack: Array | float) -> Bools:
        """Tell which plans need no more work.

        Args:
            seen: What was measured of the plans.
            scale: Of the costs.
            total: (problems,) mass.
            terms: n + m + 16: how many numbers the sums behind a gap add, whose rounding is allowed for.
            slack: (problems,) or one number: gap that is allowed in any case.

        Returns:
            (problems,) bool.
        """
        limit = self.certain * seen.paid + 16 * EPS * terms * seen.gross + slack
        return np.abs(seen.gap) + seen.error <= np.maximum(limit, self._reached(seen, scale, total))

    def proves(self, seen: Measured, scale: Scale, total: Array, terms: int, slack: Array | float) -> Bools:
        """Tell which plans are optimal.

        Args:
            seen: What was measured of the plans.
            scale: Of the costs.
            total: (problems,) mass.
            terms: As of ``allows``.
            slack: (problems,) or one number: gap that is allowed in any case.

        Returns:
            (problems,) bool.
        """
        most = seen.most - scale.floor
        limit = self.proven * seen.paid + EPS * terms * (16 * seen.gross + 4 * most * total) + slack
        return np.abs(seen.gap) + seen.error <= limit + self._reached(seen, scale, total)

    def _reached(self, seen: Measured, scale: Scale, total: Array) -> Array:
        own = np.minimum((seen.most - scale.floor) * total, 100 * seen.paid)
        return self.reach * (own + seen.gross / 10)


@dataclass
class Answer:
    """Plans, potentials and how the search ended; arrays (problems, ...) that are written to.

    Attributes:
        arcs: (problems, arcs) flat indices of the arcs in the costs; None: all of them.
        flow: (problems, arcs).
        f: (problems, n).
        g: (problems, m).
        status: (problems,).
        n_iter: (problems,).
    """

    arcs: npt.NDArray[np.int64] | None
    flow: Array
    f: Array
    g: Array
    status: npt.NDArray[np.int8]
    n_iter: npt.NDArray[np.int64]


def settle(
    cost: Array,
    a: Array,
    b: Array,
    answer: Answer,
    again: Callable[[npt.NDArray[np.intp], Array], Answer],
    rule: Rule,
    trifle: Array,
    slack: Array,
) -> Measured:
    """Judge plans that a solver calls optimal; where its units are too coarse, lower the costs and solve again.

    Args:
        cost: (problems, n, m).
        a: (problems, n).
        b: (problems, m), of the totals of a.
        answer: What the solver found, overwritten by what is better; its potentials are feasible up to rounding.
        again: Solves some of the problems, given by their indices, for other costs; its potentials need only be good
            ones of the columns.
        rule: When a plan is good enough.
        trifle: (problems,) flow that may be a rounding error.
        slack: (problems,) gap that is allowed in any case.

    Returns:
        The plans as they are measured in the end.
    """
    size, n, m = cost.shape
    total, terms = a.sum(-1), n + m + 16
    held = np.minimum(a[:, :, None], b[:, None]) > RESOLUTION / 2 * total[:, None, None]
    scale = Scale.of(cost, held)
    price = _prices(cost, answer.arcs)

    def look(index: npt.NDArray[np.intp], f: Array, g: Array) -> Measured:
        return measure(
            cost[index], a[index], b[index], f, g, answer.flow[index], price[index], scale[index], trifle[index]
        )

    whole = look(np.arange(size), answer.f, answer.g)
    live = np.arange(size)
    seen = whole
    while True:
        unsure = ~rule.allows(seen, scale[live], total[live], terms, slack[live])
        live, seen = live[unsure], seen[unsure]
        # Where nothing can be cheaper, potentials of zero prove it, and whatever costs more is a rounding error.
        flat = live[seen.most <= scale.floor[live]]
        scale.ceiling[flat] = scale.floor[flat]
        answer.f[flat], answer.g[flat] = c_transform(cost[flat], np.zeros_like(b[flat]), a[flat], b[flat])
        whole[flat] = look(flat, answer.f[flat], answer.g[flat])
        answer.flow[flat] = whole.flow[flat]
        lowered = scale[live].lowered(seen.most, (n, m))
        retried = (answer.status[live] == Status.OPTIMAL) & np.isfinite(lowered)
        live = live[retried]
        scale.ceiling[live] = lowered[retried]
        if not len(live):
            break
        new = again(live, np.clip(cost[live], scale.floor[live, None, None], scale.ceiling[live, None, None]))
        if answer.arcs is not None and new.arcs is not None:
            answer.arcs[live] = new.arcs
            price[live] = _prices(cost[live], new.arcs)
        answer.flow[live], answer.status[live] = new.flow, new.status
        answer.n_iter[live] += new.n_iter
        answer.f[live], answer.g[live] = c_transform(cost[live], new.g, a[live], b[live])
        whole[live] = seen = look(live, answer.f[live], answer.g[live])
        answer.flow[live] = seen.flow
    optimal = rule.proves(whole, scale, total, terms, slack) | (answer.status != Status.OPTIMAL)
    answer.status[~optimal] = rule.short
    return whole


def _prices(cost: Array, arcs: npt.NDArray[np.int64] | None) -> Array:
    """Costs of the arcs (problems, arcs)."""
    flat = cost.reshape(len(cost), cost.shape[1] * cost.shape[2])
    return flat if arcs is None else np.take_along_axis(flat, arcs, 1)
