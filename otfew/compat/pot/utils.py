"""``dist`` and ``unif``, which most scripts call before they solve."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.compat.pot.arrays import same_library
from otfew.transport.arguments import as_tensor
from otfew.transport.costs import pairwise

METRICS = {"sqeuclidean": "sqeuclidean", "euclidean": "euclidean", "cityblock": "lp:1", "cosine": "cosine"}
"""POT's name -> otfew's."""


def unif(n: int, type_as: Any = None) -> Any:
    """Return equal weights of total 1, as ``ot.unif`` does.

    Args:
        n: How many.
        type_as: An array or tensor whose library, dtype and device they get; None makes numpy's float64.

    Returns:
        (n,), each 1 / n.
    """
    if isinstance(type_as, Tensor):
        return torch.full((n,), 1 / n, dtype=type_as.dtype, device=type_as.device)
    return np.full(n, 1 / n, dtype=np.float64 if type_as is None else type_as.dtype)


def dist(x1: Any, x2: Any = None, metric: str = "sqeuclidean", p: float = 2) -> Any:
    """Return the costs between points, as ``ot.dist`` does; differentiable in tensors.

    Args:
        x1: (n, d) numpy or torch.
        x2: (m, d), or None: x1 again.
        metric: "sqeuclidean", "euclidean", "cityblock", "cosine" or "minkowski".
        p: Exponent of "minkowski", from 1 on; the others have none.

    Returns:
        (n, m) in the dtype of the points.

    Raises:
        ValueError: Another metric, shapes that do not fit, or points of two libraries.
    """
    x2 = x1 if x2 is None else x2
    tensors = same_library(x1=x1, x2=x2)
    if metric == "minkowski":
        if not 1 <= p < math.inf:
            raise ValueError(f"`p` must be a finite number from 1 on, got {p!r}")
        # Known exponents have their own ways, with finite gradients at equal points.
        metric = "cityblock" if p == 1 else "euclidean" if p == 2 else metric
    name = f"lp:{p}" if metric == "minkowski" else METRICS.get(metric)
    if name is None:
        names = ", ".join(map(repr, [*METRICS, "minkowski"]))
        raise ValueError(f"`metric` must be one of {names}, got {metric!r}: for others call ot.dist")
    x, y = (_points(key, value) for key, value in (("x1", x1), ("x2", x2)))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"`x1` and `x2` must be (n, d) and (m, d), got {tuple(x.shape)} and {tuple(y.shape)}")
    found = pairwise(name, x, y)
    found = found ** (1 / p) if metric == "minkowski" else found
    return found if tensors else found.numpy()


def _points(name: str, given: Any) -> Tensor:
    if not isinstance(given, Tensor):
        given = np.asarray(given)
        given = given if given.dtype.kind == "f" else given.astype(np.float64)
    found = as_tensor(name, given)
    assert found is not None
    return found
