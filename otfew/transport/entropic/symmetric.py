"""Entropic transport of point clouds to themselves: one potential, by averaged iterations."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.transport.entropic.points import Potentials, column_error, largest_cost, log_weights, scaled
from otfew.transport.entropic.reductions import Reductions
from otfew.transport.problem import Status


def symmetric(
    sums: Reductions,
    x: Tensor,
    a: Tensor,
    dtype: torch.dtype,
    reg: float,
    tol: float,
    max_iter: int,
    scaling: float,
) -> Potentials:
    """Solve a flat batch of problems between a cloud and itself; arguments as of ``points.sinkhorn``.

    With T the half step, f <- (f + T f) / 2 (Feydy et al. 2019, section 3.1; Knight, Ruiz and Ucar 2014) needs half the
    sums of Sinkhorn's iteration and few steps where that, which pushes back and forth what one side owes the other,
    needs ever more: where points hardly exchange anything.
    """
    f = torch.zeros_like(a)
    temperature = largest_cost(x, x, sums.metric).nan_to_num(0).clamp(reg, 1e300)
    log_a = log_weights(a)
    used = torch.zeros(len(a), dtype=torch.int64, device=a.device)
    state = torch.full((len(a),), int(Status.MAX_ITER), dtype=torch.int8, device=a.device)
    going = torch.ones_like(state, dtype=torch.bool)
    found = Potentials(f, f, f, used, state)
    for step in range(max_iter):
        if not bool(going.any()):
            break
        rest = going.nonzero()[:, 0]
        if step == max_iter - 1:
            temperature = torch.full_like(temperature, reg)
        own, own_f, t = x[rest], f[rest], temperature[rest, None]
        points = scaled(own, temperature[rest], sums.metric, dtype)
        image = -t * sums.logsumexp(points, points, log_a[rest] + own_f / t)
        near = (column_error(own_f, image, a[rest], reg) <= tol) & (t[:, 0] <= reg)
        broken = ~torch.isfinite(image.sum(-1))
        if bool((near | broken).any()) or step == max_iter - 1:
            # The plan of image and f has the right rows; what its columns miss is known by one more half step.
            last = -t * sums.logsumexp(points, points, log_a[rest] + image / t)
            error = column_error(own_f, last, a[rest], reg)
            solved = (error <= tol) & (t[:, 0] <= reg) & ~broken
            ended = solved | broken | (step == max_iter - 1)
            status = torch.where(solved, int(Status.OPTIMAL), int(Status.MAX_ITER)).where(~broken, int(Status.FAILED))
            out = rest[ended]
            count = torch.full((len(out),), step + 1, dtype=torch.int64, device=a.device)
            parts = (image[ended], own_f[ended], last[ended], count, status[ended].to(torch.int8))
            found = Potentials(
                *(
                    old.index_copy(0, out, new)
                    for old, new in zip(
                        (found.f, found.g, found.next_g, found.n_iter, found.status), parts, strict=True
                    )
                )
            )
            going = going.index_fill(0, out, False)
        f = f.index_copy(0, rest, (own_f + image) / 2)
        temperature = (temperature * scaling).clamp(min=reg)
    return found
