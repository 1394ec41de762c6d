"""Log-domain Sinkhorn on point clouds with epsilon scaling; every problem of the batch stops by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from otfew.transport.entropic.newton import furthest
from otfew.transport.entropic.reductions import Metric, Reductions
from otfew.transport.problem import Status

CHECK = 8
"""Iterations between two looks at what has converged, where a look waits for the device."""

WORTH_MOVING = 0.75
"""Part of the problems at hand down to which it is cheaper to take all along than to move those that are left."""

NOTHING = -1e30
"""Stands for log 0: its exponential is exactly zero, and no difference of two is NaN."""


Start = tuple[Tensor, Tensor]
"""Potentials f (problems, n) and g (problems, m) to start from."""


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
    start: Start | None = None,
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
        start: f (problems, n) and g (problems, m) to start from, float64; the temperature then falls from as far above
            ``reg`` as an iteration at ``reg`` would move them.
    """
    size = len(x)
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    temperature = largest_cost(x, y, sums.metric).nan_to_num(0).clamp(reg, 1e300)
    state = torch.full((size,), int(Status.MAX_ITER), dtype=torch.int8, device=x.device)
    found = Potentials(f, g, g, torch.zeros(size, dtype=torch.int64, device=x.device), state)
    if not size:
        return found
    if start is not None:
        xs, ys = (scaled(z, torch.full_like(temperature, reg), sums.metric, dtype) for z in (x, y))
        moved_f, moved_g = half_steps(sums, xs, ys, a, b, start[1], reg)
        off = torch.maximum(furthest(moved_f - start[0], a, True), furthest(moved_g - start[1], b))
        g, temperature = start[1], temperature.minimum(off[:, 0]).clamp(min=reg)
    out, index, going = found, torch.arange(size, device=x.device), torch.ones_like(state, dtype=torch.bool)
    log_a, log_b, next_g, stale, look = log_weights(a), log_weights(b), g, True, 1 if x.is_cpu else CHECK
    for step in range(max_iter):
        if step == max_iter - 1:
            # Whatever is reached belongs to the temperature that was asked for.
            temperature, stale = torch.full_like(temperature, reg), True
        if stale:
            xs, ys = (scaled(z, temperature, sums.metric, dtype) for z in (x, y))
            t = temperature[:, None]
        g = next_g
        f = -t * sums.logsumexp(xs, ys, log_b + g / t)
        next_g = -t * sums.logsumexp(ys, xs, log_a + f / t)
        error = column_error(g, next_g, b, reg)
        failed = ~torch.isfinite(f.sum(-1) + next_g.sum(-1))
        # A plan at a higher temperature fits the weights, but solves another problem.
        done = (error <= tol) & (temperature <= reg) & ~failed
        state = torch.where(done, int(Status.OPTIMAL), int(Status.MAX_ITER))
        state = state.where(~failed, int(Status.FAILED)).to(torch.int8)
        # Where a look waits for the device, a problem that has ended keeps its potentials while others go on.
        found = Potentials(f, g, next_g, found.n_iter + 1, state) if x.is_cpu else Potentials(
            f.where(going[:, None], found.f), g.where(going[:, None], found.g),
            next_g.where(going[:, None], found.next_g), found.n_iter + going, state.where(going, found.status),
        )  # fmt: skip
        going = going & ~(done | failed)
        hot = temperature > reg
        temperature = (temperature * scaling).clamp(min=reg)
        if (step + 1) % look:
            continue
        rest = going.nonzero()[:, 0]
        if not len(rest):
            break
        stale = stale and bool(hot.any())
        if len(rest) < (1 if x.is_cpu else WORTH_MOVING) * len(index):
            out, stale = _put(out, index, found), True
            x, y, a, b, log_a, log_b, next_g, temperature, index, going = (
                z.index_select(0, rest) for z in (x, y, a, b, log_a, log_b, next_g, temperature, index, going)
            )
            found = Potentials(*(getattr(found, field.name).index_select(0, rest) for field in fields(Potentials)))
    return _put(out, index, found)


def sinkhorn_from(start: Start, solve: Callable[[Tensor, Start | None], Potentials]) -> Potentials:
    """Solve a flat batch from where it is to start, and afresh what does not get to its end from there.

    Args:
        start: f and g to start from.
        solve: Solves the problems of an index, from given potentials or afresh.
    """
    found = solve(torch.arange(len(start[0]), device=start[0].device), start)
    left = (found.status != Status.OPTIMAL).nonzero()[:, 0]
    if not len(left):
        return found
    again = solve(left, None)
    used = again.n_iter + found.n_iter.index_select(0, left)
    return _put(found, left, replace(again, n_iter=used))


def _put(out: Potentials, index: Tensor, found: Potentials) -> Potentials:
    """Write what was found for some of the problems into that of all of them."""
    if len(index) == len(out.status):
        return found
    parts = fields(Potentials)
    return Potentials(*(getattr(out, x.name).index_copy(0, index, getattr(found, x.name)) for x in parts))
