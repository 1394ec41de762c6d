"""Control: cross-reference weights, pooled, no matching."""

from __future__ import annotations

from torch import Tensor

from otfew.baselines._base import MeanMapControl
from otfew.scores.cr_pooled import cr_pooled_cosines


class CRPooled(MeanMapControl):
    """Cosine of the pooled nodes, pooled with DeepEMD's cross-reference weights.

    logit_c = temperature * cos( sum_i s_i u'_i , sum_j d_j v'_j ), with u' and v' the channel-centred nodes of the
    query and of class c's mean map, s and d as in ``otfew.scores.pairwise.cr_weights``. Nodes are not
    L2-normalised before pooling. What DeepEMD adds to this is the matching of nodes.

    Shots: the location-wise mean map over a class's shots, however many, as for 0-step DeepEMD.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's.

    Raises:
        UserError: A temperature that is not positive.
    """

    name = "cr-pooled"

    def score(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Compute cosines of pooled nodes."""
        return cr_pooled_cosines(support_map, query)
