"""Control: cross-reference weights, pooled, no matching."""

from __future__ import annotations

from torch import Tensor

from otfew.baselines._base import MeanMapControl
from otfew.baselines._cosine import unit
from otfew.scores.pairwise import centre, cr_weights


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


class CRPooled(MeanMapControl):
    """Cosine of the pooled nodes, pooled with DeepEMD's cross-reference weights.

    logit_c = temperature * cos( sum_i s_i u'_i , sum_j d_j v'_j ), with u' and v' the channel-centred nodes of the
    query and of class c's mean map, s and d as in ``otfew.scores.pairwise.cr_weights``. Nodes are not
    L2-normalised before pooling. What DeepEMD adds to this is the matching of nodes.

    Shots: the location-wise mean map over a class's shots, however many, as for 0-step DeepEMD.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's.
    """

    name = "cr-pooled"

    def score(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Compute cosines of pooled nodes."""
        return cr_pooled_cosines(support_map, query)
