"""Each node to its best match, or the best of these: DeepEMD's similarities and weights without a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.scores.node_weights import Clustering, CrossReference, NodeWeights
from otfew.scores.pairwise import similarities

LEAST = -1.0
"""The least cosine: a partner that does not count is no better than any other."""


def best_matches(similarity: Tensor, s: Tensor, d: Tensor) -> Tensor:
    """Average the best matches of both sides' nodes.

    Args:
        similarity: (..., m, n) of the nodes of two images.
        s: (..., m) weights of the first image's nodes, total 1.
        d: (..., n) of the second's.

    Returns:
        (...); never below the mean similarity under a plan with these marginals.
    """
    return ((s * similarity.amax(-1)).sum(-1) + (d * similarity.amax(-2)).sum(-1)) / 2


def chamfer_similarities(support_map: Tensor, query: Tensor, weights: NodeWeights | None = None) -> Tensor:
    """Average the best matches of both sides' nodes with their weights.

    Args:
        support_map: (episodes, way, n, channels).
        query: (episodes, n_query, m, channels).
        weights: How much each node counts; None is ``CrossReference()``.

    Returns:
        (episodes, n_query, way).
    """
    return best_matches(*_weighed(support_map, query, weights))


def trimmed_matches(similarity: Tensor, s: Tensor, d: Tensor, mass: float) -> Tensor:
    """Average the best matches of both sides' nodes over the fraction of each side's weight that matches best.

    Args:
        similarity: (..., m, n) of the nodes of two images.
        s: (..., m) weights of the first image's nodes, total 1.
        d: (..., n) of the second's.
        mass: The fraction, above 0 and at most 1; a node at its edge counts in part.

    Returns:
        (...); never below the mean similarity under a plan of that mass with marginals of at most these.
    """
    sides = ((similarity.amax(-1), s), (similarity.amax(-2), d))
    return sum((_best_part(best, weights, mass) for best, weights in sides), start=similarity.new_zeros(())) / 2


def _best_part(best: Tensor, weights: Tensor, mass: float) -> Tensor:
    """Average (..., n) numbers over the ``mass`` of their weights that has the largest."""
    best, order = best.sort(-1, descending=True)
    weights = weights.expand_as(order).gather(-1, order)
    before = weights.cumsum(-1) - weights
    counted = torch.minimum((mass - before).clamp_min(0), weights)
    return (counted * best).sum(-1) / mass


def trimmed_chamfer_similarities(
    support_map: Tensor, query: Tensor, mass: float, weights: NodeWeights | None = None
) -> Tensor:
    """Average the best matches of the best-matching part of both sides, with DeepEMD's weights.

    Args:
        support_map: (episodes, way, n, channels).
        query: (episodes, n_query, m, channels).
        mass: Fraction of each side's weight that counts.
        weights: As of ``chamfer_similarities``.

    Returns:
        (episodes, n_query, way).
    """
    return trimmed_matches(*_weighed(support_map, query, weights), mass)


def _weighed(support_map: Tensor, query: Tensor, weights: NodeWeights | None) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the similarities of nodes, and both sides' weights."""
    weights = CrossReference() if weights is None else weights
    support_map, query, s, d = weights.weigh(support_map, query)
    similarity = similarities(support_map, query)
    if isinstance(weights, Clustering):
        # A node that went into a cluster keeps its place, and must not be anybody's best match there.
        similarity = similarity.masked_fill((s == 0)[..., None] | (d == 0)[..., None, :], LEAST)
    return similarity, s, d
