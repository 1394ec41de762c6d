"""Proof of optimality: feasible potentials, duality gap and marginal error, from any plan and potentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.arguments import as_tensor
from otfew.transport.plan_operator import ArrayT
from otfew.transport.precision import in_full_precision
from otfew.transport.problem import Array, build, check_dtype, check_shapes, check_values, first_index
from otfew.transport.sending import send
from otfew.transport.transforms import outside_graphs, refuse_transforms

_SUPPORTS = (0.0, 1e-12, 1e-8, 1e-5, 1e-3, 0.1)
"""Fractions of min(a_i, b_j) above which an entry of a plan counts as used, tried in turn: for exact plans first."""

EPS = 2.0**-53
"""Largest relative error of one rounding."""

CERTAIN = 1e-9
"""Gap, relative to what is paid above the least cost, up to which an exact plan is taken as it is."""

PROVEN = 1e-6
"""Gap, relative to what is paid above the least cost, up to which an exact plan is called optimal."""

_CHUNK = 2**17
"""Entries of costs at a time: what is worked on stays in the cache."""


def c_transform(cost: Array, g: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Make column potentials feasible and extreme, and put them in the gauge sum_j g_j b_j = 0.

    f_i = min_j cost_ij - g_j over columns with mass, then for columns without mass g_j = min_i cost_ij - f_i: where
    only one side has zero weights, these are the one-sided derivatives of the value.

    Args:
        cost: (*batch, n, m).
        g: (*batch, m) potentials of the columns; entries at zero weights are ignored.
        a: (*batch, n) weights.
        b: (*batch, m) weights.

    Returns:
        f (*batch, n) and g (*batch, m) with f_i + g_j <= cost_ij.
    """
    held = b > 0
    f = np.where(held[..., None, :], cost - g[..., None, :], np.inf).min(-1)
    g = np.where(held, g, (cost - f[..., None]).min(-2))
    shift = (g * b).sum(-1, keepdims=True) / b.sum(-1, keepdims=True)
    return f + shift, g - shift


def certify_plan(cost: Array, a: Array, b: Array, plan: Array, f: Array, g: Array) -> tuple[Array, Array, Array]:
    """Value, duality gap and relative marginal error of dense plans, each (*batch,).

    The gap bounds value - optimum from above, whatever was rounded on the way to it.

    Args:
        cost: (*batch, n, m).
        a: (*batch, n).
        b: (*batch, m), same totals as a.
        plan: (*batch, n, m).
        f: (*batch, n) potentials of the rows, feasible up to rounding.
        g: (*batch, m) potentials of the columns.
    """
    value = (plan * cost).sum((-2, -1))
    gap = value - dual_value(a, b, f, g) + rounding(cost, a, b, f, g)
    missed = np.maximum(np.abs(plan.sum(-1) - a).max(-1), np.abs(plan.sum(-2) - b).max(-1))
    return value, gap, missed / a.sum(-1)


def dual_value(a: Array, b: Array, f: Array, g: Array) -> Array:
    """Value of the dual (*batch,)."""
    total: Array = (f * a).sum(-1) + (g * b).sum(-1)
    return total


def rounding(cost: Array, a: Array, b: Array, f: Array, g: Array) -> Array:
    """Bound by how much the dual value may exceed the optimum (*batch,), as it was computed.

    Two things can hide there: potentials that are feasible only up to rounding - an optimal plan has the sums a and b,
    so it pays at most each row's largest violation - and the rounding of the sums themselves, which numpy takes
    pairwise.

    Args:
        cost: (*batch, n, m).
        a: (*batch, n).
        b: (*batch, m), same totals as a.
        f: (*batch, n).
        g: (*batch, m).
    """
    over: Array = (f[..., None] + g[..., None, :] - cost).max(-1, where=b[..., None, :] > 0, initial=0.0)
    size = (np.abs(f) * a).sum(-1) + (np.abs(g) * b).sum(-1)
    terms = min(max(cost.shape[-2:]), 48) + 8
    bound: Array = (over * a).sum(-1) + EPS * terms * size
    return bound


def missed(rows: npt.NDArray[np.integer], cols: npt.NDArray[np.integer], flow: Array, a: Array, b: Array) -> Array:
    """Deviations (problems, n + m), without signs, of the sums of plans that are kept as arcs (problems, arcs)."""
    size, n = a.shape
    sums: Array = np.concatenate([-a, -b], -1)
    each = np.arange(size)[:, None]
    np.add.at(sums, (each, rows), flow)
    np.add.at(sums, (each, n + cols), flow)
    deviations: Array = np.abs(sums)
    return deviations


