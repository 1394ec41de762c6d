"""The second stage on cached features: only the classifier is trained, in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew.devices import send
from otfew.errors import UserError
from otfew.random.generators import drawn
from otfew.random.keys import hashed
from otfew.training.long_tail.losses import CosineHead, Objective, accuracy_of_classes, pooled_with
from otfew.training.long_tail.settings import HeadRecipe
from otfew.training.progress import curve_epochs

HeadState = dict[str, Tensor]


@dataclass(frozen=True)
class Features:
    """Cached features of one setting, all on one device.

    Attributes:
        train: (samples, channels), with ``train_labels``.
        meta: Balanced meta set.
        validation: Balanced, disjoint from both; chooses.
        counts: (classes,) training samples.
        curve: Disjoint from all others, and chooses nothing; None for no curve.
    """

    train: Tensor
    train_labels: Tensor
    meta: Tensor
    meta_labels: Tensor
    validation: Tensor
    validation_labels: Tensor
    counts: Tensor
    curve: Tensor | None = None
    curve_labels: Tensor | None = None


@dataclass(frozen=True)
class Choice:
    """What validation chose.

    Attributes:
        state: Of the classifier: "weight" and, where it has one, "bias".
        learning_rate: Of the run chosen.
        epoch: From 1.
        validation_error: In per cent, at that epoch.
        curve: Accuracy on the curve's features after each of ``curve_epochs``, of the rate chosen; empty without such.
    """

    state: HeadState
    learning_rate: float
    epoch: int
    validation_error: float
    curve: tuple[float, ...] = ()


def train_head(features: Features, start: HeadState, objective: Objective, recipe: HeadRecipe, seed: int) -> Choice:
    """Train with each learning rate and keep the best epoch of the best rate, by validation error; the first of equals.

    The result is a function of the arguments alone: the order of samples follows seed and epoch.

    Args:
        features: Of one setting.
        start: Classifier of stage 1, from which objectives that are not ``fresh`` begin.
        objective: What is minimised.
        recipe: How.
        seed: Of the order of samples and of fresh classifiers.

    Raises:
        UserError: The loss is not finite.
    """
    best: Choice | None = None
    for rate in recipe.learning_rates:
        found = _train_once(features, start, objective, recipe, rate, seed)
        if best is None or found.validation_error < best.validation_error:
            best = found
    assert best is not None
    return best


def head_of(state: HeadState, objective: Objective) -> nn.Module:
    """Rebuild a classifier from its state."""
    classes, channels = state["weight"].shape
    head: nn.Module = CosineHead(channels, classes) if objective.cosine else nn.Linear(channels, classes)
    head.load_state_dict(state)
    return head


def initial_head(start: HeadState, objective: Objective, seed: int) -> nn.Module:
    """Copy stage 1's classifier, or draw a fresh one from the seed."""
    classes, channels = start["weight"].shape
    if not (objective.fresh or objective.cosine):
        return head_of(start, objective)
    with drawn(hashed(seed)):
        return CosineHead(channels, classes) if objective.cosine else nn.Linear(channels, classes)


def error_percent(logits: Tensor, labels: Tensor) -> float:
    """Share of wrong answers, in per cent."""
    return 100 * float((logits.argmax(-1) != labels).double().mean())


def _train_once(
    features: Features, start: HeadState, objective: Objective, recipe: HeadRecipe, rate: float, seed: int
) -> Choice:
    """Train with one learning rate."""
    head = initial_head(start, objective, seed).to(features.train.device)
    optimizer = torch.optim.SGD(
        head.parameters(), lr=rate, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay
    )
    data, labels = pooled_with(objective, (features.train, features.train_labels, features.meta, features.meta_labels))
    device, known = data.device, labels.cpu()
    if objective.weights is not None:
        objective = replace(objective, weights=send(objective.weights, device))
    batches = math.ceil(len(data) / recipe.batch_size)
    best: Choice | None = None
    curve: list[float] = []
    points = curve_epochs(recipe.epochs)
    for epoch in range(recipe.epochs):
        order = objective.order(known, torch.Generator().manual_seed(hashed(seed, epoch)))
        indices = zip(*(torch.split(each, recipe.batch_size) for each in (order, send(order, device))), strict=True)
        for batch, (place, index) in enumerate(indices):
            if recipe.cosine_schedule:
                done = (epoch + batch / batches) / recipe.epochs
                optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * done)) / 2
            # What updates weights as training goes keeps them where the training set is.
            weighed = index if objective.update is None else place
            loss = _loss(head, data, labels, index, weighed, features, objective, epoch / recipe.epochs)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if not math.isfinite(float(loss.detach())):
            raise UserError(f"the classifier's loss is not finite with a learning rate of {rate}: lower it.")
        with torch.inference_mode():
            error = error_percent(head(features.validation), features.validation_labels)
            if features.curve is not None and features.curve_labels is not None and epoch + 1 in points:
                curve.append(accuracy_of_classes(head(features.curve), features.curve_labels))
        if best is None or error < best.validation_error:
            state = {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
            best = Choice(state, rate, epoch + 1, error)
    assert best is not None
    state = {name: tensor.cpu() for name, tensor in best.state.items()}
    return replace(best, state=state, curve=tuple(curve))


def _loss(
    head: nn.Module,
    data: Tensor,
    labels: Tensor,
    index: Tensor,
    weighed: Tensor,
    features: Features,
    objective: Objective,
    done: float,
) -> Tensor:
    """Compute the loss of one batch, ``index``; the objective is told of it as ``weighed``."""
    loss = data.new_zeros(())
    if objective.train:
        loss = objective.train_loss(head(data[index]), labels[index], features.counts, weighed, done)
    if objective.meta:
        loss = loss + objective.meta * functional.cross_entropy(head(features.meta), features.meta_labels)
    return loss
