"""What a plan proves of itself, whatever made it: ``certify``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.arguments import as_tensor
from otfew.transport.certificate import certify_plan, recover_potentials
from otfew.transport.masks import masked
from otfew.transport.plan_operator import ArrayT
from otfew.transport.precision import in_full_precision
from otfew.transport.problem import Array, build, check_dtype, check_shapes, check_values, first_index
from otfew.transport.sending import send
from otfew.transport.transforms import outside_graphs, refuse_transforms


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
    mask: Tensor | npt.NDArray[Any] | None = None,
) -> Certificate[Tensor]: ...
@overload
def certify(
    plan: Tensor | npt.NDArray[Any],
    cost: npt.NDArray[Any],
    a: Tensor | npt.NDArray[Any] | None = None,
    b: Tensor | npt.NDArray[Any] | None = None,
    mask: Tensor | npt.NDArray[Any] | None = None,
) -> Certificate[npt.NDArray[Any]]: ...
@outside_graphs
@in_full_precision
def certify(plan: Any, cost: Any, a: Any = None, b: Any = None, mask: Any = None) -> Certificate[Any]:
    """Measure how good transport plans are from the plans alone, whatever made them.

    The potentials are shortest paths in the residual graph of the plan, made feasible by c-transforms, so no solver is
    trusted or called. The gap is a bound: a plan with a gap of zero and the right sums is optimal, and an optimal plan
    gets one of zero to rounding; that of a poor or blurred plan can be larger than its distance to the optimum.

    Args:
        plan: (*batch, n, m) float32 or float64, half precision as float32; non-negative.
        cost: (*batch, n, m); +inf where a pair is forbidden. A plan with mass there has the value and the gap inf.
        a: (*batch, n) weights of the rows, or None: uniform with the total of b, 1 if both are None.
        b: (*batch, m) weights of the columns, or None: uniform with the total of a; rescaled to the total of a.
        mask: (*batch, n, m) bool, True where a pair is allowed.

    Returns:
        A ``Certificate``; its batch shape is that of all arguments broadcast.

    Raises:
        ValueError: As ``otfew.solve``, and for a plan of another shape than the cost, NaN, infinity or negative flow.
        RuntimeError: Under torch.vmap, torch.func or forward-mode differentiation.

    Examples:
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
    if mask is not None:
        cost_t = masked(cost_t, mask)
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
    forbidden = np.isposinf(costs)
    if not forbidden.any():
        f, g = recover_potentials(costs, rows, columns, flows)
        value, gap, error = certify_plan(costs, rows, columns, flows, f, g)
    else:
        value, gap, error, f, g = _certify_allowed(costs, forbidden, rows, columns, flows)

    def out(array: Array) -> Any:
        unfolded = array.reshape((*batch, *array.shape[1:]))
        return unfolded if isinstance(cost, np.ndarray) else send(torch.from_numpy(unfolded), device)

    return Certificate(out(value), out(gap), out(error), (out(f), out(g)))


def _certify_allowed(
    cost: Array, forbidden: npt.NDArray[np.bool_], a: Array, b: Array, plan: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Certify plans of problems with forbidden pairs: value, gap, marginal error and potentials."""
    # numba compiles at import, so only where pairs are forbidden.
    from otfew.transport.simplex.forbidding import Survey, mend

    seen = Survey.of(cost)
    finite = seen.filled(seen.far).astype(np.float64, copy=False)
    f, g = recover_potentials(finite, a, b, np.where(forbidden, 0.0, plan))
    mend(cost, np.arange(len(cost)), a, b, seen.far, f, g)
    value, gap, error = certify_plan(finite, a, b, plan, f, g)
    astray = (forbidden & (plan > 0)).any((1, 2))
    value[astray] = gap[astray] = np.inf
    return value, gap, error, f, g


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
