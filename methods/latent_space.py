"""The Latent Space Transform and the power transform of PT-MAP, batched over episodes, in torch.

Chobola, Vasata and Kordik 2021, section 3; Hu, Gripon and Pateux 2020, section 3.1. Both use the queries: what becomes
of an image depends on the others of its episode.

The published procedure turns each episode's points into as few coordinates as there are points (QR) before it scales
them. That is an isometry and commutes with everything here, so points stay in their own coordinates;
``isometric_reduction`` does it for who wants fewer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otfew import checks
from otfew.errors import UserError

OFFSET = 1e-6
"""Added before the power: of the published code, and what keeps its derivative finite at zero."""


def check_options(owner: str, beta: float, delta: float, gamma: float) -> None:
    """Raise ``UserError`` unless beta is above 0 and delta and gamma are not below."""
    checks.number(owner, "beta", beta, above=0)
    checks.number(owner, "delta", delta, least=0)
    checks.number(owner, "gamma", gamma, least=0)


def check_points(support: Tensor, query: Tensor, beta: float) -> None:
    """Refuse what has no power transform, with one look at both where a look waits for a device.

    Args:
        support: (episodes, ..., channels).
        query: (episodes, ..., channels).
        beta: Exponent. With 1 negative numbers are allowed, since nothing is transformed.

    Raises:
        UserError: A number that is not finite, or a negative one, naming the episode.
    """
    both = {"support": support, "query": query}
    for what, vectors in both.items():
        if vectors.numel() == 0:
            raise UserError(f"{what} is empty: its shape is {tuple(vectors.shape)}.")
    bounds = torch.stack([x for vectors in both.values() for x in torch.aminmax(vectors.detach())]).tolist()
    # NaN passes neither comparison.
    least = -math.inf if beta == 1 else 0.0
    if all(least <= x < math.inf and x > -math.inf for x in bounds):
        return
    for what, vectors in both.items():
        bad = ~torch.isfinite(vectors)
        if bool(bad.any()):
            raise UserError(f"{what} holds a NaN or an infinity in episode {_first_episode(bad)}.")
        negative = vectors < least
        if bool(negative.any()):
            episode = _first_episode(negative)
            raise UserError(
                f"{what} holds {float(vectors[episode].min()):.3g} in episode {episode}, but the power transform "
                f"x^{beta:g} needs features of at least 0: take a backbone whose features end in ReLU, or beta=1, "
                "which transforms nothing."
            )


def _first_episode(bad: Tensor) -> int:
    return int(bad.flatten(1).any(1).nonzero()[0])


def power(vectors: Tensor, beta: float) -> Tensor:
    """Compute (x + 1e-6)^beta of vectors that are not negative; with beta = 1 of any."""
    shifted = vectors + OFFSET
    # A square root takes a fifth of the time of a general power.
    return shifted.sqrt() if beta == 0.5 else shifted**beta


def scaled(vectors: Tensor, exponent: float) -> Tensor:
    """Divide vectors (..., channels) by their norms to a power: 0 leaves them alone, 1 makes them units; 0 stays 0."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    divided: Tensor = vectors * norms.clamp_min(torch.finfo(vectors.dtype).eps ** 2).pow(-exponent)
    return divided


def centred(vectors: Tensor, counts: Tensor | None = None) -> Tensor:
    """Subtract the mean of each episode's vectors (episodes, n, channels).

    Args:
        vectors: (episodes, n, channels).
        counts: (episodes, n) bool, which of them make the mean; None for all. At least one in each episode.
    """
    if counts is None:
        return vectors - vectors.mean(1, keepdim=True)
    weights = counts.to(vectors.dtype)
    return vectors - (weights / weights.sum(1, keepdim=True))[:, None] @ vectors


def latent_space(
    support: Tensor,
    query: Tensor,
    *,
    beta: float = 0.5,
    delta: float = 0.3,
    gamma: float = 0.9,
    joint: bool = True,
    support_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Transform an episode's points: power, x / |x|^delta, centring, x / |x|^gamma.

    The norm in the last step is that of the centred point, as in the published code; the paper's formula could be read
    as that of the point before.

    Args:
        support: (episodes, n_support, channels), not negative unless beta = 1.
        query: (episodes, n_query, channels), likewise.
        beta: Exponent of the power transform.
        delta: How far points are normalised before they are centred.
        gamma: How far after.
        joint: Centre support and queries about their common mean, or else each about its own.
        support_mask: (episodes, n_support) bool, False at points to ignore; they are centred about the others' mean.

    Returns:
        Support (episodes, n_support, channels) and query (episodes, n_query, channels).

    Raises:
        UserError: An option out of range; NaN, infinities, or negative features where beta is not 1.
    """
    check_options("latent_space", beta, delta, gamma)
    support = kept(support, support_mask)
    check_points(support, query, beta)
    return transformed(support, query, beta, delta, gamma, joint, support_mask)


def kept(support: Tensor, support_mask: Tensor | None) -> Tensor:
    """Put zeros where support vectors (episodes, n_support, channels) are to be ignored, whatever stands there."""
    return support if support_mask is None else support.masked_fill(~support_mask[..., None], 0)


def transformed(
    support: Tensor, query: Tensor, beta: float, delta: float, gamma: float, joint: bool, support_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Do the work of ``latent_space`` on arguments that have been checked."""
    split = [support.shape[1], query.shape[1]]
    points = scaled(power(torch.cat([support, query], 1), beta), delta)
    if joint:
        counts = None
        if support_mask is not None:
            counts = torch.cat([support_mask, support_mask.new_ones(query.shape[:2])], 1)
        points = centred(points, counts)
    else:
        first, second = torch.split(points, split, 1)
        points = torch.cat([centred(first, support_mask), centred(second)], 1)
    first, second = torch.split(scaled(points, gamma), split, 1)
    return first, second


def power_transform(
    support: Tensor, query: Tensor, *, beta: float = 0.5, support_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Transform as PT-MAP does: power, unit norm, support and queries each about its own mean, unit norm.

    This is ``latent_space`` with delta = gamma = 1 and without joint centring; see there.
    """
    return latent_space(support, query, beta=beta, delta=1, gamma=1, joint=False, support_mask=support_mask)


def isometric_reduction(points: Tensor) -> Tensor:
    """Turn points (episodes, n, channels) into (episodes, n, min(n, channels)) with the same inner products.

    With X' = Q R these are R' = X Q, which holds for dependent points too.
    """
    if points.shape[1] >= points.shape[2]:
        return points
    r: Tensor = torch.linalg.qr(points.mT)[1]
    return r.mT
