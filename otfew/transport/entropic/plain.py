"""Sinkhorn in the plain domain, P = diag(u) K diag(v): fast, and safe where costs range over few multiples of reg."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from otfew.transport.compilation import announced
from otfew.transport.threads import share_out

REACH = {torch.float32: 20.0, torch.float64: 170.0}
"""Largest |cost - offset| / reg: scalings then stay within exp(+-4 REACH) of the weights, which the dtype holds."""

ITERATIONS = 100
"""After so many a problem is better served by Newton's method."""

UNEXTRAPOLATED, SMALL_SIDE = 32, 256
"""The same where none is extrapolated, and nodes of the smaller side up to which it is so."""

PATIENCE = 6
"""Plain iterations of a problem before the next are extrapolated from the last, where these take long to compute."""

SMALL, SMALL_PATIENCE = 2_500, 20
"""Entries up to which an iteration takes less time than its extrapolation, and plain iterations are given to it."""

RIDGE = {torch.float32: 1e-6, torch.float64: 1e-12}
"""What rounding makes of inner products, relative to the largest."""

LARGEST = {dtype: torch.finfo(dtype).max for dtype in REACH}
"""Largest number of each dtype."""

CHECK = 8
"""Iterations between two looks at what has converged, where a look waits for the device."""

WORTH_MOVING = 0.75
"""Part of the problems at hand down to which it is cheaper to take all along than to move those that are left."""


@dataclass(slots=True, eq=False)
class Scaled:
    """Scalings of a batch; a problem whose costs range too far is left alone, with n_iter 0.

    Attributes:
        plan: (problems, n, m) in the cost's dtype, of total 1, with row sums a.
        a: (problems, n) float64, of total 1.
        b: (problems, m) float64, of total 1.
        phi: (problems, n) float64, -log K v: potentials over reg.
        psi: (problems, m) float64, -log K' u for the u before.
        mass: (problems,) float64, the total of a as it was given.
        value: (problems,) float64, dual value for that total.
        offset: (problems,) float64, subtracted from the costs.
        error: (problems,) float64, largest deviation of a column's sum.
        status: (problems,) int8, ``Status.OPTIMAL`` or ``Status.MAX_ITER``.
        n_iter: (problems,) int64.
    """

    plan: Tensor
    a: Tensor
    b: Tensor
    phi: Tensor
    psi: Tensor
    mass: Tensor
    value: Tensor
    offset: Tensor
    error: Tensor
    status: Tensor
    n_iter: Tensor


def scale(
    cost: Tensor, a: Tensor, b: Tensor, reg: float, tol: float, max_iter: int,
    start: Tensor | None = None, closed: Tensor | None = None,
) -> Scaled:  # fmt: skip
    """Alternate u = a / K v and v = b / K' u, each problem until its columns are right.

    Args:
        cost: (problems, n, m), without a graph, as all below.
        a: (problems, n) float64.
        b: (problems, m) float64.
        reg: Regularisation, in the units of the cost.
        tol: Largest deviation of a column's sum, for a total of 1.
        max_iter: Iterations a problem may take.
        start: (problems, m) float64, psi to start from; a problem whose dtype might not hold it starts afresh.
        closed: (problems, n, m) bool, pairs that are not to be used, whose costs then lie between those of the others,
            or None. Each row has a column with weight that it may use, and each column a row.
    """
    if start is not None:
        # Its scalings then stay as far from the ends of the dtype's range as those of any iteration.
        start = start.where((start.abs() <= 2 * REACH[cost.dtype]).all(-1, keepdim=True), torch.nan)
    if cost.is_cpu:
        return _scale_compiled(cost, a, b, reg, tol, max_iter, start, closed)
    return scale_torch(cost, a, b, reg, tol, max_iter, start, closed)


def _scale_compiled(
    cost: Tensor, a: Tensor, b: Tensor, reg: float, tol: float, max_iter: int, start: Tensor | None,
    closed: Tensor | None,
) -> Scaled:  # fmt: skip
    found = _run(cost, a, b, reg, tol, max_iter, start, closed)
    if cost.dtype == torch.float64 or np.count_nonzero(found.n_iter.numpy()) == len(cost):
        return found
    # What is too wide for float32 is narrow enough for float64.
    far = found.n_iter == 0
    if not bool(torch.isfinite(found.offset).all()):
        # But what holds forbidden pairs, of which the caller has not spoken, is too wide for anything.
        far &= ~(cost == torch.inf).flatten(1).any(1)
        if not bool(far.any()):
            return found
    if bool(far.all()):
        wide = _run(cost.double(), a, b, reg, tol, max_iter, start, closed)
        return replace(wide, plan=wide.plan.to(cost.dtype))
    begin, shut = (None if x is None else x[far] for x in (start, closed))
    wide = _run(cost[far].double(), a[far], b[far], reg, tol, max_iter, begin, shut)
    for field in fields(Scaled):
        into = getattr(found, field.name)
        into[far] = getattr(wide, field.name).to(into.dtype)
    return found


