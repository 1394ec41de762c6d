"""Control: cross-reference weights, every node coupled with every node."""

from __future__ import annotations

from torch import Tensor

from otfew.baselines._base import MeanMapControl
from otfew.scores.product_coupling import product_coupling_similarities


class ProductCoupling(MeanMapControl):
    """Similarity under the product plan of DeepEMD's weights: the same marginals, no matching.

    logit_c = temperature * sum_ij s_i d_j sim_ij, with sim the cosines of channel-centred nodes of the query and of
    class c's mean map, s and d as in ``otfew.scores.pairwise.cr_weights``. The plan s d^T is feasible in DeepEMD's
    problem, so that the logit is never above DeepEMD's; it is DeepEMD's in the limit of infinite entropic
    regularisation.

    Shots: the location-wise mean map over a class's shots, however many, as for 0-step DeepEMD.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's.
    """

    name = "product-coupling"

    def score(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Compute similarities under the product plan."""
        return product_coupling_similarities(support_map, query)
