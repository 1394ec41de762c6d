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

PATIENCE = 6
"""Plain iterations of a problem before the next are extrapolated from the last, where these take long to compute."""

SMALL, SMALL_PATIENCE = 2_500, 20
"""Entries up to which an iteration takes less time than its extrapolation, and plain iterations are given to it."""

RIDGE = {torch.float32: 1e-6, torch.float64: 1e-12}
"""What rounding makes of inner products, relative to the largest."""

CHECK = 8
"""Iterations between two looks at what has converged, where a look waits for the device."""


@dataclass(frozen=True)
class Scaled:
    """Scalings of a batch; a problem whose costs range too far is left alone, with n_iter 0.

    Attributes:
        plan: (problems, n, m) of total 1, with row sums a.
        phi: (problems, n) float64, -log K v: potentials over reg.
        psi: (problems, m) float64, -log K' u for the u before.
        offset: (problems,) float64, subtracted from the costs.
        error: (problems,) float64, largest deviation of a column's sum.
        n_iter: (problems,) int64.
    """

    plan: Tensor
    phi: Tensor
    psi: Tensor
    offset: Tensor
    error: Tensor
    n_iter: Tensor


def scale(cost: Tensor, a: Tensor, b: Tensor, reg: float, tol: float, max_iter: int) -> Scaled:
    """Alternate u = a / K v and v = b / K' u, each problem until its columns are right.

    Args:
        cost: (problems, n, m).
        a: (problems, n) of total 1, in the cost's dtype.
        b: (problems, m) of total 1, in the cost's dtype.
        reg: Regularisation, in the units of the cost.
        tol: Largest deviation of a column's sum.
        max_iter: Iterations a problem may take.
    """
    if cost.device.type == "cpu":
        return _scale_compiled(cost, a, b, reg, tol, max_iter)
    return scale_torch(cost, a, b, reg, tol, max_iter)


def _scale_compiled(cost: Tensor, a: Tensor, b: Tensor, reg: float, tol: float, max_iter: int) -> Scaled:
    found = _run(cost, a, b, reg, tol, max_iter)
    if cost.dtype == torch.float64:
        return found
    # What is too wide for float32 is narrow enough for float64.
    far = found.n_iter == 0
    if bool(far.all()):
        wide = _run(cost.double(), a.double(), b.double(), reg, tol, max_iter)
        return replace(wide, plan=wide.plan.to(cost.dtype))
    if bool(far.any()):
        wide = _run(cost[far].double(), a[far].double(), b[far].double(), reg, tol, max_iter)
        for field in fields(Scaled):
            into = getattr(found, field.name)
            into[far] = getattr(wide, field.name).to(into.dtype)
    return found


def _run(cost: Tensor, a: Tensor, b: Tensor, reg: float, tol: float, max_iter: int) -> Scaled:
    size, n, m = cost.shape
    costs = np.ascontiguousarray(cost.numpy()).reshape(size, n * m)
    rows, columns = np.ascontiguousarray(a.numpy()), np.ascontiguousarray(b.numpy())
    dtype = costs.dtype
    plan, p, q = np.empty_like(costs), np.ones_like(rows), np.ones_like(columns)
    offset, error, n_iter = np.zeros(size, dtype), np.zeros(size, dtype), np.zeros(size, np.int64)
    # 1 / reg may overflow float32; all costs that are not equal are then out of reach.
    inverse, reach, worst = (dtype.type(min(x, np.finfo(dtype).max)) for x in (1 / reg, REACH[cost.dtype], tol))
    patience = SMALL_PATIENCE if n * m <= SMALL else PATIENCE
    kernel = _kernel(dtype.str)

    def work(first: int, last: int) -> None:
        kernel(
            costs, rows, columns, first, last, inverse, reach, worst, max_iter, patience, RIDGE[cost.dtype],
            plan, p, q, offset, error, n_iter,
        )  # fmt: skip

    share_out(work, size, torch.get_num_threads())
    # numpy takes logarithms on one thread, where torch would wake all of its own for these few.
    with np.errstate(divide="ignore", invalid="ignore"):
        phi, psi = (-np.log(sums).astype(np.float64) for sums in (p, q))
    found = (plan.reshape(size, n, m), phi, psi, offset.astype(np.float64), error.astype(np.float64), n_iter)
    return Scaled(*(torch.from_numpy(x) for x in found))


@functools.cache
def _kernel(dtype: str) -> Callable[..., None]:
    """Load the compiled loop for a dtype, or compile it and say so."""
    from otfew.transport.sinkhorn_kernel import constants, scale

    table, integers = constants(np.dtype(dtype))
    kernel = functools.partial(scale, table, integers)
    with announced("the Sinkhorn solver"):
        one, counts = np.ones((1, 1), dtype), np.ones(1, np.int64)
        numbers = (table[0], table[0], table[0])
        kernel(one, one, one, 0, 0, *numbers, 1, 1, 0.0, one, one, one, one[0], one[0], counts)
    return kernel


def scale_torch(cost: Tensor, a: Tensor, b: Tensor, reg: float, tol: float, max_iter: int) -> Scaled:
    """Do the same on any device; see ``scale``."""
    size = len(cost)
    offset = cost.mean((1, 2))
    kernel = (offset[:, None, None] - cost) / reg
    safe = kernel.abs().flatten(1).amax(1) <= REACH[cost.dtype]
    kernel = kernel.where(safe[:, None, None], 0.0).exp_()
    plan, sums_of = torch.zeros_like(kernel), (torch.ones_like(a), torch.ones_like(b))
    errors, iterations = torch.zeros_like(offset), torch.zeros(size, dtype=torch.int64, device=cost.device)
    index = safe.nonzero()[:, 0]
    kernel, a, b = kernel[index], a[index], b[index]
    # Products and sums, not matrix products, which may be rounded to TF32.
    q = (kernel * a[..., None]).sum(1)
    going = torch.ones_like(q[:, 0], dtype=torch.bool)
    p, error, n_iter = torch.ones_like(a), torch.zeros_like(q[:, 0]), torch.zeros_like(index)
    for used in range(1, max_iter + 1):
        if not len(index):
            break
        v = b / q
        sums_p = (kernel * v[:, None]).sum(2)
        sums_q = (kernel * (a / sums_p)[..., None]).sum(1)
        worst = (v * sums_q - b).abs().amax(1)
        # A problem keeps the scalings with which it converged while others go on.
        p, error = torch.where(going[:, None], sums_p, p), worst.where(going, error)
        n_iter += going
        going = going & ~(worst <= tol)
        if used % CHECK == 0 or used == max_iter:
            ended = torch.ones_like(going) if used == max_iter else ~going
            into = index[ended]
            sums_of[0][into], sums_of[1][into] = p[ended], q[ended]
            errors[into], iterations[into] = error[ended], n_iter[ended]
            plan[into] = (a / p)[ended][..., None] * kernel[ended] * (b / q)[ended][:, None]
            rest = ~ended
            kernel, a, b, p, q, sums_q, error, n_iter, index, going = (
                x[rest] for x in (kernel, a, b, p, q, sums_q, error, n_iter, index, going)
            )
        q = torch.where(going[:, None], sums_q, q)
    phi, psi = (-sums.log().double() for sums in sums_of)
    return Scaled(plan, phi, psi, offset.double(), errors.double(), iterations)
