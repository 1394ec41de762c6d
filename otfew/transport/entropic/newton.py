"""Entropic transport in the log domain: damped Newton steps on the dual along a falling regularisation, in float64.

With g fixed, the best f is a soft minimum, and the dual is a concave function of g alone (Cuturi and Peyre 2016). It
is generalised self-concordant: steps shortened to log(1 + d) / d, where d is the span of the Newton step in units of
reg, climb from anywhere and become full steps near the top (Sun and Tran-Dinh 2019, the case nu = 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from otfew.transport.problem import Status

FALL = 4.0
"""Factor between one regularisation and the next."""

LEVEL_TOL = 0.5
"""Largest deviation, relative to what a column is to carry, at which a regularisation above the last one is left.

Left too early, groups of nodes that hardly exchange anything keep each other's mass, and cannot pass it on later.
"""

LARGEST = 1024
"""Nodes of the smaller side above which Sinkhorn's own steps are cheaper than Newton's."""

LIGHT = 1e-2
"""Part of the tolerance below which a column has no say in the length of a step."""

RIDGE = 1e-13
"""Added to matrices whose eigenvalues lie in [0, 1], which rounding could make indefinite."""

CHECK = 4
"""Steps between two looks at what has converged, where a look waits for the device."""

WORTH_MOVING = 0.75
"""Part of the problems at hand down to which it is cheaper to take all along than to move those that are left."""

CHUNK = 2**22
"""Entries of the costs that are worked on at a time."""


Rhos = tuple[float | None, float | None]
"""Weights of the KL terms of rows and columns in the units of the cost; None for a hard marginal."""


@dataclass(slots=True, eq=False)
class Dual:
    """Potentials over reg of a batch, relative to costs less ``offset``.

    Attributes:
        phi: (problems, n) float64.
        psi: (problems, m) float64.
        error: (problems,) float64, largest violation of a marginal condition.
        status: (problems,) int8.
        n_iter: (problems,) int64.
    """

    phi: Tensor
    psi: Tensor
    error: Tensor
    status: Tensor
    n_iter: Tensor


def damping(rho: float | None, reg: Tensor) -> Tensor:
    """Exponent tau = rho / (rho + reg) of a marginal's update; 1 for a hard marginal."""
    return torch.ones_like(reg) if rho is None else rho / (rho + reg)


def schur_solve(
    plan: Tensor, rows: Tensor, columns: Tensor, tau: Tensor, right: Tensor, singular: bool, part: Tensor | None = None
) -> Tensor:
    """Solve (diag(columns) - plan' diag(tau / rows) plan) y = right, with y = 0 where columns is 0.

    Args:
        plan: (problems, n, m) float64.
        rows: (problems, n).
        columns: (problems, m).
        tau: (problems, 1).
        right: (problems, m).
        singular: Whether constants are in the null space; y is then orthogonal to columns.
        part: (problems, m), where the plan falls apart, to which part each column belongs; -1 for those that belong to
            none. Constants of each part are then in the null space.
    """
    # LU fails in batches on some builds of torch, and the matrix is positive definite: Cholesky, after scaling its
    # diagonal to one.
    tiny = torch.finfo(plan.dtype).tiny
    held = columns > tiny
    root = columns.clamp_min(tiny).rsqrt().where(held, 0.0)
    left = torch.where(rows > tiny, tau / rows.clamp_min(tiny), 0.0).sqrt()
    weighted = plan * left[..., None] * root[:, None]
    matrix = -(weighted.mT @ weighted)
    if singular and part is not None:
        direction = columns * root
        same = (part[..., None] == part[:, None]) & (part >= 0)[:, None]
        direction = direction / torch.where(same, direction.square()[:, None], 0.0).sum(-1).sqrt().clamp_min(tiny)
        matrix += torch.where(same, direction[..., None] * direction[:, None], 0.0)
    elif singular:
        direction = columns * root
        direction = direction / direction.square().sum(-1, keepdim=True).sqrt().clamp_min(tiny)
        matrix += direction[..., None] * direction[:, None]
    matrix.diagonal(dim1=-2, dim2=-1).add_(1 + RIDGE * plan.shape[-1])
    factor, _ = torch.linalg.cholesky_ex(matrix)
    return torch.cholesky_solve((right * root)[..., None], factor)[..., 0] * root


@dataclass(frozen=True)
class _Point:
    """The dual at one g per problem: the plan with the best f, its column sums, and where they should be.

    ``plan`` (problems, n, m) has row sums ``rows`` (problems, n); ``columns`` and ``goal`` are (problems, m).
    """

    phi: Tensor
    plan: Tensor
    rows: Tensor
    columns: Tensor
    goal: Tensor


