"""Control: DeepEMD's weights, every node coupled with every node."""

from __future__ import annotations

from torch import Tensor

from otfew.baselines._base import WeightedControl
from otfew.scores.product_coupling import product_coupling_similarities


class ProductCoupling(WeightedControl):
    """Similarity under the product plan of DeepEMD's weights: the same marginals, no matching.

    logit_c = temperature * sum_ij s_i d_j sim_ij, with sim the cosines of channel-centred nodes of the query and of
    class c's mean map, s and d their weights. The plan s d^T is feasible in DeepEMD's problem, so that the logit is
    never above DeepEMD's; it is DeepEMD's in the limit of infinite entropic regularisation.

    Shots: the location-wise mean map over a class's shots, however many, as for 0-step DeepEMD.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's.
        weights: How much each node counts, as of ``otfew.methods.DeepEMD``. With "uniform" it is ``CosineNodes``.

    Raises:
        UserError: Unknown weights, or a temperature that is not positive.
    """

    name = "product-coupling"

    def score(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Compute similarities under the product plan."""
        return product_coupling_similarities(support_map, query, self.weights)
