"""Entropic plans of point clouds in factored form: value, certificate, gradients and products without the matrix.

P_ij = a_i b_j / total exp((f_i + g_j - C_ij) / reg) solves min <P, C> + reg KL(P | a b^T / total). Whatever found the
potentials, everything else follows from sums over one cloud.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otfew.transport.backward import IMPLICIT, differentiable_once
from otfew.transport.complaints import warn
from otfew.transport.costs import directions, parse_cost
from otfew.transport.entropic.points import CHECK, Potentials, column_error, largest_cost, log_weights, scaled
from otfew.transport.entropic.reductions import ChunkedTorch, Metric, Reductions
from otfew.transport.errors import ConvergenceWarning
from otfew.transport.plan_operator import FlatPlan
from otfew.transport.precision import WITHOUT_DOUBLES
from otfew.transport.result import Parts

CG_MAX_ITER = 1000
"""Steps of conjugate gradients that a backward pass through ``value_linear`` may take."""


@dataclass(frozen=True)
class Clouds:
    """Two flat batches of point clouds under a metric, moved to the origin, with offsets of their costs.

    The cost is metric(x_i, y_j) + row_i + column_j.

    Attributes:
        metric: The metric.
        x: (problems, n, d) float64, differentiable in the caller's points.
        y: (problems, m, d) float64.
        row: (problems, n) float64, zero but for zero vectors under the cosine cost.
        column: (problems, m) float64.
        dtype: That of the caller's points, in which sums are taken.
    """

    metric: Metric
    x: Tensor
    y: Tensor
    row: Tensor
    column: Tensor
    dtype: torch.dtype


def clouds(x: Tensor, y: Tensor, cost: str) -> Clouds:
    """Write a cost as a metric of points near the origin.

    Args:
        x: (problems, n, d) float32 or float64.
        y: (problems, m, d).
        cost: "sqeuclidean", "euclidean", "cosine" or "lp:p".
    """
    kind, p = parse_cost(cost)
    dtype = x.dtype
    x, y = x.double(), y.double()
    if kind == "cosine":
        # 1 - <u, v> = |u - v|^2 / 2 + (1 - |u|^2) / 2 + (1 - |v|^2) / 2 of directions u and v, the last two zero but
        # for zero vectors.
        x, y = directions(x), directions(y)
        row, column = ((z.detach() == 0).all(-1).double() / 2 for z in (x, y))
        return Clouds(Metric("power", 2.0), x * 0.5**0.5, y * 0.5**0.5, row, column, dtype)
    # Nothing depends on the origin, and sums are most accurate with it amid the points.
    centre = (x.detach().mean(1, keepdim=True) + y.detach().mean(1, keepdim=True)) / 2
    metric = Metric("euclidean") if kind == "euclidean" else Metric("power", p)
    row, column = (x.new_zeros(z.shape[:2]) for z in (x, y))
    return Clouds(metric, x - centre, y - centre, row, column, dtype)


class FactoredPlan(FlatPlan):
    """Plans total * exp(r_i + c_j - C_ij) of scaled points (problems, n, d) and (problems, m, d)."""

    def __init__(self, sums: Reductions, x: Tensor, y: Tensor, r: Tensor, c: Tensor, total: Tensor) -> None:
        self.sums, self.x, self.y, self.r, self.c, self.total = sums, x, y, r, c, total
        self.shape = (x.shape[0], x.shape[1], y.shape[1])
        self.dtype, self.device = x.dtype, x.device

    def apply(self, v: Tensor) -> Tensor:
        """Multiply by sums over the columns."""
        out: Tensor = _Product.apply(v, self)  # type: ignore[no-untyped-call]
        return out

    def multiply(self, v: Tensor, weighted: bool = False) -> Tensor:
        """Multiply in float64, entries times C_ij in units of reg where weighted; no gradient."""
        sums = self.sums.apply(self.x, self.y, self.r, self.c, v, weighted)
        return sums * self.total[:, None, None]

    def transposed(self) -> FactoredPlan:
        """Swap the clouds: the metric is symmetric."""
        return FactoredPlan(self.sums, self.y, self.x, self.c, self.r, self.total)

    def dense(self) -> Tensor:
        """Make the matrices, in torch whatever takes the sums."""
        kernel = ChunkedTorch(self.sums.metric).dense(self.x, self.y, self.r, self.c)
        return kernel * self.total[:, None, None].to(self.dtype)

    def mapped(self, each: Callable[[Tensor], Tensor]) -> FactoredPlan:
        """See ``FlatPlan``; torch takes the sums on another kind of device, where KeOps may not run."""
        x, y, r, c, total = map(each, (self.x, self.y, self.r, self.c, self.total))
        if x.device.type in WITHOUT_DOUBLES:
            return self
        sums = self.sums if x.device.type == self.device.type else ChunkedTorch(self.sums.metric)
        return FactoredPlan(sums, x, y, r.double(), c.double(), total.double())

    def pull(self, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Sum P_ij dC_ij / dx_i over j, terms times (s_i + t_j - C_ij) where given, all in scaled points."""
        return self.sums.gradient(self.x, self.y, self.r, self.c, weights) * self.total[:, None, None]


