"""Gradients of entropic transport: of the value by envelope, of the plan by implicit differentiation.

With P = a b' D / s, s the geometric mean of the totals, the plan is defined by the conditions P 1 = a exp(-f / rho_a)
and P' 1 = b exp(-g / rho_b), or P 1 = a and P' 1 = b where marginals are hard. For an upstream gradient G of the plan
the adjoint is

    [diag(r) / tau_a   P              ] [x]   [(P * G) 1 ]
    [P'                diag(c) / tau_b] [y] = [(P * G)' 1],     tau = rho / (rho + reg), 1 for a hard marginal,

with r = P 1 and c = P' 1, and the gradient in the cost is -P * (G - x_i - y_j) / reg (Luise et al. 2018; Eisenberger
et al. 2022). x is eliminated; what is left is positive (semi)definite of size m.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from otfew.transport.backward import IMPLICIT, differentiable_once
from otfew.transport.entropic.newton import damping, schur_solve
from otfew.transport.entropic.solved import Solved, times

Grads = tuple[Tensor, Tensor, Tensor]

Make = Callable[[], Tensor]
"""Makes a tensor, without a graph, when it is first asked for."""


def _totals_term(weights: Tensor, amount: Tensor) -> Tensor:
    """Gradient (problems, 1) of ``amount`` * log of the geometric mean of the totals in one side's weights."""
    return (amount / (2 * weights.sum(-1)))[:, None]


def value_weight_grads(solved: Solved) -> tuple[Tensor, Tensor]:
    """Partial derivatives of the value (problems, n) and (problems, m), float64: f and g where balanced."""
    f, g = solved.potentials()
    if solved.balanced:
        return f, g
    plan = solved.density()
    rows = (plan * solved.b[:, None]).sum(2)
    columns = (plan * solved.a[..., None]).sum(1)
    total_a, total_b = solved.a.sum(-1), solved.b.sum(-1)
    excess = solved.reg * (total_a * total_b - (rows * solved.a).sum(-1))

    def side(weights: Tensor, other: Tensor, ratio: Tensor, potential: Tensor, rho: float | None) -> Tensor:
        gain = potential if rho is None else -rho * torch.expm1(-potential / rho)
        return gain + solved.reg * (other[:, None] - ratio) - _totals_term(weights, excess)

    return (
        side(solved.a, total_b, rows, f, solved.rhos[0]),
        side(solved.b, total_a, columns, g, solved.rhos[1]),
    )


def _adjoint(
    density: Tensor,
    a: Tensor,
    b: Tensor,
    tau_a: Tensor,
    tau_b: Tensor,
    upstream: Tensor,
    singular: bool,
    part: Tensor | None,
) -> Grads:
    """Solve the adjoint system by eliminating x; return x, y, where weights are zero their limits, and the plan.

    ``part`` (problems, m) is that of ``schur_solve``, None where all pairs are allowed.
    """
    row_ratio, column_ratio = (density * b[:, None]).sum(2), (density * a[..., None]).sum(1)
    if part is not None:
        # Nothing serves some nodes, and nothing depends on what they are given.
        row_ratio, column_ratio = (x.where(x > 0, 1.0) for x in (row_ratio, column_ratio))
    plan = a[..., None] * density * b[:, None]
    rows, columns = plan.sum(2), plan.sum(1)
    weighted = plan * upstream
    # The mean of the upstream gradient over each row, in a form that holds where the row has no weight.
    mean = (density * b[:, None] * upstream).sum(2) / row_ratio
    right = weighted.sum(1) - tau_a * (plan * mean[..., None]).sum(1)
    y = schur_solve(plan, rows, columns / tau_b, tau_a, right, singular, part)
    x = tau_a * (mean - (density * (b * y)[:, None]).sum(2) / row_ratio)
    limit = tau_b * (density * a[..., None] * (upstream - x[..., None])).sum(1) / column_ratio
    return x, torch.where(b > 0, y, limit), plan


