"""What a metric loss is for the training loop: a function of two labelled batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from otfew import checks
from otfew.errors import UserError
from otfew.transport.precision import in_full_precision

Diagnostics = dict[str, float]


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


Made = TypeVar("Made")


def built(loss: str, kind: Callable[..., Made], options: Mapping[str, Any]) -> Made:
    """Construct a loss from options by name.

    Args:
        loss: Its name, for the message.
        kind: What makes it.
        options: Of its constructor.

    Raises:
        UserError: It has no such option, or refuses a value.
    """
    check_options(loss, inspect.signature(kind).parameters, options)
    return kind(**options)


def check_options(loss: str, known: Iterable[str], options: Iterable[str]) -> None:
    """Raise ``UserError`` where a loss has no option of a name."""
    names = [name for name in dict.fromkeys(known) if name not in {"self", "args", "kwargs"}]
    unknown = [option for option in options if option not in names]
    if unknown:
        raise UserError(f"{loss} has no option {unknown[0]!r}; it takes {', '.join(names) or 'none'}.")
