from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from otfew import catalogue
from otfew.method import FewShotMethod

CHANNELS = 8


@pytest.fixture
def make() -> Callable[..., FewShotMethod]:
    """Build a method by name, with a base mean where it needs one."""

    def build(name: str, channels: int = CHANNELS, **options: object) -> FewShotMethod:
        cls = catalogue.find(name)
        if cls.needs_base_mean and "base_mean" not in options:
            options["base_mean"] = torch.linspace(0.1, 0.4, channels, dtype=torch.float64)
        return cls(**options)

    return build


@pytest.fixture
def episodes() -> Callable[..., tuple[Tensor, Tensor]]:
    """Draw non-negative node sets with class structure: support and query of the contract's shapes."""

    def draw(
        n: int = 3,
        way: int = 4,
        shot: int = 3,
        nodes: int = 6,
        n_query: int = 5,
        query_nodes: int | None = None,
        channels: int = CHANNELS,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        centres = normal(n, way, 1, 1, channels)
        support = (centres + normal(n, way, shot, nodes, channels) + 0.3).relu()
        chosen = torch.randint(way, (n, n_query), generator=generator)
        query_centres = centres[torch.arange(n)[:, None], chosen, 0]
        query = (query_centres + normal(n, n_query, query_nodes or nodes, channels) + 0.3).relu()
        return support.to(dtype), query.to(dtype)

    return draw


@pytest.fixture
def uneven() -> Tensor:
    """Give a mask for (3, 4, 3) shots: uneven, not only at the end, totals that differ and that repeat."""
    rows = [
        ["101", "111", "010", "001"],
        ["111", "111", "111", "111"],
        ["001", "111", "110", "100"],
    ]
    return torch.tensor([[[c == "1" for c in shots] for shots in classes] for classes in rows])
