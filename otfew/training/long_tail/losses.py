"""Losses and weights for training sets whose classes differ in size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew.transport.sending import send

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (batch, classes), labels (batch,), counts (classes,)) -> losses (batch,)."""


def cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Compute the plain softmax loss.

    Args:
        logits: (batch, classes) float.
        labels: (batch,) int64.
        counts: (classes,) int64, training images of each class; without effect.

    Returns:
        (batch,) losses, in the logits' dtype.
    """
    return functional.cross_entropy(logits, labels, reduction="none")


def focal(logits: Tensor, labels: Tensor, counts: Tensor, gamma: float = 2.0) -> Tensor:
    """Compute (1 - p)^gamma times the softmax loss (Lin et al. 2017), with p the probability of the true class.

    Args:
        logits: (batch, classes) float.
        labels: (batch,) int64.
        counts: (classes,) int64, training images of each class; without effect.
        gamma: Power of 1 - p; 0 is the softmax loss.

    Returns:
        (batch,) losses, in the logits' dtype.
    """
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return (1 - torch.exp(-losses)) ** gamma * losses


def balanced_softmax(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Compute the softmax loss of logits + log n (Ren et al. 2020): the loss of Menon et al. (2021) with tau 1.

    Args:
        logits: (batch, classes) float.
        labels: (batch,) int64.
        counts: (classes,) int64, training images of each class.

    Returns:
        (batch,) losses, in the logits' dtype.
    """
    return functional.cross_entropy(logits + send(counts, logits.device, logits.dtype).log(), labels, reduction="none")


def ldam(logits: Tensor, labels: Tensor, counts: Tensor, largest: float = 0.5, scale: float = 30.0) -> Tensor:
    """Compute the label-distribution-aware margin loss (Cao et al. 2019) of cosines.

    The true class's cosine is lowered by a margin proportional to n^(-1/4), ``largest`` for the smallest class.

    Args:
        logits: (batch, classes) cosines, as of ``CosineHead``.
        labels: (batch,) int64.
        counts: (classes,) int64, training images of each class.
        largest: Margin of the smallest class.
        scale: Factor of the lowered cosines.

    Returns:
        (batch,) losses, in the logits' dtype.
    """
    margins = send(counts, logits.device, logits.dtype) ** -0.25
    margins = margins * (largest / margins.max())
    lowered = logits - functional.one_hot(labels, logits.shape[1]) * margins
    return functional.cross_entropy(scale * lowered, labels, reduction="none")


def inverse_frequency(labels: Tensor, counts: Tensor) -> Tensor:
    """Compute factors proportional to 1 / n_y, with mean 1 over the samples.

    Args:
        labels: (samples,) int64, classes of the training samples.
        counts: (classes,) int64, training images of each class.

    Returns:
        (samples,) float32.
    """
    return _mean_one((1 / send(counts, labels.device).double())[labels])


