"""Each node to its best match, or the best of these, with cross-reference weights: DeepEMD's without a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.scores.pairwise import cr_weights, similarities


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


def chamfer_similarities(support_map: Tensor, query: Tensor) -> Tensor:
    """Average the best matches of both sides' nodes with their cross-reference weights.

    Args:
        support_map: (episodes, way, n, channels).
        query: (episodes, n_query, m, channels).

    Returns:
        (episodes, n_query, way).
    """
    return best_matches(similarities(support_map, query), *cr_weights(support_map, query))


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


def trimmed_chamfer_similarities(support_map: Tensor, query: Tensor, mass: float) -> Tensor:
    """Average the best matches of the best-matching part of both sides, with their cross-reference weights.

    Args:
        support_map: (episodes, way, n, channels).
        query: (episodes, n_query, m, channels).
        mass: Fraction of each side's weight that counts.

    Returns:
        (episodes, n_query, way).
    """
    return trimmed_matches(similarities(support_map, query), *cr_weights(support_map, query), mass)
