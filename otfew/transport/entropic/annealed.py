"""Sinkhorn on large point clouds: from a few heavy points to all of them, along a falling temperature, extrapolated.

Neighbouring points are merged, again and again, until few are left (Merigot 2011; Schmitzer 2019). The coarsest clouds
are solved first; the temperature falls, by a factor an iteration, to the cost of crossing one merged point, at which
finer ones would look alike. Potentials of the next finer clouds follow from those by one half step between the two
clouds, and so on down to the clouds themselves, where the iterations at ``reg`` are extrapolated (Anderson 1965).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from otfew.transport.entropic.points import (
    Potentials,
    column_error,
    half_steps,
    largest_cost,
    log_weights,
    scaled,
)
from otfew.transport.entropic.reductions import Metric, Reductions
from otfew.transport.problem import Status

MERGED = 8
"""Points that become one of the next coarser cloud."""

COARSEST = 512
"""Clouds of at most this many points are not merged further."""

COARSE_TOL = 1e-3
"""Mass in the wrong column, relative to the total, at which coarser clouds are left."""

COARSE_ITER = 100
"""Iterations at the last temperature of coarser clouds, at most."""

DEPTH = 6
"""Iterations that an extrapolation looks back on."""

TAME = 0.1
"""Mass in the wrong column, relative to the total, below which iterations are extrapolated."""

GROWTH = 2.0
"""An error that grows by more shows that the past says little about the present: it is then forgotten."""

Report = Callable[[str], object]
"""Takes a line about a scale that is done."""


@dataclass(frozen=True)
class Level:
    """Two clouds of one problem, (1, n, d) and (1, m, d), with their weights (1, n) and (1, m).

    ``width`` is the cost of crossing a merged point, zero for the points themselves.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    width: float


def levels(x: Tensor, y: Tensor, a: Tensor, b: Tensor, metric: Metric) -> list[Level]:
    """Merge neighbours until few are left; the finest first."""
    found = [Level(x, y, a, b, 0.0)]
    while max(found[-1].x.shape[1], found[-1].y.shape[1]) > COARSEST:
        last = found[-1]
        (x, a, wide_x), (y, b, wide_y) = _merged(last.x, last.a, metric), _merged(last.y, last.b, metric)
        found.append(Level(x, y, a, b, last.width + max(wide_x, wide_y)))
    return found


def _merged(points: Tensor, weights: Tensor, metric: Metric) -> tuple[Tensor, Tensor, float]:
    """Merge groups of consecutive points into their means; also return their mean width, as a cost."""
    size = points.shape[1]
    if size <= COARSEST:
        return points, weights, 0.0
    missing = -size % MERGED
    if missing:
        # The last point again, without weight.
        points = torch.cat([points, points[:, -1:].expand(-1, missing, -1)], 1)
        weights = torch.nn.functional.pad(weights, (0, missing))
    groups, shares = points.reshape(-1, MERGED, points.shape[-1]), weights.reshape(-1, MERGED)
    mass = shares.sum(1)
    shares = torch.where(mass[:, None] > 0, shares / mass[:, None].clamp(min=1e-300), 1 / MERGED)
    means = (shares[..., None] * groups).sum(1)
    sides = groups.amax(1) - groups.amin(1)
    width = torch.linalg.vector_norm(sides, metric.p, -1).mean() ** metric.degree
    return means[None], mass[None], float(width)


class Extrapolation:
    """What iterations g -> G(g) would lead to, from the last few of them (Anderson 1965), columns by their weights."""

    def __init__(self, share: Tensor) -> None:
        self._share = share
        self._past: list[tuple[Tensor, Tensor]] = []
        self._least = float("inf")

    def next(self, g: Tensor, image: Tensor, missed: float) -> Tensor:
        """Return where to go on from ``image`` = G(g) (1, m), given the error of g."""
        if missed > GROWTH * self._least:
            self._past.clear()
            self._least = missed
            return image
        self._least = min(self._least, missed)
        self._past = [*self._past[-DEPTH:], (image - g, image)]
        if len(self._past) < 2 or missed > TAME:
            return image
        moves, images = (torch.cat(z) for z in zip(*self._past, strict=True))
        steps, changes = moves.diff(dim=0), images.diff(dim=0)
        weighted = steps * self._share
        gram = weighted @ steps.mT
        # Scaled to a unit diagonal, with a trifle for steps that hardly differ.
        root = gram.diagonal().clamp(min=1e-300).rsqrt()
        gram = gram * root[:, None] * root + 1e-10 * torch.eye(len(gram), dtype=gram.dtype)
        right = root * (weighted @ moves[-1])
        part = root * torch.linalg.solve(gram, right)
        moved = image - part @ changes
        return moved if bool(torch.isfinite(moved).all()) else image


