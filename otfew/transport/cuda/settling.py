"""Problems that the kernel is not sure of: costs far above those that a plan uses hide what it pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.transport.cuda.launches import Found
from otfew.transport.problem import UNSURE, Solution, Status, build
from otfew.transport.simplex.exact import Exact

_WRITTEN = ("rows", "cols", "flow", "f", "g", "gap", "marginal_error", "status", "n_iter")


def settled(solver: Exact, found: Found, cost: Tensor, a: Tensor | None, b: Tensor | None, batch: torch.Size) -> bool:
    """Bring what the kernel is unsure of to an end on the CPU, as ``Exact`` does there, and put it back in place.

    Few problems are such, if any: whose costs differ by more than nine digits.

    Args:
        solver: Its options.
        found: What the kernel found.
        cost: (*batch, n, m), or what broadcasts to it, on the device.
        a: (*batch, n), likewise, or None.
        b: (*batch, m), likewise, or None.
        batch: Its shape.

    Returns:
        Whether all of them are optimal.
    """
    index = (found.outputs.tensor("status") == UNSURE).nonzero()[:, 0]
    where = torch.unravel_index(index, batch) if batch else ()

    def chosen(tensor: Tensor | None) -> Tensor | None:
        """Problems' own part of a tensor, on the CPU; of tensors without a batch, the problems share what there is."""
        if tensor is None:
            return None
        item = found.shape[1:] if tensor is cost else tensor.shape[-1:]
        return tensor.detach().expand(*batch, *item)[where].reshape(-1, *item).cpu()

    costs = chosen(cost)
    assert costs is not None
    problem = build(costs, chosen(a), chosen(b), torch.Size([len(index)]))
    there = {name: found.outputs.tensor(name) for name in _WRITTEN} | {"value": found.value.reshape(-1)}
    here: dict[str, Any] = {name: tensor[index].cpu().numpy() for name, tensor in there.items()}
    solution = Solution(**here, solver=solver.name)
    solver.settle(problem, solution, np.arange(len(index)))
    for name, tensor in there.items():
        tensor[index] = torch.from_numpy(getattr(solution, name)).to(tensor.device, tensor.dtype)
    return bool((solution.status == Status.OPTIMAL).all())
