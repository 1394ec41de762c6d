"""How long-tailed trainings go. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from otfew.errors import UserError
from otfew.training.settings import Accelerator, Precision, Training


@dataclass(frozen=True)
class Recipe(Training):
    """How to train; the defaults are the published first stage (Li et al. 2021, on which the released code builds).

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images a step; an epoch's incomplete last batch is left out.
        learning_rate: Of the first step.
        momentum: Nesterov's.
        weight_decay: Of all parameters.
        milestones: Shares of the epochs at which the rate is multiplied by ``decay``: 160 and 180 of 200.
        decay: See ``milestones``.
        seed: Of the initial weights, the order of images and the augmentation.
        precision: As Lightning Fabric names it.
        accelerator: "auto" takes a GPU where there is one.
    """

    epochs: int = 200
    batch_size: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    milestones: tuple[float, ...] = (0.8, 0.9)
    decay: float = 0.01
    seed: int = 1
    precision: Precision = "32-true"
    accelerator: Accelerator = "auto"

    def __post_init__(self) -> None:
        self.check_positive("epochs", "batch_size", "learning_rate", "decay")
        self.check_optimizer()
        if not all(0 < share <= 1 for share in self.milestones):
            raise UserError(f"`milestones` are shares of the epochs, in (0, 1], not {self.milestones}.")

    def rate(self, epoch: int, share: float = 0.0) -> float:
        """Return the learning rate of a step; see ``Training.rate``."""
        del share
        passed = sum(epoch >= round(milestone * self.epochs) for milestone in self.milestones)
        return self.learning_rate * self.decay**passed


@dataclass(frozen=True)
class HeadRecipe:
    """How to train a classifier.

    Attributes:
        epochs: Passes over the training features.
        batch_size: Features a step.
        learning_rates: Tried one after the other; validation chooses.
        momentum: Nesterov's.
        weight_decay: Of all parameters.
        cosine_schedule: Let the rate fall to zero; False keeps it.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rates: tuple[float, ...] = (0.1, 0.01, 0.001)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    cosine_schedule: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` must be at least 1, not {getattr(self, name)}.")
        if not self.learning_rates:
            raise UserError("`learning_rates` needs at least one rate.")
        for rate in self.learning_rates:
            if not (math.isfinite(rate) and rate > 0):
                raise UserError(f"`learning_rates` must be positive, not {rate}.")
