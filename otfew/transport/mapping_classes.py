"""Class-regularised transport: entropic plans in which the source points of a class send alike.

min <P, C> + reg KL(P | a b' / total) + eta W(P), with W(P) = sum_jc |P(I_c, j)| (Courty et al. 2017, section 4.2): a
group lasso on what the points of a class send to a target point. Costs, weights and plans are batched; all work is in
float64.

W is smooth relative to the entropy: a norm's second derivative in its group is at most 1 / |p|, and |p| >= p_i, so
that it lies below that of sum p log p. Hence eta (W(P_k) + <grad W(P_k), P - P_k> + KL(P | P_k)) lies above eta W(P)
and touches it at P_k, and the minimum of what lies above is again an entropic problem, of regularisation reg + eta:

    P_k+1 = argmin <C + eta grad W(P_k) - eta log(P_k / a b'), P> + (reg + eta) KL(P | a b').

The value falls in every step, and the distance to the optimum by at least eta / (reg + eta). The same holds where
marginals are relaxed, whose terms stay as they are.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.transport.api import solve
from otfew.transport.arguments import OnFail, flat_batch, flat_weights
from otfew.transport.complaints import warn
from otfew.transport.entropic.sinkhorn import Sinkhorn
from otfew.transport.entropic.solving import normalised
from otfew.transport.errors import ConvergenceError, ConvergenceWarning
from otfew.transport.problem import Status
from otfew.transport.registry import Solver
from otfew.transport.sending import send

TOLERANCE = 1e-10
"""Largest KL divergence from the optimal plan, for a total of 1, at which a problem has converged."""
INNER = 1e-11
"""Largest deviation of a marginal of the plans of each step, relative to the total."""
LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class ClassPlans:
    """Class-regularised plans of a batch of problems, constants for autograd.

    Attributes:
        plan: (*batch, n, m) in the dtype of the cost.
        divergence: (*batch,) float64; KL(plan | optimal plan) is at most this, for weights of total 1. It is
            KL(plan | P') with P' the plan that the last potentials give for the costs C + eta grad W(plan); reg times
            it is the gap between the value and that of the dual.
        status: (*batch,) int8, see ``otfew.Status``.
        n_iter: (*batch,) int64 steps.
    """

    plan: Tensor
    divergence: Tensor
    status: Tensor
    n_iter: Tensor


@torch.no_grad()
def class_plans(
    cost: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    labels: Any,
    *,
    solver: Solver,
    reg_classes: float,
    on_fail: OnFail = "warn",
) -> ClassPlans:
    """Solve a batch of class-regularised problems.

    Each problem stops by itself. Where every class has one point the norms are the entries themselves, and their sum
    changes nothing: the plan is the entropic one.

    Args:
        cost: (*batch, n, m) float32 or float64, finite.
        a: (*batch, n) or None, as in ``otfew.solve``.
        b: (*batch, m) or None.
        labels: (*batch, n) integers, torch or numpy: the classes of the source points.
        solver: ``otfew.Sinkhorn``, whose ``reg``, ``unbalanced`` and ``max_iter`` (of steps) count.
        reg_classes: Eta, in the units of the cost, at least 0.
        on_fail: What to do where a problem did not converge.

    Raises:
        ValueError: Labels that are missing, not integers or of a wrong shape, a negative weight of the class term, or
            another solver.
        ConvergenceError: As ``on_fail`` says.
    """
    eta = class_weight(reg_classes)
    if not isinstance(solver, Sinkhorn):
        raise ValueError(
            f"reg_classes needs an entropic plan: pass solver=otfew.Sinkhorn(reg=...), not {solver.name!r}"
        )
    n, m = cost.shape[-2:]
    given = [x.shape[:-1] for x in (a, b) if x is not None]
    batch = torch.broadcast_shapes(cost.shape[:-2], *given)  # type: ignore[no-untyped-call]
    groups = _groups(labels, batch, n, cost.device)
    wide = flat_batch(cost.double(), batch, 2)
    flat_a, flat_b = flat_weights(n, m, a, b, batch, cost.device, solver.equal_totals)
    unit_a, unit_b, scale = normalised(flat_a, flat_b, solver.rhos)
    inner = replace(solver, tol=INNER, gradient="implicit", round=False)
    found = _descend(wide, unit_a, unit_b, groups, inner, eta)
    exponent, divergence, status, n_iter = found
    plan = (scale[:, None, None] * _of(unit_a, exponent, unit_b)).to(cost.dtype)
    _report(status, solver, on_fail)
    shaped = [x.reshape(batch) for x in (divergence, status, n_iter)]
    return ClassPlans(plan.reshape(*batch, n, m), *shaped)


def _descend(
    cost: Tensor, a: Tensor, b: Tensor, groups: Tensor, solver: Sinkhorn, eta: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Take steps, of all problems that have not converged, for weights whose totals have the geometric mean 1.

    Returns:
        log(P / a b') (problems, n, m), the divergence, the status and the number of steps (problems,).
    """
    size = len(cost)
    exponent = torch.zeros_like(cost)
    divergence = torch.full((size,), torch.inf, dtype=torch.float64, device=cost.device)
    status = torch.full((size,), int(Status.MAX_ITER), dtype=torch.int8, device=cost.device)
    n_iter = torch.zeros(size, dtype=torch.int64, device=cost.device)
    going = torch.arange(size, device=cost.device)
    step = replace(solver, reg=solver.reg + eta)
    log_a = a.log()
    slope = cost + eta * _class_gradient(log_a[..., None] + exponent, groups)
    warm = None
    for k in range(1, solver.max_iter + 1):
        of_a, of_b = a[going], b[going]
        seen = slope - eta * exponent[going]
        warm = solve(seen, of_a, of_b, solver=step, warm=warm, on_fail="ignore", validate=False)
        f, g = warm.potentials
        moved = (f[..., None] + g[:, None] - seen) / step.reg
        slope = cost[going] + eta * _class_gradient(log_a[going][..., None] + moved, groups[going])
        implied = (f[..., None] + g[:, None] - slope) / solver.reg
        apart = _divergence(of_a, moved, implied, of_b)
        exponent[going], divergence[going], n_iter[going] = moved, apart, k
        done = (apart <= TOLERANCE) & (warm.status == int(Status.OPTIMAL))
        failed = warm.status == int(Status.FAILED)
        status[going[done]], status[going[failed]] = int(Status.OPTIMAL), int(Status.FAILED)
        rest = ~(done | failed)
        if bool(rest.all()):
            continue
        going, slope = going[rest], slope[rest]
        if not len(going):
            break
        warm = warm[rest]
    return exponent, divergence, status, n_iter


def _class_gradient(logs: Tensor, groups: Tensor) -> Tensor:
    """Derivative of the sum of the groups' norms: p_i / |p of its class|, from log p, column by column.

    Weights of the target points cancel, so ``logs`` may leave them out.

    Args:
        logs: (problems, n, m) log p, -inf where p is zero.
        groups: (problems, n) int64 numbers of classes.
    """
    index = groups[..., None].expand_as(logs)
    classes = int(groups.max()) + 1
    none = logs.new_full((len(logs), classes, logs.shape[2]), -torch.inf)
    largest = none.scatter_reduce(1, index, logs, "amax").gather(1, index)
    # A class without weight has no mass anywhere.
    held = largest > -torch.inf
    ratio = torch.where(held, logs - torch.where(held, largest, 0.0), -torch.inf).exp()
    squares = torch.zeros_like(none).scatter_add(1, index, ratio.square()).gather(1, index)
    return ratio / torch.where(held, squares, 1.0).sqrt()


def _of(a: Tensor, exponent: Tensor, b: Tensor) -> Tensor:
    return a[..., None] * exponent.clamp_max(LARGEST_EXPONENT).exp() * b[:, None]


def _divergence(a: Tensor, found: Tensor, other: Tensor, b: Tensor) -> Tensor:
    """KL between two plans that are given by their exponents (problems, n, m); infinite where it overflows."""
    difference = other - found
    terms = _of(a, found, b) * (difference.clamp_max(LARGEST_EXPONENT).expm1() - difference)
    return terms.sum((1, 2)).nan_to_num(nan=torch.inf)


def class_weight(reg_classes: float) -> float:
    """Return the weight of the class term.

    Raises:
        ValueError: It is no finite number of at least 0.
    """
    sound = isinstance(reg_classes, numbers.Real) and not isinstance(reg_classes, bool)
    if not sound or not 0 <= reg_classes < float("inf"):
        raise ValueError(f"reg_classes must be a finite number of at least 0, got {reg_classes!r}")
    return float(reg_classes)


def _groups(labels: Any, batch: torch.Size, n: int, device: torch.device) -> Tensor:
    """Number the classes of the source points of every problem (problems, n)."""
    if labels is None:
        raise ValueError("reg_classes needs labels, the classes of the source points")
    given = torch.from_numpy(labels) if isinstance(labels, np.ndarray) else labels
    if not isinstance(given, Tensor) or given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        kind = given.dtype if isinstance(given, Tensor) else type(labels).__name__
        raise ValueError(f"labels must be a tensor or an array of integers, got {kind}")
    if given.ndim < 1 or given.shape[-1] != n or not spreads(given.shape[:-1], batch):
        raise ValueError(f"labels must be (*batch, {n}), one for each source point, got shape {tuple(given.shape)}")
    numbers = torch.unique(given, return_inverse=True)[1]
    return flat_batch(send(numbers, device), batch, 1)


def spreads(own: torch.Size, batch: torch.Size) -> bool:
    """Tell whether a batch shape broadcasts to another one, and leaves it as it is."""
    ends = zip(reversed(own), reversed(batch), strict=False)
    return len(own) <= len(batch) and all(size in (1, other) for size, other in ends)


def _report(status: Tensor, solver: Sinkhorn, on_fail: OnFail) -> None:
    if on_fail == "ignore":
        return
    failed = int((status != int(Status.OPTIMAL)).sum())
    if not failed:
        return
    message = (
        f"{failed} of {len(status)} class-regularised problems did not converge in {solver.max_iter} steps; lower "
        "reg_classes, or raise reg or max_iter"
    )
    if on_fail == "raise":
        raise ConvergenceError(message)
    warn(message, ConvergenceWarning)
