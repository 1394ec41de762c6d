"""A place to run in, and problems for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from .places import Card, Place, Pretence

Problems = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.cuda), "pretended"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Give a GPU, or a pretended one that runs kernels on the CPU where there is a compiler for them."""
    if request.param == "cuda":
        yield Card()
        return
    with request.getfixturevalue("pretended")() as machine:
        yield Pretence(machine)


KINDS = ("bar", "correlated", "ties", "zeros", "uniform")


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(x, axis=-1)[:, :, None] * np.linalg.norm(y, axis=-1)[:, None]
    return 1 - x @ y.swapaxes(1, 2) / np.maximum(lengths, 1e-12)


def _drawn(rng: np.random.Generator, kind: str, count: int, n: int, m: int) -> tuple[np.ndarray, ...]:
    a, b = rng.random((count, n)) + 0.1, rng.random((count, m)) + 0.1
    if kind == "bar":
        x = np.maximum(rng.standard_normal((count, n, 64)) + 0.5 * rng.standard_normal((count, 1, 64)), 0)
        y = np.maximum(rng.standard_normal((count, m, 64)) + 0.5 * rng.standard_normal((count, 1, 64)), 0)
        return _cosine(x, y), a, b
    if kind == "correlated":
        # Both sides show the same parts, in another order.
        parts = rng.standard_normal((count, max(n, m), 32))
        y = np.take_along_axis(parts, rng.random((count, max(n, m))).argsort(1)[:, :m, None], 1)
        x = np.maximum(parts[:, :n] + 0.35 * rng.standard_normal((count, n, 32)), 0)
        return _cosine(x, np.maximum(y + 0.35 * rng.standard_normal((count, m, 32)), 0)), a, b
    cost = rng.random((count, n, m))
    if kind == "ties":
        return rng.integers(0, 3, (count, n, m)).astype(float), rng.integers(1, 4, (count, n)) + 0.0, b * 0 + 1
    if kind == "zeros":
        for weights in (a, b):
            weights[rng.random(weights.shape) < 0.5] = 0
            weights[:, 0] = 1
        return cost, a, b
    assert kind == "uniform"
    return cost, np.ones((count, n)), np.ones((count, m))


@pytest.fixture
def problems() -> Callable[..., Problems]:
    """Draw problems on the CPU: cost (count, n, m) of a dtype, a and b float64 with one total a problem."""

    def draw(
        kind: str = "bar",
        count: int = 6,
        n: int = 25,
        m: int | None = None,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> Problems:
        m = m or n
        rng = np.random.default_rng([seed, n, m, KINDS.index(kind)])
        cost, a, b = (torch.from_numpy(x) for x in _drawn(rng, kind, count, n, m))
        return cost.to(dtype), a, b * (a.sum(-1) / b.sum(-1))[:, None]

    return draw
