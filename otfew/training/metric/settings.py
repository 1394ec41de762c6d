"""How metric learning trains. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from otfew.errors import UserError
from otfew.training.settings import Accelerator, Training


@dataclass(frozen=True)
class Settings(Training):
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

    nesterov = False

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 0.01
    momentum: float = 0.9
    decay: float = 0.95
    weight_decay: float = 0.0
    per_class: int = 0
    seed: int = 1
    accelerator: Accelerator = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    def __post_init__(self) -> None:
        self.check_positive("epochs", "batch_size", "learning_rate", "decay")
        self.check_optimizer()
        if self.per_class < 0 or (self.per_class and 2 * self.batch_size % self.per_class):
            raise UserError(
                f"`per_class` must divide the {2 * self.batch_size} items of both batches, not {self.per_class}."
            )

    def rate(self, epoch: int, share: float) -> float:
        """Return the learning rate of a step; see ``Training.rate``."""
        del share
        return self.learning_rate * self.decay**epoch
