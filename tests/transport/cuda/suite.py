"""Batches of exact problems of many kinds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

COSTS = (
    "random", "signed", "ties", "flat", "offset", "additive", "points", "self", "huge", "tiny", "wide", "forbidden",
)  # fmt: skip
WEIGHTS = ("random", "zeros", "integers", "uniform", "wild", "one node")
LEFT_OPEN = {"wide", "forbidden"}
"""Kinds of costs whose plans may be optimal only to the rounding of the largest."""


def _cost(rng: np.random.Generator, kind: str, size: int, n: int, m: int) -> np.ndarray:
    drawn = rng.random((size, n, m))
    if kind == "signed":
        return -drawn + 0.3
    if kind == "ties":
        return rng.integers(0, 4, (size, n, m)).astype(float)
    if kind == "flat":
        return np.full((size, n, m), 0.7)
    if kind == "offset":
        return 1e-3 * drawn + 1e4
    if kind == "additive":
        return drawn + 1e3 * rng.random((size, n, 1)) + 1e3 * rng.random((size, 1, m))
    if kind in {"points", "self"}:
        x, y = rng.normal(size=(size, n, 3)), rng.normal(size=(size, m, 3))
        if kind == "self":
            y[:, : min(n, m)] = x[:, : min(n, m)]
        return ((x[:, :, None] - y[:, None]) ** 2).sum(-1)
    if kind == "huge":
        return (drawn - 0.5) * 6e38
    if kind == "tiny":
        return 1e-35 * drawn
    if kind == "wide":
        return 10.0 ** rng.uniform(-12, 6, (size, n, m))
    if kind == "forbidden":
        return np.where(rng.random((size, n, m)) < 0.3, 1e12, drawn)
    assert kind == "random"
    return drawn


def _weights(rng: np.random.Generator, kind: str, size: int, k: int) -> np.ndarray:
    if kind == "uniform":
        drawn = np.ones((size, k))
    elif kind == "integers":
        drawn = rng.integers(0, 4, (size, k)).astype(float)
    elif kind == "wild":
        drawn = 10.0 ** rng.uniform(-18, 0, (size, k))
    elif kind == "one node":
        drawn = np.eye(k)[rng.integers(0, k, size)]
    else:
        drawn = rng.random((size, k)) + 1e-3
        if kind == "zeros":
            drawn *= rng.random((size, k)) < 0.5
    drawn[drawn.sum(-1) == 0] = 1.0
    return drawn


def batch(
    seed: int, size: int, n: int, m: int, cost: str, a: str, b: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw problems (size, n, m), with weights of equal totals."""
    rng = np.random.default_rng((seed, n, m))
    costs = torch.from_numpy(_cost(rng, cost, size, n, m)).to(dtype)
    rows, columns = _weights(rng, a, size, n), _weights(rng, b, size, m)
    columns *= (rows.sum(-1) / columns.sum(-1))[:, None]
    return costs, torch.from_numpy(rows), torch.from_numpy(columns)


def batches(
    seed: int, size: int, shapes: tuple[tuple[int, int], ...], dtypes: tuple[torch.dtype, ...]
) -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor]]]:
    """Run through all kinds of costs, each with every kind of weights in turn, with what they are."""
    turn = seed
    for n, m in shapes:
        for cost in COSTS:
            for dtype in dtypes:
                turn += 1
                a, b = WEIGHTS[turn % len(WEIGHTS)], WEIGHTS[turn // 2 % len(WEIGHTS)]
                yield f"{n}x{m} {cost} a={a} b={b} {dtype} seed={turn}", batch(turn, size, n, m, cost, a, b, dtype)
