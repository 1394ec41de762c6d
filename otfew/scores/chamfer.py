"""Each node to its best match: DeepEMD's similarities and weights without a plan."""

from __future__ import annotations

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
    weights = CrossReference() if weights is None else weights
    support_map, query, s, d = weights.weigh(support_map, query)
    similarity = similarities(support_map, query)
    if isinstance(weights, Clustering):
        # A node that went into a cluster keeps its place, and must not be anybody's best match there.
        similarity = similarity.masked_fill((s == 0)[..., None] | (d == 0)[..., None, :], LEAST)
    return best_matches(similarity, s, d)