def class_balanced(labels: Tensor, counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Compute factors proportional to (1 - beta) / (1 - beta^n_y) (Cui et al. 2019), with mean 1 over the samples.

    Args:
        labels: (samples,) int64, classes of the training samples.
        counts: (classes,) int64, training images of each class.
        beta: From 0, where all factors are 1, to below 1, towards 1 / n_y.

    Returns:
        (samples,) float32.
    """
    return _mean_one(((1 - beta) / (1 - beta ** send(counts, labels.device).double()))[labels])


def shuffled_within_classes(weights: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Permute weights (samples,) among the samples of each class: what the class gets stays, which sample does not."""
    generator = torch.Generator().manual_seed(seed)
    labels = labels.cpu()
    source = torch.arange(len(labels))
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero()[:, 0]
        source[members] = members[torch.randperm(len(members), generator=generator)]
    return weights[send(source, weights.device)]


def adjusted(logits: Tensor, counts: Tensor, tau: float) -> Tensor:
    """Subtract tau times the log share of each class (Menon et al. 2021, post hoc): no training.

    Args:
        logits: (images, classes) float.
        counts: (classes,) int64, training images of each class.
        tau: 0 leaves the logits as they are.

    Returns:
        (images, classes) in the logits' dtype.
    """
    return logits - tau * send(counts / counts.sum(), logits.device, logits.dtype).log()


def accuracy_of_classes(logits: Tensor, labels: Tensor) -> float:
    """Compute the mean over classes of the share of right answers, in per cent; classes without an image do not count.

    Args:
        logits: (images, classes) float.
        labels: (images,) int64.

    Returns:
        From 0 to 100.
    """
    right = (logits.argmax(-1) == labels).double()
    sizes = labels.bincount()
    shares = torch.zeros(len(sizes), dtype=torch.float64, device=right.device).index_add(0, labels, right)
    return 100 * float((shares[sizes > 0] / sizes[sizes > 0]).mean())


def group_of(count: int) -> str:
    """Name the group of a class by its training images: many (over 100), medium, few (under 20), as Liu et al. (2019).

    Args:
        count: Training images of the class.
    """
    return "many" if count > 100 else "few" if count < 20 else "medium"


GROUPS = ("many", "medium", "few")


class CosineHead(nn.Module):
    """Cosines to a vector for each class, without bias: LDAM's classifier.

    Args:
        channels: Of the features.
        classes: How many.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, channels).uniform_(-1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (batch, channels) to cosines (batch, classes)."""
        return functional.linear(functional.normalize(features, dim=1), functional.normalize(self.weight, dim=1))


@dataclass(frozen=True)
class Objective:
    """What a second stage minimises: train * mean_i w_i loss_i + meta * mean cross-entropy over the meta set.

    Attributes:
        loss: Of a training sample.
        weights: (samples,) factors of the training samples, or None for 1.
        update: Gives the factors of a batch from its indices instead, as training visits it.
        deferred: Share of the epochs before the weights act (LDAM-DRW: 0.8).
        train: Coefficient of the training samples; 0 leaves them out.
        meta: Coefficient of the meta set.
        pooled: The meta images join the training set.
        balanced: Draw training samples with equal chances for each class (classifier re-training).
        fresh: Begin with a new classifier instead of that of stage 1.
        cosine: Use ``CosineHead``, always fresh.
        summed: Sum over the batch instead of averaging, as published.
    """

    loss: Loss = cross_entropy
    weights: Tensor | None = None
    update: Callable[[Tensor], Tensor] | None = None
    deferred: float = 0.0
    train: float = 1.0
    meta: float = 0.0
    pooled: bool = False
    balanced: bool = False
    fresh: bool = False
    cosine: bool = False
    summed: bool = False

    def train_loss(self, logits: Tensor, labels: Tensor, counts: Tensor, index: Tensor, done: float) -> Tensor:
        """Compute the training part of a batch's loss.

        Args:
            logits: (batch, classes).
            labels: (batch,).
            counts: (classes,) training images.
            index: (batch,) which samples these are.
            done: Share of the epochs already done.
        """
        losses = self.loss(logits, labels, counts)
        if self.update is not None:
            losses = losses * self.update(index)
        elif self.weights is not None and done >= self.deferred:
            # What a device lacks is the batch's factors, not everyone's: they move, and nothing waits for them.
            index = send(index, self.weights.device)
            losses = losses * send(self.weights[index], losses.device)
        return self.train * (losses.sum() if self.summed else losses.mean())

    def order(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the samples of an epoch (samples,): a permutation, or with equal chances for each class."""
        if not self.balanced:
            return torch.randperm(len(labels), generator=generator)
        # The draw is the CPU's, whatever trains.
        labels = labels.cpu()
        chances = 1 / torch.bincount(labels).double()[labels]
        return torch.multinomial(chances, len(labels), replacement=True, generator=generator)


def pooled_with(objective: Objective, sets: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Append the meta set where the objective pools it: (data, labels, meta data, meta labels) -> (data, labels)."""
    data, labels, meta_data, meta_labels = sets
    if not objective.pooled:
        return data, labels
    return torch.cat([data, meta_data]), torch.cat([labels, meta_labels])


def _mean_one(weights: Tensor) -> Tensor:
    return (weights / weights.mean()).float()
