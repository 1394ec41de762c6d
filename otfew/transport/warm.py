"""What a solver may start from: the tree or the potentials of an earlier result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otfew.transport.arguments import flat_batch
from otfew.transport.problem import Basis, Potentials
from otfew.transport.result import OTResult
from otfew.transport.sending import send

if TYPE_CHECKING:
    from otfew.transport.registry import Solver


Start = Potentials | Basis
"""Where a search begins."""


def start_from(
    warm: OTResult[Any, Any], solver: Solver, batch: torch.Size, sides: tuple[int, int], device: torch.device
) -> Start:
    """Read from an earlier result what a solver starts from.

    Args:
        warm: The result; its batch shape broadcasts to ``batch``.
        solver: The solver.
        batch: Batch shape of the problems.
        sides: Their rows and columns (n, m).
        device: Where they lie.

    Raises:
        ValueError: ``warm`` is no result, does not fit the problems or holds nothing that the solver could start from,
            or the solver always starts afresh.
    """
    if not isinstance(warm, OTResult):
        raise ValueError(f"warm must be what otfew.solve or otfew.solve_points returned, got {type(warm).__name__}")
    if solver.warm is None:
        raise ValueError(
            f"solver {solver.name!r} cannot start from an earlier result: leave warm out, or take 'exact', 'sinkhorn' "
            "or, for points, 'keops'"
        )
    own, (n, m) = torch.Size(warm._shape[:-2]), warm._shape[-2:]
    if (n, m) != tuple(sides) or not _spreads(own, batch):
        raise ValueError(
            f"warm holds problems of {n} x {m} nodes in a batch of shape {tuple(own)}, which do not fit those of "
            f"{sides[0]} x {sides[1]} in one of shape {tuple(batch)}: give a result of as many nodes, of which "
            "warm[...] chooses problems"
        )

    def spread(tensor: Tensor) -> Tensor:
        return flat_batch(tensor.reshape(*own, *tensor.shape[1:]), batch, 1)

    parts = warm._parts
    if solver.warm == "potentials":
        f, g = (send(x.detach(), device, torch.float64) for x in parts.potentials())
        sound = torch.isfinite(f).all(-1, keepdim=True) & torch.isfinite(g).all(-1, keepdim=True)
        return Potentials(spread(f.where(sound, 0.0)), spread(g.where(sound, 0.0)))
    kept = parts.basis or parts.arcs
    if kept is None:
        raise ValueError(
            f"warm holds no tree, since {warm.solver} keeps none: an exact solve starts from a result of solver 'exact'"
        )
    rows, columns = (np.ascontiguousarray(spread(x.cpu()).numpy(), np.int32) for x in kept()[:2])
    return rows, columns


def _spreads(own: torch.Size, batch: torch.Size) -> bool:
    """Tell whether a batch shape broadcasts to another one."""
    try:
        return bool(torch.broadcast_shapes(own, batch) == batch)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
