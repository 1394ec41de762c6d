"""What metric learning is given, and what an epoch of it comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from otfew.errors import UserError
from otfew.pair_loss import Diagnostics
from otfew.training.augmentation import Augmentation


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults are those of the published 2D code, but for its rate of 0.2 and its 100 epochs.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Items of each of the two batches that a step compares.
        learning_rate: Of the first epoch, for SGD.
        momentum: Of SGD.
        decay: Multiplies the rate after each epoch.
        weight_decay: Of all parameters.
        per_class: 0 for random batches, else items of each class in both batches together.
        seed: Of first weights, batches and augmentation.
        accelerator: "auto" takes a GPU where there is one.
        precision: Of the network in training, as Lightning Fabric names it; losses and evaluation stay in float32.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 0.01
    momentum: float = 0.9
    decay: float = 0.95
    weight_decay: float = 0.0
    per_class: int = 0
    seed: int = 1
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "decay"):
            value = getattr(self, name)
            if not value > 0 or not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} must be positive, not {value}.")
        if not 0 <= self.momentum < 1:
            raise UserError(f"--momentum must lie in [0, 1), not {self.momentum}.")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"--weight-decay must be at least 0, not {self.weight_decay}.")
        if self.per_class < 0 or (self.per_class and 2 * self.batch_size % self.per_class):
            raise UserError(
                f"--per-class must divide the {2 * self.batch_size} items of both batches, not {self.per_class}."
            )


@dataclass(frozen=True)
class Part:
    """The images of one modality in one split, decoded.

    Attributes:
        pixels: (items, 3, height, width) uint8, or (items, views, 3, height, width).
        labels: (items,) int64, from 0.
        mean: Of each channel, over the training images.
        std: Of each channel.
    """

    pixels: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Task:
    """What to learn.

    Attributes:
        train: One modality, or two: the gallery's, then the queries'.
        test: The same modalities, evaluated.
        classes: How many there are in train.
        resolution: Side of the images.
        same_things: With two modalities: item i of both shows one thing, and such pairs are neither trained on nor
            retrieved.
        shared_classes: Test has the classes of train, so that classifiers can be fitted on train and tested on test.
        augmentation: Of training images, or None.
        probe_images: Training items that classifiers are fitted on; None takes all.
        identity: What else identifies the run (data, architecture, loss); a state of another identity is not resumed.
    """

    train: tuple[Part, ...]
    test: tuple[Part, ...]
    classes: int
    resolution: int
    same_things: bool
    shared_classes: bool
    augmentation: Augmentation | None
    probe_images: int | None
    identity: dict[str, Any]


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        epoch: From 1; 0 is before training.
        loss: Mean over its batches; None before training.
        figures: See ``otfew.training.metric.evaluation.FIGURES``.
        diagnostics: Means over its batches of what the loss said about itself.
        seconds: Of training, without evaluation.
        cpu_seconds: That the process spent computing in them, over all threads.
        evaluation_seconds: Of evaluation.
    """

    epoch: int
    loss: float | None
    figures: dict[str, float | None]
    diagnostics: Diagnostics
    seconds: float
    cpu_seconds: float
    evaluation_seconds: float


def check_training(part: Part, batch_size: int) -> None:
    """Refuse training images that make no batch, or no pair of two classes.

    Args:
        part: The (first) modality's training images.
        batch_size: Of each of the two batches.

    Raises:
        UserError: Too few of them, or one class only.
    """
    if len(part.labels) < 2 * batch_size:
        raise UserError(
            f"--batch-size {batch_size} needs {2 * batch_size} training images for its two batches, and there are "
            f"{len(part.labels)}: lower it."
        )
    if len(torch.unique(part.labels)) < 2:
        raise UserError("the training images hold one class only: a metric needs two or more.")
