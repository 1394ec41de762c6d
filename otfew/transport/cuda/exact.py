"""``Exact`` where the tensors are: a warp a problem, costs read in place, one look from the host at most.

The host looks at a single number: which kinds of trouble any problem has. Where there is none, the answer is complete;
sentences about unsound input are made afterwards, by the code that makes them for the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from otfew.transport.complaints import warn_once
from otfew.transport.cuda import machines, programs
from otfew.transport.cuda.forbidding import filled, judge
from otfew.transport.cuda.launches import Batch, Found, Options, launched, plain
from otfew.transport.cuda.machines import Machine
from otfew.transport.cuda.partial import Dummies
from otfew.transport.cuda.settling import OPEN, settled
from otfew.transport.envelope import differentiable, wants_gradient
from otfew.transport.problem import INVALID, UNSURE, Status, check_values, rounding_of
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
    trust = Trust(rtol, rounding_of(a, b, rtol))
    found = (_balanced if solver.mass is None else _partial)(machine, solver, there, looks, trust)
    return _parts(found, cost, a, b, batch, checked=rtol < math.inf)


@dataclass(frozen=True)
class Trust:
    """How far what was given is trusted.

    Attributes:
        rtol: How far totals of a and b may differ; infinite where nothing is to be checked.
        rounding: See ``Problem``.
    """

    rtol: float
    rounding: float

    def forbids(self, batch: Batch, equal_totals: bool = True) -> bool:
        """Check values where anything is to be checked, and tell whether pairs are forbidden."""
        if self.rtol < math.inf:
            return not check_values(*batch[:3], equal_totals, totals_rtol=self.rtol)
        return bool((batch.cost == math.inf).any())


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


def _balanced(machine: Machine, solver: Options, batch: Batch, looks: bool, trust: Trust) -> Found:
    """Solve problems whose sides have the same totals."""
    found, flag = launched(machine, solver, batch, trust.rtol)
    if not looks:
        return found
    trouble = int(flag)
    if trouble >> INVALID & 1:
        forbids = trust.forbids(batch)
        if forbids or trust.rtol < math.inf:
            # Sound after all, by a rounding error in a total or without costs of +inf.
            found, flag = launched(machine, solver, filled(batch) if forbids else batch, math.inf)
            found.forbids = forbids
            trouble = int(flag | judge(found, batch).int() << UNSURE if forbids else flag)
    ended = not trouble & OPEN or settled(solver, found, batch, trust.rounding)
    found.sound = ended and not trouble & ~OPEN
    return found


def _partial(machine: Machine, solver: Options, batch: Batch, looks: bool, trust: Trust) -> Found:
    """Solve problems of which only part of the mass is transported: dummy nodes take the rest."""
    assert solver.mass is not None
    dummies = Dummies(batch, solver.mass)
    found, flag = launched(machine, solver, dummies.extended, math.inf)
    rest = dummies.removed(machine, found)
    if not looks:
        return rest
    failed = (rest.outputs.tensor("status") != Status.OPTIMAL).any().int()
    trouble = int(flag | dummies.unsound(trust.rtol < math.inf).int() << INVALID | failed << Status.FAILED)
    if trouble >> INVALID & 1:
        forbids = trust.forbids(batch, equal_totals=False)
        dummies.complain()
        if forbids:
            dummies = Dummies(batch, solver.mass, forbids=True)
            found, flag = launched(machine, solver, filled(dummies.extended), math.inf)
            found.forbids = True
            trouble = int(flag | judge(found, dummies.extended).int() << UNSURE)
            rest = dummies.removed(machine, found)
    if trouble & OPEN:
        settled(solver, found, dummies.extended, trust.rounding)
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
            mass = tensor("flow").sum(1)
            check_range(mass[tensor("status") != Status.INFEASIBLE] if found.forbids else mass, dtype)
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
        status=lambda: _status(tensor("status")),
        n_iter=lambda: tensor("n_iter").clone(),
        solver=RAN,
        sound=lambda: found.sound,
        arcs=lambda: (tensor("rows").clone(), tensor("cols").clone(), tensor("flow").clone()),
        cut=lambda: None if found.cut is None else (found.cut[0].clone(), found.cut[1].clone()),
    )


def _status(found: Tensor) -> Tensor:
    """Statuses as they are handed out: what was not looked at is not proven."""
    known = found.clamp(max=Status.FAILED)
    return torch.where(found == Status.INFEASIBLE, found, known).to(torch.int8)
