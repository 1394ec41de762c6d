"""Prototypical networks: the nearest class mean."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew import checks
from otfew.baselines._base import Baseline
from otfew.method import global_vectors, shot_mean


def negative_squared_distances(prototypes: Tensor, vectors: Tensor) -> Tensor:
    """Compute -|vector - prototype|^2.

    Differences are taken before squaring: the expanded square would cancel in float32 for vectors with a large common
    mean.

    Args:
        prototypes: (episodes, way, channels).
        vectors: (episodes, n_query, channels).

    Returns:
        (episodes, n_query, way).
    """
    return -torch.cdist(vectors, prototypes, compute_mode="donot_use_mm_for_euclid_dist").square()


class ProtoNet(Baseline):
    """Nearest class mean in squared Euclidean distance (Snell et al. 2017, equation 2).

    logit_c = -temperature * |q - p_c|^2, with q the mean of the query's nodes and p_c the mean over the shots of
    class c of the means of their nodes. Uneven shots: each class is the mean of the shots that it has.

    Args:
        temperature: Scale of the logits; 1 in the paper. Without effect on accuracy.

    Raises:
        UserError: A temperature that is not positive.

    Examples:
        >>> support = torch.tensor([[0.0, 0.0], [4.0, 0.0]]).view(1, 2, 1, 1, 2)  # episodes, way, shot, nodes, channels
        >>> ProtoNet()(support, torch.tensor([[[[1.0, 0.0]]]]))
        tensor([[[-1., -9.]]])
    """

    name = "protonet"
    pools = True

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = checks.number(self.name, "temperature", temperature, above=0)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Compute scaled negative squared distances."""
        prototypes = global_vectors(shot_mean(support, support_mask))
        return self.temperature * negative_squared_distances(prototypes, global_vectors(query))
