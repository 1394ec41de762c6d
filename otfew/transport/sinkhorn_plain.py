"""Sinkhorn in the plain domain, P = diag(u) K diag(v): fast, and safe where costs range over few multiples of reg."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from otfew.transport.threads import share_out

REACH = 20.0
"""Largest |cost - offset| / reg: scalings then stay within exp(+-80) of the weights, which float32 holds."""

ITERATIONS = 100
"""After so many a problem is better served by Newton's method."""

CHECK = 8
"""Iterations between two looks at what has converged, where a look waits for the device."""


@dataclass(frozen=True)
class Scaled:
    """Scalings of a batch; a problem whose costs range too far is left alone, with n_iter 0.

    Attributes:
        plan: (problems, n, m) of total 1, with row sums a.
        p: (problems, n), K v.
        q: (problems, m), K' u for the u before.
        offset: (problems,) subtracted from the costs.
        error: (problems,) largest deviation of a column's sum.
        n_iter: (problems,) int64.
    """

    plan: Tensor
    p: Tensor
    q: Tensor
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
    from otfew.transport.sinkhorn_kernel import constants, scale

    size, n, m = cost.shape
    costs, rows, columns = cost.reshape(size, n * m).numpy(), a.numpy(), b.numpy()
    dtype = costs.dtype
    plan, p, q = np.zeros_like(costs), np.ones_like(rows), np.ones_like(columns)
    offset, error, n_iter = np.zeros(size, dtype), np.zeros(size, dtype), np.zeros(size, np.int64)
    table, integers = constants(dtype)
    inverse, reach, worst = (dtype.type(x) for x in (1 / reg, REACH, tol))

    def work(first: int, last: int) -> None:
        scale(
            costs, rows, columns, table, integers, first, last, inverse, reach, worst, max_iter,
            plan, p, q, offset, error, n_iter,
        )  # fmt: skip

    share_out(work, size, torch.get_num_threads())
    found = (torch.from_numpy(x) for x in (plan.reshape(size, n, m), p, q, offset, error, n_iter))
    return Scaled(*found)


def scale_torch(cost: Tensor, a: Tensor, b: Tensor, reg: float, tol: float, max_iter: int) -> Scaled:
    """Do the same on any device; see ``scale``."""
    size = len(cost)
    offset = cost.mean((1, 2))
    kernel = (offset[:, None, None] - cost) / reg
    safe = kernel.abs().flatten(1).amax(1) <= REACH
    kernel = kernel.where(safe[:, None, None], 0.0).exp_()
    out = Scaled(
        torch.zeros_like(kernel), torch.ones_like(a), torch.ones_like(b), offset,
        torch.zeros_like(offset), torch.zeros(size, dtype=torch.int64, device=cost.device),
    )  # fmt: skip
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
            out.p[into], out.q[into], out.error[into], out.n_iter[into] = (
                p[ended],
                q[ended],
                error[ended],
                n_iter[ended],
            )
            out.plan[into] = (a / p)[ended][..., None] * kernel[ended] * (b / q)[ended][:, None]
            rest = ~ended
            kernel, a, b, p, q, sums_q, error, n_iter, index, going = (
                x[rest] for x in (kernel, a, b, p, q, sums_q, error, n_iter, index, going)
            )
        q = torch.where(going[:, None], sums_q, q)
    return out
