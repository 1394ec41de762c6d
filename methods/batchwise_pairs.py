"""The batch-wise OT loss in the training loop of metric learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from otfew import checks
from otfew.methods.batchwise_ot import PUBLISHED, BatchwiseOTLoss
from otfew.pair_loss import Diagnostics, LossKind, PairLoss


class BatchwisePairs(PairLoss):
    """Compares one batch with the other, as published, or all items of both with each other.

    Args:
        loss: The loss.
        joined: Compare all items of both batches, without self-pairs.
    """

    def __init__(self, loss: BatchwiseOTLoss, joined: bool = False) -> None:
        super().__init__()
        self.loss = loss
        self.joined = joined
        self.normalised = loss.normalize

    def forward(
        self, first: Tensor, first_labels: Tensor, second: Tensor, second_labels: Tensor
    ) -> tuple[Tensor, Diagnostics]:
        """Compute the loss; the figures are those of ``otfew.methods.batchwise_ot.PairTransport``."""
        if self.joined:
            found = self.loss.transport(torch.cat([first, second]), torch.cat([first_labels, second_labels]))
        else:
            found = self.loss.transport(first, first_labels, ref_emb=second, ref_labels=second_labels)
        return found.loss, found.figures()


def _pairs(name: str, options: Mapping[str, Any], joined: bool) -> PairLoss:
    """Make the loss of that name."""
    return BatchwisePairs(BatchwiseOTLoss(**options), checks.flag(name, "joined", joined))


def _batchwise(classes: int, channels: int, joined: bool = False, **options: Any) -> PairLoss:
    """Batch-wise optimal transport loss; see ``otfew.methods.batchwise_ot``."""
    return _pairs("batchwise-ot", options, joined)


def _all_pairs(classes: int, channels: int, joined: bool = False, **options: Any) -> PairLoss:
    """Contrastive loss of all pairs: the batch-wise loss with its uniform plan."""
    return _pairs("all-pairs", {"reg_inverse": 0.0, **options}, joined)


def _published(code: str) -> Any:
    def build(classes: int, channels: int, joined: bool = False, **options: Any) -> PairLoss:
        return _pairs(f"batchwise-ot-{code}", {**PUBLISHED[code], **options}, joined)

    build.__doc__ = f"What the published {code} code computes; see ``BatchwiseOTLoss.published``."
    return build


def _modelnet40(classes: int, channels: int, joined: bool = False, **options: Any) -> PairLoss:
    """What the published code computes for ModelNet40, with its softmax loss at 1/5."""
    return _pairs("batchwise-ot-modelnet40", {**PUBLISHED["3d"], **options}, joined)


def _modelnet10(classes: int, channels: int, joined: bool = False, **options: Any) -> PairLoss:
    """What the published code computes for ModelNet10: other margins, and its softmax loss at 1."""
    own = {**PUBLISHED["3d"], "margin": 8.0, "positive_margin": 6.0, **options}
    return _pairs("batchwise-ot-modelnet10", own, joined)


LOSSES = {
    name: LossKind(build, lambda: BatchwiseOTLoss)
    for name, build in {
        "batchwise-ot": _batchwise,
        "all-pairs": _all_pairs,
        **{f"batchwise-ot-{code}": _published(code) for code in PUBLISHED},
        "batchwise-ot-modelnet40": _modelnet40,
        "batchwise-ot-modelnet10": _modelnet10,
    }.items()
}
"""Name -> (classes, channels, **options) -> loss; options are those of ``BatchwiseOTLoss``, and ``joined``."""
