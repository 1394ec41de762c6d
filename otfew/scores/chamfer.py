"""Each node to its best match, with cross-reference weights: DeepEMD's similarities and weights without a plan."""

from __future__ import annotations

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
