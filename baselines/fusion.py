"""Prediction fusion: every query node votes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otfew import checks
from otfew.baselines._base import Baseline
from otfew.method import global_vectors, shot_mean
from otfew.scores.cosine import unit
from otfew.scores.pairwise import NORM_EPS


def fused_log_probability(prototypes: Tensor, query: Tensor, temperature: float) -> Tensor:
    """Average the class probabilities that the nodes of a query get one by one.

    Args:
        prototypes: (episodes, way, channels).
        query: (episodes, n_query, nodes, channels).
        temperature: Factor of the cosines.

    Returns:
        Log of the mean probability, (episodes, n_query, way).
    """
    norms = torch.linalg.vector_norm(query, dim=-1, keepdim=True).clamp_min(NORM_EPS)
    dots = (query.flatten(1, 2) @ unit(prototypes).mT).view(*query.shape[:3], -1)
    local: Tensor = (temperature * dots / norms).log_softmax(-1)
    return local.logsumexp(2) - math.log(query.shape[2])


class Fusion(Baseline):
    """Local predictions averaged: "prediction fusion" of DeepEMD's Table 1, after Lifchitz et al. 2019.

    logit_c = log( (1/M) sum_i softmax_c( temperature * cos(u_i, p_c) ) ): each of the query's M nodes u_i is
    classified by itself against the class means p_c (over nodes and shots, raw features), and the probabilities are
    averaged. DeepEMD's paper gives no formula; this is dense classification's, whose classes are vectors that all
    locations share. Uneven shots: each class is the mean of the shots that it has.

    Args:
        temperature: Factor of the cosines; 12.5 as DeepEMD's. It changes accuracy: the larger, the more a vote counts
            by its winner alone.

    Raises:
        UserError: An option out of range.
    """

    name = "fusion"

    def __init__(self, temperature: float = 12.5) -> None:
        self.temperature = checks.number(self.name, "temperature", temperature, above=0)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Compute log mean probabilities."""
        return fused_log_probability(global_vectors(shot_mean(support, support_mask)), query, self.temperature)
