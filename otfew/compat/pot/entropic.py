"""What POT's entropic functions have in common: their arguments as tensors, and otfew's Sinkhorn on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.compat.pot.arrays import MarginalError, is_empty, same_library
from otfew.transport.api import solve
from otfew.transport.arguments import as_tensor
from otfew.transport.entropic.sinkhorn import Sinkhorn
from otfew.transport.problem import TOTALS_RTOL
from otfew.transport.result import OTResult

FINEST = 1e-14
"""Finest tolerance that is asked of the solver, relative to the mass: float64's rounding is near."""


@dataclass(slots=True, eq=False)
class Entropic:
    """Weights and costs as tensors, with their graphs.

    Attributes:
        cost: (*batch, n, m) float32 or float64; (n, m) for many histograms.
        a: (*batch, n) in floating point.
        b: (*batch, m), or (k, m) for k histograms.
        tensors: Whether the caller gave tensors.
        columns: Whether b is many histograms.
    """

    cost: Tensor
    a: Tensor
    b: Tensor
    tensors: bool
    columns: bool

    def out(self, tensor: Tensor) -> Any:
        """Hand out in the caller's library, in the dtype of the cost."""
        cast = tensor.to(self.cost.dtype)
        if self.tensors:
            return cast
        array = cast.detach().numpy()
        return array if array.ndim else array[()]

    def per_column(self, tensor: Tensor) -> Any:
        """Hand out vectors, those of many histograms as columns."""
        return self.out(tensor.mT if self.columns else tensor)


def read(a: Any, b: Any, M: Any) -> Entropic:
    """Check shapes and kinds.

    Args:
        a: (n,) weights, empty or None for uniform ones.
        b: (m,), or (m, k) histograms.
        M: (n, m) costs; (*batch, n, m) for a batch, with weights (n,) or (*batch, n).

    Raises:
        MarginalError: Weights do not fit M.
        ValueError: Arrays of two libraries, or not of real numbers.
    """
    a, b = ([] if x is None else x for x in (a, b))
    tensors = same_library(a=a, b=b, M=M)
    cost = _tensor("M", M)
    if cost.ndim < 2 or 0 in cost.shape:
        raise ValueError(
            f"`M` must be (n, m), or (*batch, n, m), with at least one row and column, got {tuple(cost.shape)}"
        )
    n, m = cost.shape[-2:]
    batch = tuple(cost.shape[:-2])
    rows = _weights("a", a, n, batch, cost)
    columns = not batch and len(np.shape(b)) == 2
    if columns:
        cols = _tensor("b", b).mT
        if cols.shape[-1] != m or not len(cols):
            raise MarginalError(f"`b` must be ({m},) or ({m}, histograms) to fit M {(n, m)}, got {tuple(np.shape(b))}")
    else:
        cols = _weights("b", b, m, batch, cost)
    return Entropic(cost, rows, cols, tensors, columns)


def _tensor(name: str, given: Any) -> Tensor:
    if isinstance(given, Tensor):
        if given.is_complex():
            raise ValueError(f"`{name}` must hold real numbers, got {given.dtype}")
        return given if given.is_floating_point() else given.double()
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"got {array.dtype}")
    except ValueError as error:
        raise ValueError(f"`{name}` must hold real numbers in rows of one length: {error}") from None
    found = as_tensor(name, array if array.dtype in (np.float32, np.float64) else array.astype(np.float64))
    assert found is not None
    return found


def _weights(name: str, given: Any, size: int, batch: tuple[int, ...], cost: Tensor) -> Tensor:
    if is_empty(given):
        return torch.full((size,), 1 / size, dtype=cost.dtype, device=cost.device)
    weights = _tensor(name, given)
    if tuple(weights.shape) not in {(size,), (*batch, size)}:
        wanted = f"({size},)" + (f" or {(*batch, size)}" if batch else "")
        raise MarginalError(f"`{name}` must be {wanted} to fit M, got {tuple(weights.shape)}")
    return weights


def check_reg(reg: Any) -> float:
    """Read ``reg``.

    Raises:
        ValueError: Not a finite number from 0 on.
    """
    if isinstance(reg, bool) or not 0 <= float(reg) < np.inf:
        raise ValueError(f"`reg` must be a finite number from 0 on, got {reg!r}")
    return float(reg)


def check_limits(limit: Any, threshold: Any) -> None:
    """Check ``numItermax`` and ``stopThr``.

    Raises:
        ValueError: Not a positive whole number, or not a number.
    """
    if isinstance(limit, bool) or limit != int(limit) or limit < 1:
        raise ValueError(f"`numItermax` must be a positive whole number, got {limit!r}")
    if not float(threshold) < np.inf:
        raise ValueError(f"`stopThr` must be a finite number, got {threshold!r}")


def check_method(method: Any, methods: tuple[str, ...]) -> str:
    """Read the name of a method, in any case of letters.

    Raises:
        ValueError: Unknown; lists the names.
    """
    if not isinstance(method, str) or method.lower() not in methods:
        raise ValueError(f"`method` must be one of {', '.join(map(repr, methods))}, got {method!r}: Unknown method")
    return method.lower()


def run(given: Entropic, b: Tensor, solver: Any) -> OTResult:
    """Solve, whatever becomes of it."""
    try:
        result: OTResult = solve(given.cost, given.a, b, solver=solver, on_fail="ignore")
    except ValueError as error:
        # What the solver calls the cost is M here.
        raise ValueError(str(error).replace("cost ", "`M` ", 1)) from None
    return result


def allowed(cost: Tensor) -> Tensor:
    """Set costs of forbidden pairs to zero, which is what is carried there."""
    return cost if bool(torch.isfinite(cost).all()) else torch.where(torch.isfinite(cost), cost, 0.0)


def balanced(given: Entropic) -> tuple[Tensor, Tensor | None]:
    """Rescale b to the total of a where they differ by more than rounding.

    Returns:
        b (*batch, m), and the 2-norm (*batch,) by which this changes it, None where it does not.
    """
    total, other = given.a.sum(-1, keepdim=True), given.b.sum(-1, keepdim=True)
    apart = (total - other).detach().abs() > TOTALS_RTOL / 2 * total.detach()
    if not bool(apart.any()):
        return given.b, None
    scaled = given.b * (total / other)
    return scaled, torch.linalg.vector_norm((scaled - given.b).detach(), dim=-1)


def tolerance(given: Entropic, threshold: float) -> float:
    """Turn POT's threshold, a 2-norm of missed mass, into the solver's: the largest miss relative to the total."""
    totals = given.a.detach().sum(-1)
    mass = float(totals if totals.ndim == 0 else totals.max()) * max(given.cost.shape[-2:]) ** 0.5
    return max(float(threshold) / mass if mass > 0 else FINEST, FINEST)


def sinkhorn_of(reg: float, tol: float, limit: int, unbalanced: Any = None) -> Sinkhorn:
    """Make the solver."""
    return Sinkhorn(reg=reg, tol=tol, max_iter=int(limit), unbalanced=unbalanced)


def report(result: OTResult, error: float) -> None:
    """Print what ``verbose`` asks for."""
    print(f"It. {int(result.n_iter.max())}, err {error:.3e}")  # noqa: T201  asked for
