"""Costs between points: pure functions (*batch, n, d), (*batch, m, d) -> (*batch, n, m), accurate for near-duplicates.

A matrix product is fast, but squared distances from it are wrong by the rounding of the squared norms: points closer
than sqrt(rounding) of their spread would come out at any distance, or a negative one. So entries that are small beside
the norms are computed again from differences; in few dimensions all are, which is then as fast.

Points in half precision give costs in float32; autocast changes nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otfew.transport.precision import in_full_precision

FEW_DIMENSIONS = 16
"""Up to here all distances come from differences."""

NEAR = 1e-2
"""Entries below this, relative to the squared norms, are computed again from differences."""

GATHERED = 1 << 24
"""Most numbers of differences held at once (64 MB in float32); where more are asked for, all are taken again."""


def parse_cost(cost: str) -> tuple[str, float]:
    """Split the name of a cost into its kind and the exponent p of "lp:p", 2 for the others.

    Raises:
        ValueError: Unknown name, or an exponent below 1.
    """
    if cost in ("sqeuclidean", "euclidean", "cosine"):
        return cost, 2.0
    kind, _, power = cost.partition(":") if isinstance(cost, str) else ("", "", "")
    if kind == "lp":
        try:
            p = float(power)
        except ValueError:
            p = math.nan
        if 1 <= p < math.inf:
            return ("sqeuclidean", 2.0) if p == 2 else ("lp", p)
    raise ValueError(
        f"cost must be 'sqeuclidean', 'euclidean', 'cosine' or 'lp:p' with an exponent p >= 1 such as 'lp:3', "
        f"got {cost!r}"
    )


@in_full_precision
def pairwise(cost: str, x: Tensor, y: Tensor) -> Tensor:
    """Compute a cost by its name: "sqeuclidean", "euclidean", "cosine" or "lp:3".

    Args:
        cost: Name of the cost.
        x: (*batch, n, d) float32 or float64; half precision is computed as float32.
        y: (*batch, m, d) of the same dtype; batches broadcast.

    Returns:
        (*batch, n, m) in the dtype of the points.

    Raises:
        ValueError: Unknown name, or an exponent below 1.
    """
    kind, p = parse_cost(cost)
    if kind == "lp":
        return lp(x, y, p)
    return {"sqeuclidean": sqeuclidean, "euclidean": euclidean, "cosine": cosine}[kind](x, y)


@in_full_precision
def sqeuclidean(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances |x_i - y_j|^2: zero for equal points, symmetric, never negative.

    Args:
        x: (*batch, n, d) float32 or float64.
        y: (*batch, m, d) of the same dtype; batches broadcast.

    Returns:
        (*batch, n, m) in the dtype of the points; differentiable everywhere.
    """
    if x.shape[-1] <= FEW_DIMENSIONS:
        return _distances(x, y, 2.0).square()
    # Differences do not depend on the origin; rounding is least with the origin amid the points.
    centre = (x.detach().mean(-2, keepdim=True) + y.detach().mean(-2, keepdim=True)) / 2
    u, v = x - centre, y - centre
    norms = u.square().sum(-1)[..., :, None] + v.square().sum(-1)[..., None, :]
    products = u @ v.mT
    # Differences of the points themselves: a single far one moves the centre, and rounds all that is taken about it.
    return _near_again(norms - 2 * products, NEAR * norms, x, y, 1.0)


@in_full_precision
def euclidean(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances |x_i - y_j|; the gradient at coincident points is the subgradient zero.

    Args:
        x: (*batch, n, d) float32 or float64.
        y: (*batch, m, d) of the same dtype; batches broadcast.

    Returns:
        (*batch, n, m) in the dtype of the points.
    """
    if x.shape[-1] <= FEW_DIMENSIONS:
        return _distances(x, y, 2.0)
    squared = sqeuclidean(x, y)
    apart = squared > 0
    return torch.where(apart, squared, 1.0).sqrt() * apart


@in_full_precision
def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosine distances 1 - <x_i, y_j> / (|x_i| |y_j|), from 0 to 2.

    A zero vector is orthogonal to all: its distances are 1, also to another zero vector, and its gradient is zero.

    Args:
        x: (*batch, n, d) float32 or float64.
        y: (*batch, m, d) of the same dtype; batches broadcast.

    Returns:
        (*batch, n, m) in the dtype of the points.
    """
    x, y = directions(x), directions(y)
    products = x @ y.mT
    bound = products.new_full((), NEAR)
    return _near_again(1 - products, bound, x, y, 0.5)


@in_full_precision
def lp(x: Tensor, y: Tensor, p: float) -> Tensor:
    """Powers of p-norms, sum_k |x_ik - y_jk|^p; differentiable once, at p = 1 with sign(0) = 0.

    Args:
        x: (*batch, n, d) float32 or float64.
        y: (*batch, m, d) of the same dtype; batches broadcast.
        p: Exponent, at least 1.

    Returns:
        (*batch, n, m) in the dtype of the points.

    Raises:
        ValueError: p is below 1.
    """
    if not 1 <= p < math.inf:
        raise ValueError(f"p must be a number >= 1, got {p}")
    if p == 2:
        return sqeuclidean(x, y)
    distances = _distances(x, y, p)
    return distances if p == 1 else distances**p


def directions(x: Tensor) -> Tensor:
    """Vectors (..., d) over their norms; zero vectors stay zero, as do those that are not normal numbers."""
    largest = x.detach().abs().amax(-1, keepdim=True)
    held = largest >= torch.finfo(x.dtype).tiny
    # Powers of two scale without rounding; squares of huge or tiny entries would overflow or vanish.
    scale = torch.where(held, torch.exp2(largest.log2().floor()), 1.0)
    x = torch.where(held, x / scale, 0.0)
    norms = x.square().sum(-1, keepdim=True)
    return x / torch.where(held, norms, 1.0).sqrt()


def _distances(x: Tensor, y: Tensor, p: float) -> Tensor:
    return torch.cdist(x, y, p, compute_mode="donot_use_mm_for_euclid_dist")


def _near_again(values: Tensor, bound: Tensor, x: Tensor, y: Tensor, factor: float) -> Tensor:
    """Replace entries below ``bound`` by factor * |x_i - y_j|^2 from differences."""
    near = values.detach() < bound.detach()
    if not values.is_cpu:
        # To know how many there are would be to wait for the device.
        return torch.where(near, factor * _distances(x, y, 2.0).square(), values)
    *batch, i, j = near.nonzero(as_tuple=True)
    if not len(i):
        return values
    if len(i) * x.shape[-1] > GATHERED:
        return torch.where(near, factor * _distances(x, y, 2.0).square(), values)
    x, y = (z.expand(*values.shape[:-2], *z.shape[-2:]) for z in (x, y))
    again = factor * (x[(*batch, i)] - y[(*batch, j)]).square().sum(-1)
    return values.index_put((*batch, i, j), again)
