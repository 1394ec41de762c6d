"""Optimal transport on the line: exact for every convex cost |x - y|^p, by sorting."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.transport.arguments import as_tensor, flat_weights
from otfew.transport.backward import EXACT, differentiable_once
from otfew.transport.points import check_clouds, check_points
from otfew.transport.precision import in_full_precision, totals_rtol
from otfew.transport.problem import Status, first_index
from otfew.transport.result import OTResult, Parts, check_range
from otfew.transport.transforms import outside_graphs, refuse_transforms

NAME = "line"
"""What results name as their solver."""


@outside_graphs
def solve_1d(x: Any, y: Any, a: Any = None, b: Any = None, *, p: float = 2.0, validate: bool = True) -> OTResult:
    """Solve a batch of optimal transport problems on the line with cost |x_i - y_j|^p, exactly.

    For a convex cost the optimal plan is monotone: it joins quantiles (Santambrogio 2015, theorem 2.9; Peyre and Cuturi
    2019, section 2.6). Sorting is all the work, n log n + m log m a problem, and memory grows with n + m; only ``plan``
    is (n, m), made when it is asked for.

    The gradient of ``value`` in the points is the plan's, in the weights the potentials; at ties it is one
    subgradient, and for p = 1 the derivative at coincident points is 0. Backward solves nothing.

    Args:
        x: (*batch, n) float32 or float64 points of the rows, in any order, torch on any device with float64, or numpy.
            Half precision is computed as float32. Work is in float64.
        y: (*batch, m) points of the columns, of the same dtype and device.
        a: (*batch, n) non-negative weights of x, or None: uniform with the total of b, 1 if both are None.
        b: (*batch, m) non-negative weights of y, or None: uniform with the total of a. It is rescaled in float64 to
            the total of a; totals may differ by 1e-4 of the larger.
        p: Exponent of the cost, at least 1.
        validate: Check what the tensors hold; turn off only for inputs known to be sound.

    Returns:
        An ``OTResult``: ``value`` is the transport cost, the p-th power of the p-Wasserstein distance for total 1;
        potentials are feasible, f_i + g_j <= |x_i - y_j|^p with sum_j g_j b_j = 0, and ``gap`` is their proof.

    Raises:
        ValueError: Wrong shape or dtype, NaN or infinity, costs that overflow, a negative weight, a zero total, totals
            that disagree, an exponent below 1; the message names the argument and the batch index.
        RuntimeError: Under torch.vmap, torch.func or forward-mode differentiation.

    Examples:
        >>> import numpy as np
        >>> float(solve_1d(np.array([0.0, 1.0]), np.array([5.0, 3.0]), p=1).value)
        3.5
    """
    return _solve_1d(x, y, a, b, p, validate, totals_rtol(a, b))


@in_full_precision
def _solve_1d(x: Any, y: Any, a: Any, b: Any, p: float, validate: bool, rtol: float) -> OTResult:
    check_exponent(p)
    numpy_in = isinstance(x, np.ndarray)
    x_t, y_t, a_t, b_t = (as_tensor(*given) for given in (("x", x), ("y", y), ("a", a), ("b", b)))
    refuse_transforms(x_t, y_t, a_t, b_t)
    for name, points in (("x", x_t), ("y", y_t)):
        if points is not None and (points.ndim < 1 or points.shape[-1] == 0):
            raise ValueError(
                f"{name} must be (*batch, points) with at least one point, got shape {tuple(points.shape)}"
            )
    lines = [None if z is None else z[..., None] for z in (x_t, y_t)]
    cloud_x, cloud_y, batch = check_clouds(lines[0], lines[1], a_t, b_t)
    x_t, y_t = cloud_x[..., 0], cloud_y[..., 0]
    if validate:
        check_points(cloud_x, cloud_y, a_t, b_t, True, rtol)
    n, m = x_t.shape[-1], y_t.shape[-1]
    flat_x, flat_y = (z.expand(*batch, z.shape[-1]).reshape(batch.numel(), z.shape[-1]) for z in (x_t, y_t))
    flat_a, flat_b = flat_weights(n, m, a_t, b_t, batch, x_t.device)
    line = _solved(flat_x.detach().double(), flat_y.detach().double(), flat_a.detach(), flat_b.detach(), float(p))
    if validate:
        bad = ~torch.isfinite(line.value.reshape(batch))
        if bool(bad.any()):
            raise ValueError(f"costs between x and y overflow{first_index(bad, bad.ndim)}; rescale the points")
    value: Tensor = _Value.apply(flat_x, flat_y, flat_a, flat_b, line)  # type: ignore[no-untyped-call]
    return OTResult(_parts(value, line, x_t.dtype), (*batch, n, m), numpy_in)


def check_exponent(p: Any) -> None:
    """Refuse what is no exponent of a convex cost.

    Raises:
        ValueError: Not a finite number of at least 1.
    """
    if not isinstance(p, Real) or isinstance(p, bool) or not 1 <= float(p) < math.inf:
        raise ValueError(f"p must be a finite number of at least 1, got {p!r}")


@dataclass(frozen=True)
class _Line:
    """Solved problems: the steps of the staircase, n + m - 1 each, and what belongs to them; float64.

    Attributes:
        rows: (problems, steps) positions in x.
        columns: (problems, steps) positions in y.
        mass: (problems, steps), some of it zero.
        slope: (problems, steps) derivatives of the costs in x.
        f: (problems, n).
        g: (problems, m).
        a: (problems, n).
        b: (problems, m).
        value: (problems,).
    """

    rows: Tensor
    columns: Tensor
    mass: Tensor
    slope: Tensor
    f: Tensor
    g: Tensor
    a: Tensor
    b: Tensor
    value: Tensor

    def over_rows(self, amounts: Tensor) -> Tensor:
        """Sum amounts (problems, steps) over the steps of each row."""
        return torch.zeros_like(self.f).scatter_add(1, self.rows, amounts)

    def over_columns(self, amounts: Tensor) -> Tensor:
        """Sum amounts (problems, steps) over the steps of each column."""
        return torch.zeros_like(self.g).scatter_add(1, self.columns, amounts)


def _solved(x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: float) -> _Line:
    """Walk the staircase of the north-west corner rule through the sorted points.

    Each step goes on to the next row or the next column, whichever is used up first. The costs have Monge's property in
    sorted order, so every such basis is optimal, whatever it does at ties, and its potentials are feasible.
    """
    size, n = x.shape
    total = a.sum(-1, keepdim=True)
    (x, by_x), (y, by_y) = x.sort(dim=1, stable=True), y.sort(dim=1, stable=True)
    ends_a, ends_b = (z.gather(1, by).cumsum(1) for z, by in ((a / total, by_x), (b / b.sum(-1, keepdim=True), by_y)))
    ends, order = torch.cat([ends_a[:, :-1], ends_b[:, :-1]], 1).clamp(max=1.0).sort(dim=1, stable=True)
    down = order < n - 1
    start = torch.zeros(size, 1, dtype=torch.int64, device=x.device)
    i = torch.cat([start, down.cumsum(1)], 1)
    j = torch.cat([start, (~down).cumsum(1)], 1)
    edges = torch.nn.functional.pad(ends, (1, 0))
    mass = torch.diff(edges, dim=1, append=torch.ones_like(total)) * total
    away = x.gather(1, i) - y.gather(1, j)
    cost = away.abs() ** p
    slope = p * away.sign() * away.abs() ** (p - 1)
    rises = cost.diff(dim=1)
    # On every step f + g is the cost, and only one of them moves.
    ahead_f = torch.cat([cost[:, :1], cost[:, :1] + (rises * down).cumsum(1)], 1)
    ahead_g = torch.nn.functional.pad((rises * ~down).cumsum(1), (1, 0))
    rows, columns = by_x.gather(1, i), by_y.gather(1, j)
    f = torch.zeros_like(a).scatter(1, rows, ahead_f)
    g = torch.zeros_like(b).scatter(1, columns, ahead_g)
    shift = (g * b).sum(-1, keepdim=True) / total
    return _Line(rows, columns, mass, slope, f + shift, g - shift, a, b, (mass * cost).sum(-1))


class _Value(torch.autograd.Function):
    """The value with its envelope gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, line: _Line) -> Tensor:
        ctx.line, ctx.dtypes = line, (x.dtype, y.dtype)
        ctx.save_for_backward(x, y, a, b)
        return line.value.clone()

    @staticmethod
    @differentiable_once(EXACT)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        line, needs = ctx.line, ctx.needs_input_grad
        pull = grad[:, None] * line.mass * line.slope
        return (
            line.over_rows(pull).to(ctx.dtypes[0]) if needs[0] else None,
            -line.over_columns(pull).to(ctx.dtypes[1]) if needs[1] else None,
            grad[:, None] * line.f if needs[2] else None,
            grad[:, None] * line.g if needs[3] else None,
            None,
        )


