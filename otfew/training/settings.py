"""What every training run is told: epochs, optimizer, schedule, precision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from otfew.errors import UserError
from otfew.training.schedule import Schedule


@dataclass(frozen=True)
class LoopSettings:
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
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        self.check_positive("epochs", "learning_rate", "step_epochs", "step_factor", "accumulate")
        if not 0 < self.momentum < 1:
            raise UserError(f"--momentum must lie between 0 and 1, not {self.momentum}.")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"--weight-decay must be at least 0, not {self.weight_decay}.")
        if self.threads < 0:
            raise UserError(f"--threads must be at least 0, not {self.threads}.")

    def check_positive(self, *names: str) -> None:
        """Raise ``UserError`` at the first of the named settings that is not positive and finite."""
        for name in names:
            value = getattr(self, name)
            if not value > 0 or not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} must be positive, not {value}.")
