"""Control: DeepEMD's weights, each node to its best match."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from otfew.baselines._base import WeightedControl, in_chunks
from otfew.scores.chamfer import chamfer_similarities


class Chamfer(WeightedControl):
    """Symmetric best match with DeepEMD's weights: matching without the marginals' constraint.

    logit_c = temperature * 1/2 * ( sum_i s_i max_j sim_ij + sum_j d_j max_i sim_ij ), with sim the cosines of
    channel-centred nodes of the query and of class c's mean map, s and d their weights. Each half relaxes one side's
    marginals of DeepEMD's problem, so that the logit is never below DeepEMD's.

    Shots: the location-wise mean map over a class's shots, however many, as for 0-step DeepEMD.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's.
        weights: How much each node counts, as of ``otfew.methods.DeepEMD``: with the same weights, what DeepEMD has
            more is the plan alone. Clusters are matched with clusters.

    Raises:
        UserError: Unknown weights, or a temperature that is not positive.
    """

    name = "chamfer"

    def score(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Compute weighted best matches."""
        elements = query.shape[1] * query.shape[2] * support_map.shape[1] * support_map.shape[2]
        return in_chunks(partial(chamfer_similarities, weights=self.weights), elements, support_map, query)
