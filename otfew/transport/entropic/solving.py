"""One batch of entropic problems, wherever it is: in the plain domain, and what that leaves in the log domain."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from otfew.transport.cuda.machines import machine_for
from otfew.transport.cuda.sinkhorn import solve_entropic
from otfew.transport.entropic import newton, plain
from otfew.transport.entropic.apart import forbids
from otfew.transport.entropic.newton import Rhos
from otfew.transport.entropic.solved import Solved, density, dual_value
from otfew.transport.entropic.support import Support
from otfew.transport.problem import Potentials, Status

Answer = tuple[Solved, Tensor, bool]
"""What was found, its dual values (problems,), and whether it is known that all are optimal."""


def solve_whole(
    cost: Tensor, a: Tensor, b: Tensor, support: Support | None, reg: float, rhos: Rhos, tol: float, max_iter: int
) -> Answer | None:
    """Solve a flat batch.

    Args:
        cost: (problems, n, m), without a graph, as all below; infinite for forbidden pairs.
        a: (problems, n) float64.
        b: (problems, m) float64; where both marginals are hard of the same totals as a.
        support: Of problems that are known to have forbidden pairs and to be feasible, the pairs that plans use.
        reg: Regularisation, in the units of the cost.
        rhos: Prices of soft marginals, None for hard ones.
        tol: Largest deviation from a marginal condition, for a total of 1.
        max_iter: Iterations a problem may take.

    Returns:
        None where a pair turned out to be forbidden, and no support was given.
    """
    if support is not None:
        return _solve_within(cost, a, b, support, reg, rhos, tol, max_iter)
    return _solve(cost, a, b, None, reg, rhos, tol, max_iter)


def solve_from(
    start: Potentials, cost: Tensor, a: Tensor, b: Tensor, reg: float, rhos: Rhos, tol: float, max_iter: int
) -> Answer | None:
    """Solve a flat batch from potentials, and afresh what does not get to its end from there; see ``solve_whole``."""
    found = _solve(cost, a, b, _scaled(start, a, b, reg, rhos), reg, rhos, tol, max_iter)
    if found is None:
        return None
    solved, value, done = found
    left = solved.status != Status.OPTIMAL
    if done or not bool(left.any()):
        return solved, value, True
    anew = _solve(cost[left], a[left], b[left], None, reg, rhos, tol, max_iter)
    if anew is None:
        return None
    again, values, done = anew
    for name in ("phi", "psi", "offset", "error", "status"):
        getattr(solved, name)[left] = getattr(again, name)
    solved.n_iter[left] += again.n_iter
    if solved.plan is not None and again.plan is not None:
        solved.plan[left] = again.plan
    return solved, value.index_put((left.nonzero()[:, 0],), values), done


def _scaled(start: Potentials, a: Tensor, b: Tensor, reg: float, rhos: Rhos) -> tuple[Tensor, Tensor]:
    """Potentials over reg (problems, n) and (problems, m); where constants do not matter, about zero."""

    def side(potential: Tensor, weights: Tensor) -> Tensor:
        if rhos != (None, None):
            return potential / reg
        return (potential - (potential * weights).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)) / reg

    return side(start.f, a), side(start.g, b)


def _solve(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    start: tuple[Tensor, Tensor] | None,
    reg: float,
    rhos: Rhos,
    tol: float,
    max_iter: int,
) -> Answer | None:
    """Solve problems in which no pair is known to be forbidden, from potentials over reg or afresh."""
    if rhos != (None, None):
        a, b, scale = normalised(a, b, rhos)
        dual = newton.maximise(cost, a, b, reg, rhos, tol, max_iter, start, near=False)
        solved = Solved(
            cost, a, b, scale, reg, rhos, dual.phi, dual.psi, torch.zeros_like(scale), dual.error,
            dual.status, dual.n_iter,
        )  # fmt: skip
        return solved, scale * dual_value(solved), False
    begin = None if start is None else start[1]
    found = plain.scale(cost, a, b, reg, tol, _iterations(cost, max_iter), begin)
    solved = Solved(
        cost, found.a, found.b, found.mass, reg, rhos, found.phi, found.psi, found.offset, found.error,
        found.status, found.n_iter, found.plan,
    )  # fmt: skip
    if cost.is_cpu and all_optimal(found.status):
        return solved, found.value, True
    left = found.status != Status.OPTIMAL
    seen = _look(solved, left)
    # The mean of costs of which one is infinite is, too.
    if seen.unbounded and forbids(cost):
        return None
    if not _finish(solved, cost, found.plan, seen, tol, max_iter, start):
        return solved, found.value, True
    # Those that had converged keep the value that they would have alone, to the last bit.
    return solved, torch.where(left, found.mass * dual_value(solved), found.value), False


def _solve_within(
    cost: Tensor, a: Tensor, b: Tensor, support: Support, reg: float, rhos: Rhos, tol: float, max_iter: int
) -> Answer:
    """Solve feasible problems in which pairs are forbidden; see ``solve_whole``."""
    a, b, scale = normalised(a, b, rhos)
    closed, filled = support.closed(), support.filled(cost)
    costs, parts = filled.masked_fill(closed, math.inf), (support.row_part, support.column_part)
    finite, hard = support.finite(cost), rhos == (None, None)
    seen = support.seen(a, b)
    # Where a marginal is soft, nodes that nothing serves have their price, which only the solver does not see.
    held = seen if hard else (a, b)
    machine = machine_for(cost.device)
    found = None
    if machine is not None:
        found = solve_entropic(machine, costs, *seen, reg, rhos, tol, max_iter, parts=parts)
    if found is not None:
        at = found.solved
        solved = Solved(
            finite, *held, scale, reg, rhos, at.phi, at.psi, at.offset, at.error, at.status, at.n_iter, at.plan, support
        )
    elif hard:
        scaled = plain.scale(filled, *seen, reg, tol, _iterations(cost, max_iter), closed=closed)
        solved = Solved(
            finite, *held, scale, reg, rhos, scaled.phi, scaled.psi, scaled.offset, scaled.error, scaled.status,
            scaled.n_iter, scaled.plan, support,
        )  # fmt: skip
        _finish(solved, costs, scaled.plan, _look(solved, scaled.status != Status.OPTIMAL), tol, max_iter)
    else:
        dual = newton.maximise(costs, *seen, reg, rhos, tol, max_iter, None, parts)
        solved = Solved(
            finite, *held, scale, reg, rhos, dual.phi, dual.psi, torch.zeros_like(scale), dual.error, dual.status,
            dual.n_iter, None, support,
        )  # fmt: skip
    offset = solved.offset[:, None, None]
    solved.phi, solved.psi = support.settle(
        solved.phi, solved.psi, lambda: (finite.double() - offset) / reg, held[0], held[1], reg, rhos
    )
    if solved.plan is not None:
        # What nodes carry that nothing serves was seen by nobody but the solver.
        solved.plan = solved.plan.where(support.live, 0.0)
    return solved, scale * dual_value(solved), False


def normalised(a: Tensor, b: Tensor, rhos: Rhos) -> tuple[Tensor, Tensor, Tensor]:
    """Weights whose totals have the geometric mean 1, and what they were divided by."""
    total_a, total_b = a.sum(-1, keepdim=True), b.sum(-1, keepdim=True)
    if rhos == (None, None):
        return a / total_a, b / total_b, total_a[:, 0]
    scale = total_a.sqrt() * total_b.sqrt()
    return a / scale, b / scale, scale[:, 0]


def all_optimal(status: Tensor) -> bool:
    """Tell whether all problems (problems,) were solved."""
    # On the CPU numpy looks sooner; OPTIMAL is 0.
    return np.count_nonzero(status.numpy()) == 0 if status.is_cpu else not bool(status.any())


def _iterations(cost: Tensor, max_iter: int) -> int:
    """Iterations in the plain domain, after which another method serves a problem better."""
    side = min(cost.shape[1:])
    most = max_iter if side > newton.LARGEST else plain.ITERATIONS
    if not cost.is_cpu and side <= plain.SMALL_SIDE:
        most = plain.UNEXTRAPOLATED
    return min(most, max_iter)


class _Seen(NamedTuple):
    """What the plain domain left over.

    Attributes:
        near: (problems,) bool, those that it had begun.
        far: (problems,) bool, those that it left alone.
        many_near: How many of the first.
        many_far: How many of the second.
        most_used: Iterations that one of the first has had at most.
        unbounded: How many problems have costs without a finite mean.
    """

    near: Tensor
    far: Tensor
    many_near: int
    many_far: int
    most_used: int
    unbounded: int


def _look(solved: Solved, left: Tensor) -> _Seen:
    """Look once at a device for all that is asked of it.

    Args:
        solved: What was solved in the plain domain.
        left: (problems,) bool, what it left over.
    """
    near = left & (solved.n_iter > 0) & torch.isfinite(solved.error)
    far = left & ~near
    if not len(left):
        return _Seen(near, far, 0, 0, 0, 0)
    unbounded = ~torch.isfinite(solved.offset)
    found = torch.stack([near.sum(), far.sum(), (solved.n_iter * near).max(), unbounded.sum()]).tolist()
    return _Seen(near, far, *found)


def _finish(
    solved: Solved,
    cost: Tensor,
    plan: Tensor,
    seen: _Seen,
    tol: float,
    max_iter: int,
    given: tuple[Tensor, Tensor] | None = None,
) -> bool:
    """Solve in the log domain what the plain domain left over, in place: near its end, or from the start.

    Args:
        solved: What was solved in the plain domain, of hard marginals.
        cost: (problems, n, m), infinite for pairs that are not to be used, of which ``solved.support`` then tells.
        plan: (problems, n, m), that of ``solved``.
        seen: What was left over.
        tol: Largest deviation from a marginal, for a total of 1.
        max_iter: Iterations a problem may take, those in the plain domain included.
        given: Potentials over reg that those start from which the plain domain left alone.

    Returns:
        Whether anything was left.
    """
    for group, size, warm in ((seen.near, seen.many_near, True), (seen.far, seen.many_far, False)):
        budget = max_iter - seen.most_used if warm else max_iter
        if not size or budget < 1:
            continue
        index = group.to(torch.int8).argsort(descending=True, stable=True)[:size]
        net = cost[index].double() - solved.offset[index, None, None]
        a, b = solved.a[index], solved.b[index]
        start = (solved.phi, solved.psi) if warm else given
        begin = None if start is None else (start[0][index], start[1][index])
        parts = None if solved.support is None else (solved.support.row_part[index], solved.support.column_part[index])
        found = newton.maximise(net, a, b, solved.reg, solved.rhos, tol, budget, begin, parts, warm)
        solved.n_iter[index] = found.n_iter + solved.n_iter[index] * warm
        solved.phi[index], solved.psi[index], solved.error[index] = found.phi, found.psi, found.error
        solved.status[index] = found.status
        made = a[..., None] * density(net, found.phi, found.psi, solved.reg) * b[:, None]
        plan[index] = made.to(plan.dtype)
    return bool(seen.many_near or seen.many_far)
