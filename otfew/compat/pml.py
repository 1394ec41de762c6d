"""Losses of otfew as pytorch-metric-learning's: with its reducers, regularizers, miners and wrappers.

Importing this module adds the losses' names to those that ``CrossBatchMemory`` takes; it has no other way to be told.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    from pytorch_metric_learning.distances import BaseDistance, LpDistance
    from pytorch_metric_learning.losses import BaseMetricLossFunction, CrossBatchMemory
except ImportError as error:
    raise ImportError(
        'otfew.compat.pml needs pytorch-metric-learning: run pip install "otfew[metric]".', name=error.name
    ) from error

from otfew.costs import euclidean, sqeuclidean
from otfew.methods.batchwise_ot import BatchwiseOTLoss as Core
from otfew.methods.batchwise_ot import pairs_of
from otfew.transport.precision import in_full_precision

POWERS = {"sqeuclidean": 2, "euclidean": 1}


class BatchwiseOTLoss(BaseMetricLossFunction):  # type: ignore[misc]
    """``otfew.methods.batchwise_ot.BatchwiseOTLoss`` as a ``BaseMetricLossFunction``: the same value under a mean.

    What is reduced is one number for each embedding ("element"): N times what its pairs contribute. Every embedding
    holds 1/N of the transported mass, so the mean over them is the loss. A batch without anything to compare has loss
    0 and gradient 0, which is said once. Half precision is computed as float32, regularizers and reducers included.

    Args:
        margin: epsilon, in the units of the distance.
        gamma: Sharpness of the hardness cost.
        reg_inverse: lambda, the inverse of the entropic regularisation.
        distance: "sqeuclidean" or "euclidean" of the embeddings as they are, or a distance of the library. Its
            ``LpDistance`` with p = 2 and a power of 1 or 2 is computed from otfew's costs, which stay accurate for
            near-duplicates. Similarities are refused: the loss has a margin below which pairs of two classes cost.
        normalize: Divide embeddings by their norms first; with a distance of the library its own option says so.
        reducer: Of the library; None is its ``MeanReducer``.
        embedding_regularizer: Of the library, or None.
        embedding_reg_weight: Its weight.
        **options: Of ``otfew.methods.batchwise_ot.BatchwiseOTLoss``.

    Raises:
        ValueError: An option out of range, or a similarity in place of a distance.
    """

    def __init__(
        self,
        margin: float = 5.0,
        gamma: float = 10.0,
        reg_inverse: float = 10.0,
        *,
        distance: str | BaseDistance = "sqeuclidean",
        normalize: bool = False,
        reducer: Any = None,
        embedding_regularizer: Any = None,
        embedding_reg_weight: float = 1,
        **options: Any,
    ) -> None:
        if isinstance(distance, BaseDistance):
            if normalize:
                raise ValueError("give normalize_embeddings to the distance, or the distance as a string")
            if distance.is_inverted:
                raise ValueError(
                    f"{type(distance).__name__} is a similarity: give a distance, such as LpDistance, whose "
                    "normalize_embeddings orders pairs as cosines do"
                )
        else:
            # The core checks the name.
            power = POWERS[Core(distance=distance).distance]  # type: ignore[arg-type]
            distance = LpDistance(normalize_embeddings=normalize, p=2, power=power)
        super().__init__(
            distance=distance,
            reducer=reducer,
            embedding_regularizer=embedding_regularizer,
            embedding_reg_weight=embedding_reg_weight,
        )
        self.core = Core(margin, gamma, reg_inverse, **options)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: tuple[Tensor, ...] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """Compute the reduced loss.

        Args:
            embeddings: (N, channels) float.
            labels: (N,) integers; None where ``indices_tuple`` says which pairs are of one class.
            indices_tuple: Pairs or triplets of a miner, or None.
            ref_emb: (M, channels), what the embeddings are compared with; None compares them with each other.
            ref_labels: (M,).

        Raises:
            ValueError: As ``otfew.methods.batchwise_ot.BatchwiseOTLoss.transport``.
        """
        if ref_emb is embeddings:
            ref_emb, ref_labels = None, None
        loss: Tensor = self._reduced(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        return loss

    @in_full_precision
    def _reduced(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
    ) -> Any:
        return super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> dict[str, dict[str, Any]]:
        """Compute one number for each embedding; called by ``forward``."""
        alone = ref_emb is embeddings
        other, other_labels = (None, None) if alone else (ref_emb, ref_labels)
        same, counted = pairs_of(embeddings, labels, indices_tuple, other, other_labels, self.core.exclude_self)
        losses = self.core.of_distances(self._distances(embeddings, ref_emb), same, counted).per_item
        if not bool(counted.any()) or bool(same.all()):
            nothing: dict[str, dict[str, Any]] = self.zero_losses()
            return nothing
        indices = torch.arange(len(losses), device=losses.device)
        return {"loss": {"losses": losses, "indices": indices, "reduction_type": "element"}}

    def _distances(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute (N, M), accurately where the distance is Euclidean."""
        kind = self.distance
        if type(kind) is not LpDistance or kind.p != 2 or kind.power not in POWERS.values():
            distances: Tensor = kind(x, y)
            return distances
        u, v = (kind.maybe_normalize(side) for side in (x, y))
        return sqeuclidean(u, v) if kind.power == 2 else euclidean(u, v)


def _register(name: str) -> None:
    """Let ``CrossBatchMemory`` take losses of this name too."""
    names = CrossBatchMemory.supported_losses()
    if name not in names:
        CrossBatchMemory.supported_losses = staticmethod(lambda: [*names, name])


_register(BatchwiseOTLoss.__name__)
