"""What a training run tells: records of epochs, and those who hear of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from torch import Tensor

LAST = "last"
"""Keeps the last epoch, which no validation accuracy chose."""

CURVE = 30
"""Most points of a curve."""

V = TypeVar("V")
"""What validation says under each name: an ``Accuracy``, or a number."""


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
class Epoch(Generic[V]):
    """What one epoch came to.

    Attributes:
        epoch: From 1; 0 is the state before training, where that is validated.
        loss: Mean over its steps; None before training.
        train_accuracy: On the augmented images, in percent; None before training, and where nothing is answered.
        validation: By name: a method, or what else is measured.
        seconds: That it took, validation included.
        learned: What was learned besides the backbone, at its end: option of the method -> value.
        diagnostics: Means over its steps of what the objective said about itself.
        training_seconds: Of its steps alone.
        cpu_seconds: That the process spent computing in them, over all threads.
        code: Digest of the code that trained it, see ``otfew.runs.identity``; of its end, where that changed within.
        curve: What was measured, at its end, on images that nothing is chosen by; empty but after ``curve_epochs``.
    """

    epoch: int
    loss: float | None
    train_accuracy: float | None
    validation: Mapping[str, V]
    seconds: float
    learned: Mapping[str, float] = field(default_factory=dict)
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    training_seconds: float = 0.0
    cpu_seconds: float = 0.0
    code: str = ""
    curve: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any], read: Callable[[Any], V]) -> Epoch[V]:
        """Read a record back, with each of its figures by ``read``; raises ``ValueError`` for other content."""
        epoch = cls(**{**record, "validation": {name: read(value) for name, value in record["validation"].items()}})
        measured = [*epoch.learned.values(), *epoch.diagnostics.values(), *epoch.curve.values()]
        numbers = [epoch.epoch, epoch.seconds, *measured]
        if not epoch.validation or not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("an epoch's record holds other things than numbers")
        return epoch


def read_accuracy(value: Any) -> Accuracy:
    """Read an accuracy back from JSON; raises ``ValueError`` or ``TypeError`` for anything else."""
    accuracy = Accuracy(**value)
    return Accuracy(read_number(accuracy.mean), read_number(accuracy.interval))


def read_number(value: Any) -> float:
    """Read a number back from JSON; raises ``ValueError`` for anything else."""
    if not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return value


def curve_epochs(epochs: int) -> tuple[int, ...]:
    """Say after which epochs, from 1, a curve has a point: all of them or ``CURVE``, evenly spaced, the last included.

    Args:
        epochs: Of the whole run.
    """
    points = min(epochs, CURVE)
    return tuple(round(k * epochs / points) for k in range(1, points + 1))


def curves(history: Sequence[Epoch[V]]) -> dict[str, list[float]]:
    """Return what was measured for curves, by name, in the order of epochs; two decimals.

    Args:
        history: All epochs.
    """
    measured = [record.curve for record in history if record.curve]
    return {name: [round(point[name], 2) for point in measured] for name in (measured[0] if measured else ())}


Score = Callable[[Epoch[V]], float]
"""How good an epoch is, by which one is kept; larger is better."""


def by_accuracy(select: str) -> Score[Accuracy] | None:
    """Return the score that is the validation accuracy of a method; None for ``LAST``."""
    return None if select == LAST else lambda record: record.validation[select].mean


def kept_epoch(history: Sequence[Epoch[V]], score: Score[V] | None) -> Epoch[V]:
    """Choose the epoch whose weights are kept.

    Args:
        history: All epochs so far.
        score: The best by it is kept, the first of equals; None keeps the last, whatever validation says.
    """
    return history[-1] if score is None else max(history, key=lambda record: (score(record), -record.epoch))


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


class Watcher(Generic[V]):
    """Hears of a run's progress, in the first process; does nothing by itself."""

    def on_resume(self, epochs: int, steps: int) -> None:
        """Go on after so many whole epochs and steps of the next."""

    def on_other_code(self, then: str, now: str) -> None:
        """Hear that the state was written by other code; both digests."""

    def on_step(self, step: Step) -> None:
        """Hear that one step is done."""

    def on_epoch(self, history: Sequence[Epoch[V]], best: Mapping[str, Tensor] | None) -> None:
        """Hear that one more epoch is done; ``best`` is the network's state where it is the one to keep."""

    def on_terminate(self) -> None:
        """Hear that the run was told to stop and that its state is saved."""


class Watchers(Watcher[V]):
    """Several watchers as one.

    Args:
        *watchers: Told in this order.
    """

    def __init__(self, *watchers: Watcher[V]) -> None:
        self._watchers = watchers

    def on_resume(self, epochs: int, steps: int) -> None:
        """Tell all of them."""
        for watcher in self._watchers:
            watcher.on_resume(epochs, steps)

    def on_other_code(self, then: str, now: str) -> None:
        """Tell all of them."""
        for watcher in self._watchers:
            watcher.on_other_code(then, now)

    def on_step(self, step: Step) -> None:
        """Tell all of them."""
        for watcher in self._watchers:
            watcher.on_step(step)

    def on_epoch(self, history: Sequence[Epoch[V]], best: Mapping[str, Tensor] | None) -> None:
        """Tell all of them."""
        for watcher in self._watchers:
            watcher.on_epoch(history, best)

    def on_terminate(self) -> None:
        """Tell all of them."""
        for watcher in self._watchers:
            watcher.on_terminate()