def _evaluate(scores: Tensor, a: Tensor, b: Tensor, psi: Tensor, tau_a: Tensor, tau_b: Tensor) -> _Point:
    """Compute the plan that belongs to ``psi``; ``scores`` (problems, n, m) = log b - cost / reg, used up."""
    scores += psi[:, None]
    top = scores.amax(-1, keepdim=True)
    plan = scores.sub_(top).exp_()
    sums = plan.sum(-1, keepdim=True)
    phi = -tau_a * (top + sums.log())[..., 0]
    rows = a * (phi * (1 - 1 / tau_a)).exp()
    plan *= (rows / sums[..., 0])[..., None]
    return _Point(phi, plan, rows, plan.sum(1), b * (psi * (1 - 1 / tau_b)).exp())


def _newton(
    point: _Point, psi: Tensor, tau_a: Tensor, tau_b: Tensor, light: float, singular: bool, part: Tensor | None
) -> Tensor:
    """Move psi by a Newton step of the dual, shortened where it is long.

    Columns that carry less than ``light`` and are to carry no more have steps of their own length: they would hold up
    all others and matter to nobody.
    """
    curvature = point.columns + (1 / tau_b - 1) * point.goal
    step = schur_solve(point.plan, point.rows, curvature, tau_a, point.goal - point.columns, singular, part)
    counts = torch.maximum(point.columns, point.goal) > light
    high, low = step.where(counts, -math.inf).amax(-1, True), step.where(counts, math.inf).amin(-1, True)
    longest = torch.maximum(high.abs(), low.abs())
    # Constants of self-concordance of the rows' terms and of the columns'.
    length = torch.maximum(high - low + 3 * (1 - tau_a) * longest, (1 / tau_b - 1) * longest)
    length = length.clamp_min(torch.finfo(step.dtype).tiny)
    alone = step.sign() * step.abs().log1p()
    return psi + torch.where(counts, step * (length.log1p() / length), alone)


def _translation(point: _Point, rhos: Rhos) -> Tensor:
    """Best t (problems, 1) for f + t and g - t, which leave the plan alone (Sejourne, Vialard and Peyre 2022)."""
    price = 1 / sum(1 / rho for rho in rhos if rho is not None)
    tiny = torch.finfo(point.rows.dtype).tiny
    rows, columns = (x.sum(-1, keepdim=True).clamp_min(tiny) for x in (point.rows, point.goal))
    return price * (rows / columns).log()


def _sinkhorn(point: _Point, psi: Tensor, tau_b: Tensor, b: Tensor, held: Tensor) -> Tensor:
    """Move psi to the best for the present f."""
    tiny = torch.finfo(psi.dtype).tiny
    return (tau_b * (psi - (point.columns.clamp_min(tiny) / b.where(held, 1)).log())).where(held, 0.0)


@dataclass(frozen=True)
class _Going:
    """Problems at hand: where they stand in the batch, and what belongs to them.

    Attributes:
        index: (problems,).
        open: (problems,) bool, False of those that have ended and are taken along.
        cost: (problems, n, m).
        a: (problems, n).
        b: (problems, m).
        log_b: (problems, 1, m), -inf where b is zero.
        level: (problems, 1) present regularisation.
        g: (problems, m) potentials of the columns, in the units of the cost.
        part: (problems, m), see ``schur_solve``, or None.
    """

    index: Tensor
    open: Tensor
    cost: Tensor
    a: Tensor
    b: Tensor
    log_b: Tensor
    level: Tensor
    g: Tensor
    part: Tensor | None


Kept = TypeVar("Kept", Dual, _Going, _Point)


def _keep(kept: Kept, rest: Tensor) -> Kept:
    values: list[Any] = [getattr(kept, field.name) for field in fields(kept)]
    some: list[Any] = [None if value is None else value[rest] for value in values]
    return type(kept)(*some)


def _begin(
    cost: Tensor, a: Tensor, b: Tensor, reg: float, rhos: Rhos, start: tuple[Tensor, Tensor] | None,
    part: Tensor | None, near: bool,
) -> _Going:  # fmt: skip
    """Begin at the range of the costs, at potentials near the solution at ``reg``, or as far above as others are off.

    What a step of Sinkhorn's at ``reg`` would move potentials by tells how far they are from the solution; costs are
    first to be told apart by so much.
    """
    held = b > 0
    log_b = b.where(held, 1.0).log().where(held, -math.inf)[:, None]
    largest = cost if part is None else cost.where(cost < math.inf, -math.inf)
    level = largest.flatten(1).amax(-1, keepdim=True) - cost.flatten(1).amin(-1, keepdim=True)
    # Above the price of a soft marginal a regularisation teaches nothing.
    soft = [rho for rho in rhos if rho is not None]
    level = level.clamp_max(max(soft, default=math.inf)).clamp_min(reg)
    g = torch.zeros_like(b) if start is None else start[1] * reg
    if start is not None:
        last = torch.full_like(level, reg)
        level = last if near else level.minimum(_drift(cost, a, b, log_b, start, last, rhos)).clamp_min(reg)
    index = torch.arange(len(cost), device=cost.device)
    return _Going(index, torch.ones_like(index, dtype=torch.bool), cost, a, b, log_b, level, g, part)