class _Product(torch.autograd.Function):
    """plan @ v, whose gradient in v is plan.T @ grad; the plan is a constant."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, plan: FactoredPlan) -> Tensor:
        ctx.plan = plan
        return plan.multiply(v).to(plan.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.plan.transposed().apply(grad.contiguous()), None


@dataclass(frozen=True)
class _Solved:
    """What gradients need: the plan of f and g, whose rows have their sums; with next_g its columns would.

    ``stretch`` is how much larger scaled points are than points.
    """

    reg: float
    stretch: float
    f: Tensor
    g: Tensor
    next_g: Tensor
    plan: FactoredPlan
    a: Tensor


class _Value(torch.autograd.Function):
    """The regularised value with its envelope gradient: plan times dC for the points, potentials for the weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, value: Tensor, solved: _Solved) -> Tensor:
        ctx.solved = solved
        ctx.save_for_backward(x, y, a, b)
        return value.clone()

    @staticmethod
    @differentiable_once(IMPLICIT)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        solved, needs = ctx.solved, ctx.needs_input_grad
        # Scaled costs are costs over reg.
        factor = grad[:, None, None] * (solved.reg * solved.stretch)
        return (
            factor * solved.plan.pull() if needs[0] else None,
            factor * solved.plan.transposed().pull() if needs[1] else None,
            grad[:, None] * solved.f if needs[2] else None,
            grad[:, None] * solved.g if needs[3] else None,
            None,
            None,
        )


class _Linear(torch.autograd.Function):
    """<P, C> with its gradient through the optimality conditions (implicit differentiation).

    With u, w solving P_i. (u_i + w_j - C_ij) = 0 in every row and column, the gradient is u in a, w in b, and
    P_ij (1 + (u_i + w_j - C_ij) / reg) in C_ij. The right hand sides are the means of C over rows and columns.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, means: tuple[Tensor, Tensor], solved: _Solved
    ) -> Tensor:
        ctx.solved, ctx.means = solved, means
        ctx.save_for_backward(x, y, a, b)
        return (solved.a * means[0]).sum(-1)

    @staticmethod
    @differentiable_once(IMPLICIT)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        solved, needs = ctx.solved, ctx.needs_input_grad
        u, w = _adjoint(solved, *ctx.means)
        factor = grad[:, None, None] * (solved.reg * solved.stretch)
        s, t = 1 + u / solved.reg, w / solved.reg
        return (
            factor * solved.plan.pull((s, t)) if needs[0] else None,
            factor * solved.plan.transposed().pull((t, s)) if needs[1] else None,
            grad[:, None] * u if needs[2] else None,
            grad[:, None] * w if needs[3] else None,
            None,
            None,
        )


def _row_means(plan: FactoredPlan, potential: Tensor, v: Tensor, weighted: bool = False) -> Tensor:
    """Means of v (problems, m) over the rows of a plan, or of v_j C_ij; rows without mass have them, too.

    ``potential`` is that of the rows in units of reg: without the weights, the plan's rows sum to one.
    """
    return plan.sums.apply(plan.x, plan.y, potential, plan.c, v[..., None], weighted)[..., 0]


def _means(solved: _Solved) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Means over rows of functions of columns, and over columns of functions of rows."""
    back = solved.plan.transposed()
    return (
        functools.partial(_row_means, solved.plan, solved.f / solved.reg),
        functools.partial(_row_means, back, solved.next_g / solved.reg),
    )


def _adjoint(solved: _Solved, row_costs: Tensor, column_costs: Tensor) -> tuple[Tensor, Tensor]:
    """Solve u + K w = row_costs, w + L u = column_costs by conjugate gradients, K and L means over rows and columns.

    (1 - K L) u = row_costs - K column_costs is self-adjoint and not negative in the inner product weighted by a.
    """
    over_rows, over_columns = _means(solved)
    share = solved.a / solved.a.sum(-1, keepdim=True)

    def inner(v: Tensor, w: Tensor) -> Tensor:
        return (share * v * w).sum(-1, keepdim=True)

    def centred(v: Tensor) -> Tensor:
        return v - (share * v).sum(-1, keepdim=True)

    residual = centred(row_costs - over_rows(column_costs))
    u, step = torch.zeros_like(residual), residual
    square = inner(residual, residual)
    goal = (4 * torch.finfo(solved.plan.dtype).eps) ** 2 * inner(row_costs, row_costs)
    look = 1 if residual.is_cpu else CHECK
    for step_number in range(CG_MAX_ITER):
        moving = square > goal
        if step_number % look == 0 and not bool(moving.any()):
            break
        image = centred(step - over_rows(over_columns(step)))
        curvature = inner(step, image)
        # Problems that have converged stand still, and so do those that rounding leaves no curvature.
        moving &= curvature > 0
        length = torch.where(moving, square / torch.where(moving, curvature, 1.0), 0.0)
        u, residual = u + length * step, residual - length * image
        new = torch.where(moving, inner(residual, residual), 0.0)
        step = residual + torch.where(moving, new / torch.where(moving, square, 1.0), 0.0) * step
        square = new
    else:
        warn(
            f"the gradient of value_linear did not converge in {CG_MAX_ITER} steps of conjugate gradients; raise reg",
            ConvergenceWarning,
        )
    w = column_costs - over_columns(u)
    # Rows without mass did not take part in the search: their equation gives their entry.
    return row_costs - over_rows(w), w