def _parts(value: Tensor, line: _Line, dtype: torch.dtype) -> Parts:
    size, (n, m) = len(line.f), (line.f.shape[1], line.g.shape[1])
    total = line.a.sum(-1)

    def plan() -> Tensor:
        check_range(total, dtype)
        where = line.rows * m + line.columns
        return torch.zeros(size, n * m, dtype=torch.float64, device=value.device).scatter_add(
            1, where, line.mass
        ).reshape(size, n, m).to(dtype)  # fmt: skip

    def error() -> Tensor:
        missed = (line.over_rows(line.mass) - line.a).abs().amax(-1)
        return torch.maximum(missed, (line.over_columns(line.mass) - line.b).abs().amax(-1)) / total

    def filled(number: int, kind: torch.dtype) -> Callable[[], Tensor]:
        return lambda: torch.full((size,), number, dtype=kind, device=value.device)

    return Parts(
        value=value,
        value_linear=lambda: value,
        plan=plan,
        potentials=lambda: (line.f.to(dtype), line.g.to(dtype)),
        gap=lambda: line.value - (line.f * line.a).sum(-1) - (line.g * line.b).sum(-1),
        marginal_error=error,
        status=filled(int(Status.OPTIMAL), torch.int8),
        n_iter=filled(n + m - 1, torch.int64),
        solver=NAME,
        sound=lambda: True,
    )
