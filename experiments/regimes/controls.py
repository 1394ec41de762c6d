"""Chamfer's best matches with equal weights: the control of DeepEMD with equal weights, on mosaics."""

from __future__ import annotations

from torch import Tensor

from otfew.baselines._base import MeanMapControl, in_chunks
from otfew.scores.chamfer import best_matches
from otfew.scores.node_weights import Uniform
from otfew.scores.pairwise import similarities


class EqualChamfer(MeanMapControl):
    """Symmetric best match where every node counts alike: DeepEMD's relaxation with uniform weights.

    logit_c = temperature * 1/2 * ( mean_i max_j sim_ij + mean_j max_i sim_ij ), with sim as in ``otfew.baselines``'
    ``chamfer``. How many nodes of the other side share a best match has no part in it.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's.
    """

    name = "chamfer-equal"

    def __repr__(self) -> str:
        """Name it, for records."""
        return f"EqualChamfer(temperature={self.temperature:g})"

    def score(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Average best matches: (episodes, n_query, way)."""
        elements = query.shape[1] * query.shape[2] * support_map.shape[1] * support_map.shape[2]
        return in_chunks(_equal_matches, elements, support_map, query)


def _equal_matches(support_map: Tensor, query: Tensor) -> Tensor:
    return best_matches(similarities(support_map, query), *Uniform()(support_map, query))
