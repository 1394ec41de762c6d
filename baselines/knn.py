"""DN4: image to class by nearest nodes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from otfew import checks
from otfew.baselines._base import Baseline, in_chunks
from otfew.baselines._shots import pooled_nodes
from otfew.scores.cosine import unit
from otfew.scores.pairwise import NORM_EPS


def nearest_node_scores(nodes: Tensor, valid: Tensor, query: Tensor, k: int) -> Tensor:
    """Sum, over query nodes, the cosines to their k nearest nodes of each class.

    Args:
        nodes: (episodes, way, n, channels), all nodes of a class.
        valid: (episodes, way, n) bool, False at nodes to ignore; each class keeps at least one.
        query: (episodes, n_query, m, channels).
        k: Nearest nodes that count; a class with fewer than k lets them stand for the missing.

    Returns:
        (episodes, n_query, way).
    """
    return nearest_units(unit(nodes), valid, query, k)


def nearest_units(units: Tensor, valid: Tensor, query: Tensor, k: int) -> Tensor:
    """Do the same of nodes that have been brought to length 1."""
    episodes, way, n_support, _ = units.shape
    _, n_query, n_nodes, _ = query.shape
    # The norm of a query node does not change which nodes are nearest: divide the sums, not the nodes.
    dots = query.flatten(1, 2) @ units.flatten(1, 2).mT
    dots = dots.view(episodes, n_query, n_nodes, way, n_support).masked_fill(~valid[:, None, None], -torch.inf)
    best = dots.topk(min(k, n_support), dim=-1, sorted=True).values
    used = valid.sum(-1).clamp_max(k)
    counts = torch.arange(best.shape[-1], device=used.device) < used[..., None]
    sums = best.masked_fill(~counts[:, None, None], 0).sum(-1)
    norms = torch.linalg.vector_norm(query, dim=-1).clamp_min(NORM_EPS)
    scores: Tensor = (sums / norms[..., None]).sum(2) * (k / used.to(sums.dtype))[:, None]
    return scores


class KNN(Baseline):
    """Local k-nearest neighbours from image to class: DN4 (Li et al. 2019, equation 2).

    logit_c = sum_i sum_{j in kNN_c(i)} cos(u_i, v_j): every query node u_i, its k nearest among the raw nodes of all
    shots of class c pooled into one set. Uneven shots: pooling more shots offers more neighbours, which is DN4's own
    bias; a class with fewer than k nodes has its sum scaled by k over their number.

    Args:
        k: Nearest nodes that count; 3 as in the paper.

    Raises:
        UserError: An option out of range.
    """

    name = "knn"
    counts_shots = True

    def __init__(self, k: int = 3) -> None:
        self.k = checks.whole(self.name, "k", k)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Compute sums of cosines to the nearest nodes."""
        nodes, valid = pooled_nodes(support, support_mask)
        elements = query.shape[1] * query.shape[2] * valid.shape[1] * valid.shape[2]
        return in_chunks(lambda n, v, q: nearest_node_scores(n, v, q, self.k), elements, nodes, valid, query)

    def settled(self, support: Tensor, support_mask: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Bring the nodes to length 1."""
        nodes, valid = pooled_nodes(support, support_mask)
        units = unit(nodes)

        def answer(query: Tensor) -> Tensor:
            elements = query.shape[1] * query.shape[2] * valid.shape[1] * valid.shape[2]
            return in_chunks(lambda n, v, q: nearest_units(n, v, q, self.k), elements, units, valid, query)

        return answer