def _run(
    cost: Tensor, a: Tensor, b: Tensor, reg: float, tol: float, max_iter: int, start: Tensor | None,
    closed: Tensor | None,
) -> Scaled:  # fmt: skip
    # In numpy: ten small operations of torch take longer than a small problem.
    size, n, m = cost.shape
    costs = np.ascontiguousarray(cost.numpy()).reshape(size, n * m)
    rows, columns = np.ascontiguousarray(a.numpy()), np.ascontiguousarray(b.numpy())
    plan, numbers = np.empty_like(costs), np.empty((4, size))
    unit_a, unit_b, phi, psi = np.empty_like(rows), np.empty_like(columns), np.empty_like(rows), np.empty_like(columns)
    status, n_iter = np.empty(size, np.int8), np.empty(size, np.int64)
    # 1 / reg may overflow float32; all costs that are not equal are then out of reach.
    inverse, reach, ridge = min(1 / reg, LARGEST[cost.dtype]), REACH[cost.dtype], RIDGE[cost.dtype]
    patience = SMALL_PATIENCE if n * m <= SMALL else PATIENCE
    begin = None if start is None else np.ascontiguousarray(start.numpy())
    shut = None if closed is None else np.ascontiguousarray(closed.numpy()).reshape(size, n * m)
    kernel = _kernel(costs.dtype.str, begin is not None, shut is not None)

    def work(first: int, last: int) -> None:
        kernel(
            costs, begin, rows, columns, first, last, reg, inverse, reach, tol, max_iter, patience, ridge,
            plan, unit_a, unit_b, phi, psi, numbers, status, n_iter, shut,
        )  # fmt: skip

    share_out(work, size, torch.get_num_threads())
    tensor = torch.from_numpy
    mass, value, offset, error = tensor(numbers)
    return Scaled(
        tensor(plan.reshape(size, n, m)), tensor(unit_a), tensor(unit_b), tensor(phi), tensor(psi),
        mass, value, offset, error, tensor(status), tensor(n_iter),
    )  # fmt: skip


@functools.cache
def _kernel(dtype: str, warm: bool, closes: bool) -> Callable[..., None]:
    """Load the compiled loop for a dtype, with or without a start and closed pairs, or compile it and say so."""
    from otfew.transport.entropic.kernel import constants, scale

    table, integers = constants(np.dtype(dtype))
    kernel = functools.partial(scale, table, integers)
    with announced("the Sinkhorn solver, for warm starts" if warm else "the Sinkhorn solver"):
        one, wide = np.ones((1, 1), dtype), np.ones((4, 1))
        status, n_iter = np.ones(1, np.int8), np.ones(1, np.int64)
        kernel(
            one, wide if warm else None, wide, wide, 0, 0, 1.0, 1.0, 1.0, 1.0, 1, 1, 1.0,
            one, wide, wide, wide, wide, wide, status, n_iter, np.zeros((1, 1), np.bool_) if closes else None,
        )  # fmt: skip
    return kernel


def scale_torch(
    cost: Tensor, a: Tensor, b: Tensor, reg: float, tol: float, max_iter: int,
    start: Tensor | None = None, closed: Tensor | None = None,
) -> Scaled:  # fmt: skip
    """Do the same on any device, without extrapolation and with few looks at what it holds; see ``scale``."""
    mass = a.sum(-1)
    unit_a, unit_b = a / mass[:, None], b / b.sum(-1, keepdim=True)
    offset = cost.mean((1, 2))
    whole = (offset[:, None, None] - cost) / reg
    # Problems out of reach stand by, with a kernel of ones, until those that have ended are left out.
    going = whole.abs().flatten(1).amax(1) <= REACH[cost.dtype]
    whole = whole.where(going[:, None, None], 0.0).exp_()
    if closed is not None:
        whole.masked_fill_(closed & going[:, None, None], 0.0)
    kernel, a, b = whole, unit_a.to(cost.dtype), unit_b.to(cost.dtype)
    # The first iteration makes p and error.
    p, error, n_iter = a, offset, torch.zeros_like(going, dtype=torch.int64)
    # Products and sums, not matrix products, which may be rounded to TF32.
    q = torch.where(going[:, None], (kernel * a[..., None]).sum(1), 1.0)
    if start is not None:
        q = torch.where(going[:, None] & start.isfinite(), start.neg().exp().to(q.dtype), q)
    ended: list[tuple[Tensor, tuple[Tensor, ...]]] = []
    index = torch.arange(len(cost), device=cost.device)
    for used in range(1, max_iter + 1):
        v = b / q
        p = (kernel * v[:, None]).sum(2)
        sums = (kernel * (a / p)[..., None]).sum(1)
        error = (v * sums - b).abs().amax(1)
        n_iter = n_iter + going
        going = going & ~(error <= tol)
        if used == max_iter:
            break
        # A problem that has converged keeps its q, and with it all else, while others go on.
        q = torch.where(going[:, None], sums, q)
        if used % CHECK == 0:
            rest = going.nonzero()[:, 0]
            if not len(rest):
                break
            if len(rest) < WORTH_MOVING * len(index):
                ended.append((index, (p, q, error, n_iter)))
                kernel, a, b, p, q, error, n_iter, index, going = (
                    x.index_select(0, rest) for x in (kernel, a, b, p, q, error, n_iter, index, going)
                )
    last: tuple[Tensor, ...] = (p, q, error, n_iter)
    if ended:
        ended.append((index, last))
        last = ended[0][1]
        for index, values in ended[1:]:
            last = tuple(into.index_copy(0, index, x) for into, x in zip(last, values, strict=True))
    p, q, error, n_iter = last
    plan = whole.mul_((unit_a / p).to(cost.dtype)[..., None]).mul_((unit_b / q).to(cost.dtype)[:, None])
    phi, psi = (-sums.log().double() for sums in (p, q))
    value = mass * (reg * ((unit_a * phi).sum(-1) + (unit_b * psi).sum(-1)) + offset)
    # OPTIMAL is 0 and MAX_ITER is 1.
    status = ((n_iter == 0) | ~(error <= tol)).to(torch.int8)
    return Scaled(plan, unit_a, unit_b, phi, psi, mass, value, offset.double(), error.double(), status, n_iter)
