"""One cosine of two images' nodes pooled with cross-reference weights.

Two orders of the same sums: from nodes, and from products of nodes that are there already.
"""

from __future__ import annotations

from torch import Tensor

from otfew.scores.cosine import unit
from otfew.scores.pairwise import NORM_EPS, centre, cr_weights


def cr_pooled_cosines(support_map: Tensor, query: Tensor) -> Tensor:
    """Pool both sides with their cross-reference weights, then take one cosine.

    Args:
        support_map: (episodes, way, n, channels).
        query: (episodes, n_query, m, channels).

    Returns:
        (episodes, n_query, way).
    """
    s, d = cr_weights(support_map, query)
    # Centring over channels is linear: the pooled vectors are centred instead of all nodes.
    pooled_query = unit(centre(s @ query))
    pooled_support = unit(centre(d.transpose(1, 2) @ support_map)).transpose(1, 2)
    return (pooled_query * pooled_support).sum(-1)


def cosine_of_pooled(
    similarity: Tensor, s: Tensor, d: Tensor, lengths: tuple[Tensor, Tensor], products: tuple[Tensor, Tensor]
) -> Tensor:
    """Compute the same cosine without the nodes.

    Args:
        similarity: (..., m, n) cosines of the centred nodes of two images.
        s: (..., m) weights of the first image's nodes.
        d: (..., n) of the second's.
        lengths: Norms of the centred nodes, (..., m) and (..., n).
        products: Of an image's centred nodes with each other, (..., m, m) and (..., n, n).

    Returns:
        (...).
    """
    product = (s * lengths[0] * (similarity @ (d * lengths[1])[..., None])[..., 0]).sum(-1)
    norms = [_norm(weights, inner) for weights, inner in zip((s, d), products, strict=True)]
    return product / (norms[0] * norms[1])


def _norm(weights: Tensor, products: Tensor) -> Tensor:
    """Norm (...) of the sum of nodes with these weights (..., n) and inner products (..., n, n)."""
    square = ((weights[..., None, :] @ products)[..., 0, :] * weights).sum(-1)
    # Rounding may leave a little below zero.
    return square.clamp_min(0).sqrt().clamp_min(NORM_EPS)
