"""Control: DeepEMD's weights, each node to its best match, and only the best of these count."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from otfew import checks
from otfew.baselines._base import WeightedControl, in_chunks
from otfew.scores.chamfer import trimmed_chamfer_similarities
from otfew.scores.node_weights import NodeWeights


class TrimmedChamfer(WeightedControl):
    """Best matches of the best-matching part of both sides: ``deepemd(mass=...)`` without transport.

    logit_c = temperature * 1/2 * ( sum_i s*_i max_j sim_ij + sum_j d*_j max_i sim_ij ) / mass, with sim the cosines of
    channel-centred nodes of the query and of class c's mean map; s* takes from the weights s of the query's
    nodes, from those with the largest max_j sim_ij downward, as much as totals ``mass``, a node at the edge in
    part; d* likewise. Each half relaxes one side's marginals of the partial problem, so that the logit is never below
    that of ``deepemd`` with the same ``mass``. With ``mass`` 1 it is ``chamfer``.

    Shots: the location-wise mean map over a class's shots, however many, as for 0-step DeepEMD.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's.
        mass: Fraction of each side's weight that counts, above 0 and at most 1. The default was chosen on validation
            classes of the birds.
        weights: How much each node counts, as of ``otfew.methods.DeepEMD``.

    Raises:
        UserError: An option out of range, or unknown weights.
    """

    name = "trimmed-chamfer"

    def __init__(
        self, temperature: float = 12.5, mass: float = 0.9, weights: str | NodeWeights = "cross_reference"
    ) -> None:
        super().__init__(temperature, weights)
        self.mass = checks.number(self.name, "mass", mass, above=0, most=1)

    def score(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Compute weighted best matches of the best part."""
        elements = query.shape[1] * query.shape[2] * support_map.shape[1] * support_map.shape[2]
        similarities = partial(trimmed_chamfer_similarities, mass=self.mass, weights=self.weights)
        return in_chunks(similarities, elements, support_map, query)
