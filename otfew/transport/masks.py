"""Masks of allowed pairs, and solvers that take none: inside, a forbidden pair is a cost of +inf."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.problem import check_dtype, first_index
from otfew.transport.registry import SOLVERS, Solver, lookup


def masked(cost: Tensor, mask: Any, solver: Solver | None = None) -> Tensor:
    """Write a mask into a cost; no gradient reaches the cost of a forbidden pair.

    Args:
        cost: (*batch, n, m).
        mask: (*batch, n, m) bool, torch or numpy, True where a pair is allowed; its batch broadcasts with the cost's.
        solver: Who is to solve it.

    Returns:
        The cost with +inf where the mask is False, whatever was there, over the batches of both.

    Raises:
        ValueError: A mask of another type, dtype or shape, or one that forbids something and a solver that takes no
            forbidden pairs.
    """
    allowed = as_mask(mask)
    if cost.ndim < 2 or allowed.ndim < 2 or allowed.shape[-2:] != cost.shape[-2:]:
        wanted = f"(*batch, {', '.join(map(str, cost.shape[-2:]))})"
        raise ValueError(f"mask must be {wanted} to fit cost {tuple(cost.shape)}, got {tuple(allowed.shape)}")
    check_dtype("cost", cost)
    try:
        torch.broadcast_shapes(cost.shape, allowed.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise ValueError(
            f"batch shapes of cost and mask do not broadcast: {tuple(cost.shape[:-2])}, {tuple(allowed.shape[:-2])}"
        ) from None
    if solver is not None and not solver.forbids and not bool(allowed.all()):
        raise ValueError(_refusal(solver, "mask forbids pairs" + first_index(~allowed, allowed.ndim - 2)))
    if cost.is_cpu and not cost.requires_grad:
        # numpy wakes no threads of torch's.
        return torch.from_numpy(_written(cost.numpy(), allowed.cpu().numpy()))
    return torch.where(allowed.to(cost.device), cost, math.inf)


def _written(cost: npt.NDArray[np.floating], allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.floating]:
    """Write a mask into a cost: the larger of it and -inf, which NaN is not above, or +inf.

    These differ in the sign bit alone, so that nothing branches where a mask looks random: a quarter of the time.
    """
    whole: Any = np.uint32 if cost.dtype == np.float32 else np.uint64
    signs: Any = allowed.view(np.uint8).astype(whole)
    signs <<= whole(8 * signs.itemsize - 1)
    signs |= np.array(np.inf, cost.dtype).view(whole)
    least = signs.view(cost.dtype)
    out = least if least.shape == np.broadcast_shapes(cost.shape, least.shape) else None
    written: npt.NDArray[np.floating] = np.fmax(cost, least, out=out)
    return written


def as_mask(mask: Any) -> Tensor:
    """Take a mask as a tensor.

    Raises:
        ValueError: Neither tensor nor array, or not of bool.
    """
    if not isinstance(mask, Tensor | np.ndarray):
        raise ValueError(f"mask must be a torch tensor or a numpy array, got {type(mask).__name__}")
    if mask.dtype not in (torch.bool, np.dtype(np.bool_)):
        raise ValueError(f"mask must be bool, True where a pair is allowed, got {mask.dtype}; write mask > 0")
    return mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask, order="C"))


def refuse_forbidden(solver: Solver, cost: Tensor) -> None:
    """Say that a solver takes no forbidden pairs, if it does not, where some are.

    Raises:
        ValueError: The solver takes none; the message names those that do, and the batch index.
    """
    if not solver.forbids:
        where = first_index(cost.detach() == math.inf, cost.ndim - 2)
        raise ValueError(_refusal(solver, f"cost holds infinity{where}"))


def _refusal(solver: Solver, what: str) -> str:
    able = [name for name in SOLVERS if lookup(name).forbids and lookup(name).input == solver.input]
    return f"{what}, and {solver.name} takes no forbidden pairs: take one of {', '.join(able)}"
