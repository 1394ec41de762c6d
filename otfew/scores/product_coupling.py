"""Every node coupled with every node by the product of the weights: the marginals of DeepEMD's plan, no matching.

Two orders of the same sums: from similarities that are there already, and from nodes, which forms no matrix of them.
"""

from __future__ import annotations

from torch import Tensor

from otfew.scores.node_weights import CrossReference, NodeWeights
from otfew.scores.pairwise import centre, centred_norms


def coupled(similarity: Tensor, s: Tensor, d: Tensor) -> Tensor:
    """Average similarities under the product of the weights.

    Args:
        similarity: (..., m, n) of the nodes of two images.
        s: (..., m) weights of the first image's nodes, total 1.
        d: (..., n) of the second's.

    Returns:
        (...).
    """
    return (s * (similarity @ d[..., None])[..., 0]).sum(-1)


def product_coupling_similarities(support_map: Tensor, query: Tensor, weights: NodeWeights | None = None) -> Tensor:
    """Average all similarities under the product of both sides' weights.

    sum_ij s_i d_j cos(u_i, v_j) = < sum_i s_i u_i / |u_i| , sum_j d_j v_j / |v_j| >: no n x m matrix is formed.

    Args:
        support_map: (episodes, way, n, channels).
        query: (episodes, n_query, m, channels).
        weights: How much each node counts; None is ``CrossReference()``.

    Returns:
        (episodes, n_query, way).
    """
    support_map, query, s, d = (CrossReference() if weights is None else weights).weigh(support_map, query)
    # Centring over channels is linear: the pooled vectors are centred instead of all nodes.
    pooled_query = centre((s / centred_norms(query)[:, :, None]) @ query)
    pooled_support = centre((d / centred_norms(support_map)[:, None]).transpose(1, 2) @ support_map)
    return (pooled_query * pooled_support.transpose(1, 2)).sum(-1)
