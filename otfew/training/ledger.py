"""Figures of steps, left on the device until many of them are read at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

AT_ONCE = 10
"""Steps whose figures an accelerator keeps. To read one is to wait until the device has done all that it was told, and
meanwhile it is told nothing more."""


@dataclass(frozen=True)
class Outcome:
    """What a part of a step came to.

    Attributes:
        loss: Mean over the part, differentiable.
        correct: Answers that were right.
        answers: How many there were; 0 where the objective asks nothing.
        diagnostics: What the objective says about itself, the same names every time.
        finite: What must be finite for the loss to mean anything, as in "embeddings" -> a scalar that tells; the same
            names every time.
    """

    loss: Tensor
    correct: int | Tensor = 0
    answers: int = 0
    diagnostics: Mapping[str, float | Tensor] = field(default_factory=dict)
    finite: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """What a whole step came to, in numbers.

    Attributes:
        step: Of its epoch, from 0.
        rate: That it used.
        norm: Of the gradient.
        loss: Sum over its parts, as all that follows.
        correct: Answers that were right.
        answers: How many there were.
        diagnostics: By name.
        lost: What has left the finite numbers in one part or more.
    """

    step: int
    rate: float
    norm: float
    loss: float
    correct: float
    answers: float
    diagnostics: Mapping[str, float]
    lost: tuple[str, ...]


class Ledger:
    """The steps that have not been read yet.

    Args:
        device: Where they are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._dtype = torch.float32 if device.type == "mps" else torch.float64  # which MPS lacks
        self._steps: list[tuple[int, float]] = []
        self._rows: list[Tensor] = []
        self._parts: list[Tensor] = []
        self._names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.every = 1 if device.type == "cpu" else AT_ONCE
        """After how many steps to read."""

    def add_part(self, outcome: Outcome) -> None:
        """Take down a part of the step that is being done."""
        self._names = (tuple(outcome.diagnostics), tuple(outcome.finite))
        lost = [~finite for finite in outcome.finite.values()]
        self._parts.append(
            self._row([outcome.loss, outcome.correct, outcome.answers, *outcome.diagnostics.values(), *lost])
        )

    def add_step(self, step: int, rate: float, norm: Tensor) -> None:
        """Close a step: all of its parts are there."""
        self._steps.append((step, rate))
        self._rows.append(torch.cat([self._row([norm]), sum(self._parts[1:], self._parts[0])]))
        self._parts = []

    def read(self, over_processes: Callable[[Tensor], Tensor]) -> list[Figures]:
        """Wait for all steps and forget them.

        Args:
            over_processes: Sums figures (steps, figures) over processes, on the device.
        """
        if not self._rows:
            return []
        rows = torch.stack(self._rows)
        rows = torch.cat([rows[:, :1], over_processes(rows[:, 1:])], 1)
        steps, self._steps, self._rows = self._steps, [], []
        names, conditions = self._names
        found = []
        for (step, rate), (norm, loss, correct, answers, *others) in zip(steps, rows.tolist(), strict=True):
            diagnostics = dict(zip(names, others[: len(names)], strict=True))
            lost = tuple(name for name, lost in zip(conditions, others[len(names) :], strict=True) if lost)
            found.append(Figures(step, rate, norm, loss, correct, answers, diagnostics, lost))
        return found

    def _row(self, figures: Sequence[float | Tensor]) -> Tensor:
        """Join scalars, those of the device without reading them."""
        scalars = [
            figure.detach().to(self._dtype)
            if isinstance(figure, Tensor)
            else torch.full((), figure, dtype=self._dtype, device=self._device)
            for figure in figures
        ]
        return torch.stack(scalars)
