"""What a metric loss is for the training loop: a function of two labelled batches."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from otfew import checks
from otfew.errors import UserError
from otfew.transport.precision import in_full_precision

Diagnostics = dict[str, float | Tensor]
"""Figures by name, numbers or scalars on the device."""


class PairLoss(nn.Module):
    """A loss of two batches of embeddings, with figures about what it did.

    Embeddings in half precision are compared in float32, inside and outside autocast.

    Attributes:
        normalised: It compares embeddings divided by their norms, so these are what is evaluated.
    """

    normalised: bool = False

    def forward(
        self, first: Tensor, first_labels: Tensor, second: Tensor, second_labels: Tensor
    ) -> tuple[Tensor, Diagnostics]:
        """Compute the loss.

        Args:
            first: (N, channels).
            first_labels: (N,) integers.
            second: (M, channels).
            second_labels: (M,).

        Returns:
            The scalar loss, and figures by name, the same names every time.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LossKind:
    """A loss by name.

    Attributes:
        build: (classes, channels, **options) -> loss.
        takes: Finds the class, or another callable, that the options are handed to.
        given: Options that ``build`` decides.
    """

    build: Callable[..., PairLoss]
    takes: Callable[[], Any]
    given: tuple[str, ...] = ()

    def __call__(self, classes: int, channels: int, **options: Any) -> PairLoss:
        """Make the loss.

        Args:
            classes: Of the training images.
            channels: Of the embeddings.
            **options: Its own.

        Returns:
            The loss, with its parameters where it has any.

        Raises:
            UserError: An option that it does not have, of another kind than its default, or out of range.
        """
        known = self.options()
        for name, value in options.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
                hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(sorted(known))}."
                raise UserError(f"the loss has no option {name!r}: {hint}")
            if isinstance(value, str | None) and isinstance(known[name], int | float):
                raise UserError(f"`{name}` must be like its default {known[name]}, not {value!r}.")
        return self.build(classes, channels, **options)

    @property
    def summary(self) -> str:
        """The first line of what it is."""
        return (inspect.getdoc(self.build) or "").partition("\n")[0]

    def options(self) -> dict[str, Any]:
        """Return the options with their defaults: parameters of the constructors of the class, and of ``build``."""
        kind = self.takes()
        above = [vars(each).get("__init__") for each in kind.__mro__] if isinstance(kind, type) else [kind]
        named = {
            name: parameter.default
            for function in (*reversed(above), self.build)
            if function is not None
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        }
        return {name: named[name] for name in named.keys() - {"self", "classes", "channels", *self.given}}


class Joined(PairLoss):
    """Runs a loss of one batch on both batches together: all pairs within and between them.

    pytorch-metric-learning's losses divide embeddings by their norms, unless told otherwise.

    Args:
        loss: Called as pytorch-metric-learning's: (embeddings, labels, indices_tuple).
        miner: Chooses pairs or triplets from embeddings and labels, or None.
    """

    normalised = True

    def __init__(self, loss: nn.Module, miner: Callable[[Tensor, Tensor], Any] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.miner = miner

    @in_full_precision
    def forward(
        self, first: Tensor, first_labels: Tensor, second: Tensor, second_labels: Tensor
    ) -> tuple[Tensor, Diagnostics]:
        """Compute the loss; see ``PairLoss``."""
        embeddings, labels = torch.cat([first, second]), torch.cat([first_labels, second_labels])
        mined = None if self.miner is None else self.miner(embeddings, labels)
        return self.loss(embeddings, labels, mined), {}


class Matched(PairLoss):
    """Contrastive loss of matched positions: the i-th of one batch with the i-th of the other, N pairs.

    mean_i 1/2 (d if labels agree, else max(0, margin - d)) with d the squared Euclidean distance: the pair-wise
    baseline of Xu, Sun and Liu (2019), with the distances and the margin of their batch-wise loss.

    Args:
        margin: In units of the squared distance.

    Raises:
        UserError: A negative margin; called with batches of different lengths.
    """

    def __init__(self, margin: float = 5.0) -> None:
        super().__init__()
        self.margin = checks.number(type(self).__name__, "margin", margin, least=0)

    @in_full_precision
    def forward(
        self, first: Tensor, first_labels: Tensor, second: Tensor, second_labels: Tensor
    ) -> tuple[Tensor, Diagnostics]:
        """Compute the loss; both batches must be as long."""
        if len(first) != len(second):
            raise UserError(f"matched pairs need batches of one length, not {len(first)} and {len(second)}.")
        squared = (first - second).square().sum(1)
        return torch.where(first_labels == second_labels, squared, (self.margin - squared).relu()).mean() / 2, {}
