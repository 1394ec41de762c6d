"""The one entry to all solvers, and the gradient of the optimal value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.transport.arguments import OnFail, as_tensor, check_on_fail, flat_weights, report_failures
from otfew.transport.backward import EXACT, IMPLICIT, differentiable_once
from otfew.transport.precision import in_full_precision, totals_rtol
from otfew.transport.problem import INVALID, TOTALS_RTOL, Solution, Status, build, check_shapes, check_values
from otfew.transport.registry import ArraySolver, PointSolver, Solver, TensorSolver, resolve
from otfew.transport.result import OTResult, Parts, dense_plan, parts_of
from otfew.transport.transforms import outside_graphs, refuse_transforms


class _Value(torch.autograd.Function):
    """The optimal value with its envelope gradient: plan for the cost, potentials for the weights."""

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor | None, b: Tensor | None, solution: Solution, batch: torch.Size
    ) -> Tensor:
        ctx.solution, ctx.batch = solution, batch
        ctx.save_for_backward(cost, a, b)
        return torch.from_numpy(solution.value).reshape(batch).to(cost.device, copy=True)

    @staticmethod
    @differentiable_once(lambda ctx: EXACT if ctx.solution.linear is None else IMPLICIT)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cost, a, b = ctx.saved_tensors
        solution, batch = ctx.solution, ctx.batch
        grads: list[Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[0]:
            scale = grad.reshape(-1).cpu().numpy()
            plan = dense_plan(solution, (*batch, *cost.shape[-2:]), cost.dtype, cost.device, scale)
            grads[0] = plan.sum_to_size(cost.shape)
        f = torch.from_numpy(solution.f).reshape(*batch, cost.shape[-2])
        g = torch.from_numpy(solution.g).reshape(*batch, cost.shape[-1])
        if ctx.needs_input_grad[1]:
            if not solution.balanced and b is None:
                # b is uniform with the total of a: each unit of a adds to all of b.
                f = f + g.mean(-1, keepdim=True)
            grads[1] = (grad[..., None] * f.to(a.device)).sum_to_size(a.shape).to(a.dtype)
        if ctx.needs_input_grad[2]:
            if not solution.balanced:
                g = (g if a is not None else g + f.mean(-1, keepdim=True)).to(b.device)
            elif a is None:
                # V(b) = sum(b) * V(b / sum(b)): the gauge's constant is the value of a unit of mass.
                value = torch.from_numpy(solution.value).reshape(*batch, 1).to(b.device)
                g = g.to(b.device) + value / b.double().sum(-1, keepdim=True)
            else:
                # The problem solved is (a, b * sum(a) / sum(b)).
                g = g.to(b.device) * (a.double().sum(-1, keepdim=True) / b.double().sum(-1, keepdim=True)).to(b.device)
            grads[2] = (grad[..., None] * g).sum_to_size(b.shape).to(b.dtype)
        return (*grads, None, None)


def dense_parts(
    solver: Solver, cost: Tensor, a: Tensor | None, b: Tensor | None, batch: torch.Size, validate: bool = False
) -> Parts:
    """Check the values of problems and solve them over a flat batch with a solver of dense costs."""
    if isinstance(solver, TensorSolver):
        there = solver.solve_there(cost, a, b, batch, validate)
        if there is not None:
            return there
        if validate:
            check_values(cost, a, b, solver.equal_totals)
        n, m = cost.shape[-2:]
        spread = cost if cost.shape[:-2] == batch else cost.expand(*batch, n, m)
        flat = spread.reshape(batch.numel(), n, m)
        return solver.solve(flat, *flat_weights(n, m, a, b, batch, cost.device, solver.equal_totals))
    assert isinstance(solver, ArraySolver)
    if validate and not solver.checks_values:
        check_values(cost, a, b, solver.equal_totals)
    problem = build(cost, a, b, batch, checked=not (validate and solver.checks_values))
    solution = solver.solve(problem)
    if not problem.checked and np.count_nonzero(solution.status) and INVALID in solution.status:
        check_values(cost, a, b, solver.equal_totals)
        # Sound after all, by a rounding error in a total.
        solution = solver.solve(replace(problem, checked=True))
    finite = np.isfinite(solution.gap)
    if np.count_nonzero(finite) < len(finite):
        solution.status[~finite] = Status.FAILED
    if torch.is_grad_enabled() and (
        cost.requires_grad or (a is not None and a.requires_grad) or (b is not None and b.requires_grad)
    ):
        value: Tensor = _Value.apply(cost, a, b, solution, batch)  # type: ignore[no-untyped-call]
        return parts_of(value.reshape(-1), solution, cost)
    value = torch.from_numpy(solution.value.copy())
    return parts_of(value if cost.is_cpu else value.to(cost.device), solution, cost)


@outside_graphs
def solve(
    cost: Any,
    a: Any = None,
    b: Any = None,
    *,
    solver: str | Solver = "exact",
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> OTResult:
    """Solve a batch of optimal transport problems: min <P, cost> over P >= 0 with row sums a and column sums b.

    The gradient of ``value`` is the envelope gradient: the plan for the cost, the potentials for the weights;
    backward solves nothing. At ties it is one supergradient (cost) or subgradient (weights). It cannot be
    differentiated again, but with ``Sinkhorn(gradient="unrolled")``.

    Args:
        cost: (*batch, n, m) float32 or float64, torch on any device or numpy; any sign. Half precision, also of the
            weights, is computed as float32, inside and outside autocast; plan and potentials are then float32.
        a: (*batch, n) non-negative weights of the rows, or None: uniform with the total of b, 1 if both are None.
        b: (*batch, m) non-negative weights of the columns, or None: uniform with the total of a. It is rescaled in
            float64 to the total of a; totals may differ by 1e-4 of the larger, in half precision by two of its units
            of rounding.
        solver: A name from ``otfew.solvers()`` or options such as ``otfew.Exact(threads=1)``.
        on_fail: What to do where the optimum is not reached: "raise", "warn" or "ignore"; by default exact solvers
            raise.
        validate: Check what the tensors hold; turn off only for inputs known to be sound.

    Returns:
        An ``OTResult``; its batch shape is that of cost, a and b broadcast.

    Raises:
        ValueError: Wrong shape or dtype, NaN or infinity, a negative weight, a zero total, totals that disagree, an
            unknown solver; the message names the argument and the batch index.
        ImportError: The solver's library is not installed.
        ConvergenceError: An exact solver did not reach the optimum.

    Example:
        >>> import numpy as np
        >>> result = solve(np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([0.5, 0.5]), np.array([0.25, 0.75]))
        >>> float(result.value)
        0.5
    """
    return _solve(cost, a, b, solver, on_fail, validate, totals_rtol(a, b))


@in_full_precision
def _solve(
    cost: Any, a: Any, b: Any, solver: str | Solver, on_fail: OnFail | None, validate: bool, rtol: float
) -> OTResult:
    check_on_fail(on_fail)
    chosen = resolve(solver)
    if isinstance(chosen, PointSolver):
        raise ValueError(
            f"{chosen.name} works on point clouds, not on a dense cost: "
            f"call otfew.solve_points(x, y, a, b, solver={chosen.name!r})"
        )
    numpy_in = isinstance(cost, np.ndarray)
    cost_t, a_t, b_t = as_tensor("cost", cost), as_tensor("a", a), as_tensor("b", b)
    if cost_t is None:
        raise ValueError("cost must be a torch tensor or a numpy array, got None")
    refuse_transforms(cost_t, a_t, b_t)
    batch = check_shapes(cost_t, a_t, b_t)
    if validate and rtol > TOTALS_RTOL:
        check_values(cost_t, a_t, b_t, chosen.equal_totals, rtol)
        validate = False
    parts = dense_parts(chosen, cost_t, a_t, b_t, batch, validate)
    report_failures(parts, batch, chosen, on_fail)
    return OTResult(parts, (*batch, *cost_t.shape[-2:]), numpy_in)
