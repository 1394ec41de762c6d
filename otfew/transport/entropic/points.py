"""Log-domain Sinkhorn on point clouds with epsilon scaling; every problem of the batch stops by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from otfew.transport.entropic.reductions import Metric, Reductions
from otfew.transport.problem import Status

NOTHING = -1e30
"""Stands for log 0: its exponential is exactly zero, and no difference of two is NaN."""


@dataclass(frozen=True)
class Potentials:
    """Dual potentials of a flat batch in cost units, float64, ungauged.

    Attributes:
        f: (problems, n); the plan of f and g has the row sums a.
        g: (problems, m).
        next_g: (problems, m); the plan of f and next_g has the column sums b.
        n_iter: (problems,) int64.
        status: (problems,) int8.
    """

    f: Tensor
    g: Tensor
    next_g: Tensor
    n_iter: Tensor
    status: Tensor


def log_weights(weights: Tensor) -> Tensor:
    """Logarithms of weights (problems, n) over their totals, ``NOTHING`` where zero."""
    share = weights / weights.sum(-1, keepdim=True)
    return torch.where(share > 0, share.log(), NOTHING).clamp(min=NOTHING)


def scaled(points: Tensor, temperature: Tensor, metric: Metric, dtype: torch.dtype) -> Tensor:
    """Shrink points (problems, n, d) so that costs come out over the temperature (problems,)."""
    return (points * (temperature ** (-1 / metric.degree))[:, None, None]).to(dtype)


def largest_cost(x: Tensor, y: Tensor, metric: Metric) -> Tensor:
    """Bound the costs of each problem (problems,) by the triangle inequality, for points about the origin."""
    radii = [torch.linalg.vector_norm(z, metric.p, -1).amax(-1) for z in (x, y)]
    bound: Tensor = (radii[0] + radii[1]) ** metric.degree
    return bound


def column_error(g: Tensor, next_g: Tensor, b: Tensor, reg: float) -> Tensor:
    """Largest deviation (problems,) of column sums from b, relative to the total.

    The plan of f and g has the column sums b exp((g - next_g) / reg).
    """
    return (b * torch.expm1((g - next_g) / reg)).abs().amax(-1) / b.sum(-1)


def half_steps(
    sums: Reductions, x: Tensor, y: Tensor, a: Tensor, b: Tensor, g: Tensor, reg: float
) -> tuple[Tensor, Tensor]:
    """Make f from g and the next g from f, at the temperature ``reg``; points in the dtype of the sums, scaled."""
    f = -reg * sums.logsumexp(x, y, log_weights(b) + g / reg)
    return f, -reg * sums.logsumexp(y, x, log_weights(a) + f / reg)


def sinkhorn(
    sums: Reductions,
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    dtype: torch.dtype,
    reg: float,
    tol: float,
    max_iter: int,
    scaling: float,
) -> Potentials:
    """Solve a flat batch.

    Args:
        sums: How to sum over the clouds.
        x: (problems, n, d) float64, about the origin.
        y: (problems, m, d) float64.
        a: (problems, n) float64.
        b: (problems, m) float64, of the same totals.
        dtype: In which to take the sums.
        reg: Temperature, in cost units.
        tol: Marginal error to reach, relative to the total.
        max_iter: Iterations a problem may take, those of epsilon scaling included.
        scaling: Factor of the temperature from one iteration to the next, from the largest cost down to ``reg``.
    """
    size = len(x)
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    next_g = g.clone()
    n_iter = torch.zeros(size, dtype=torch.int64, device=x.device)
    status = torch.full((size,), Status.MAX_ITER, dtype=torch.int8, device=x.device)
    log_a, log_b = log_weights(a), log_weights(b)
    temperature = largest_cost(x, y, sums.metric).nan_to_num(0).clamp(reg, 1e300)
    live = torch.arange(size, device=x.device)
    stale = True
    for step in range(max_iter):
        if not len(live):
            break
        if step == max_iter - 1:
            # Whatever is reached belongs to the temperature that was asked for.
            stale = stale or bool((temperature[live] > reg).any())
            temperature[live] = reg
        if stale:
            here = temperature[live]
            xs, ys = (scaled(z[live], here, sums.metric, dtype) for z in (x, y))
            la, lb, t = log_a[live], log_b[live], here[:, None]
        g_live = next_g[live]
        f_live = -t * sums.logsumexp(xs, ys, lb + g_live / t)
        g_after = -t * sums.logsumexp(ys, xs, la + f_live / t)
        f[live], g[live], next_g[live] = f_live, g_live, g_after
        n_iter[live] = step + 1
        error = column_error(g_live, g_after, b[live], reg)
        failed = ~torch.isfinite(f_live.sum(-1) + g_after.sum(-1))
        # A plan at a higher temperature fits the weights, but solves another problem.
        done = (error <= tol) & (here <= reg) & ~failed
        status[live[done]] = int(Status.OPTIMAL)
        status[live[failed]] = int(Status.FAILED)
        cooling = bool((here > reg).any())
        temperature[live] = (here * scaling).clamp(min=reg)
        left = ~(done | failed)
        stale = cooling or not bool(left.all())
        live = live[left]
    return Potentials(f, g, next_g, n_iter, status)
