"""A softmax loss beside a metric one, as the published code for 3D shapes has."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew import checks
from otfew.pair_loss import Diagnostics, PairLoss


class WithSoftmax(PairLoss):
    """Adds the cross-entropy of a linear classifier of the embeddings, which is trained with the networks.

    metric + weight * mean over the items of both batches of -log softmax(W x + b)_y. The published code for ModelNet
    adds it with a weight of 1/5 (ModelNet40) or 1 (ModelNet10).

    Args:
        loss: The metric loss; what it compares embeddings by is what is evaluated.
        classes: Of the training images.
        channels: Of the embeddings.
        weight: At least 0.
    """

    def __init__(self, loss: PairLoss, classes: int, channels: int, weight: float) -> None:
        super().__init__()
        self.loss = loss
        self.weight = checks.number(type(self).__name__, "softmax", weight, least=0)
        self.classifier = nn.Linear(channels, classes)
        self.normalised = loss.normalised

    def forward(
        self, first: Tensor, first_labels: Tensor, second: Tensor, second_labels: Tensor
    ) -> tuple[Tensor, Diagnostics]:
        """Compute both losses; the figures are the metric one's, and "softmax"."""
        loss, figures = self.loss(first, first_labels, second, second_labels)
        logits = self.classifier(torch.cat([first, second]).float())
        softmax = functional.cross_entropy(logits, torch.cat([first_labels, second_labels]))
        return loss + self.weight * softmax, {**figures, "softmax": softmax.detach()}
