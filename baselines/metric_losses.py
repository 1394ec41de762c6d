"""Losses of metric learning to compare with: pytorch-metric-learning's, and contrastive loss on matched positions."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from otfew import checks
from otfew.baselines._lifted_structure import LiftedStructure
from otfew.errors import UserError
from otfew.pair_loss import Joined, LossKind, Matched, PairLoss


def _of_pairs(name: str) -> LossKind:
    """Take a loss that pairs embeddings."""

    def build(classes: int, channels: int, **options: Any) -> PairLoss:
        return Joined(_class_of("losses", name)(**options))

    build.__doc__ = f"pytorch-metric-learning's {name}."
    return LossKind(build, lambda: _class_of("losses", name))


def _of_proxies(name: str) -> LossKind:
    """Take a loss that learns vectors for the classes."""

    def build(classes: int, channels: int, **options: Any) -> PairLoss:
        return Joined(_class_of("losses", name)(**{"num_classes": classes, "embedding_size": channels, **options}))

    build.__doc__ = f"pytorch-metric-learning's {name}, which learns vectors for the classes."
    return LossKind(build, lambda: _class_of("losses", name), ("num_classes", "embedding_size"))


def _batch_hard(classes: int, channels: int, **options: Any) -> PairLoss:
    """Triplet loss on each anchor's furthest positive and nearest negative (Hermans, Beyer and Leibe 2017)."""
    return Joined(
        _class_of("losses", "TripletMarginLoss")(**{"margin": 0.2, **options}), _class_of("miners", "BatchHardMiner")()
    )


def _n_pair(classes: int, channels: int, regularisation: float = 2e-4, **options: Any) -> PairLoss:
    """N-pair loss (Sohn 2016) on inner products; the square of the norms is held down, as in its paper."""
    checks.number("n-pair", "regularisation", regularisation, least=0)
    ours = {
        "distance": _class_of("distances", "DotProductSimilarity")(normalize_embeddings=False),
        "embedding_regularizer": _class_of("regularizers", "LpRegularizer")(power=2),
        "embedding_reg_weight": regularisation,
    }
    return Joined(_class_of("losses", "NPairsLoss")(**{**ours, **options}))


def _lifted(classes: int, channels: int, **options: Any) -> PairLoss:
    """Lifted structured loss (Song et al. 2016)."""
    return Joined(LiftedStructure(**options))


def _matched(classes: int, channels: int, **options: Any) -> PairLoss:
    """Contrastive loss of matched positions, the pair-wise baseline of the batch-wise OT paper."""
    return Matched(**options)


LOSSES: dict[str, LossKind] = {
    "matched-pairs": LossKind(_matched, lambda: Matched),
    "triplet-batch-hard": LossKind(_batch_hard, lambda: _class_of("losses", "TripletMarginLoss")),
    "lifted-structure": LossKind(_lifted, lambda: LiftedStructure),
    "n-pair": LossKind(
        _n_pair,
        lambda: _class_of("losses", "NPairsLoss"),
        ("distance", "embedding_regularizer", "embedding_reg_weight"),
    ),
    "normalised-softmax": _of_proxies("NormalizedSoftmaxLoss"),
    "contrastive": _of_pairs("ContrastiveLoss"),
    "soft-triple": _of_proxies("SoftTripleLoss"),
    "snr": _of_pairs("SignalToNoiseRatioContrastiveLoss"),
    "arcface": _of_proxies("ArcFaceLoss"),
    "multi-similarity": _of_pairs("MultiSimilarityLoss"),
}
"""Name -> what makes it. Options are pytorch-metric-learning's; so are the defaults, where nothing else is said."""


def _class_of(module: str, name: str) -> Any:
    """Find a class of pytorch-metric-learning."""
    if find_spec("pytorch_metric_learning") is None:
        raise UserError('this loss needs pytorch-metric-learning: run pip install "otfew[metric]".')
    import importlib

    return getattr(importlib.import_module(f"pytorch_metric_learning.{module}"), name)