def slackness(cost: Array, plan: Array, f: Array, g: Array) -> Array:
    """Mass times reduced cost (*batch,): by how much a plan is above the optimum of its own sums, at most."""
    total: Array = (plan * (cost - f[..., None] - g[..., None, :])).sum((-2, -1))
    return total


def recover_potentials(cost: Array, a: Array, b: Array, plan: Array, tol: float = 1e-12) -> tuple[Array, Array]:
    """Find the best potentials that a plan gives away.

    Of an optimal plan f_i + g_j = cost_ij where mass flows: shortest paths in the residual graph (rows to columns at
    cost_ij, back at -cost_ij where the plan has mass) are such potentials, and Bellman and Ford find them in at most
    min(n, m) rounds. A plan that is not optimal has cycles of negative length; each round's potentials are feasible
    all the same, and those of the largest dual value are kept.

    Args:
        cost: (problems, n, m).
        a: (problems, n) weights.
        b: (problems, m) weights, of the totals of a.
        plan: (problems, n, m).
        tol: Mass times reduced cost that is as good as none, relative to mass times spread of the costs: the search
            ends there.

    Returns:
        f (problems, n) and g (problems, m), c-transforms with f_i + g_j <= cost_ij and sum_j g_j b_j = 0.
    """
    size, n, m = cost.shape
    f, g = np.empty((size, n)), np.empty((size, m))
    step = max(1, _CHUNK // (n * m))
    for first in range(0, size, step):
        chunk = slice(first, first + step)
        f[chunk], g[chunk] = _recover(cost[chunk], a[chunk], b[chunk], plan[chunk], tol)
    return f, g


def _recover(cost: Array, a: Array, b: Array, plan: Array, tol: float) -> tuple[Array, Array]:
    used = plan / np.maximum(np.minimum(a[:, :, None], b[:, None]), np.finfo(float).tiny)
    enough = tol * a.sum(-1) * np.ptp(cost, (1, 2))
    best = np.full(len(cost), -np.inf)
    best_f, best_g = np.zeros_like(a), np.zeros_like(b)
    open_ = np.arange(len(cost))
    for least in _SUPPORTS:
        f, g = _shortest_paths(cost[open_], used[open_] > least, a[open_], b[open_])
        f, g = c_transform(cost[open_], g, a[open_], b[open_])
        dual = (f * a[open_]).sum(-1) + (g * b[open_]).sum(-1)
        better = dual > best[open_]
        chosen = open_[better]
        best[chosen], best_f[chosen], best_g[chosen] = dual[better], f[better], g[better]
        slack = slackness(cost[open_], plan[open_], best_f[open_], best_g[open_])
        open_ = open_[slack > enough[open_]]
        if not len(open_):
            break
    return best_f, best_g


def _shortest_paths(cost: Array, used: npt.NDArray[np.bool_], a: Array, b: Array) -> tuple[Array, Array]:
    """Run Bellman and Ford from all rows at once; of its feasible potentials return those of the largest dual value."""
    size, n, m = cost.shape
    back = np.where(used, cost, -np.inf)
    f = np.zeros((size, n))
    best, best_f, best_g = np.full(size, -np.inf), f, np.zeros((size, m))
    for _ in range(min(n, m) + 1):
        g = (cost - f[:, :, None]).min(1)
        dual = (f * a).sum(-1) + (g * b).sum(-1)
        better = dual > best
        best = np.where(better, dual, best)
        best_f, best_g = np.where(better[:, None], f, best_f), np.where(better[:, None], g, best_g)
        raised = np.maximum(f, (back - g[:, None]).max(2))
        if (raised == f).all():
            break
        f = raised
    return best_f, best_g


@dataclass(frozen=True)
class Certificate(Generic[ArrayT]):
    """What a plan proves of itself; tensors on the device of the cost, numpy arrays where the cost was one.

    Attributes:
        value: (*batch,) <plan, cost>, float64.
        gap: (*batch,) how far ``value`` can be above the optimum: value minus the best dual value found, plus what
            rounding can hide; float64.
        marginal_error: (*batch,) largest deviation of the plan's sums from a and b, relative to the total, float64.
        potentials: f (*batch, n) and g (*batch, m) float64 with f_i + g_j <= cost_ij and sum_j g_j b_j = 0.
    """

    value: ArrayT
    gap: ArrayT
    marginal_error: ArrayT
    potentials: tuple[ArrayT, ArrayT]


@overload
def certify(
    plan: Tensor | npt.NDArray[Any],
    cost: Tensor,
    a: Tensor | npt.NDArray[Any] | None = None,
    b: Tensor | npt.NDArray[Any] | None = None,
) -> Certificate[Tensor]: ...
@overload
def certify(
    plan: Tensor | npt.NDArray[Any],
    cost: npt.NDArray[Any],
    a: Tensor | npt.NDArray[Any] | None = None,
    b: Tensor | npt.NDArray[Any] | None = None,
) -> Certificate[npt.NDArray[Any]]: ...
@outside_graphs
@in_full_precision
def certify(plan: Any, cost: Any, a: Any = None, b: Any = None) -> Certificate[Any]:
    """Measure how good transport plans are from the plans alone, whatever made them.

    The potentials are shortest paths in the residual graph of the plan, made feasible by c-transforms, so no solver is
    trusted or called. The gap is a bound: a plan with a gap of zero and the right sums is optimal, and an optimal plan
    gets one of zero to rounding; that of a poor or blurred plan can be larger than its distance to the optimum.

    Args:
        plan: (*batch, n, m) float32 or float64, half precision as float32; non-negative.
        cost: (*batch, n, m).
        a: (*batch, n) weights of the rows, or None: uniform with the total of b, 1 if both are None.
        b: (*batch, m) weights of the columns, or None: uniform with the total of a; rescaled to the total of a.

    Returns:
        A ``Certificate``; its batch shape is that of all arguments broadcast.

    Raises:
        ValueError: As ``otfew.solve``, and for a plan of another shape than the cost, NaN, infinity or negative flow.

    Example:
        >>> import numpy as np
        >>> cost = np.array([[0.0, 2.0], [2.0, 0.0]])
        >>> round(float(certify(np.full((2, 2), 0.25), cost).gap), 9)
        1.0
    """
    plan_t, cost_t, a_t, b_t = (as_tensor(*x) for x in (("plan", plan), ("cost", cost), ("a", a), ("b", b)))
    for name, tensor in (("plan", plan_t), ("cost", cost_t)):
        if tensor is None:
            raise ValueError(f"{name} must be a torch tensor or a numpy array, got None")
    assert plan_t is not None
    assert cost_t is not None
    refuse_transforms(plan_t, cost_t, a_t, b_t)
    device = cost_t.device
    # Copied once, and looked at where they then are.
    plan_t, cost_t = plan_t.detach().cpu(), cost_t.detach().cpu()
    a_t, b_t = (None if x is None else x.detach().cpu() for x in (a_t, b_t))
    check_shapes(cost_t, a_t, b_t)
    check_values(cost_t, a_t, b_t)
    _check_plan(plan_t, cost_t)
    # A plan that carries the batch alone is as good as a cost that does.
    shared = cost_t.expand(torch.broadcast_shapes(plan_t.shape, cost_t.shape))  # type: ignore[no-untyped-call]
    batch = check_shapes(shared, a_t, b_t)
    problem = build(shared, a_t, b_t, batch)
    n, m = problem.shape
    flows = plan_t.double().expand(*batch, n, m).reshape(-1, n, m).numpy()
    costs = problem.cost[problem.cost_index].astype(np.float64)
    rows, columns = problem.a[problem.a_index], problem.b[problem.b_index]
    columns = columns * (rows.sum(-1, keepdims=True) / columns.sum(-1, keepdims=True))
    f, g = recover_potentials(costs, rows, columns, flows)
    value, gap, error = certify_plan(costs, rows, columns, flows, f, g)

    def out(array: Array) -> Any:
        unfolded = array.reshape((*batch, *array.shape[1:]))
        return unfolded if isinstance(cost, np.ndarray) else send(torch.from_numpy(unfolded), device)

    return Certificate(out(value), out(gap), out(error), (out(f), out(g)))


def _check_plan(plan: Tensor, cost: Tensor) -> None:
    check_dtype("plan", plan)
    if plan.ndim < 2 or plan.shape[-2:] != cost.shape[-2:]:
        raise ValueError(
            f"plan must be (*batch, {cost.shape[-2]}, {cost.shape[-1]}) to fit cost {tuple(cost.shape)}, "
            f"got {tuple(plan.shape)}"
        )
    try:
        torch.broadcast_shapes(plan.shape, cost.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise ValueError(
            f"batch shapes of plan and cost do not broadcast: {tuple(plan.shape[:-2])}, {tuple(cost.shape[:-2])}"
        ) from None
    flows = plan.numpy()
    # Comparisons with NaN are false; the slow search only where something is wrong.
    if flows.size == 0 or (flows.min() >= 0 and flows.max() < np.inf):
        return
    for bad, what in ((~torch.isfinite(plan), "NaN or infinity"), (plan < 0, "negative flow")):
        if bool(bad.any()):
            raise ValueError(f"plan holds {what}{first_index(bad, plan.ndim - 2)}")
