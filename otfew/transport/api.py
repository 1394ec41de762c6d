"""The one entry to all solvers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.arguments import (
    OnFail,
    as_tensor,
    check_on_fail,
    flat_weights,
    on_the_cpu,
    policy_of,
    report_failures,
)
from otfew.transport.envelope import SolvedInNumpy, differentiable, wants_gradient
from otfew.transport.masks import masked, refuse_forbidden
from otfew.transport.precision import WITHOUT_DOUBLES, Dtype, float_dtype, in_full_precision, totals_rtol
from otfew.transport.problem import (
    INVALID,
    TOTALS_RTOL,
    Potentials,
    Status,
    build,
    check_shapes,
    check_values,
    rounding_of,
)
from otfew.transport.registry import ArraySolver, PointSolver, Solver, TensorSolver, resolve
from otfew.transport.result import OTResult, Parts, parts_of
from otfew.transport.sending import send
from otfew.transport.transforms import outside_graphs, refuse_transforms
from otfew.transport.warm import Start, start_from


def dense_parts(
    solver: Solver,
    cost: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    batch: torch.Size,
    *,
    looks: bool,
    validate: bool = False,
    rtol: float = TOTALS_RTOL,
    forbids: bool = False,
    start: Start | None = None,
) -> Parts:
    """Check the values of problems and solve them over a flat batch with a solver of dense costs.

    Args:
        solver: The solver.
        cost: (*batch, n, m), or what broadcasts to it.
        a: (*batch, n), likewise, or None.
        b: (*batch, m), likewise, or None.
        batch: Its shape.
        looks: Whether to wait for a device, where a solver need not, to see that all went well.
        validate: Whether to check what the tensors hold.
        rtol: How far totals of a and b may differ, relative to the larger.
        forbids: Whether costs of +inf are known to be there, as after a mask.
        start: Where to start; kernels of a device start afresh.
    """
    if not cost.is_cpu:
        parts = solver.solve_there(cost, a, b, batch, looks, rtol if validate else math.inf)
        if parts is not None:
            return parts
    if isinstance(solver, TensorSolver):
        may_forbid = True
        if validate:
            may_forbid = not check_values(cost, a, b, solver.equal_totals, rtol)
            if may_forbid:
                refuse_forbidden(solver, cost)
        n, m = cost.shape[-2:]
        spread = cost if cost.shape[:-2] == batch else cost.expand(*batch, n, m)
        flat = spread.reshape(batch.numel(), n, m)
        weights = flat_weights(n, m, a, b, batch, cost.device, solver.equal_totals)
        rounding = rounding_of(a, b, rtol)
        if isinstance(start, Potentials):
            return solver.solve_from(start, flat, *weights, rounding)
        return solver.solve_rounded(flat, *weights, rounding, may_forbid)
    assert isinstance(solver, ArraySolver)
    # Copied once, and looked at where they then are.
    here_cost = cost if cost.is_cpu else cost.detach().cpu()
    here_a = a if a is None or a.is_cpu else a.detach().cpu()
    here_b = b if b is None or b.is_cpu else b.detach().cpu()
    checks = validate and solver.checks_values and rtol <= TOTALS_RTOL
    if validate and not checks and not check_values(here_cost, here_a, here_b, solver.equal_totals, rtol):
        refuse_forbidden(solver, here_cost)
    problem = build(here_cost, here_a, here_b, batch, not checks, rounding_of(a, b, rtol), forbids)
    if isinstance(start, tuple):
        problem.basis = start
    solution = solver.solve(problem)
    if not problem.checked and np.count_nonzero(solution.status) and INVALID in solution.status:
        check_values(here_cost, here_a, here_b, solver.equal_totals)
        # Sound after all, by a rounding error in a total.
        solution = solver.solve(replace(problem, checked=True))
    finite = np.isfinite(solution.gap)
    if np.count_nonzero(finite) < len(finite):
        solution.status[~finite & (solution.status != Status.INFEASIBLE)] = Status.FAILED

    def value() -> Tensor:
        # A copy: whoever writes into it leaves the gradients alone.
        found = torch.from_numpy(solution.value).reshape(batch)
        return found.clone() if cost.is_cpu else send(found, cost.device)

    made = (
        value()
        if not wants_gradient(cost, a, b)
        else differentiable(value, SolvedInNumpy(solution, problem.shape), cost, a, b, batch)
    )
    return parts_of(made.reshape(-1), solution, cost)


@overload
def solve(
    cost: Tensor,
    a: Tensor | npt.NDArray[Any] | None = None,
    b: Tensor | npt.NDArray[Any] | None = None,
    *,
    mask: Tensor | npt.NDArray[Any] | None = None,
    warm: OTResult[Any, Any] | None = None,
    dtype: Dtype | None = None,
    solver: str | Solver = "exact",
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> OTResult[Tensor]: ...
@overload
def solve(
    cost: npt.NDArray[Any],
    a: Tensor | npt.NDArray[Any] | None = None,
    b: Tensor | npt.NDArray[Any] | None = None,
    *,
    mask: Tensor | npt.NDArray[Any] | None = None,
    warm: OTResult[Any, Any] | None = None,
    dtype: Dtype | None = None,
    solver: str | Solver = "exact",
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> OTResult[npt.NDArray[Any]]: ...
@outside_graphs
def solve(
    cost: Any,
    a: Any = None,
    b: Any = None,
    *,
    mask: Any = None,
    warm: OTResult[Any, Any] | None = None,
    dtype: Dtype | None = None,
    solver: str | Solver = "exact",
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> OTResult[Any]:
    """Solve a batch of optimal transport problems: min <P, cost> over P >= 0 with row sums a and column sums b.

    The gradient of ``value`` is the envelope gradient: the plan for the cost, the potentials for the weights;
    backward solves nothing. At ties it is one supergradient (cost) or subgradient (weights). It cannot be
    differentiated again, but with ``Sinkhorn(gradient="unrolled")``.

    Args:
        cost: (*batch, n, m) float32 or float64, torch on any device or numpy; any sign. +inf forbids a pair. Half
            precision, also of the weights, is computed as float32, inside and outside autocast; plan and potentials
            are then float32.
        a: (*batch, n) non-negative weights of the rows, or None: uniform with the total of b, 1 if both are None.
        b: (*batch, m) non-negative weights of the columns, or None: uniform with the total of a. It is rescaled in
            float64 to the total of a; totals may differ by 1e-4 of the larger, in half precision by two of its units
            of rounding.
        mask: (*batch, n, m) bool, torch or numpy, True where a pair is allowed; its batch broadcasts as the others.
            The same as +inf in place of a pair's cost: no mass and no gradient is there. A problem that no plan of
            allowed pairs solves has the status ``INFEASIBLE``, the value inf, plan, potentials and gradients of zero,
            the gap NaN, and ``cut`` proves it.
        warm: An earlier result of similar problems to start from, as in a training loop: ``exact`` starts from the
            tree of an exact result, ``Sinkhorn`` from the potentials of any. n and m must be the same, and its batch
            shape must broadcast to that of the problems. The value is the same but for rounding (for Sinkhorn, its
            tolerance); where several plans are optimal, another one of them may be found.
        dtype: float32 or float64, of ``value``, ``value_linear``, ``gap`` and ``marginal_error``; they are computed
            in float64 and then rounded. None means float64; float32 on devices without float64 (MPS), whose problems
            are solved on the CPU.
        solver: A name from ``otfew.solvers()``, or a solver with options, such as ``otfew.Exact(threads=1)`` or
            ``otfew.Sinkhorn(reg=0.1)``: ``solve`` itself takes none.
        on_fail: What to do where the optimum is not reached: "raise", "warn" or "ignore"; by default exact solvers
            raise.
        validate: Check what the tensors hold; turn off only for inputs known to be sound. With ``on_fail="ignore"``
            ``exact`` then never waits for a GPU, and can be part of a CUDA graph once it has run outside of one;
            problems that its kernel is not sure of, or of which less than ``mass`` can be moved, have the status
            ``FAILED`` and a true gap.

    Returns:
        An ``OTResult``; its batch shape is that of cost, a and b broadcast.

    Raises:
        ValueError: Wrong shape or dtype, NaN or -inf, an infinite or negative weight, a zero total, totals that
            disagree, forbidden pairs for a solver that takes none (see ``otfew.solvers()``), an unknown solver, a
            ``warm`` that does not fit; the message names the argument and the batch index.
        TypeError: ``solver`` is neither a name nor a solver.
        ImportError: The solver's library is not installed.
        ConvergenceError: An exact solver did not reach the optimum, or a problem is infeasible.
        RuntimeError: Under torch.vmap, torch.func or forward-mode differentiation.
        DeviceError: A RuntimeError: a kernel cannot be compiled or launched on a GPU that should run it.

    Examples:
        >>> import numpy as np
        >>> result = solve(np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([0.5, 0.5]), np.array([0.25, 0.75]))
        >>> float(result.value)
        0.5
    """
    return _solve(cost, a, b, mask, warm, dtype, solver, on_fail, validate, totals_rtol(a, b))


@in_full_precision
def _solve(
    cost: Any,
    a: Any,
    b: Any,
    mask: Any,
    warm: OTResult[Any, Any] | None,
    dtype: Dtype | None,
    solver: str | Solver,
    on_fail: OnFail | None,
    validate: bool,
    rtol: float,
) -> OTResult[Any]:
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
    if mask is not None:
        cost_t = masked(cost_t, mask, chosen)
    batch = check_shapes(cost_t, a_t, b_t)
    place = None if cost_t.is_cpu else cost_t.device
    precision = None if dtype is None else float_dtype(dtype, cost_t.device)
    narrow = place is not None and place.type in WITHOUT_DOUBLES
    if narrow:
        cost_t, a_t, b_t = on_the_cpu(cost_t, a_t, b_t)
    n, m = cost_t.shape[-2:]
    start = None if warm is None else start_from(warm, chosen, batch, (n, m), cost_t.device)
    looked = policy_of(chosen, on_fail) != "ignore"
    forbids = mask is not None
    looks = validate or forbids or looked
    parts = dense_parts(
        chosen, cost_t, a_t, b_t, batch, looks=looks, validate=validate, rtol=rtol, forbids=forbids, start=start
    )
    report_failures(parts, batch, chosen, on_fail)
    if precision is not None:
        parts = parts.rounded(precision)
    result: OTResult[Any] = OTResult(parts, (*batch, n, m), numpy_in, looked=looked)
    return result.to(place) if narrow else result
