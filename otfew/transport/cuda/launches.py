"""One launch of the exact kernel over a batch as it lies in memory, and what comes of it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from otfew.transport.cuda import programs
from otfew.transport.cuda.arguments import MOST_DIMS, ExactProblems, PlanTimes
from otfew.transport.cuda.layout import Layout, layout, strided
from otfew.transport.cuda.machines import Machine
from otfew.transport.cuda.outputs import Outputs, Slab
from otfew.transport.partial import Mass
from otfew.transport.problem import Problem, Solution, Status


class Options(Protocol):
    """What the kernel, and what is done about it, depend on: ``otfew.Exact``."""

    @property
    def tol(self) -> float:
        """See ``Exact``."""

    @property
    def max_iter(self) -> int | None:
        """See ``Exact``."""

    @property
    def mass(self) -> Mass | None:
        """See ``Exact``."""

    def solve_all(self, problem: Problem) -> Solution:
        """Transport all the mass on the CPU, whatever ``mass`` is."""


class Batch(NamedTuple):
    """Problems on a device, as they lie there.

    Attributes:
        cost: (*shape, n, m), or what broadcasts to it.
        a: (*shape, n) float64, likewise, or None.
        b: (*shape, m) float64, likewise, or None.
        shape: Of the batch.
    """

    cost: Tensor
    a: Tensor | None
    b: Tensor | None
    shape: torch.Size


class Found:
    """Solutions of a flat batch on a device: what the value's gradient is made of.

    Args:
        machine: Of the device.
        outputs: What the kernel wrote, and whoever went over it since.
        value: (*batch,) float64.
        shape: (problems, n, m).
        balanced: See ``Optimum``.
        arcs: Of each plan, by default n + m - 1.

    Attributes:
        outputs: As given.
        shape: As given.
        balanced: As given.
        sound: Whether it is known that every problem is optimal.
        forbids: Whether pairs are forbidden, so that problems may be infeasible.
        cut: Rows (problems, n) and columns (problems, m), bool, that prove it, where known.
    """

    regularised = False

    def __init__(
        self,
        machine: Machine,
        outputs: Outputs,
        value: Tensor,
        shape: tuple[int, int, int],
        balanced: bool = True,
        arcs: int | None = None,
    ) -> None:
        self.outputs, self.shape, self.balanced = outputs, shape, balanced
        self.sound = self.forbids = False
        self.cut: tuple[Tensor, ...] | None = None
        self._machine, self._device, self._arcs = machine, value.device, arcs
        self._value: Tensor | None = value
        self._copy: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """Optimal values (*batch,) float64, until they are handed out."""
        assert self._value is not None
        return self._value

    def hand_out(self, keep: bool = False) -> Tensor:
        """Hand the values out, to be kept here no longer: what has a graph must not be part of that graph.

        Args:
            keep: Keep a copy for ``optimal``.
        """
        value, self._value = self.value, None
        self._copy = value.clone().reshape(-1) if keep else None
        return value

    def optimal(self) -> Tensor:
        """Return the copy that was kept."""
        assert self._copy is not None
        return self._copy

    def unserved(self) -> Tensor | None:
        """Look at the status, where pairs are forbidden."""
        return self.outputs.tensor("status") == Status.INFEASIBLE if self.forbids else None

    def duals(self) -> tuple[Tensor, Tensor]:
        """View the potentials."""
        return self.outputs.tensor("f"), self.outputs.tensor("g")

    def plan_times(self, grad: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Lay the plans out, times ``grad`` where given."""
        return laid_out(self._machine, self.outputs, self.shape, self._device, dtype, grad, self._arcs)


def laid_out(
    machine: Machine,
    plans: Outputs,
    shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    grad: Tensor | None = None,
    arcs: int | None = None,
) -> Tensor:
    """Lay plans out densely by the kernel that does this for the gradient in the costs.

    Args:
        machine: Of the device.
        plans: Their rows, cols and flow.
        shape: (problems, n, m).
        device: Theirs.
        dtype: What to make them in.
        grad: (problems,) float64, a factor each; None: ones.
        arcs: Of each plan, by default n + m - 1.
    """
    problems, n, m = shape
    out = torch.empty(shape, dtype=dtype, device=device)
    arguments = PlanTimes(
        rows=plans.address("rows"),
        cols=plans.address("cols"),
        flow=plans.address("flow"),
        grad=None if grad is None else machine.address(grad),
        grad_stride=0 if grad is None else grad.stride(0),
        out=machine.address(out),
        problems=problems,
        n=n,
        m=m,
        arcs=n + m - 1 if arcs is None else arcs,
    )
    machine.launch(programs.plan_times(dtype), problems, arguments)
    return out


def launched(machine: Machine, solver: Options, batch: Batch, rtol: float) -> tuple[Found, Tensor]:
    """Launch the kernel, and do not wait for it.

    Args:
        machine: Of the device.
        solver: Its options, of which ``mass`` is left to the caller.
        batch: The problems.
        rtol: How far totals of a and b may differ, relative to the larger; infinite where nothing is to be checked.

    Returns:
        What will be found, and the flag (1,), int32, that gathers 1 << status of what is not optimal.
    """
    cost, a, b, shape = batch
    n, m = cost.shape[-2:]
    problems, device = shape.numel(), cost.device
    cost = plain(cost)
    where = layout(shape, strided(cost, 2), strided(a, 1), strided(b, 1))
    if len(where.size) > MOST_DIMS:
        cost = cost.expand(*shape, n, m).contiguous()
        a, b = (None if x is None else x.expand(*shape, x.shape[-1]).contiguous() for x in (a, b))
        where = layout(shape, strided(cost, 2), strided(a, 1), strided(b, 1))
    slab = Slab(machine, device, problems, n, m)
    value = torch.empty(shape, dtype=torch.float64, device=device)
    flag = torch.zeros(1, dtype=torch.int32, device=device)
    arguments = ExactProblems(
        cost=machine.address(cost),
        a=None if a is None else machine.address(a),
        b=None if b is None else machine.address(b),
        problems=problems,
        n=n,
        m=m,
        tol=solver.tol,
        totals_rtol=rtol,
        max_iter=10_000 + 20 * n * m if solver.max_iter is None else solver.max_iter,
        value=machine.address(value),
        flag=machine.address(flag),
        **_steps(where, cost, a, b),
        error=slab.address("marginal_error"),
        **{name: slab.address(name) for name in ("rows", "cols", "flow", "f", "g", "gap", "status", "n_iter")},
    )
    machine.launch(programs.exact(n, m, cost.dtype), problems, arguments)
    return Found(machine, slab, value, (problems, n, m)), flag


def _steps(where: Layout, cost: Tensor, a: Tensor | None, b: Tensor | None) -> dict[str, Any]:
    """Arguments that say where each problem lies."""
    of_cost, of_a, of_b = where.strides
    row, col = cost.stride()[-2:]
    return {
        "dims": len(where.size),
        "size": where.size,
        "cost_stride": of_cost,
        "a_stride": of_a,
        "b_stride": of_b,
        "cost_row": row,
        "cost_col": col,
        "a_step": 0 if a is None else a.stride(-1),
        "b_step": 0 if b is None else b.stride(-1),
    }


def plain(tensor: Tensor) -> Tensor:
    """A tensor whose memory holds its values, outside of graphs."""
    return tensor.detach().resolve_neg() if tensor.requires_grad or tensor.is_neg() else tensor
