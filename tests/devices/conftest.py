"""Inputs that the tests of a device share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def episodes() -> Callable[..., tuple[Tensor, Tensor]]:
    """Draw non-negative node sets with class structure: support and query of contract 2, which want a gradient."""

    def draw(
        n: int = 2,
        way: int = 3,
        shot: int = 2,
        nodes: int = 4,
        n_query: int = 5,
        channels: int = 8,
        dtype: torch.dtype = torch.float64,
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        centres = normal(n, way, 1, 1, channels)
        support = (centres + normal(n, way, shot, nodes, channels) + 0.3).relu()
        chosen = torch.randint(way, (n, n_query), generator=generator)
        own = centres[torch.arange(n)[:, None], chosen, 0]
        query = (own + normal(n, n_query, nodes, channels) + 0.3).relu()
        return support.to(dtype).requires_grad_(), query.to(dtype).requires_grad_()

    return draw


@pytest.fixture
def uneven() -> Tensor:
    """Give a mask of (2, 3, 2) shots: classes with one shot and with two, totals that differ."""
    return torch.tensor([[[1, 1], [1, 0], [0, 1]], [[1, 1], [1, 1], [0, 1]]]).bool()
