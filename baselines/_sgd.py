"""A small classifier fitted by SGD to each of many episodes at once."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from otfew import checks
from otfew.baselines._base import Baseline
from otfew.baselines._shots import labelled_items, shot_vectors
from otfew.method import global_vectors
from otfew.transport.sending import send

Parameters = tuple[Tensor, ...]
Gradient = Callable[[Parameters, Tensor, Tensor], Parameters]
"""(parameters, items (episodes, batch, channels), one-hot labels (episodes, batch, way)) -> gradient of mean loss."""


def orders(n_items: int, epochs: int, seed: int) -> Tensor:
    """Draw the order of the items in each epoch, (epochs, n_items) int64: a function of these three numbers only."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(n_items, generator=generator) for _ in range(epochs)])


@torch.no_grad()
def fit(
    start: Parameters,
    gradient: Gradient,
    items: Tensor,
    labels: Tensor,
    *,
    order: Tensor,
    batch_size: int,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
) -> Parameters:
    """Minimise each episode's loss by ``torch.optim.SGD``'s rule, all episodes in step.

    Args:
        start: Parameters (episodes, ...) to start from; not changed.
        gradient: Gradient of an episode's mean loss over a mini-batch.
        items: (episodes, items, channels).
        labels: (episodes, items, way) one-hot.
        order: (epochs, items) of items in each epoch, alike for all episodes.
        batch_size: Items a step; the last step of an epoch takes what is left.
        lr: Step size.
        momentum: Factor of the previous step.
        dampening: 1 - dampening weighs each gradient but the first.
        weight_decay: Factor of the parameters added to the gradient.

    Returns:
        The fitted parameters, without gradient.
    """
    parameters = tuple(p.clone() for p in start)
    steps: Parameters = ()
    # Once for all steps, and without waiting for a device.
    order = send(order, items.device)
    for epoch in order.unbind():
        ordered = zip(*(torch.split(x[:, epoch], batch_size, 1) for x in (items, labels)), strict=True)
        for some_items, some_labels in ordered:
            slopes = gradient(parameters, some_items, some_labels)
            slopes = tuple(g.add_(p, alpha=weight_decay) for g, p in zip(slopes, parameters, strict=True))
            if not steps:
                steps = slopes
            else:
                for step, slope in zip(steps, slopes, strict=True):
                    step.mul_(momentum).add_(slope, alpha=1 - dampening)
            for p, step in zip(parameters, steps, strict=True):
                p.sub_(step, alpha=lr)
    return parameters


class FittedClassifier(Baseline):
    """A classifier fitted to an episode's support vectors as by Chen et al. 2019.

    The optimiser is that of their released code: SGD with momentum 0.9, dampening 0.9 and weight decay 1e-3 on
    mini-batches of 4, 100 passes over the support set in a new random order each (the paper says 100 iterations; the
    code, which made its tables, 100 passes). Start and order depend on ``seed``, the way and the number of support
    items only, alike in all episodes; so a permutation of classes or shots changes logits as another seed would. No
    gradient flows into the support: the backbone is frozen while the classifier is fitted.

    Args:
        lr: Step size.
        epochs: Passes over the support set.
        batch_size: Items a step.
        momentum: Of SGD.
        dampening: Of SGD.
        weight_decay: Of SGD, on all parameters.
        seed: Of the start and the order.

    Raises:
        UserError: An option out of range.
    """

    frozen = True
    ordered = True
    counts_shots = True

    def __init__(
        self,
        lr: float = 0.01,
        epochs: int = 100,
        batch_size: int = 4,
        momentum: float = 0.9,
        dampening: float = 0.9,
        weight_decay: float = 1e-3,
        seed: int = 0,
    ) -> None:
        self.lr = checks.number(self.name, "lr", lr, above=0)
        self.epochs = checks.whole(self.name, "epochs", epochs)
        self.batch_size = checks.whole(self.name, "batch_size", batch_size)
        self.momentum = checks.number(self.name, "momentum", momentum, least=0, most=1)
        self.dampening = checks.number(self.name, "dampening", dampening, least=0, most=1)
        self.weight_decay = checks.number(self.name, "weight_decay", weight_decay, least=0)
        self.seed = checks.seed(self.name, "seed", seed)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Fit, then score the query."""
        return self.settled(support, support_mask)(query)

    def settled(self, support: Tensor, support_mask: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Fit."""
        way, channels = support.shape[1], support.shape[-1]
        groups: list[tuple[Tensor, Parameters]] = []
        for group, items, labels in labelled_items(shot_vectors(support.detach(), support_mask), support_mask):
            start = self.start(way, channels)
            parameters = fit(
                tuple(send(p, support.device, support.dtype).expand(len(group), *p.shape) for p in start),
                self.gradient,
                self.embed(items),
                one_hot(labels, way).to(items.dtype),
                order=orders(items.shape[1], self.epochs, self.seed),
                batch_size=self.batch_size,
                lr=self.lr,
                momentum=self.momentum,
                dampening=self.dampening,
                weight_decay=self.weight_decay,
            )
            groups.append((group, parameters))

        def answer(query: Tensor) -> Tensor:
            vectors = global_vectors(query)
            logits: Tensor = vectors.new_zeros(*vectors.shape[:2], way)
            for group, parameters in groups:
                logits = logits.index_copy(0, group, self.scores(parameters, self.embed(vectors[group])))
            return logits

        return answer

    @abstractmethod
    def start(self, way: int, channels: int) -> Parameters:
        """Draw one episode's parameters from ``seed``.

        Args:
            way: Classes.
            channels: Of the global vectors.

        Returns:
            Tensors (way, ...) float64.
        """

    @abstractmethod
    def embed(self, vectors: Tensor) -> Tensor:
        """Prepare global vectors for the classifier.

        Args:
            vectors: (..., channels).

        Returns:
            (..., features).
        """

    @abstractmethod
    def scores(self, parameters: Parameters, items: Tensor) -> Tensor:
        """Compute logits.

        Args:
            parameters: (episodes, way, ...) each.
            items: (episodes, items, features), as ``embed`` makes them.

        Returns:
            (episodes, items, way).
        """

    @abstractmethod
    def gradient(self, parameters: Parameters, items: Tensor, labels: Tensor) -> Parameters:
        """Compute the gradient of the mean cross-entropy in closed form, as new tensors.

        Args:
            parameters: (episodes, way, ...) each.
            items: (episodes, items, features), a mini-batch.
            labels: (episodes, items, way), one-hot.

        Returns:
            Tensors of the parameters' shapes.
        """


def residuals(scores: Tensor, labels: Tensor) -> Tensor:
    """Differentiate the mean softmax cross-entropy by the scores, transposed: (episodes, way, items)."""
    slopes: Tensor = (scores.softmax(-1) - labels) / scores.shape[1]
    return slopes.mT


def uniform_rows(way: int, channels: int, columns: int, seed: int) -> Tensor:
    """Draw (way, columns) from U(-1/sqrt(channels), 1/sqrt(channels)) as ``torch.nn.Linear`` starts, in float64."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(way, columns, generator=generator, dtype=torch.float64)
    return (2 * uniform - 1) / math.sqrt(channels)
