"""What the plain domain leaves over, solved in the log domain."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.transport.entropic.newton import maximise
from otfew.transport.entropic.solved import Solved, density


def finish(solved: Solved, cost: Tensor, plan: Tensor, left: Tensor, tol: float, max_iter: int) -> bool:
    """Solve in the log domain what the plain domain left over, in place: near its end, or from the start.

    Args:
        solved: What was solved in the plain domain, of hard marginals.
        cost: (problems, n, m), infinite for pairs that are not to be used, of which ``solved.support`` then tells.
        plan: (problems, n, m), that of ``solved``.
        left: (problems,) bool.
        tol: Largest deviation from a marginal, for a total of 1.
        max_iter: Iterations a problem may take, those in the plain domain included.

    Returns:
        Whether anything was left.
    """
    near = left & (solved.n_iter > 0) & torch.isfinite(solved.error)
    far = left & ~near
    # One look at the device for all that is asked of it.
    look = torch.stack([near.sum(), far.sum(), (solved.n_iter * near).max()]) if len(left) else left.new_zeros(3)
    many_near, many_far, most_used = look.tolist()
    for group, size, warm in ((near, many_near, True), (far, many_far, False)):
        budget = max_iter - most_used if warm else max_iter
        if not size or budget < 1:
            continue
        index = group.to(torch.int8).argsort(descending=True, stable=True)[:size]
        net = cost[index].double() - solved.offset[index, None, None]
        a, b = solved.a[index], solved.b[index]
        start = (solved.phi[index], solved.psi[index]) if warm else None
        parts = None if solved.support is None else (solved.support.row_part[index], solved.support.column_part[index])
        found = maximise(net, a, b, solved.reg, solved.rhos, tol, budget, start, parts)
        solved.n_iter[index] = found.n_iter + solved.n_iter[index] * warm
        solved.phi[index], solved.psi[index], solved.error[index] = found.phi, found.psi, found.error
        solved.status[index] = found.status
        made = a[..., None] * density(net, found.phi, found.psi, solved.reg) * b[:, None]
        plan[index] = made.to(plan.dtype)
    return bool(many_near or many_far)