def _gap(solved: _Solved, b: Tensor, bound: Tensor) -> Tensor:
    """Bound the value of a plan with exact marginals, less the dual value (problems,).

    Columns that are too heavy are scaled down by s, and what then misses, of mass d in all, is filled in by the
    product of what rows and columns miss (Altschuler, Weed and Rigollet 2017). The value of a plan P' with exact
    marginals is that of the dual at f and g plus reg KL(P' | P), and KL(P s + d p q | (1 - d) P + d P) is at most
    KL(P s | (1 - d) P) + KL(d p q | d P), in which costs are at most ``bound``.
    """
    plan, reg = solved.plan, solved.reg
    total = plan.total[:, None]
    share_a, share_b = solved.a / total, b / total
    columns = share_b * torch.exp((solved.g - solved.next_g) / reg)
    s = torch.where(columns > share_b, share_b / columns, 1.0)
    missing_a = (share_a - plan.multiply(s[..., None])[..., 0] / total).clamp(min=0)
    missing_b = (share_b - columns).clamp(min=0)
    d = missing_b.sum(-1, keepdim=True)
    p, q = (z / z.sum(-1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny) for z in (missing_a, missing_b))
    scaled_down = (columns * (torch.xlogy(s, s / (1 - d)) - s + 1 - d)).sum(-1)
    filled_in = sum(
        (torch.xlogy(z, z) - torch.where(z > 0, z * log_density, 0.0)).sum(-1)
        for z, log_density in ((p, plan.r), (q, plan.c))
    )
    divergence = scaled_down + d[:, 0] * (filled_in + bound / reg)
    # The dual value reported is that of f and next_g.
    gained = ((solved.next_g - solved.g) * share_b).sum(-1)
    return plan.total * (reg * divergence - gained).clamp(min=0)


def entropic_parts(
    cloud: Clouds, a: Tensor, b: Tensor, found: Potentials, reg: float, sums: Reductions, solver: str
) -> Parts:
    """Describe a flat batch of entropic problems by their potentials.

    Args:
        cloud: The points, differentiable.
        a: (problems, n) float64, differentiable.
        b: (problems, m) float64 of the same totals, differentiable.
        found: Potentials of the metric without the offsets.
        reg: Temperature.
        sums: How to sum over the clouds.
        solver: Name of the code that ran.
    """
    weights_a, weights_b = a.detach(), b.detach()
    total = weights_a.sum(-1)
    temperature = torch.full_like(total, reg)
    x, y = (scaled(z.detach(), temperature, cloud.metric, cloud.dtype) for z in (cloud.x, cloud.y))
    shift = ((found.g * weights_b).sum(-1) / total)[:, None]
    f, g, next_g = found.f + shift, found.g - shift, found.next_g - shift
    r, c = log_weights(weights_a) + f / reg, log_weights(weights_b) + g / reg
    plan = FactoredPlan(sums, x, y, r, c, total)
    solved = _Solved(reg, reg ** (-1 / cloud.metric.degree), f, g, next_g, plan, weights_a)
    # The plan of f and next_g has the mass of b, so nothing else is in the dual value; it misses the optimum by the
    # square of what the marginals miss.
    dual = (f * weights_a).sum(-1) + (next_g * weights_b).sum(-1)
    offsets = (cloud.row * a).sum(-1) + (cloud.column * b).sum(-1)
    value: Tensor = _Value.apply(cloud.x, cloud.y, a, b, dual, solved)  # type: ignore[no-untyped-call]

    @functools.cache
    def value_linear() -> Tensor:
        over_rows, over_columns = _means(solved)
        means = (
            reg * over_rows(torch.ones_like(weights_b), weighted=True),
            reg * over_columns(torch.ones_like(weights_a), weighted=True),
        )
        linear: Tensor = _Linear.apply(cloud.x, cloud.y, a, b, means, solved)  # type: ignore[no-untyped-call]
        return linear + offsets

    column_shift = (cloud.column * weights_b).sum(-1, keepdim=True) / total[:, None]
    full_f, full_g = f + cloud.row + column_shift, g + cloud.column - column_shift
    error = column_error(found.g, found.next_g, weights_b, reg)
    return Parts(
        value=value + offsets,
        value_linear=value_linear,
        plan=lambda: plan,
        potentials=lambda: (full_f.to(cloud.dtype), full_g.to(cloud.dtype)),
        gap=lambda: _gap(solved, weights_b, largest_cost(cloud.x.detach(), cloud.y.detach(), cloud.metric)),
        marginal_error=lambda: error,
        status=lambda: found.status,
        n_iter=lambda: found.n_iter,
        solver=solver,
    )
