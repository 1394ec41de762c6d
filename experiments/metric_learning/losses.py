"""The losses of ``experiments.metric_learning`` by name, and their options on the command line."""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass
from typing import Any

from otfew.baselines import metric_losses
from otfew.errors import UserError
from otfew.methods import batchwise_pairs
from otfew.pair_loss import LossKind, PairLoss
from otfew.training.metric.softmax import WithSoftmax

LOSSES: dict[str, LossKind] = {**batchwise_pairs.LOSSES, **metric_losses.LOSSES}

SOFTMAX = "softmax"
"""An option of every loss: the weight of a softmax loss beside it."""
PRESETS: dict[str, float] = {"batchwise-ot-modelnet40": 0.2, "batchwise-ot-modelnet10": 1.0}
"""Name of a loss -> the weight that its published code gives the softmax loss."""


@dataclass(frozen=True)
class LossSpec:
    """A loss with its options, as a command line names it.

    Attributes:
        kind: Key of ``LOSSES``.
        options: Name and value of each, sorted.
    """

    kind: str
    options: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        """The canonical spelling: kind:option=value,option=value."""
        return self.kind + (":" if self.options else "") + ",".join(f"{k}={v}" for k, v in self.options)

    def build(self, classes: int, channels: int) -> PairLoss:
        """Make the loss.

        Args:
            classes: Of the training images.
            channels: Of the embeddings.

        Raises:
            UserError: An option it does not have, or out of range.
        """
        options = dict(self.options)
        weight = options.pop(SOFTMAX, PRESETS.get(self.kind, 0))
        try:
            loss = LOSSES[self.kind](classes, channels, **options)
            return loss if weight == 0 else WithSoftmax(loss, classes, channels, weight)
        except UserError as error:
            raise UserError(f"--losses {self.name}: {error}") from error


def parse_loss(text: str) -> LossSpec:
    """Read "batchwise-ot:reg_inverse=5,margin=1".

    Raises:
        UserError: Unknown name, or an option that is not NAME=VALUE.
    """
    kind, _, rest = text.partition(":")
    if kind not in LOSSES:
        near = difflib.get_close_matches(kind, LOSSES, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(LOSSES)}."
        raise UserError(f"unknown loss {kind!r}: {hint}")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UserError(f"--losses {text}: options are written NAME=VALUE, with commas between them, not {part!r}.")
        options[name.strip()] = _value(value.strip())
    return LossSpec(kind, tuple(sorted(options.items())))


def _value(text: str) -> Any:
    """Read a number, True, False or None; other text stays text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, bool | int | float) or value is None else text


def describe() -> list[tuple[str, str]]:
    """Name the losses, with the first line of what each is, and the option that all of them have."""
    every = ("any of them:softmax=0.2", "the loss, and a softmax loss beside it with this weight")
    return [*((name, kind.summary) for name, kind in LOSSES.items()), every]
