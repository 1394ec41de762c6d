"""The published mini-batch schedule of OT re-weighting (Guo et al. 2022, released code), for comparison.

One step of gradient descent on the weights of a batch, through a Sinkhorn loop that stops when the row potentials move
by less than 0.1 in all; weights start at the class-balanced ones of Cui et al. (2019) and hardly leave them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.methods._otrw_costs import feature_costs, label_costs
from otfew.methods._otrw_solve import turns_at_once

BATCH = 16
EPOCHS = 90
REG = 0.1
MAX_ITER = 200
THRESHOLD = 0.1
LEARNING_RATE = 0.01
WEIGHT_DECAY = 5e-4
BETA = 0.9999
MASS_EPS = 1e-8
"""Added to weights before their logarithm."""
HEAD_LEARNING_RATE = 2e-5
META_COEFFICIENT = 10.0
"""Of the mean cross-entropy over the meta set, beside the weighted sum over the batch."""


def initial_weights(labels: Tensor, classes: int) -> Tensor:
    """Compute class-balanced weights, (1 - beta) / (1 - beta^n_y) with sum K over the classes: (samples,) float32."""
    counts = torch.bincount(labels, minlength=classes).double()
    by_class = (1 - BETA) / (1 - BETA**counts)
    return (classes * by_class / by_class.sum())[labels].float()


def published_cost(features: Tensor, labels: Tensor, protos: Tensor, proto_labels: Tensor, classes: int) -> Tensor:
    """Combine costs as released: half of 1 - cosine plus half of the mean squared difference of one-hot labels.

    Args:
        features: (batch, channels).
        labels: (batch,).
        protos: (meta, channels).
        proto_labels: (meta,).
        classes: Length of the one-hot vectors: labels that differ cost 2 / classes, before halving.

    Returns:
        (meta, batch) float32.
    """
    label_part = label_costs(proto_labels, labels, "zero-one") * (2 / classes)
    return (0.5 * feature_costs(protos, features) + 0.5 * label_part).float()


def transport_loss(cost: Tensor, weights: Tensor) -> Tensor:
    """Compute <plan, cost> of softmax(weights) against uniform rows, differentiable through the iterations.

    Args:
        cost: (meta, batch) float32.
        weights: (batch,) float32.
    """
    log_nu = torch.log(torch.softmax(weights, 0) + MASS_EPS)
    log_mu = torch.log(cost.new_full((len(cost),), 1 / len(cost)) + MASS_EPS)
    u, v = torch.zeros_like(log_mu), torch.zeros_like(log_nu)
    done = 0
    while done < MAX_ITER:
        found, moves = [], []
        for _ in range(min(turns_at_once(cost), MAX_ITER - done)):
            before = u
            u = REG * (log_mu - torch.logsumexp((u[:, None] + v - cost) / REG, 1)) + u
            v = REG * (log_nu - torch.logsumexp((u[:, None] + v - cost) / REG, 0)) + v
            found.append((u, v))
            moves.append((u - before).detach().abs().sum())
        done += len(found)
        small = [move < THRESHOLD for move in torch.stack(moves).tolist()]
        if any(small):
            u, v = found[small.index(True)]
            break
    return (torch.exp((u[:, None] + v - cost) / REG) * cost).sum()


def updated(weights: Tensor, cost: Tensor) -> Tensor:
    """Do the one step: the optimizer is made anew for each batch, so its momentum never acts.

    Args:
        weights: (batch,) float32 of this batch.
        cost: (meta, batch) float32.
    """
    weights = weights.detach().requires_grad_()
    (grad,) = torch.autograd.grad(transport_loss(cost, weights), weights)
    return weights.detach() - LEARNING_RATE * (grad + WEIGHT_DECAY * weights.detach())


class PublishedSchedule:
    """All weights, updated batch by batch as training visits the samples.

    Args:
        features: (samples, channels).
        labels: (samples,) int64.
        protos: (meta, channels); as published, features of the pixel means of each class.
        proto_labels: (meta,) int64.

    Attributes:
        weights: (samples,) float32, unnormalised, as the published loss uses them.
    """

    def __init__(self, features: Tensor, labels: Tensor, protos: Tensor, proto_labels: Tensor) -> None:
        self.classes = int(proto_labels.max()) + 1
        self.weights = initial_weights(labels, self.classes)
        self._data = (features, labels)
        self._protos = (protos, proto_labels)

    def __call__(self, index: Tensor) -> Tensor:
        """Update the weights of a batch (batch,) and return them."""
        features, labels = self._data
        cost = published_cost(features[index], labels[index], *self._protos, self.classes)
        self.weights[index] = updated(self.weights[index], cost)
        return self.weights[index]
