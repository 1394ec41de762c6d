"""What trainings are told: epochs, optimizer, schedule, precision. Imports no torch, so that ``--help`` is quick."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from otfew.errors import UserError
from otfew.training.schedule import Schedule, learning_rate

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Accelerator = Literal["auto", "cpu", "cuda", "gpu", "mps"]
PretrainRecipe = Literal["softmax", "s2m2"]
Rotation = Literal["none", "augment", "self-supervised"]
BatchNorm = Literal["episode", "frozen"]


class Training:
    """What ``otfew.training.loop`` asks of settings; dataclasses of them let some be chosen, and leave the rest.

    Attributes:
        epochs: How many.
        learning_rate: Of the first step.
        optimizer: "sgd" or "adam".
        momentum: With "sgd".
        nesterov: Nesterov's momentum.
        weight_decay: Of all parameters.
        accumulate: Parts that a process computes a step in, one after another.
        seed: Of initial weights and of what layers draw.
        precision: As Lightning Fabric names it.
        accelerator: "auto" takes a GPU where there is one.
        threads: CPU threads of each process; 0 leaves that to torch, or takes a process's share of the cores.
    """

    epochs: int
    learning_rate: float
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float
    nesterov: bool = True
    weight_decay: float
    accumulate: int = 1
    seed: int
    precision: Precision
    accelerator: Accelerator
    threads: int = 0

    def rate(self, epoch: int, share: float) -> float:
        """Return the learning rate of a step.

        Args:
            epoch: From 0.
            share: Of the epoch's steps that are done, in [0, 1).
        """
        raise NotImplementedError

    def check_positive(self, *names: str) -> None:
        """Raise ``UserError`` at the first of the named settings that is not positive and finite."""
        for name in names:
            value = getattr(self, name)
            if not value > 0 or not math.isfinite(value):
                raise UserError(f"`{name}` must be positive, not {value}.")

    def check_optimizer(self) -> None:
        """Raise ``UserError`` where momentum or weight decay is out of range."""
        if not 0 <= self.momentum < 1 or (self.nesterov and self.momentum == 0):
            raise UserError(f"`momentum` must lie between 0 and 1, not {self.momentum}.")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"`weight_decay` must be at least 0, not {self.weight_decay}.")


@dataclass(frozen=True)
class LoopSettings(Training):
    """How a loop trains.

    Attributes:
        epochs: How many.
        learning_rate: Of the first step.
        optimizer: "sgd" with Nesterov's momentum, or "adam".
        momentum: With "sgd".
        weight_decay: Of all parameters.
        schedule: "cosine" to zero, or "step".
        step_epochs: With "step": epochs between steps.
        step_factor: With "step": what the rate is multiplied by.
        accumulate: Parts that a step is computed in, one after another, to save memory. The gradient is the mean of
            theirs; batch normalisation takes its statistics from each part.
        seed: Of the initial weights, the order of images and the augmentation.
        precision: As Lightning Fabric names it.
        accelerator: "auto" takes a GPU where there is one.
        threads: CPU threads of each process; 0 leaves that to torch, or takes a process's share of the cores.
    """

    epochs: int = 120
    learning_rate: float = 0.1
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    step_epochs: int = 30
    step_factor: float = 0.2
    accumulate: int = 1
    seed: int = 1
    precision: Precision = "32-true"
    accelerator: Accelerator = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        self.check_positive("epochs", "learning_rate", "step_epochs", "step_factor", "accumulate")
        self.check_optimizer()
        if self.threads < 0:
            raise UserError(f"`threads` must be at least 0, not {self.threads}.")

    def rate(self, epoch: int, share: float) -> float:
        """Return the learning rate of a step; see ``Training.rate``."""
        return learning_rate(
            self.schedule, self.learning_rate, epoch, share, self.epochs, self.step_epochs, self.step_factor
        )


@dataclass(frozen=True)
class PretrainSettings(LoopSettings):
    """How to pre-train; the defaults are DeepEMD's (learning-rate schedule apart).

    Attributes:
        batch_size: Images a step, over all processes; an epoch's incomplete last batch is left out.
        recipe: "softmax", with ``rotation`` as below; or "s2m2", see ``otfew.training.s2m2``.
        mixup_epochs: With "s2m2": how many epochs at the end are its second stage.
        mixup_alpha: With "s2m2": the share of an image in a mixture is from Beta(alpha, alpha).
        rotation: Turn each image by a random quarter: "augment" lets the classes stand, "self-supervised" has a second
            head tell the turn as well (DeepEMD, Zhang et al. 2022, section 5.3).
        rotation_weight: Of the second head's loss: the paper's gamma.
    """

    batch_size: int = 128
    recipe: PretrainRecipe = "softmax"
    mixup_epochs: int = 20
    mixup_alpha: float = 2.0
    rotation: Rotation = "none"
    rotation_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("batch_size", "mixup_alpha")
        if self.recipe == "s2m2" and not 0 <= self.mixup_epochs <= self.epochs:
            raise UserError(f"`mixup_epochs` must lie between 0 and `epochs` {self.epochs}, not {self.mixup_epochs}.")
        if not 0 <= self.rotation_weight < math.inf:
            raise UserError(f"`rotation_weight` must be at least 0, not {self.rotation_weight}.")


@dataclass(frozen=True)
class MetatrainSettings(LoopSettings):
    """How to meta-train; the defaults are those of DeepEMD's code: 5,000 episodes, the rate halved every 500.

    Attributes:
        episodes_per_epoch: Training episodes between validations. A step takes one for each process and part.
        batchnorm: "episode": batch normalisation takes its statistics from each episode's images, queries included, and
            keeps running ones for evaluation, as published. "frozen": it keeps those of pre-training; its scale and
            shift are still trained.
    """

    epochs: int = 100
    learning_rate: float = 5e-4
    schedule: Schedule = "step"
    step_epochs: int = 10
    step_factor: float = 0.5
    episodes_per_epoch: int = 50
    batchnorm: BatchNorm = "episode"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("episodes_per_epoch")