def plan_grads(solved: Solved, upstream: Tensor) -> Grads:
    """Gradients of <upstream, plan> in cost, a and b, in float64; ``upstream`` (problems, n, m) float64."""
    density, a, b = solved.density(), solved.a, solved.b
    reg = a.new_full((1, 1), solved.reg)
    tau_a, tau_b = damping(solved.rhos[0], reg), damping(solved.rhos[1], reg)
    parts = (None, None) if solved.support is None else (solved.support.row_part, solved.support.column_part)
    if solved.cost.shape[2] <= solved.cost.shape[1]:
        x, y, plan = _adjoint(density, a, b, tau_a, tau_b, upstream, solved.balanced, parts[1])
    else:
        y, x, turned = _adjoint(density.mT, b, a, tau_b, tau_a, upstream.mT, solved.balanced, parts[0])
        plan = turned.mT
    inner = plan * (upstream - x[..., None] - y[:, None])
    by_cost = -solved.scale[:, None, None] * inner / solved.reg
    # How far the plan moves with the geometric mean of the totals; nothing where balanced.
    amount = (x * plan.sum(2)).sum(-1) + (y * plan.sum(1)).sum(-1) - (plan * upstream).sum((1, 2))
    by_a = x / tau_a * (density * b[:, None]).sum(2) + _totals_term(a, amount)
    by_b = y / tau_b * (density * a[..., None]).sum(1) + _totals_term(b, amount)
    return by_cost, by_a, by_b


class _Made(torch.autograd.Function):
    """What ``make`` makes of a solved problem, given gradients by the classes below."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, a: Tensor, b: Tensor, make: Make, solved: Solved) -> Tensor:
        ctx.solved = solved
        ctx.save_for_backward(cost, a, b)
        return make()


class _EnvelopeValue(_Made):
    """The value, whose gradient needs no more than the plan and the potentials."""

    @staticmethod
    @differentiable_once(IMPLICIT)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        solved: Solved = ctx.solved
        by_cost = by_a = by_b = None
        if ctx.needs_input_grad[0]:
            by_cost = times(solved.unit_plan(), grad * solved.scale)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            by_a, by_b = (grad[:, None] * x for x in value_weight_grads(solved))
        return by_cost, by_a, by_b, None, None


class _ImplicitPlan(_Made):
    """The plan, whose gradient is that of the conditions that define it."""

    @staticmethod
    @differentiable_once(IMPLICIT)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_cost, by_a, by_b = plan_grads(ctx.solved, grad.double())
        return by_cost.to(ctx.solved.cost.dtype), by_a, by_b, None, None


class _ImplicitLinear(_Made):
    """<plan, cost>: through the plan and through the cost itself."""

    @staticmethod
    @differentiable_once(IMPLICIT)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        solved: Solved = ctx.solved
        by_cost, by_a, by_b = linear_grads(solved)
        by_cost = by_cost * grad[:, None, None]
        return by_cost.to(solved.cost.dtype), by_a * grad[:, None], by_b * grad[:, None], None, None


def linear_grads(solved: Solved) -> Grads:
    """Gradients of <plan, cost> in cost, a and b, in float64."""
    upstream = solved.cost.double()
    f, g = solved.potentials() if solved.balanced else (torch.zeros_like(solved.a), torch.zeros_like(solved.b))
    # <f + g, plan> is fixed by hard marginals: without it, large offsets of the cost cancel before the solve.
    by_cost, by_a, by_b = plan_grads(solved, upstream - f[..., None] - g[:, None])
    return by_cost + solved.scale[:, None, None] * solved.plan64(), by_a + f, by_b + g


def attach_value(cost: Tensor, a: Tensor, b: Tensor, make: Make, solved: Solved) -> Tensor:
    """Make the value (problems,), with its gradients in the cost and the weights that it was solved for."""
    return _EnvelopeValue.apply(cost, a, b, make, solved)  # type: ignore[no-any-return, no-untyped-call]


def attach_plan(cost: Tensor, a: Tensor, b: Tensor, make: Make, solved: Solved) -> Tensor:
    """Make the plan (problems, n, m), a new tensor, with its gradients."""
    return _ImplicitPlan.apply(cost, a, b, make, solved)  # type: ignore[no-any-return, no-untyped-call]


def attach_linear(cost: Tensor, a: Tensor, b: Tensor, make: Make, solved: Solved) -> Tensor:
    """Make <plan, cost> (problems,) with its gradients."""
    return _ImplicitLinear.apply(cost, a, b, make, solved)  # type: ignore[no-any-return, no-untyped-call]
