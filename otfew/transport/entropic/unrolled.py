"""Sinkhorn's iterations in the log domain with a graph through all of them: slow, to check other gradients with."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.transport.entropic.newton import Rhos

LARGEST_EXPONENT = 80.0
"""Nodes without weight may stand above those with some in early iterations; their gradient is cut off there."""

CHECK = 8
"""Iterations between two looks at what has converged, where a look waits for the device."""


def _soft_minimum(scores: Tensor, weights: Tensor, tau: float, dim: int) -> Tensor:
    """-tau log sum weights exp(scores), differentiable in weights that are zero."""
    top = scores.masked_fill(weights <= 0, -torch.inf).amax(dim, keepdim=True).detach()
    total = (weights * (scores - top).clamp_max(LARGEST_EXPONENT).exp()).sum(dim)
    return -tau * (total.log() + top.squeeze(dim))


def unroll(
    cost: Tensor, a: Tensor, b: Tensor, reg: float, rhos: Rhos, tol: float, max_iter: int, closed: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Iterate until every problem has met its conditions.

    Args:
        cost: (problems, n, m) float64.
        a: (problems, n) float64; the geometric mean of the totals of a and b is 1.
        b: (problems, m) float64.
        reg: Regularisation, in the units of the cost.
        rhos: Weights of the KL terms of the marginals, None for hard ones.
        tol: Largest deviation from a marginal condition.
        max_iter: Iterations.
        closed: (problems, n, m) bool, pairs that are not to be used, or None. Each row has a column with weight that it
            may use, and each column a row.

    Returns:
        Potentials over reg (problems, n) and (problems, m) with a graph, errors (problems,), and iterations
        (problems,): the first after which the problem was right, max_iter if none.
    """
    tau_a, tau_b = (1.0 if rho is None else rho / (rho + reg) for rho in rhos)
    scores = -cost / reg if closed is None else (-cost / reg).masked_fill(closed, -torch.inf)
    psi, look = torch.zeros_like(b), 1 if cost.is_cpu else CHECK
    n_iter = torch.full((len(cost),), max_iter, device=cost.device)
    for used in range(1, max_iter + 1):
        phi = _soft_minimum(scores + psi[:, None], b[:, None], tau_a, 2)
        best = _soft_minimum(scores + phi[..., None], a[..., None], tau_b, 1)
        # P' 1 = b exp(psi - best / tau_b), where P' 1 = b exp(psi (1 - 1 / tau_b)) is wanted.
        columns, goal = b * (psi - best / tau_b).exp(), b * (psi * (1 - 1 / tau_b)).exp()
        # Columns without weight carry nothing, however far they stand above the others: zero times infinity is NaN.
        error = (columns - goal).detach().where(b != 0, 0.0).abs().amax(-1)
        n_iter = torch.where((error <= tol) & (n_iter == max_iter), used, n_iter)
        if used == max_iter or (used % look == 0 and not bool((error > tol).any())):
            break
        psi = best
    return phi, torch.where(b > 0, psi, best), error, n_iter
