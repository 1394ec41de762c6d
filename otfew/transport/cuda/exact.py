"""``Exact`` where the tensors are: a warp a problem, costs read in place, one look from the host at most.

The host looks at a single number: which kinds of trouble any problem has. Where there is none, the answer is complete;
sentences about unsound input are made afterwards, by the code that makes them for the CPU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otfew.transport.complaints import warn_once
from otfew.transport.cuda import machines, programs
from otfew.transport.cuda.launches import Batch, Found, Options, launched, plain
from otfew.transport.cuda.machines import Machine
from otfew.transport.cuda.partial import Dummies
from otfew.transport.cuda.settling import OPEN, settled
from otfew.transport.envelope import differentiable, wants_gradient
from otfew.transport.problem import INVALID, Status, check_values
from otfew.transport.result import Parts, check_range
from otfew.transport.sending import send

RAN = "exact (a warp a problem)"
"""What results call this code."""


def parts_there(
    solver: Options, cost: Tensor, a: Tensor | None, b: Tensor | None, batch: torch.Size, looks: bool, rtol: float
) -> Parts | None:
    """Solve problems on the device of their costs.

    Args:
        solver: Its options.
        cost: (*batch, n, m), or what broadcasts to it, not on the CPU.
        a: (*batch, n), likewise, or None.
        b: (*batch, m), likewise, or None.
        batch: Its shape.
        looks: Whether to wait for the device once, to see whether all went well. If not, problems that the kernel is
            not sure of stay as they are, with the status ``FAILED`` beside a true gap.
        rtol: How far totals of a and b may differ, relative to the larger; infinite where nothing is to be checked.

    Returns:
        None where the CPU has to solve them, which was then said, once.

    Raises:
        ValueError: As ``check_values``, where anything is to be checked, and for too large a ``mass``.
        DeviceError: The kernel cannot be compiled or launched.
    """
    machine = _machine(solver, cost, batch)
    if machine is None:
        return None
    there = Batch(cost, _there(a, cost), _there(b, cost), batch)
    found = (_balanced if solver.mass is None else _partial)(machine, solver, there, looks, rtol)
    return _parts(found, cost, a, b, batch, checked=rtol < math.inf)


def _machine(solver: Options, cost: Tensor, batch: torch.Size) -> Machine | None:
    """Find what runs the kernel for these problems, or say why the CPU will solve them."""
    # Of an empty batch there is nothing to solve.
    if not 0 < batch.numel() < 2**31:
        return None
    kind = cost.device.type
    machine = machines.machine_for(cost.device)
    if machine is None:
        if not machines.known(kind):
            warn_once(f"Exact copies problems on a device of kind {kind!r} to the CPU and solves there", RuntimeWarning)
        return None
    if max(cost.shape[-2:]) + (solver.mass is not None) > programs.LARGEST:
        warn_once(
            f"Exact copies problems of more than {programs.LARGEST} rows or columns (with mass=, one less) to the CPU "
            "and solves there; Sinkhorn() stays on the GPU at any size",
            RuntimeWarning,
        )
        return None
    return machine


def _there(weights: Tensor | None, cost: Tensor) -> Tensor | None:
    """Weights in float64 on the device of the cost, for kernels."""
    if weights is None:
        return None
    return send(plain(weights), cost.device, torch.float64)


def _balanced(machine: Machine, solver: Options, batch: Batch, looks: bool, rtol: float) -> Found:
    """Solve problems whose sides have the same totals."""
    found, flag = launched(machine, solver, batch, rtol)
    if not looks:
        return found
    trouble = int(flag)
    if rtol < math.inf and trouble >> INVALID & 1:
        check_values(*batch[:3], totals_rtol=rtol)
        # Sound after all, by a rounding error in a total.
        found, flag = launched(machine, solver, batch, math.inf)
        trouble = int(flag)
    ended = not trouble & OPEN or settled(solver, found, batch)
    found.sound = ended and not trouble & ~OPEN
    return found


def _partial(machine: Machine, solver: Options, batch: Batch, looks: bool, rtol: float) -> Found:
    """Solve problems of which only part of the mass is transported: dummy nodes take the rest."""
    assert solver.mass is not None
    dummies = Dummies(batch, solver.mass)
    found, flag = launched(machine, solver, dummies.extended, math.inf)
    rest = dummies.removed(machine, found)
    if not looks:
        return rest
    failed = (rest.outputs.tensor("status") != Status.OPTIMAL).any().int()
    trouble = int(flag | dummies.unsound(rtol < math.inf).int() << INVALID | failed << Status.FAILED)
    if trouble >> INVALID & 1:
        if rtol < math.inf:
            check_values(*batch[:3], equal_totals=False)
        dummies.complain()
    if trouble & OPEN:
        settled(solver, found, dummies.extended)
        rest = dummies.removed(machine, found)
    rest.sound = not trouble or bool((rest.outputs.tensor("status") == Status.OPTIMAL).all())
    return rest


def _parts(found: Found, cost: Tensor, a: Tensor | None, b: Tensor | None, batch: torch.Size, checked: bool) -> Parts:
    """Describe what was found; all but the value is made when it is asked for, and a copy."""
    tensor, dtype = found.outputs.tensor, cost.dtype
    if wants_gradient(cost, a, b):
        keep = a is None and found.balanced and b is not None and b.requires_grad
        value = differentiable(lambda: found.hand_out(keep), found, cost, a, b, batch).reshape(-1)
    else:
        value = found.hand_out().reshape(-1)

    def plan() -> Tensor:
        if checked:
            check_range(tensor("flow").sum(1), dtype)
        return found.plan_times(None, dtype)

    def potentials() -> tuple[Tensor, Tensor]:
        f, g = found.duals()
        return f.to(dtype, copy=True), g.to(dtype, copy=True)

    return Parts(
        value=value,
        value_linear=lambda: value,
        plan=plan,
        potentials=potentials,
        gap=lambda: tensor("gap").clone(),
        marginal_error=lambda: tensor("marginal_error").clone(),
        # What is neither optimal nor stopped was not looked at: it is not proven.
        status=lambda: tensor("status").clamp(max=Status.FAILED).to(torch.int8),
        n_iter=lambda: tensor("n_iter").clone(),
        solver=RAN,
        sound=lambda: found.sound,
        arcs=lambda: (tensor("rows").clone(), tensor("cols").clone(), tensor("flow").clone()),
    )
