"""Control: the mean of all cosines between nodes."""

from __future__ import annotations

from torch import Tensor

from otfew.baselines._base import MeanMapControl
from otfew.scores.pairwise import centre, centred_norms


def mean_node_cosines(support_map: Tensor, query: Tensor) -> Tensor:
    """Average the cosines of all pairs of channel-centred nodes, as one product of means of unit nodes.

    Args:
        support_map: (episodes, way, n, channels).
        query: (episodes, n_query, m, channels).

    Returns:
        (episodes, n_query, way).
    """
    return _mean_unit(query) @ _mean_unit(support_map).mT


def _mean_unit(nodes: Tensor) -> Tensor:
    """Average centred nodes of norm 1: (..., n, channels) to (..., channels)."""
    weights = centred_norms(nodes).reciprocal() / nodes.shape[-2]
    # Centring over channels is linear: the mean is centred instead of all nodes.
    return centre((weights[..., None, :] @ nodes).squeeze(-2))


class CosineNodes(MeanMapControl):
    """Mean of all pairwise cosines of nodes: "dense connection, average" of DeepEMD's Table 2.

    logit_c = temperature * 1/(M N) * sum_ij sim_ij, with sim the cosines of channel-centred nodes of the query (M)
    and of class c's mean map (N): the product plan of uniform weights.

    Shots: the location-wise mean map over a class's shots, however many, as for 0-step DeepEMD.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's.

    Raises:
        UserError: A temperature that is not positive.
    """

    name = "cosine-nodes"

    def score(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Compute mean cosines."""
        return mean_node_cosines(support_map, query)