def anneal(
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
    report: Report | None,
) -> Potentials:
    """Solve one problem, a flat batch of one; arguments as of ``points.sinkhorn``.

    Neighbours follow each other in the clouds. ``n_iter`` counts the iterations on the clouds themselves.
    """
    bound = float(largest_cost(x, y, sums.metric)[0])
    if not bound / reg < torch.finfo(dtype).max / 1e3:
        nothing = torch.full_like(b, torch.nan)
        failed = torch.full((1,), int(Status.FAILED), dtype=torch.int8)
        return Potentials(torch.full_like(a, torch.nan), nothing, nothing, torch.ones(1, dtype=torch.int64), failed)
    ladder = levels(x, y, a, b, sums.metric)
    temperature, g = max(bound, reg), torch.zeros_like(ladder[-1].b)
    for depth in range(len(ladder) - 1, -1, -1):
        level, began, last = ladder[depth], time.perf_counter(), depth == 0
        goal = max(reg, min(level.width, temperature))
        found, temperature = _run(sums, level, g, dtype, temperature, goal, tol, max_iter, scaling, last)
        if report is not None:
            n, m = level.x.shape[1], level.y.shape[1]
            error = float(column_error(found.g, found.next_g, level.b, temperature)[0])
            report(
                f"{n:,} x {m:,} points, temperature {temperature:.3g}: {int(found.n_iter)} iterations, "
                f"marginal error {error:.2g}, {time.perf_counter() - began:.1f} s"
            )
        if not last:
            finer = ladder[depth - 1]
            xs, ys = _scaled(level.x, finer.y, temperature, sums.metric, dtype)
            g = -temperature * sums.logsumexp(ys, xs, log_weights(level.a) + found.f / temperature)
    return found


def _scaled(x: Tensor, y: Tensor, temperature: float, metric: Metric, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    level = torch.full((1,), temperature, dtype=torch.float64)
    return scaled(x, level, metric, dtype), scaled(y, level, metric, dtype)


def _run(
    sums: Reductions,
    level: Level,
    g: Tensor,
    dtype: torch.dtype,
    temperature: float,
    goal: float,
    tol: float,
    max_iter: int,
    scaling: float,
    last: bool,
) -> tuple[Potentials, float]:
    """Iterate on one level from a temperature down to a goal and at it; return the temperature that was reached."""
    a, b = level.a, level.b
    share = b / b.sum()
    ahead, most = Extrapolation(share), max_iter if last else min(max_iter, COARSE_ITER)
    state = Status.MAX_ITER
    used = at_goal = 0
    while True:
        if last and used == max_iter - 1:
            # Whatever is reached belongs to the temperature that was asked for.
            temperature = goal
        xs, ys = _scaled(level.x, level.y, temperature, sums.metric, dtype)
        f, next_g = half_steps(sums, xs, ys, a, b, g, temperature)
        used += 1
        missed = float((share * torch.expm1((g - next_g) / temperature)).abs().sum())
        if not missed < float("inf"):
            state = Status.FAILED
            break
        if temperature <= goal:
            at_goal += 1
            if float(column_error(g, next_g, b, temperature)[0]) <= tol:
                state = Status.OPTIMAL
                break
            if not last and missed <= COARSE_TOL:
                break
        if (used if last else at_goal) >= most:
            break
        if temperature > goal:
            temperature, g = max(temperature * scaling, goal), next_g
        else:
            g = ahead.next(g, next_g, missed)
    count, status = torch.full((1,), used), torch.full((1,), int(state), dtype=torch.int8)
    return Potentials(f, g, next_g, count, status), temperature
