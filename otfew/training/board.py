"""Curves of a training run for TensorBoard."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from otfew.runs.files import writing
from otfew.training.progress import Accuracy, Epoch, Step, Watcher


def installed() -> bool:
    """Tell whether TensorBoard's package is there."""
    return importlib.util.find_spec("tensorboard") is not None


class Board(Watcher[Accuracy]):
    """Writes losses, rates, gradient norms and validation accuracies.

    A resumed run overwrites what the killed one wrote after its last saved state.

    Args:
        folder: Of the event files.
        every: Steps between points.
    """

    def __init__(self, folder: Path, every: int = 10) -> None:
        self._folder, self._every = folder, every
        self._writer: Any = None

    def on_step(self, step: Step) -> None:
        """Write the step's figures, now and then."""
        number = (step.epoch - 1) * step.steps + step.step
        with writing(self._folder):
            writer = self._open(number)
            if number % self._every == 0:
                writer.add_scalar("train/loss", step.loss, number)
                writer.add_scalar("train/learning_rate", step.learning_rate, number)
                writer.add_scalar("train/gradient_norm", step.gradient_norm, number)

    def on_epoch(self, history: Sequence[Epoch[Accuracy]], best: Mapping[str, Tensor] | None) -> None:
        """Write the epoch's figures."""
        del best
        record = history[-1]
        with writing(self._folder):
            writer = self._open(0)
            for method, accuracy in record.validation.items():
                writer.add_scalar(f"validation/{method}", accuracy.mean, record.epoch)
            if record.train_accuracy is not None:
                writer.add_scalar("train/accuracy", record.train_accuracy, record.epoch)
            writer.flush()

    def _open(self, number: int) -> Any:
        """Open the event file at the first figure, so that a run which never starts leaves nothing."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=number or None)
        return self._writer
