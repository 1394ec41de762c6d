"""Euclidean distances of many embeddings to many others, some rows at a time, each right by itself.

A matrix product is fast, but its squared distances are wrong by the rounding of the squared norms. Centring helps where
all embeddings are far off together, not where some are far from the others: so products are taken with more digits than
the embeddings have, and pairs that are close beside their norms are computed again from differences.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PROBED = 1024
"""About how many gallery items the origin is the median of: a few far ones do not move it."""

GATHERED = 1 << 21
"""Entries of the differences that are held at once."""


LARGEST = 2.0**100
"""The order of the largest distances: that of the embeddings' least ones then is a normal number in float32 too."""


def widened(x: Tensor) -> Tensor:
    """Take embeddings as float64, without gradient; on Apple's GPUs, which know no float64, as float32."""
    return x.detach().to(torch.float32 if x.device.type == "mps" else torch.float64)


def distance_rows(queries: Tensor, gallery: Tensor, dtype: torch.dtype) -> Callable[[int, int], Tensor]:
    """Prepare |q_i - g_j|, up to a factor that all pairs share, so that none overflows.

    Args:
        queries: (Q, channels) from ``widened``, finite.
        gallery: (G, channels), likewise.
        dtype: Of the distances, float32 or float64.

    Returns:
        A function (start, stop) -> (stop - start, G).
    """
    spare = torch.finfo(queries.dtype).bits > torch.finfo(dtype).bits
    near = 1e-7 if spare else 1e-2
    x, y = _scaled(queries, gallery)
    centre = y[:: max(1, len(y) // PROBED)].median(0).values
    x, y = x - centre, y - centre
    x_norms, y_norms = (side.square().sum(1) for side in (x, y))

    def rows(start: int, stop: int) -> Tensor:
        some = x[start:stop]
        norms = x_norms[start:stop, None] + y_norms
        with torch.autocast(x.device.type, enabled=False):
            squares = torch.addmm(norms, some, y.mT, alpha=-2)
        i, j = (squares < near * norms).nonzero(as_tuple=True)
        for part in torch.split(torch.arange(len(i), device=i.device), max(1, GATHERED // y.shape[1])):
            squares[i[part], j[part]] = (some[i[part]] - y[j[part]]).square().sum(1)
        return (squares.sqrt() * LARGEST).to(dtype)

    return rows


def _scaled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the largest number near 1 by a power of two, which rounds nothing, so that squares do not overflow."""
    largest = torch.cat([side.flatten().abs() for side in (x, y)]).amax()
    exponent = torch.frexp(largest).exponent
    # In two steps: the reciprocal of the least numbers would overflow.
    half = exponent // 2
    return torch.ldexp(torch.ldexp(x, -half), half - exponent), torch.ldexp(torch.ldexp(y, -half), half - exponent)
