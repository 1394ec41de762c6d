from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor
from torch.nn.functional import cosine_similarity

Array = npt.NDArray[np.floating]


@pytest.fixture
def episodes() -> Callable[..., tuple[Tensor, Tensor]]:
    """Draw non-negative node sets with class structure: support and query of contract 2."""

    def draw(
        n: int = 2,
        way: int = 3,
        shot: int = 3,
        nodes: int = 5,
        n_query: int = 4,
        query_nodes: int | None = None,
        channels: int = 16,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        centres = normal(n, way, 1, 1, channels)
        support = (0.5 * centres + normal(n, way, shot, nodes, channels)).relu()
        chosen = torch.randint(way, (n, n_query), generator=generator)
        own = centres[torch.arange(n)[:, None], chosen, 0]
        query = (0.5 * own + normal(n, n_query, query_nodes or nodes, channels)).relu()
        return support.to(dtype), query.to(dtype)

    return draw


def opencv_flow(s: Array, d: Array, cost: Array) -> Array:
    """The released code's solver: float32, and its plan may cost 1e-5 more than the cheapest."""
    flow: Array = cv2.EMD(*(w.astype(np.float32)[:, None] for w in (s, d)), cv2.DIST_USER, cost.astype(np.float32))[2]
    return flow


def exact_flow(s: Array, d: Array, cost: Array) -> Array:
    """HiGHS, in float64: row sums at most s, column sums at most d, as much as possible."""
    (m, n), total = cost.shape, min(s.sum(), d.sum())
    sums = np.concatenate([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])
    found = linprog(
        cost.ravel(), sums, np.concatenate([s, d]) * (1 + 1e-15), np.ones((1, m * n)), [total], method="highs-ds"
    )
    flow: Array = found.x.reshape(m, n)
    return flow


@pytest.fixture
def plain_score() -> Callable[..., Tensor]:
    """Score one image against one class as the published code does: the flow a constant, times 12.5.

    Node sets u (m, channels) and v (n, channels); totals are m and n, so that sets of different sizes are matched in
    part, or with ``equal`` both m. ``flow`` is "opencv" or "exact". Differentiable in u and v.
    """

    def score(u: Tensor, v: Tensor, equal: bool = True, flow: str = "opencv") -> Tensor:
        m, n = len(u), len(v)
        s = (u.detach() @ v.detach().mean(0)).relu() + 1e-3
        d = (v.detach() @ u.detach().mean(0)).relu() + 1e-3
        s, d = s / s.sum() * m, d / d.sum() * (m if equal else n)
        centred_u, centred_v = u - u.mean(1, keepdim=True), v - v.mean(1, keepdim=True)
        similarity = cosine_similarity(centred_u[:, None], centred_v[None], dim=-1)
        solve = opencv_flow if flow == "opencv" else exact_flow
        plan = solve(s.numpy(), d.numpy(), (1 - similarity.detach()).numpy())
        return 12.5 / m * (similarity * torch.from_numpy(plan)).sum()

    return score
