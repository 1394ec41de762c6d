"""What ``solve`` and ``solve_points`` do alike with their arguments and with failures."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.complaints import warn
from otfew.transport.errors import ConvergenceError, ConvergenceWarning
from otfew.transport.problem import Status
from otfew.transport.registry import Solver
from otfew.transport.result import Parts
from otfew.transport.sending import send

OnFail = Literal["raise", "warn", "ignore"]


def check_on_fail(on_fail: Any) -> None:
    """Refuse an unknown policy.

    Raises:
        ValueError: Not one of the policies or None.
    """
    if on_fail is not None and on_fail not in get_args(OnFail):
        raise ValueError(f"on_fail must be 'raise', 'warn', 'ignore' or None, got {on_fail!r}")


def as_tensor(name: str, value: Any) -> Tensor | None:
    """Take a tensor as it is, wrap a numpy array, let None pass, and refuse anything else.

    Raises:
        ValueError: Neither tensor nor array, or an array of another dtype than float32 and float64.
    """
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype not in (np.float32, np.float64):
            raise ValueError(f"{name} must be float32 or float64, got {value.dtype}; convert it with .astype(float)")
        # torch refuses to share read-only memory and negative strides.
        return torch.from_numpy(value if value.flags.writeable and min(value.strides, default=0) >= 0 else value.copy())
    raise ValueError(f"{name} must be a torch tensor or a numpy array, got {type(value).__name__}{remedy(value)}")


def remedy(value: Any) -> str:
    """Say what to do with an argument of another library, as columns of pandas are, where that is known."""
    return ": call its .to_numpy() first" if hasattr(value, "to_numpy") else ""


def on_the_cpu(cost: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Copy problems from a device without float64; gradients find their way back."""
    return cost.cpu(), None if a is None else a.cpu(), None if b is None else b.cpu()


def policy_of(solver: Solver, on_fail: OnFail | None) -> OnFail:
    """Say what to do where the optimum is not reached."""
    return on_fail or ("raise" if solver.kind == "exact" else "warn")


def report_failures(parts: Parts, batch: torch.Size, solver: Solver, on_fail: OnFail | None) -> None:
    """Raise or warn where problems ended short of the optimum; called by the function that the user called."""
    policy = policy_of(solver, on_fail)
    if policy == "ignore" or parts.sound():
        return
    status = parts.status().cpu().numpy()
    failed = np.flatnonzero(status != Status.OPTIMAL)
    if not len(failed):
        return
    unserved = np.flatnonzero(status == Status.INFEASIBLE)
    if len(unserved):
        message = _without_plans(parts, unserved, len(status), batch, solver)
    else:
        first = int(failed[0])
        advice = "its numbers overflow or differ too widely" if status[first] == Status.FAILED else solver.remedy
        message = (
            f"{solver.name} did not reach the optimum of {len(failed)} of {len(status)} problems{_where(first, batch)} "
            f"({Status(status[first]).name}, gap {float(parts.gap()[first]):.3g}); "
            f"{advice}, or pass on_fail='ignore' and look at status"
        )
    if policy == "raise":
        raise ConvergenceError(message)
    warn(message, ConvergenceWarning)


_NAMED = 8
"""Rows that a message names."""


def _without_plans(parts: Parts, unserved: npt.NDArray[np.intp], size: int, batch: torch.Size, solver: Solver) -> str:
    """Say which problems are infeasible, and why the first of them is."""
    first, cut = int(unserved[0]), parts.cut()
    why = "no plan leaves out its forbidden pairs"
    if cut is not None:
        rows = cut[0][first].nonzero()[:, 0].tolist()
        named = ", ".join(map(str, rows[:_NAMED])) + f" and {len(rows) - _NAMED} more" * (len(rows) > _NAMED)
        why = (
            f"its rows {named} hold more than all columns that are allowed for them"
            if len(rows) > 1
            else (f"its row {named} holds more than all columns that are allowed for it")
        )
    return (
        f"{solver.name}: {len(unserved)} of {size} problems are infeasible{_where(first, batch)} (INFEASIBLE): {why}; "
        "allow more pairs, or pass on_fail='ignore' and look at status and cut"
    )


def _where(first: int, batch: torch.Size) -> str:
    """Name the first problem of those that a message counts."""
    index = tuple(int(i) for i in np.unravel_index(first, tuple(batch))) if batch else ()
    return f", first at batch index {index[0] if len(index) == 1 else index}" if index else ""


def flat_weights(
    n: int,
    m: int,
    a: Tensor | None,
    b: Tensor | None,
    batch: torch.Size,
    device: torch.device,
    equal_totals: bool = True,
) -> tuple[Tensor, Tensor]:
    """Weights (problems, n) and (problems, m) in float64 on a device, b rescaled where totals must be equal."""
    b = None if b is None else send(b, device, torch.float64)
    if a is not None:
        a = send(a, device, torch.float64)
    else:
        total = torch.ones(1, dtype=torch.float64, device=device) if b is None else b.sum(-1, keepdim=True)
        a = (total / n).expand(*total.shape[:-1], n)
    total = a.sum(-1, keepdim=True)
    if b is None:
        b = (total / m).expand(*total.shape[:-1], m)
    elif equal_totals:
        b = b * (total / b.sum(-1, keepdim=True))
    return flat_batch(a, batch, 1), flat_batch(b, batch, 1)


def flat_batch(tensor: Tensor, batch: torch.Size, item_dims: int) -> Tensor:
    """Spread a tensor (*own batch, *item) over a batch that its own broadcasts to: (problems, *item)."""
    own, item = tensor.shape[: tensor.ndim - item_dims], tensor.shape[tensor.ndim - item_dims :]
    spread = tensor if own == batch else tensor.expand(*batch, *item)
    return spread if spread.ndim == item_dims + 1 else spread.reshape(batch.numel(), *item)
