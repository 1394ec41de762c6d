"""DeepEMD's differentiable layer: transport as a quadratic program, by qpth's batched interior-point method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from otfew.transport.backward import QUADRATIC, once
from otfew.transport.certificate import certify_plan, recover_potentials
from otfew.transport.options import check_count, check_number
from otfew.transport.problem import Status
from otfew.transport.registry import TensorSolver
from otfew.transport.result import Parts

_LEAST_RIDGE = 1e-9
"""Ridge in units of mass and costs below which qpth's systems are singular; it moves values by less than ``tol``."""


@dataclass(frozen=True)
class QPTH(TensorSolver):
    """Quadratic smoothing of the LP by ``qpth`` (Amos and Kolter, OptNet, 2017), as DeepEMD trains with it.

    The marginals are equalities, the last one left out since it follows from the others; DeepEMD's code has
    inequalities and a total, which hold the same plans but have no interior. A dense system of n m variables is
    factored for every problem at every step, so this is for a few nodes: 9 x 9 takes milliseconds a problem, 25 x 25
    seconds and gigabytes. It works in float64 whatever the inputs.

    Gradients go through the plan, by the KKT conditions; they are zero in weights that are zero. The step length is
    shared by the batch, so an answer depends on its batch-mates, within ``tol``. qpth counts no steps and never raises:
    whether the sums hold and the plan is optimal is tested here.

    Args:
        form: "L2" minimises <P, C> + reg/2 |P|^2, which is ``value``. "QP" minimises (<P, C>^2 + reg |P|^2) / 2;
            ``value`` is the root of twice that, and where costs are negative they are lifted to zero by a constant for
            the search and ``value``.
        reg: The strength of |P|^2, for the masses as they are: DeepEMD has totals equal to the number of nodes.
        max_iter: Interior-point steps.
        tol: Marginal error, relative to the total, and gap, relative to mass times largest cost, that are optimal.

    Raises:
        ValueError: An option is out of range.
    """

    form: Literal["L2", "QP"] = "L2"
    reg: float = 1e-4
    max_iter: int = 30
    tol: float = 1e-6

    name: ClassVar[str] = "qpth"
    kind: ClassVar[Literal["exact", "entropic", "quadratic"]] = "quadratic"
    requires: ClassVar[str] = "qpth"
    install: ClassVar[str] = 'pip install "otfew[qpth]"'
    gradients: ClassVar[str] = "value, value_linear and plan in cost, a, b (KKT)"
    batch_coupled: ClassVar[bool] = True
    dtypes: ClassVar[tuple[str, ...]] = ("float64",)
    remedy: ClassVar[str] = "raise max_iter or reg"

    def __post_init__(self) -> None:
        if self.form not in ("L2", "QP"):
            raise ValueError(f"QPTH: form must be 'L2' or 'QP', got {self.form!r}")
        check_number("QPTH", "reg", self.reg)
        check_count("QPTH", "max_iter", self.max_iter)
        check_number("QPTH", "tol", self.tol, below=1)

    def solve(self, cost: Tensor, a: Tensor, b: Tensor) -> Parts:
        """Solve a flat batch."""
        dtype, cost = cost.dtype, cost.double()
        plan = once(self._plan(cost, a, b), QUADRATIC, cost, a, b)
        linear = (plan * cost).sum((1, 2))
        lifted = (plan * _lift(cost)).sum((1, 2)) if self.form == "QP" else linear
        squares = self.reg * plan.square().sum((1, 2))
        value = linear + squares / 2 if self.form == "L2" else (lifted.square() + squares).sqrt()
        f, g, gap, error, status = self._certify(cost, a, b, plan, value)
        return Parts(
            value=value,
            value_linear=lambda: linear,
            plan=lambda: plan.to(dtype),
            potentials=lambda: (f.to(dtype), g.to(dtype)),
            gap=lambda: gap,
            marginal_error=lambda: error,
            status=lambda: status,
            n_iter=lambda: torch.zeros_like(status, dtype=torch.int64),
            solver=self.name,
        )

    def _plan(self, cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Plans (problems, n, m) in float64; problems that share their weights of zero are solved together."""
        held = torch.cat([a > 0, b > 0], 1)
        plan = torch.zeros_like(cost)
        for pattern in torch.unique(held, dim=0):
            members = (held == pattern).all(1).nonzero()[:, 0]
            rows = pattern[: a.shape[1]].nonzero()[:, 0]
            columns = pattern[a.shape[1] :].nonzero()[:, 0]
            index = (members[:, None, None], rows[:, None], columns)
            some = self._interior(cost[index], a[members[:, None], rows], b[members[:, None], columns])
            plan = plan.index_put(index, some)
        return plan

    def _interior(self, cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Solve problems of positive weights in units of their mass and costs."""
        from qpth.qp import QPFunction

        size, n, m = cost.shape
        total = a.detach().sum(1)[:, None, None]
        a, b = a / total[:, 0], b / total[:, 0]
        if n == 1 or m == 1:
            # No choice, and no interior for the method to walk through.
            return total * a[:, :, None] * b[:, None] / b.sum(1)[:, None, None]
        square = torch.eye(n * m, dtype=cost.dtype, device=cost.device)
        # The same program in numbers near one; the scales are no variables of it, so gradients pass them by.
        if self.form == "L2":
            low = cost.detach().amin((1, 2), keepdim=True)
            scale = _or_one((cost.detach() - low).amax((1, 2), keepdim=True))
            linear = ((cost - low) / scale).reshape(size, n * m)
            ridge = self.reg * total / scale
            quadratic = ridge.clamp(min=_LEAST_RIDGE) * square
        else:
            cost = _lift(cost)
            scale = _or_one(cost.detach().amax((1, 2), keepdim=True))
            unit = (cost / scale).reshape(size, n * m)
            linear = torch.zeros_like(unit)
            ridge = self.reg / scale.square()
            quadratic = unit[:, :, None] * unit[:, None] + ridge.clamp(min=_LEAST_RIDGE) * square
        rows = torch.eye(n, dtype=cost.dtype, device=cost.device).repeat_interleave(m, 1)
        columns = torch.eye(m, dtype=cost.dtype, device=cost.device).repeat(1, n)
        solver: Any = QPFunction(verbose=-1, maxIter=self.max_iter, check_Q_spd=False)
        flow: Tensor = solver(
            quadratic,
            linear,
            -square,
            cost.new_zeros(n * m),
            torch.cat([rows, columns[:-1]]),
            torch.cat([a, b[:, :-1]], 1),
        )
        return total * flow.clamp(min=0).reshape(size, n, m)

    def _certify(
        self, cost: Tensor, a: Tensor, b: Tensor, plan: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Potentials, gap, marginal error and status: a plan is optimal if it is for the objective's slope at it.

        The objective is convex, so it lies above its tangent: the gap of the plan in the LP whose costs are the slope
        bounds that of the program.
        """
        if self.form == "L2":
            slope = cost + self.reg * plan
        else:
            lifted = _lift(cost)
            inner = (plan * lifted).sum((1, 2), keepdim=True)
            slope = (inner * lifted + self.reg * plan) / value[:, None, None]
        slopes, rows, columns, flows = (x.detach().cpu().numpy() for x in (slope, a, b, plan))
        f, g = recover_potentials(slopes, rows, columns, flows)
        _, gap, error = certify_plan(slopes, rows, columns, flows, f, g)
        size = rows.sum(1) * np.abs(slopes).max((1, 2), initial=0)
        status = np.where((error <= self.tol) & (gap <= self.tol * size), Status.OPTIMAL, Status.MAX_ITER)
        status[~np.isfinite(gap)] = Status.FAILED
        found = (f, g, gap, error, status.astype(np.int8))
        return tuple(torch.from_numpy(x).to(cost.device) for x in found)  # type: ignore[return-value]


def _lift(cost: Tensor) -> Tensor:
    """Add a constant to the costs of a problem that has negative ones, so that squaring keeps their order."""
    return cost - cost.amin((1, 2), keepdim=True).clamp(max=0)


def _or_one(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))
