"""A linear classifier fitted to the support: "Baseline"."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from otfew.baselines._sgd import FittedClassifier, Parameters, residuals, uniform_rows


class LinearClassifier(FittedClassifier):
    """Softmax regression fitted to the support's global vectors by SGD: "Baseline" (Chen et al. 2019, section 3.2).

    logit_c = <w_c, q> + b_c, with q the mean of the query's nodes; w and b minimise the cross-entropy of the support's
    vectors, one item a shot, from ``torch.nn.Linear``'s start. With G = softmax(X W^T) - Y, the gradient of a
    mini-batch of B items is G^T X / B. Uneven shots: a class counts as often as it has shots.

    Args:
        lr: Step size.
        epochs: Passes over the support set.
        batch_size: Items a step.
        momentum: Of SGD.
        dampening: Of SGD.
        weight_decay: Of SGD, on weights and bias.
        seed: Of the start and the order.

    Raises:
        UserError: An option out of range.
    """

    name = "linear-classifier"
    pools = True

    def start(self, way: int, channels: int) -> Parameters:
        """Draw rows with the bias as last column."""
        return (uniform_rows(way, channels, channels + 1, self.seed),)

    def embed(self, vectors: Tensor) -> Tensor:
        """Append a 1, so that the bias is a weight like the others."""
        return pad(vectors, (0, 1), value=1.0)

    def scores(self, parameters: Parameters, items: Tensor) -> Tensor:
        """Compute W x + b."""
        return items @ parameters[0].mT

    def gradient(self, parameters: Parameters, items: Tensor, labels: Tensor) -> Parameters:
        """Compute G^T X / B."""
        return (torch.bmm(residuals(torch.bmm(items, parameters[0].mT), labels), items),)
