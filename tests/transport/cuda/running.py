"""Run kernels on tensors of the CPU by themselves, without the library around them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from otfew.transport.cuda import programs
from otfew.transport.cuda.arguments import MOST_DIMS, ExactProblems, PlanTimes
from otfew.transport.problem import TOTALS_RTOL

UNTOUCHED = -77
"""What outputs hold before a kernel runs."""

LIMITS = {"tol": 0.0, "totals_rtol": TOTALS_RTOL}


@dataclass
class Found:
    """What the exact kernel writes, each (problems, ...)."""

    rows: Tensor
    cols: Tensor
    flow: Tensor
    f: Tensor
    g: Tensor
    value: Tensor
    gap: Tensor
    error: Tensor
    status: Tensor
    n_iter: Tensor
    flag: Tensor

    @classmethod
    def room(cls, size: int, n: int, m: int) -> Found:
        """Memory full of what nobody wrote, with a problem's share more on either side."""
        shapes = dict.fromkeys(("rows", "cols", "flow"), (size, n + m - 1)) | {"f": (size, n), "g": (size, m)}
        dtypes = dict.fromkeys(("rows", "cols", "status", "flag"), torch.int32) | {"n_iter": torch.int64}
        names = [field.name for field in fields(cls)]
        made = {}
        for name in names:
            first, *item = shapes.get(name, (size,))
            made[name] = torch.full((first + 2, *item), UNTOUCHED, dtype=dtypes.get(name, torch.float64))[1:-1]
        return cls(**{**made, "flag": torch.zeros(1, dtype=torch.int32)})

    def untouched_around(self) -> bool:
        """Tell whether nothing was written beside the outputs."""
        bases = [getattr(self, field.name)._base for field in fields(self) if field.name != "flag"]
        return all(bool((base[[0, -1]] == UNTOUCHED).all()) for base in bases)

    def plan(self, n: int, m: int) -> Tensor:
        """Plans (problems, n, m)."""
        size = len(self.flow)
        each = torch.arange(size)[:, None]
        empty = torch.zeros(size, n, m, dtype=torch.float64)
        return empty.index_put((each, self.rows.long(), self.cols.long()), self.flow, accumulate=True)

    def bits(self) -> dict[str, bytes]:
        """All outputs, to the bit."""
        return {field.name: getattr(self, field.name).numpy().tobytes() for field in fields(self)}


def _walk(batch: tuple[int, ...], tensor: Tensor | None, own: int) -> tuple[list[int], list[int]]:
    """Strides over the batch and inside a problem."""
    if tensor is None:
        return [0] * len(batch), [0] * own
    wide = tensor.expand(*batch, *tensor.shape[tensor.ndim - own :])
    return list(wide.stride()[: len(batch)]), list(wide.stride()[len(batch) :])


def exact(machine: Any, cost: Tensor, a: Tensor | None = None, b: Tensor | None = None, **limits: Any) -> Found:
    """Solve (*batch, n, m) with weights that broadcast; ``limits`` are those of ``ExactProblems``."""
    n, m = cost.shape[-2:]
    shapes = [cost.shape[:-2], *(x.shape[:-1] for x in (a, b) if x is not None)]
    batch = tuple(torch.broadcast_shapes(*shapes))
    size = int(torch.Size(batch).numel())
    found = Found.room(size, n, m)
    arguments = ExactProblems(problems=size, n=n, m=m, dims=len(batch), max_iter=10_000 + 20 * n * m)
    assert len(batch) <= MOST_DIMS
    for name, value in (LIMITS | limits).items():
        setattr(arguments, name, value)
    strides = {"cost": (cost, 2), "a": (a, 1), "b": (b, 1)}
    own = {}
    for name, (tensor, dims) in strides.items():
        outer, own[name] = _walk(batch, tensor, dims)
        getattr(arguments, f"{name}_stride")[: len(batch)] = outer
        setattr(arguments, name, None if tensor is None else machine.address(tensor))
    arguments.size[: len(batch)] = batch
    arguments.cost_row, arguments.cost_col = own["cost"]
    (arguments.a_step,), (arguments.b_step,) = own["a"], own["b"]
    for field in fields(found):
        setattr(arguments, field.name, machine.address(getattr(found, field.name)))
    if size:
        machine.launch(programs.exact(n, m, cost.dtype), size, arguments)
    assert found.untouched_around()
    return found


def plan_times(machine: Any, found: Found, grad: Tensor | None, n: int, m: int, dtype: torch.dtype) -> Tensor:
    """Lay plans out densely, times a number each."""
    size = len(found.flow)
    out = torch.full((size, n, m), -77, dtype=dtype)
    arguments = PlanTimes(problems=size, n=n, m=m, arcs=found.flow.shape[1])
    for name in ("rows", "cols", "flow"):
        setattr(arguments, name, machine.address(getattr(found, name)))
    arguments.out = machine.address(out)
    if grad is not None:
        arguments.grad, arguments.grad_stride = machine.address(grad), grad.stride(0)
    machine.launch(programs.plan_times(dtype), size, arguments)
    return out
