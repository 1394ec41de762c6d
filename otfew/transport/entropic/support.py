"""Entropic transport where pairs are forbidden: which pairs plans use at all, and what that leaves open.

Pairs that no plan with the marginals uses are not part of the problem: with them the dual has no maximum, and scalings
creep towards it for ever. Without them it has one, up to a constant for each of the parts into which the rest may fall.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.entropic.newton import Rhos, schur_solve
from otfew.transport.sending import send

Bools = npt.NDArray[np.bool_]

BEYOND = 750.0
"""Potential, in units of a soft marginal's price, of a node that nothing serves: exp(-BEYOND) is zero in float64."""

MARGIN = 37.0
"""Potentials leave to pairs that no plan uses a density of at most exp(-MARGIN), below the rounding of others'."""

NEAR, EXACT = 1e-9, 4e-15
"""Deviations from a marginal, for a total of 1, at which a corrected plan is worth completing, and needs it no more."""

TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Support:
    """The pairs of a flat batch of problems that plans use.

    Attributes:
        live: (problems, n, m) bool, pairs that some plan with the marginals uses; those of a node without weight and
            one with some count where they are allowed.
        barred: (problems, n, m) bool, pairs of two nodes with weight that are allowed, but used by no plan.
        allowed: (problems, n, m) bool.
        lone_rows: (problems, n) bool, rows without live pair.
        lone_columns: (problems, m) bool.
        row_part: (problems, n) int64, the part of the live pairs to which each row belongs, -1 for rows without weight
            where there are several parts. An allowed pair leads from a part to itself or to one of a smaller number.
        column_part: (problems, m) int64.
        parts: Most parts of any problem.
    """

    live: Tensor
    barred: Tensor
    allowed: Tensor
    lone_rows: Tensor
    lone_columns: Tensor
    row_part: Tensor
    column_part: Tensor
    parts: int

    def finite(self, cost: Tensor) -> Tensor:
        """Costs that are zero where pairs are forbidden."""
        return cost.where(self.allowed, 0.0)

    def filled(self, cost: Tensor) -> Tensor:
        """Costs, without a graph, that are one between those of live pairs everywhere else."""
        plain = cost.detach()
        low, high = plain.where(self.live, math.inf).amin((1, 2)), plain.where(self.live, -math.inf).amax((1, 2))
        mean = plain.where(self.live, 0.0).sum((1, 2), dtype=torch.float64) / self.live.sum((1, 2)).clamp_min(1)
        fill = torch.minimum(torch.maximum(mean.to(cost.dtype), low), high)
        return plain.where(self.live, fill.where(low < math.inf, 0.0)[:, None, None])

    def closed(self) -> Tensor:
        """Pairs (problems, n, m) that a solver must not use; it may use those of nodes whose weight it does not see."""
        return ~(self.live | self.lone_rows[..., None] | self.lone_columns[:, None])

    def seen(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Weights that a solver sees: none of nodes that nothing serves, uniform ones where nothing is left.

        Where there are parts, b is rescaled to the total of a in each.
        """
        empty = self.lone_rows.all(1, keepdim=True)
        a = a.where(~self.lone_rows, 0.0).where(~empty, 1 / a.shape[-1])
        b = b.where(~self.lone_columns, 0.0).where(~empty, 1 / b.shape[-1])
        if self.parts == 1:
            return a, b
        with torch.no_grad():
            nothing = a.new_zeros(len(a), self.parts)
            sides = ((a, self.row_part), (b, self.column_part))
            mine, theirs = (nothing.scatter_add(1, part.clamp_min(0), x.where(part >= 0, 0.0)) for x, part in sides)
            ratio = torch.where(theirs > 0, mine / theirs.where(theirs > 0, 1.0), 1.0)
            ratio = ratio.gather(1, self.column_part.clamp_min(0)).where(self.column_part >= 0, 1.0)
        return a, b * ratio

    def settle(
        self, phi: Tensor, psi: Tensor, make_net: Callable[[], Tensor], a: Tensor, b: Tensor, reg: float, rhos: Rhos
    ) -> tuple[Tensor, Tensor]:
        """Fix what the plan leaves open in potentials over reg: those of lone nodes, and constants of parts.

        A lone node on a soft side lies so high that the condition of its marginal holds: it carries nothing. On a hard
        side, where it has no weight, its potential is zero.

        Args:
            phi: (problems, n) float64.
            psi: (problems, m) float64.
            make_net: Makes (problems, n, m) float64, finite where allowed: costs less the offset, over reg.
            a: (problems, n) float64.
            b: (problems, m) float64.
            reg: Regularisation.
            rhos: See ``Rhos``.
        """
        if self.parts > 1:
            net = make_net()
            phi, psi = self.part(phi, psi, net, b, MARGIN)
            phi = self._light(phi, psi, net, b, self.live, self.row_part, self.column_part)
            psi = self._light(psi, phi, net.mT, a, self.live.mT, self.column_part, self.row_part)
        far_a, far_b = (0.0 if rho is None else BEYOND * rho / reg for rho in rhos)
        return phi.where(~self.lone_rows, far_a), psi.where(~self.lone_columns, far_b)

    def part(self, phi: Tensor, psi: Tensor, net: Tensor, b: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Shift the parts of potentials so that phi_i + psi_j <= net_ij - margin at barred pairs.

        The columns of a part have mean zero under b but for what barred pairs ask for.

        Args:
            phi: (problems, n) float64.
            psi: (problems, m) float64.
            net: (problems, n, m) float64, finite where allowed.
            b: (problems, m) float64.
            margin: In the units of these.
        """
        size, count = len(phi), self.parts
        of_rows, of_columns = self.row_part.clamp_min(0), self.column_part.clamp_min(0)
        weights = b.where(self.column_part >= 0, 0.0)
        nothing = b.new_zeros(size, count)
        totals = nothing.scatter_add(1, of_columns, weights)
        mean = nothing.scatter_add(1, of_columns, weights * psi) / totals.where(totals > 0, 1.0)
        room = net - (phi + mean.gather(1, of_rows))[..., None] - (psi - mean.gather(1, of_columns))[:, None]
        room = room.where(self.barred, math.inf)
        # Least room from each part to each other: barred pairs lead from parts to those of smaller numbers.
        pair = of_rows[..., None] * count + of_columns[:, None]
        least = b.new_full((size, count * count), math.inf).scatter_reduce(1, pair.flatten(1), room.flatten(1), "amin")
        least, shift = least.reshape(size, count, count) - margin, [nothing[:, 0]]
        for k in range(1, count):
            shift.append((least[:, k, :k] + torch.stack(shift, 1)).amin(1).clamp_max(0.0))
        total = mean + torch.stack(shift, 1)
        held_a, held_b = self.row_part >= 0, self.column_part >= 0
        return (
            phi + total.gather(1, of_rows).where(held_a, 0.0),
            psi - total.gather(1, of_columns).where(held_b, 0.0),
        )

    def rounded(self, plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Make the marginals of a plan (problems, n, m), float64, exact within the live pairs.

        A Newton step of the dual gives every row and column a factor, which where the plan is near enough are positive;
        elsewhere what rows and columns carry too much is taken away, and flows bring what they then miss.
        """
        given = plan
        for _ in range(2):
            plan = _corrected(plan, a, b, (self.row_part, self.column_part))
        missed = torch.maximum((plan.sum(2) - a).abs().amax(1), (plan.sum(1) - b).abs().amax(1))
        sound = (plan.amin((1, 2)) >= 0) & (missed <= NEAR)
        plan = plan.where(sound[:, None, None], given)
        wrong = (~(sound & (missed <= EXACT))).nonzero()[:, 0]
        if not len(wrong):
            return plan
        return plan.index_copy(0, wrong, _completed(plan[wrong], self.live[wrong], a[wrong], b[wrong]))

    @staticmethod
    def _light(
        phi: Tensor, psi: Tensor, net: Tensor, b: Tensor, live: Tensor, row_part: Tensor, column_part: Tensor
    ) -> Tensor:
        """Give rows that belong to no part the potential that follows from those of the columns that do."""
        held = live & ((column_part >= 0) & (b > 0))[:, None]
        scores = ((psi + b.where(b > 0, 1.0).log())[:, None] - net).where(held, -math.inf)
        best = -torch.logsumexp(scores, 2)
        return best.where((row_part < 0) & held.any(2), phi)


def _corrected(plan: Tensor, a: Tensor, b: Tensor, parts: tuple[Tensor, Tensor]) -> Tensor:
    """Multiply each entry of a plan by 1 + x_i + y_j, with the x and y that bring the marginals."""
    if plan.shape[2] > plan.shape[1]:
        return _corrected(plan.mT, b, a, (parts[1], parts[0])).mT
    rows, columns = plan.sum(2), plan.sum(1)
    inverse = torch.where(rows > 0, 1 / rows.where(rows > 0, 1.0), 0.0)
    missing = (a - rows) * inverse
    right = b - columns - (plan * missing[..., None]).sum(1)
    y = schur_solve(plan, rows, columns, torch.ones_like(a[:, :1]), right, True, parts[1])
    x = missing - (plan * y[:, None]).sum(2) * inverse
    return plan * (1 + x[..., None] + y[:, None])


def _completed(plan: Tensor, live: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Shrink rows and columns to their weights, and add a flow that brings what is then missing, on the CPU."""
    from otfew.transport.entropic.flows import UNITS, complete

    device = plan.device
    plan = plan.nan_to_num(0.0, 0.0).clamp_min(0.0)
    plan = plan * (a / plan.sum(2).clamp_min(TINY)).clamp_max(1.0)[..., None]
    plan = plan * (b / plan.sum(1).clamp_min(TINY)).clamp_max(1.0)[:, None]
    here, may, rows, columns = (send(x, torch.device("cpu")).numpy() for x in (plan, live, a, b))
    flow = (here * UNITS).astype(np.int64)
    for k in range(len(flow)):
        whole = (np.rint(x[k] * UNITS).astype(np.int64) for x in (rows, columns))
        complete(np.ascontiguousarray(may[k]), *whole, flow[k])
    return send(torch.from_numpy(flow / UNITS), device)


@dataclass(frozen=True)
class Survey:
    """What can be served, of problems in which pairs are forbidden.

    Attributes:
        infeasible: (problems,) bool, on the CPU, as all here.
        rows: (problems, n) bool, the rows of a cut that proves it.
        columns: (problems, m) bool, all the columns that these may use.
        groups: Which problems are feasible, in groups (some,) of those that fall apart and those that do not, each with
            the pairs that its plans use, which are where the problems are.
    """

    infeasible: Tensor
    rows: Tensor
    columns: Tensor
    groups: list[tuple[Tensor, Support]]


def survey(allowed: Tensor, a: Tensor, b: Tensor, rhos: Rhos, rounding: float) -> Survey:
    """Look at which pairs plans use, on the CPU.

    Args:
        allowed: (problems, n, m) bool, on any device, to which answers go.
        a: (problems, n) float64.
        b: (problems, m) float64; where both marginals are hard of the same totals as a.
        rhos: See ``Rhos``.
        rounding: Largest relative error of one rounding of a weight, see ``feasibility``.
    """
    here = (send(x.detach(), torch.device("cpu")) for x in (allowed, a, b))
    may, rows, columns = (np.ascontiguousarray(x.numpy()) for x in here)
    hard = rhos == (None, None)
    cut = _cut(may, rows, columns, rounding) if hard else _soft_cut(may, rows, columns, rhos)
    infeasible = cut[0]
    kept = ~infeasible
    live, part, parts = _live(may[kept], rows[kept], columns[kept], rhos)
    mine, theirs = rows[kept] > 0, columns[kept] > 0
    barred = may[kept] & ~live & mine[..., None] & theirs[:, None]
    # A node of hardly any weight may find that all it could be served by are lone themselves.
    serving = mine & (live & theirs[:, None]).any(2), theirs & (live & mine[..., None]).any(1)
    lone_rows = np.asarray(~(live & serving[1][:, None]).any(2))
    lone_columns = np.asarray(~(live & serving[0][..., None]).any(1))
    live &= ~lone_rows[..., None] & ~lone_columns[:, None]
    n = rows.shape[1]
    found = {
        "live": live, "barred": barred, "allowed": may[kept], "lone_rows": lone_rows, "lone_columns": lone_columns,
        "row_part": part[:, :n], "column_part": part[:, n:],
    }  # fmt: skip
    groups, feasible = [], kept.nonzero()[0]
    # What is done about parts leaves traces in the last bits, of which those that have none must be free.
    for index in ((parts == 1).nonzero()[0], (parts > 1).nonzero()[0]):
        if len(index):
            there = {name: send(torch.from_numpy(x[index]), allowed.device) for name, x in found.items()}
            groups.append((torch.from_numpy(feasible[index]), Support(**there, parts=int(parts[index].max()))))
    return Survey(torch.from_numpy(infeasible), torch.from_numpy(cut[1]), torch.from_numpy(cut[2]), groups)


def _tied(may: Bools, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> Bools:
    """Tell in which problems (problems,) a pair of two nodes with weight is forbidden."""
    return np.asarray((~may & (a > 0)[..., None] & (b > 0)[:, None]).any((1, 2)))


def _cut(
    may: Bools, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], rounding: float
) -> tuple[Bools, Bools, Bools]:
    """Find what cannot be served where both marginals are hard."""
    size, n, m = may.shape
    cut = np.zeros(size, np.bool_), np.zeros((size, n), np.bool_), np.zeros((size, m), np.bool_)
    # Many masks forbid nothing but nodes without weight.
    index = _tied(may, a, b).nonzero()[0]
    if len(index):
        from otfew.transport.forbidden import feasibility

        found = feasibility(may[index], a[index], b[index], rounding)
        for into, x in zip(cut, (found.infeasible, found.rows, found.columns), strict=True):
            into[index] = x
    return cut


def _soft_cut(
    may: Bools, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], rhos: Rhos
) -> tuple[Bools, Bools, Bools]:
    """Find what cannot be served where at most one marginal is hard: nodes with weight that none with some may serve.

    They hold more than all nodes of the other side that may serve them, which is nothing.
    """
    if rhos[0] is not None:
        if rhos[1] is not None:
            return np.zeros(len(a), np.bool_), np.zeros(a.shape, np.bool_), np.zeros(b.shape, np.bool_)
        infeasible, columns, rows = _soft_cut(may.swapaxes(1, 2), b, a, (rhos[1], rhos[0]))
        return infeasible, rows, columns
    rows = np.asarray((a > 0) & ~(may & (b > 0)[:, None]).any(2))
    return np.asarray(rows.any(1)), rows, np.asarray((may & rows[..., None]).any(1))


def _live(
    may: Bools, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], rhos: Rhos
) -> tuple[Bools, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the live pairs of feasible problems, the parts (problems, n + m) of nodes, and how many each has."""
    size, n, m = may.shape
    some = (a > 0)[..., None] | (b > 0)[:, None]
    live, part, parts = may & some, np.zeros((size, n + m), np.int64), np.ones(size, np.int64)
    index = _tied(may, a, b).nonzero()[0] if rhos == (None, None) else np.empty(0, np.int64)
    if len(index):
        from otfew.transport.entropic.flows import UNITS
        from otfew.transport.entropic.flows import survey as survey_flows

        found, numbers = np.empty((len(index), n, m), np.bool_), np.empty((len(index), n + m), np.int64)
        counts = np.empty(len(index), np.int64)
        units = (np.rint(x[index] / x[index].sum(-1, keepdims=True) * UNITS).astype(np.int64) for x in (a, b))
        survey_flows(np.ascontiguousarray(may[index]), *units, n + m, found, numbers, counts)
        live[index], part[index], parts[index] = found & some[index], numbers, counts
    return live, part, parts