def _drift(
    cost: Tensor, a: Tensor, b: Tensor, log_b: Tensor, start: tuple[Tensor, Tensor], reg: Tensor, rhos: Rhos
) -> Tensor:
    """How far a step of Sinkhorn's moves potentials (problems, 1), in the units of the cost."""
    phi, psi = start
    point = _evaluate(log_b - cost / reg[..., None], a, b, psi, damping(rhos[0], reg), damping(rhos[1], reg))
    held = (b > 0) & (point.goal > 0)
    columns = point.columns.where(held, 1.0).log() - point.goal.where(held, 1.0).log()
    return reg * torch.maximum(furthest(columns, b), furthest(point.phi - phi, a, rhos == (None, None)))


def furthest(moves: Tensor, weights: Tensor, but_for_constants: bool = False) -> Tensor:
    """Largest move (problems, 1) of the potentials of nodes with weight, infinite where one is no number."""
    if but_for_constants:
        moves = moves - (moves * weights).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
    return moves.abs().where(weights > 0, 0.0).amax(-1, keepdim=True).nan_to_num(nan=math.inf)


def _move(now: _Going, point: _Point, psi: Tensor, taus: tuple[Tensor, Tensor], rhos: Rhos, light: float) -> Tensor:
    """Move psi by a step of whichever method serves problems of this size."""
    if now.cost.shape[2] > LARGEST:
        return _sinkhorn(point, psi, taus[1], now.b, now.b > 0)
    balanced = rhos == (None, None)
    moved = _newton(point, psi, *taus, light, balanced, now.part)
    if balanced:
        return moved
    # Newton's steps go a long way along constants in many small ones; the best constant is known.
    shift = _translation(point, rhos) / now.level
    return torch.where(shift.abs() > 1, psi - shift, moved)


def _settle(found: Dual, ended: Tensor, dual: Dual) -> Dual:
    """Take for problems that have just ended what they ended with."""
    return Dual(
        *(
            torch.where(ended[:, None] if x.ndim == 2 else ended, x, y)
            for x, y in ((getattr(dual, field.name), getattr(found, field.name)) for field in fields(Dual))
        )
    )


def _climb(
    cost: Tensor, a: Tensor, b: Tensor, reg: float, rhos: Rhos, tol: float, max_iter: int,
    start: tuple[Tensor, Tensor] | None, part: Tensor | None, near: bool,
) -> Dual:  # fmt: skip
    """Maximise the dual of one chunk; rows are no fewer than columns. See ``maximise``."""
    size, on_cpu = len(cost), cost.is_cpu
    found = Dual(
        torch.zeros_like(a), torch.zeros_like(b), torch.full_like(a[:, 0], math.inf),
        torch.full((size,), int(Status.MAX_ITER), dtype=torch.int8, device=a.device),
        torch.full((size,), max_iter, device=a.device),
    )  # fmt: skip
    if not size:
        return found
    out, now = found, _begin(cost, a, b, reg, rhos, start, part, near)
    for used in range(1, max_iter + 1):
        if used == max_iter:
            # Whatever g is by now, what is handed out is its plan at reg.
            now = replace(now, level=torch.full_like(now.level, reg))
        taus = damping(rhos[0], now.level), damping(rhos[1], now.level)
        psi = now.g / now.level
        point = _evaluate(now.log_b - now.cost / now.level[..., None], now.a, now.b, psi, *taus)
        missed = (point.goal - point.columns).abs()
        worst = missed.amax(-1)
        strayed = (missed / (point.goal + LIGHT * tol)).amax(-1)
        last = now.level[:, 0] <= reg
        broken = ~torch.isfinite(missed.sum(-1))
        solved = last & (worst <= tol)
        ended = now.open if used == max_iter else (solved | broken) & now.open
        if not on_cpu or bool(ended.any()):
            state = torch.where(solved, int(Status.OPTIMAL), int(Status.MAX_ITER)).where(~broken, int(Status.FAILED))
            dual = Dual(point.phi, psi, worst, state.to(torch.int8), torch.full_like(now.index, used))
            now = replace(now, open=now.open & ~ended)
            if on_cpu:
                _write(out, now.index[ended], _keep(dual, ended))
            else:
                found = _settle(found, ended, dual)
            if used == max_iter:
                break
            # Where a look waits for the device, problems that have ended go along for some steps.
            if on_cpu or used % CHECK == 0:
                rest = now.open.nonzero()[:, 0]
                if not len(rest):
                    break
                if len(rest) < (1 if on_cpu else WORTH_MOVING) * len(now.index):
                    if not on_cpu:
                        out, found = _put(out, now.index, found), _keep(found, rest)
                    now, point = _keep(now, rest), _keep(point, rest)
                    psi, last, strayed = psi[rest], last[rest], strayed[rest]
                    taus = taus[0][rest], taus[1][rest]
        g = _move(now, point, psi, taus, rhos, LIGHT * tol) * now.level
        left = (strayed <= LEVEL_TOL) & ~last
        level = torch.where(left[:, None], (now.level / FALL).clamp_min(reg), now.level)
        now = replace(now, g=g, level=level)
    return out if on_cpu else _put(out, now.index, found)


