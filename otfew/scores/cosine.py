"""Cosines between sets of vectors."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from otfew.scores.pairwise import NORM_EPS


def unit(vectors: Tensor) -> Tensor:
    """Divide vectors (..., channels) by their Euclidean norm, at least ``NORM_EPS``."""
    return normalize(vectors, dim=-1, eps=NORM_EPS)


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """Compute all cosines between (..., n, channels) and (..., m, channels): (..., n, m)."""
    return unit(x) @ unit(y).mT
