"""A cosine classifier fitted to the support: "Baseline++"."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew import checks
from otfew.baselines._sgd import FittedClassifier, Parameters, residuals, uniform_rows
from otfew.scores.cosine import unit


class CosineClassifier(FittedClassifier):
    """Cosine classifier fitted to the support's global vectors by SGD: "Baseline++" (Chen et al. 2019, section 3.2).

    logit_c = scale * g_c * cos(v_c, q), with q the mean of the query's nodes; rows v and their lengths g are both
    learned (weight normalisation, as in the released code), from ``torch.nn.Linear``'s start, on the cross-entropy of
    the support's vectors, one item a shot. With H the gradient by the rows g_c v_c / |v_c|: the gradient by g_c is
    <H_c, v_c / |v_c|>, by v_c the part of H_c * g_c / |v_c| at right angles to v_c. Uneven shots: a class counts as
    often as it has shots.

    Args:
        scale: Factor of the logits, 2 in the released code.
        lr: Step size.
        epochs: Passes over the support set.
        batch_size: Items a step.
        momentum: Of SGD.
        dampening: Of SGD.
        weight_decay: Of SGD, on rows and lengths.
        seed: Of the start and the order.

    Raises:
        UserError: An option out of range.
    """

    name = "cosine-classifier"
    pools = True

    def __init__(
        self,
        scale: float = 2.0,
        lr: float = 0.01,
        epochs: int = 100,
        batch_size: int = 4,
        momentum: float = 0.9,
        dampening: float = 0.9,
        weight_decay: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(lr, epochs, batch_size, momentum, dampening, weight_decay, seed)
        self.scale = checks.number(self.name, "scale", scale, above=0)

    def start(self, way: int, channels: int) -> Parameters:
        """Draw rows; lengths are the rows' own, so that the product is the drawn matrix."""
        rows = uniform_rows(way, channels, channels, self.seed)
        return rows, torch.linalg.vector_norm(rows, dim=-1, keepdim=True)

    def embed(self, vectors: Tensor) -> Tensor:
        """L2-normalise."""
        return unit(vectors)

    def scores(self, parameters: Parameters, items: Tensor) -> Tensor:
        """Compute scaled cosines."""
        rows, lengths = parameters
        return self.scale * items @ (unit(rows) * lengths).mT

    def gradient(self, parameters: Parameters, items: Tensor, labels: Tensor) -> Parameters:
        """Compute the gradient by rows and lengths."""
        rows, lengths = parameters
        norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        directions = rows / norms
        scores = torch.bmm(self.scale * items, (directions * lengths).mT)
        slope = torch.bmm(self.scale * residuals(scores, labels), items)
        along = (slope * directions).sum(-1, keepdim=True)
        return (slope - along * directions) * (lengths / norms), along
