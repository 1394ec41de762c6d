"""Costs between a balanced meta set and a training set: labels, features, or both (Guo et al. 2022, section 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from otfew.errors import UserError

Cost = Literal["label", "feature", "combined"]
LabelDistance = Literal["zero-one", "euclidean"]

DIFFERENT = {"zero-one": 1.0, "euclidean": 2.0**0.5}
"""Distance of two labels that differ: 1, or that of their one-hot vectors."""


def label_costs(meta_labels: Tensor, labels: Tensor, distance: LabelDistance) -> Tensor:
    """Compute 0 where labels agree and ``DIFFERENT`` elsewhere: (meta,), (samples,) -> (meta, samples) float64."""
    costs: Tensor = (meta_labels[:, None] != labels).double() * DIFFERENT[distance]
    return costs


def feature_costs(meta_features: Tensor, features: Tensor) -> Tensor:
    """Compute 1 - cosine: (meta, channels), (samples, channels) -> (meta, samples) float64, between 0 and 2."""
    return 1 - functional.normalize(meta_features.double(), dim=-1) @ functional.normalize(features.double(), dim=-1).T


def prototypes(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Average the samples of each class.

    Args:
        features: (samples, ...) floating point: feature vectors, or images (pixel means, as published).
        labels: (samples,) int64.

    Returns:
        Means (classes present, ...) in float64, and their labels, ascending.
    """
    present, place = torch.unique(labels, return_inverse=True)
    sums = torch.zeros(len(present), *features.shape[1:], dtype=torch.float64, device=features.device)
    if features.is_cpu:
        sums.index_add_(0, place, features.double())
    else:
        # A GPU sorts here, where index_add_ would add in an order of its own in every run.
        sums.index_put_((place,), features.double(), accumulate=True)
    counts = torch.bincount(place, minlength=len(present)).view(-1, *[1] * (features.ndim - 1))
    return sums / counts, present


def check(features: Tensor, labels: Tensor, meta_features: Tensor, meta_labels: Tensor) -> None:
    """Refuse what cannot be weighted.

    Raises:
        UserError: Wrong shapes or dtypes, NaN or infinity, or a class that one of the two sets lacks.
    """
    for name, vectors, classes in (("", features, labels), ("meta_", meta_features, meta_labels)):
        if not isinstance(vectors, Tensor):
            raise UserError(f"{name}features must be a tensor (samples, channels), got {type(vectors).__name__}")
        if vectors.ndim != 2 or not vectors.is_floating_point() or 0 in vectors.shape:
            raise UserError(
                f"{name}features must be floating point (samples, channels), got {vectors.dtype} {tuple(vectors.shape)}"
            )
        if not isinstance(classes, Tensor) or classes.dtype != torch.int64 or classes.shape != vectors.shape[:1]:
            got = f"{classes.dtype} {tuple(classes.shape)}" if isinstance(classes, Tensor) else type(classes).__name__
            raise UserError(f"{name}labels must be int64 ({len(vectors)},), one a row of {name}features, got {got}")
        bad = (~torch.isfinite(vectors)).any(-1).nonzero()
        if len(bad):
            raise UserError(f"{name}features hold NaN or infinity, first in row {int(bad[0])}")
    if features.shape[1] != meta_features.shape[1]:
        raise UserError(f"features have {features.shape[1]} channels, meta_features {meta_features.shape[1]}")
    there, wanted = set(meta_labels.tolist()), set(labels.tolist())
    if missing := sorted(wanted - there):
        raise UserError(f"class {missing[0]} has training samples but none in the meta set: give it some")
    if extra := sorted(there - wanted):
        raise UserError(f"class {extra[0]} is in the meta set but has no training sample: remove it")
