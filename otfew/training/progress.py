"""What a training run tells: records of epochs, and those who hear of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

LAST = "last"
"""Keeps the last epoch, which no validation accuracy chose."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on the validation episodes.

    Attributes:
        mean: In percent.
        interval: Half-width of its 95 % interval over episodes.
    """

    mean: float
    interval: float


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        epoch: From 1; 0 is the state before training, where that is validated.
        loss: Mean over its steps; None before training.
        train_accuracy: On the augmented images, in percent; None before training.
        validation: By method.
        seconds: That it took, validation included.
        learned: What was learned besides the backbone, at its end: option of the method -> value.
    """

    epoch: int
    loss: float | None
    train_accuracy: float | None
    validation: Mapping[str, Accuracy]
    seconds: float
    learned: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Epoch:
        """Read a record back."""
        validation = {name: Accuracy(**accuracy) for name, accuracy in record["validation"].items()}
        epoch = cls(**{**record, "validation": validation})
        numbers = [epoch.epoch, epoch.seconds, *(v for a in validation.values() for v in (a.mean, a.interval))]
        if not validation or not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("an epoch's record holds other things than numbers")
        return epoch


def kept_epoch(history: Sequence[Epoch], select: str) -> Epoch:
    """Choose the epoch whose weights are kept.

    Args:
        history: All epochs so far.
        select: ``LAST``, whatever validation says, or the method whose validation accuracy is to be best; the first of
            equals.
    """
    if select == LAST:
        return history[-1]
    return max(history, key=lambda record: (record.validation[select].mean, -record.epoch))


@dataclass(frozen=True)
class Step:
    """What one step of the optimizer came to.

    Attributes:
        epoch: From 1.
        step: Of its epoch, from 1.
        steps: In an epoch.
        loss: Mean over its parts.
        learning_rate: That it used.
        gradient_norm: Euclidean norm of the whole gradient.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient_norm: float


class Watcher:
    """Hears of a run's progress, in the first process; does nothing by itself."""

    def on_resume(self, epochs: int, steps: int) -> None:
        """Go on after so many whole epochs and steps of the next."""

    def on_step(self, step: Step) -> None:
        """Hear that one step is done."""

    def on_epoch(self, history: Sequence[Epoch], best: Mapping[str, Tensor] | None) -> None:
        """Hear that one more epoch is done; ``best`` is the backbone's state where it is the one to keep."""

    def on_terminate(self) -> None:
        """Hear that the run was told to stop and that its state is saved."""


class Watchers(Watcher):
    """Several watchers as one.

    Args:
        *watchers: Told in this order.
    """

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def on_resume(self, epochs: int, steps: int) -> None:
        """Tell all of them."""
        for watcher in self._watchers:
            watcher.on_resume(epochs, steps)

    def on_step(self, step: Step) -> None:
        """Tell all of them."""
        for watcher in self._watchers:
            watcher.on_step(step)

    def on_epoch(self, history: Sequence[Epoch], best: Mapping[str, Tensor] | None) -> None:
        """Tell all of them."""
        for watcher in self._watchers:
            watcher.on_epoch(history, best)

    def on_terminate(self) -> None:
        """Tell all of them."""
        for watcher in self._watchers:
            watcher.on_terminate()
