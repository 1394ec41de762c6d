"""Optimal transport between point clouds, with or without the matrix of costs."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.api import dense_parts
from otfew.transport.arguments import (
    OnFail,
    as_tensor,
    check_on_fail,
    flat_weights,
    on_the_cpu,
    policy_of,
    report_failures,
)
from otfew.transport.costs import pairwise, parse_cost
from otfew.transport.masks import masked
from otfew.transport.plan_operator import PlanOperator
from otfew.transport.precision import WITHOUT_DOUBLES, Dtype, float_dtype, in_full_precision, totals_rtol
from otfew.transport.problem import Potentials, check_dtype, check_values, first_index, surely_finite, surely_sound
from otfew.transport.registry import PointSolver, Solver, resolve
from otfew.transport.result import OTResult
from otfew.transport.transforms import outside_graphs, refuse_transforms
from otfew.transport.warm import start_from


@overload
def solve_points(
    x: Tensor,
    y: Tensor | npt.NDArray[Any],
    a: Tensor | npt.NDArray[Any] | None = None,
    b: Tensor | npt.NDArray[Any] | None = None,
    *,
    mask: Tensor | npt.NDArray[Any] | None = None,
    warm: OTResult[Any, Any] | None = None,
    dtype: Dtype | None = None,
    cost: str = "sqeuclidean",
    solver: str | Solver = "keops",
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> OTResult[Tensor, PlanOperator[Tensor]]: ...
@overload
def solve_points(
    x: npt.NDArray[Any],
    y: Tensor | npt.NDArray[Any],
    a: Tensor | npt.NDArray[Any] | None = None,
    b: Tensor | npt.NDArray[Any] | None = None,
    *,
    mask: Tensor | npt.NDArray[Any] | None = None,
    warm: OTResult[Any, Any] | None = None,
    dtype: Dtype | None = None,
    cost: str = "sqeuclidean",
    solver: str | Solver = "keops",
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> OTResult[npt.NDArray[Any], PlanOperator[npt.NDArray[Any]]]: ...
@outside_graphs
def solve_points(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    mask: Any = None,
    warm: OTResult[Any, Any] | None = None,
    dtype: Dtype | None = None,
    cost: str = "sqeuclidean",
    solver: str | Solver = "keops",
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> OTResult[Any, PlanOperator[Any]]:
    """Solve a batch of optimal transport problems between point clouds.

    A solver of points ("keops", "geomloss") never holds the (n, m) costs. A solver of dense costs ("exact",
    "sinkhorn", ...) is given them, and gradients reach the points through the cost.

    Args:
        x: (*batch, n, d) float32 or float64 points of the rows, torch on any device or numpy. Half precision is
            computed as float32, inside and outside autocast; plan and potentials are then float32.
        y: (*batch, m, d) points of the columns, of the same dtype and device.
        a: (*batch, n) non-negative weights of x, or None: uniform with the total of b, 1 if both are None.
        b: (*batch, m) non-negative weights of y, or None: uniform with the total of a. It is rescaled in float64 to
            the total of a; totals may differ by 1e-4 of the larger, in half precision by two of its units of rounding.
        mask: (*batch, n, m) bool, torch or numpy, True where a pair is allowed, as for ``otfew.solve``; only for a
            solver of dense costs that takes forbidden pairs.
        warm: An earlier result of similar problems to start from; see ``otfew.solve``. ``KeOps`` starts from the
            potentials of any result.
        dtype: As in ``otfew.solve``.
        cost: "sqeuclidean" |x - y|^2, "euclidean" |x - y|, "cosine" 1 - <x, y> / (|x| |y|), or "lp:p", such as "lp:3",
            sum_k |x_k - y_k|^p for p >= 1; see ``otfew.costs``.
        solver: A name from ``otfew.solvers()`` or options such as ``otfew.KeOps(reg=0.1)``.
        on_fail: What to do where the optimum is not reached: "raise", "warn" or "ignore"; by default exact solvers
            raise and others warn.
        validate: Check what the tensors hold; turn off only for inputs known to be sound.

    Returns:
        An ``OTResult`` whose batch shape is that of x, y, a and b broadcast. Its plan is a ``PlanOperator``:
        ``plan @ v``, ``plan.T @ u``, ``plan.dense()``.

    Raises:
        ValueError: Wrong shape or dtype, NaN or infinity, a negative weight, a zero total, totals that disagree, a
            mask for a solver that takes none, an unknown cost or solver; the message names the argument and the batch
            index.
        TypeError: ``solver`` is neither a name nor a solver.
        ImportError: The solver's library is not installed.
        ConvergenceError: An exact solver did not reach the optimum, or a problem is infeasible.
        RuntimeError: Under torch.vmap, torch.func or forward-mode differentiation.

    Examples:
        >>> import numpy as np
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0]])
        >>> float(solve_points(x, x + np.array([0.0, 2.0]), solver="exact").value)
        4.0
    """
    return _solve_points(x, y, a, b, mask, warm, dtype, cost, solver, on_fail, validate, totals_rtol(a, b))


@in_full_precision
def _solve_points(
    x: Any,
    y: Any,
    a: Any,
    b: Any,
    mask: Any,
    warm: OTResult[Any, Any] | None,
    dtype: Dtype | None,
    cost: str,
    solver: str | Solver,
    on_fail: OnFail | None,
    validate: bool,
    rtol: float,
) -> OTResult[Any, PlanOperator[Any]]:
    check_on_fail(on_fail)
    parse_cost(cost)
    chosen = resolve(solver)
    if mask is not None and isinstance(chosen, PointSolver):
        raise ValueError(
            f"mask holds n x m pairs, of which {chosen.name} keeps none: pass solver='exact' or 'sinkhorn', which make "
            "the matrix of costs, or leave points out by weights of zero"
        )
    numpy_in = isinstance(x, np.ndarray)
    x_t, y_t, a_t, b_t = (as_tensor(*given) for given in (("x", x), ("y", y), ("a", a), ("b", b)))
    refuse_transforms(x_t, y_t, a_t, b_t)
    x_t, y_t, batch = check_clouds(x_t, y_t, a_t, b_t)
    place = x_t.device
    precision = None if dtype is None else float_dtype(dtype, place)
    narrow = place.type in WITHOUT_DOUBLES
    if narrow:
        y_t, (x_t, a_t, b_t) = y_t.cpu(), on_the_cpu(x_t, a_t, b_t)
    if validate:
        check_points(x_t, y_t, a_t, b_t, chosen.equal_totals, rtol)
    n, m = x_t.shape[-2], y_t.shape[-2]
    looked = policy_of(chosen, on_fail) != "ignore"
    if isinstance(chosen, PointSolver):
        flat_x, flat_y = (z.expand(*batch, *z.shape[-2:]).reshape(batch.numel(), *z.shape[-2:]) for z in (x_t, y_t))
        flat_a, flat_b = flat_weights(n, m, a_t, b_t, batch, x_t.device)
        start = None if warm is None else start_from(warm, chosen, batch, (n, m), x_t.device)
        if isinstance(start, Potentials):
            parts = chosen.solve_points_from(start, flat_x, flat_y, flat_a, flat_b, cost)
        else:
            parts = chosen.solve_points(flat_x, flat_y, flat_a, flat_b, cost)
    else:
        dense = pairwise(cost, x_t, y_t)
        if validate and not surely_finite(dense):
            where = first_index(~torch.isfinite(dense), dense.ndim - 2)
            raise ValueError(f"{cost} costs between x and y overflow {x_t.dtype}{where}; rescale the points")
        looks = looked
        if mask is not None:
            # Of masks one has to know whether they leave a plan.
            dense, looks = masked(dense, mask, chosen), True
            batch = torch.broadcast_shapes(batch, dense.shape[:-2])  # type: ignore[no-untyped-call]
        start = None if warm is None else start_from(warm, chosen, batch, (n, m), x_t.device)
        parts = dense_parts(
            chosen, dense, a_t, b_t, batch, looks=looks, rtol=rtol, forbids=mask is not None, start=start
        )
    report_failures(parts, batch, chosen, on_fail)
    if precision is not None:
        parts = parts.rounded(precision)
    result: OTResult[Any, PlanOperator[Any]] = OTResult(parts, (*batch, n, m), numpy_in, points=True, looked=looked)
    return result.to(place) if narrow else result


def check_clouds(
    x: Tensor | None, y: Tensor | None, a: Tensor | None, b: Tensor | None, names: tuple[str, str] = ("x", "y")
) -> tuple[Tensor, Tensor, torch.Size]:
    """Check shapes and dtypes and return the clouds and the batch shape; ``names`` are those of the clouds."""
    of_x, of_y = names
    for name, points in ((of_x, x), (of_y, y)):
        if points is None:
            raise ValueError(f"{name} must be a torch tensor or a numpy array, got None")
        if points.ndim < 2 or 0 in points.shape[-2:]:
            raise ValueError(
                f"{name} must be (*batch, points, dimensions) with at least one of each, got shape "
                f"{tuple(points.shape)}"
            )
        check_dtype(name, points)
    assert x is not None
    assert y is not None
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"{of_x} and {of_y} must have points of one dimension, got {x.shape[-1]} and {y.shape[-1]}")
    if x.dtype != y.dtype or x.device != y.device:
        given = f"{x.dtype} on {x.device} and {y.dtype} on {y.device}"
        raise ValueError(f"{of_x} and {of_y} must have one dtype and device, got {given}; convert one of them")
    batches = [x.shape[:-2], y.shape[:-2]]
    for name, weights, cloud, points in (("a", a, of_x, x), ("b", b, of_y, y)):
        if weights is None:
            continue
        check_dtype(name, weights)
        if weights.ndim < 1 or weights.shape[-1] != points.shape[-2]:
            raise ValueError(
                f"{name} must be (*batch, {points.shape[-2]}) to fit {cloud} {tuple(points.shape)}, "
                f"got {tuple(weights.shape)}"
            )
        batches.append(weights.shape[:-1])
    try:
        return x, y, torch.broadcast_shapes(*batches)  # type: ignore[no-untyped-call]
    except RuntimeError:
        given = ", ".join(str(tuple(batch)) for batch in batches)
        raise ValueError(f"batch shapes of points and weights do not broadcast: {given}") from None


def check_points(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    equal_totals: bool,
    rtol: float,
    names: tuple[str, str] = ("x", "y"),
) -> None:
    """Check what the tensors hold; where all is sound, with one look at a device."""
    if not x.is_cpu:
        sums = torch.stack([x.detach().sum(), y.detach().sum()])
        if surely_sound(sums, a, b, equal_totals, rtol):
            return
    for name, points in zip(names, (x, y), strict=True):
        if not surely_finite(points):
            bad = ~torch.isfinite(points)
            if bool(bad.any()):
                raise ValueError(f"{name} holds NaN or infinity{first_index(bad, points.ndim - 2)}")
    check_values(x.new_zeros(1), a, b, equal_totals, rtol)
