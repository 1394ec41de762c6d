"""Losses of metric learning to compare with: pytorch-metric-learning's, and contrastive loss on matched positions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from otfew import checks
from otfew.baselines._lifted_structure import LiftedStructure
from otfew.errors import UserError
from otfew.pair_loss import Joined, Matched, PairLoss, built, check_options

Build = Callable[..., PairLoss]
"""(classes, channels, **options) -> loss."""


def _of_pairs(name: str) -> Build:
    """Take a loss that pairs embeddings."""

    def build(classes: int, channels: int, **options: Any) -> PairLoss:
        return Joined(_made("losses", name, **options))

    build.__doc__ = f"pytorch-metric-learning's {name}."
    return build


def _of_proxies(name: str) -> Build:
    """Take a loss that learns vectors for the classes."""

    def build(classes: int, channels: int, **options: Any) -> PairLoss:
        return Joined(_made("losses", name, **{"num_classes": classes, "embedding_size": channels, **options}))

    build.__doc__ = f"pytorch-metric-learning's {name}, which learns vectors for the classes."
    return build


def _batch_hard(classes: int, channels: int, **options: Any) -> PairLoss:
    """Triplet loss on each anchor's furthest positive and nearest negative (Hermans, Beyer and Leibe 2017)."""
    return Joined(_made("losses", "TripletMarginLoss", **{"margin": 0.2, **options}), _made("miners", "BatchHardMiner"))


def _n_pair(classes: int, channels: int, regularisation: float = 2e-4, **options: Any) -> PairLoss:
    """N-pair loss (Sohn 2016) on inner products; the square of the norms is held down, as in its paper."""
    checks.number("n-pair", "regularisation", regularisation, least=0)
    ours = {
        "distance": _made("distances", "DotProductSimilarity", normalize_embeddings=False),
        "embedding_regularizer": _made("regularizers", "LpRegularizer", power=2),
        "embedding_reg_weight": regularisation,
    }
    return Joined(_made("losses", "NPairsLoss", **{**ours, **options}))


def _lifted(classes: int, channels: int, **options: Any) -> PairLoss:
    """Lifted structured loss (Song et al. 2016)."""
    return Joined(built("lifted-structure", LiftedStructure, options))


def _matched(classes: int, channels: int, **options: Any) -> PairLoss:
    """Contrastive loss of matched positions, the pair-wise baseline of the batch-wise OT paper."""
    return built("matched-pairs", Matched, options)


LOSSES: dict[str, Build] = {
    "matched-pairs": _matched,
    "triplet-batch-hard": _batch_hard,
    "lifted-structure": _lifted,
    "n-pair": _n_pair,
    "normalised-softmax": _of_proxies("NormalizedSoftmaxLoss"),
    "contrastive": _of_pairs("ContrastiveLoss"),
    "soft-triple": _of_proxies("SoftTripleLoss"),
    "snr": _of_pairs("SignalToNoiseRatioContrastiveLoss"),
    "arcface": _of_proxies("ArcFaceLoss"),
    "multi-similarity": _of_pairs("MultiSimilarityLoss"),
}
"""Name -> what makes it. Options are pytorch-metric-learning's; so are the defaults, where nothing else is said."""


def _made(module: str, name: str, **options: Any) -> Any:
    """Construct a class of pytorch-metric-learning; its constructors pass on what they do not know themselves."""
    kind = _class_of(module, name)
    parameters = [p for c in kind.__mro__ if "__init__" in vars(c) for p in inspect.signature(c.__init__).parameters]
    check_options(name, parameters, options)
    return kind(**options)


def _class_of(module: str, name: str) -> Any:
    """Find a class of pytorch-metric-learning."""
    if find_spec("pytorch_metric_learning") is None:
        raise UserError('this loss needs pytorch-metric-learning: run pip install "otfew[metric]".')
    import importlib

    return getattr(importlib.import_module(f"pytorch_metric_learning.{module}"), name)
