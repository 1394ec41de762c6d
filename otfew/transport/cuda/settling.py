"""Problems that the kernel is not sure of, or at which its arithmetic ends: few, if any. The CPU solves them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from otfew.transport.cuda.launches import Batch, Found, Options
from otfew.transport.problem import UNSURE, Status, build
from otfew.transport.sending import send

OPEN = 1 << UNSURE | 1 << Status.FAILED
"""Bits of a flag that say that there are such problems: costs far above those that a plan uses hide what it pays, or
numbers are near the end of their range."""


def settled(solver: Options, found: Found, batch: Batch, rounding: float) -> bool:
    """Solve on the CPU what the kernel left open, and put it in place.

    Args:
        solver: Its options, of which ``mass`` is left to the caller.
        found: What the kernel found.
        batch: The problems.
        rounding: See ``Problem``.

    Returns:
        Whether all of these problems are optimal now.
    """
    cost, a, b, shape = batch
    status = found.outputs.tensor("status")
    index = ((status == UNSURE) | (status == Status.FAILED)).nonzero()[:, 0]
    where = torch.unravel_index(index, shape) if shape else ()

    def chosen(tensor: Tensor | None, item: torch.Size) -> Tensor | None:
        """The part of a tensor that belongs to these problems, on the CPU."""
        if tensor is None:
            return None
        return tensor.detach().expand(*shape, *item)[where].reshape(-1, *item).cpu()

    n, m = cost.shape[-2:]
    costs = chosen(cost, torch.Size([n, m]))
    assert costs is not None
    weights = chosen(a, torch.Size([n])), chosen(b, torch.Size([m]))
    solution = solver.solve_all(build(costs, *weights, torch.Size([len(index)]), rounding=rounding))
    solution.status[~np.isfinite(solution.gap) & (solution.status != Status.INFEASIBLE)] = Status.FAILED
    for name in ("rows", "cols", "flow", "f", "g", "value", "gap", "marginal_error", "status", "n_iter"):
        there = found.value.reshape(-1) if name == "value" else found.outputs.tensor(name)
        there[index] = send(torch.from_numpy(getattr(solution, name)), there.device, there.dtype)
    if solution.cut is not None:
        device = found.value.device
        found.cut = tuple(torch.zeros(len(status), k, dtype=torch.bool, device=device) for k in (n, m))
        for there, side in zip(found.cut, solution.cut, strict=True):
            there[index] = send(torch.from_numpy(side), device)
    return bool((solution.status == Status.OPTIMAL).all())