def _write(out: Dual, index: Tensor, dual: Dual) -> None:
    """Write what some of the problems ended with into that of all of them."""
    for field in fields(Dual):
        getattr(out, field.name)[index] = getattr(dual, field.name)


def _put(out: Dual, index: Tensor, found: Dual) -> Dual:
    """Write what was found for some of the problems into that of all of them."""
    if len(index) == len(out.status):
        return found
    return Dual(*(getattr(out, x.name).index_copy(0, index, getattr(found, x.name)) for x in fields(Dual)))


def _flip(dual: Dual) -> Dual:
    return Dual(dual.psi, dual.phi, dual.error, dual.status, dual.n_iter)


def _extend(dual: Dual, cost: Tensor, a: Tensor, b: Tensor, reg: float, rho: float | None) -> Dual:
    """Give columns without weight the potential that they would have with a little."""
    empty = b == 0
    # Elsewhere a look costs more than the potentials.
    if b.is_cpu and not bool(empty.any()):
        return dual
    log_a = a.where(a > 0, 1.0).log().where(a > 0, -math.inf)
    best = -damping(rho, cost.new_full((), reg)) * torch.logsumexp((log_a + dual.phi)[..., None] - cost / reg, 1)
    return Dual(dual.phi, torch.where(empty, best, dual.psi), dual.error, dual.status, dual.n_iter)


def maximise(
    cost: Tensor, a: Tensor, b: Tensor, reg: float, rhos: Rhos, tol: float, max_iter: int,
    start: tuple[Tensor, Tensor] | None = None, parts: tuple[Tensor, Tensor] | None = None, near: bool = True,
) -> Dual:  # fmt: skip
    """Solve the dual of a batch, problem by problem in what is computed, a chunk of problems at a time.

    Args:
        cost: (problems, n, m), any floating dtype; infinite for pairs that are not to be used, of which ``parts`` tell.
        a: (problems, n) float64; the geometric mean of the totals of a and b is 1.
        b: (problems, m) float64.
        reg: Regularisation, in the units of the cost.
        rhos: See ``Rhos``.
        tol: Largest deviation from a marginal condition.
        max_iter: Iterations a problem may take.
        start: Potentials over reg (problems, n) and (problems, m) to start from; by default the regularisation falls
            from the range of the costs.
        parts: Where pairs are missing, the parts into which rows (problems, n) and columns (problems, m) fall, see
            ``schur_solve``. Each row then has a column with weight, and each column a row.
        near: Whether ``start`` is near the solution; if not, the regularisation falls from as far above as it is off.
    """
    n, m = cost.shape[1:]
    if m > n:
        turned, swapped = (None if x is None else (x[1], x[0]) for x in (start, parts))
        return _flip(maximise(cost.mT, b, a, reg, (rhos[1], rhos[0]), tol, max_iter, turned, swapped, near))
    step = max(1, CHUNK // (n * m))

    def chunks() -> Iterator[Dual]:
        for first in range(0, max(len(cost), 1), step):
            here = slice(first, first + step)
            costs, begin = cost[here].double(), None if start is None else (start[0][here], start[1][here])
            part = None if parts is None else parts[1][here]
            dual = _climb(costs, a[here], b[here], reg, rhos, tol, max_iter, begin, part, near)
            yield _extend(dual, costs, a[here], b[here], reg, rhos[1])

    duals = list(chunks())
    return Dual(*(torch.cat([getattr(dual, field.name) for dual in duals]) for field in fields(Dual)))
