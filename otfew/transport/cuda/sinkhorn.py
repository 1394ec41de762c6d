"""Entropic transport of small problems on a device that runs kernels: one launch, one look at most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from otfew.transport.cuda.entropic_arguments import EntropicProblems
from otfew.transport.cuda.machines import Machine
from otfew.transport.cuda.programs import entropic
from otfew.transport.entropic.newton import Rhos
from otfew.transport.entropic.plain import LARGEST, REACH
from otfew.transport.entropic.solved import Solved
from otfew.transport.problem import INVALID, Status

PLAIN = 64
"""Iterations in the plain domain after which a problem is better served by Newton's method; of few, half of them."""

MISFIT = 5
"""Bit of the flag that tells of a mass that the dtype of the costs does not hold."""

MOST = 2**31 - 1
"""Problems that one launch can number."""


class Flag:
    """What went wrong anywhere in a launch; whoever asks first waits for the device, once."""

    def __init__(self, bits: Tensor) -> None:
        self._tensor = bits
        self._bits: int | None = None

    def _holds(self, *numbers: int) -> bool:
        if self._bits is None:
            self._bits = int(self._tensor)
        return any(self._bits >> number & 1 for number in numbers)

    def sound(self) -> bool:
        """Tell whether every problem was solved."""
        return not self._holds(Status.MAX_ITER, Status.FAILED, INVALID)

    def invalid(self) -> bool:
        """Tell whether a problem was refused."""
        return self._holds(INVALID)

    def fits(self) -> bool:
        """Tell whether the dtype of the costs holds every plan."""
        return not self._holds(MISFIT)


@dataclass(frozen=True)
class Entropic:
    """A batch that was solved on a device.

    Attributes:
        solved: Potentials, plans and what they belong to.
        value: (problems,) float64, the dual value; meaningless where marginals are soft.
        flag: What went wrong.
    """

    solved: Solved
    value: Tensor
    flag: Flag


def solve_entropic(
    machine: Machine,
    cost: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    reg: float,
    rhos: Rhos,
    tol: float,
    max_iter: int,
    totals_rtol: float = math.inf,
    parts: tuple[Tensor, Tensor] | None = None,
) -> Entropic | None:
    """Solve a flat batch, each problem by a warp: plain scalings, and Newton's method for what they leave.

    The methods are those of ``plain`` and ``newton`` in ``otfew.transport.entropic``, without extrapolation. Costs and
    weights are read where they lie. An answer is the same, bit for bit, whatever its batch-mates.

    Args:
        machine: What runs kernels on the device of the costs.
        cost: (problems, n, m) float32 or float64, without a graph, of any strides.
        a: (problems, n) float64, or None: uniform with the total of b, 1 if both are None.
        b: (problems, m) float64, of any total where marginals are hard: it is rescaled to that of a.
        reg: Regularisation, in the units of the cost.
        rhos: Prices of soft marginals, None for hard ones.
        tol: Largest deviation from a marginal, for a total of 1.
        max_iter: Iterations a problem may take, those in the plain domain and Newton's together.
        totals_rtol: How far totals may differ; infinite where nothing is to be validated.
        parts: Where pairs at infinite costs are not to be used, the parts (problems, n) and (problems, m), int64, into
            which the others fall, see ``Support``; None: infinite costs are unsound.

    Returns:
        None where problems of this size, or so many, are not for this kernel.
    """
    size, n, m = cost.shape
    found = entropic(n, m, cost.dtype)
    if found is None or size > MOST:
        return None
    kernel, has_plain = found
    hard = rhos == (None, None)
    sizes = [size * n, size * m, size * n, size * m, size, size, size, size]
    slab = torch.empty(sum(sizes), dtype=torch.float64, device=cost.device)
    unit_a, unit_b, phi, psi, mass, value, offset, error = torch.split(slab, sizes)
    unit_a, phi, unit_b, psi = unit_a.view(size, n), phi.view(size, n), unit_b.view(size, m), psi.view(size, m)
    plan = torch.empty(size, n, m, dtype=cost.dtype, device=cost.device)
    n_iter = torch.empty(size, dtype=torch.int64, device=cost.device)
    status = torch.empty(size, dtype=torch.int8, device=cost.device)
    flag = torch.zeros(1, dtype=torch.int32, device=cost.device)
    limits = torch.finfo(cost.dtype)
    arguments = EntropicProblems(
        cost=machine.address(cost), cost_problem=cost.stride(0), cost_row=cost.stride(1), cost_col=cost.stride(2),
        reg=reg, inverse=min(1 / reg, LARGEST[cost.dtype]), reach=REACH[cost.dtype], tol=tol,
        rho_a=math.inf if rhos[0] is None else rhos[0], rho_b=math.inf if rhos[1] is None else rhos[1],
        totals_rtol=totals_rtol, least=limits.tiny, most=limits.max,
        plain=min(PLAIN, (max_iter + 1) // 2) if hard and has_plain else 0, max_iter=max_iter,
        problems=size, n=n, m=m,
        plan=machine.address(plan), unit_a=machine.address(unit_a), unit_b=machine.address(unit_b),
        phi=machine.address(phi), psi=machine.address(psi), mass=machine.address(mass), value=machine.address(value),
        offset=machine.address(offset), error=machine.address(error), n_iter=machine.address(n_iter),
        status=machine.address(status), flag=machine.address(flag),
    )  # fmt: skip
    if a is not None:
        arguments.a, arguments.a_problem, arguments.a_step = machine.address(a), a.stride(0), a.stride(1)
    if b is not None:
        arguments.b, arguments.b_problem, arguments.b_step = machine.address(b), b.stride(0), b.stride(1)
    if parts is not None:
        row_part, column_part = (x.to(torch.int32).contiguous() for x in parts)
        arguments.row_part, arguments.column_part = machine.address(row_part), machine.address(column_part)
    machine.launch(kernel, size, arguments)
    solved = Solved(cost, unit_a, unit_b, mass, reg, rhos, phi, psi, offset, error, status, n_iter, plan)
    return Entropic(solved, value, Flag(flag))
