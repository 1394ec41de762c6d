"""Transport of point clouds by their shadows on lines: exact on each line, averaged or the largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from otfew.transport.arguments import as_tensor
from otfew.transport.one_dimension import check_exponent, solve_1d
from otfew.transport.points import check_clouds, check_points
from otfew.transport.precision import in_full_precision, totals_rtol
from otfew.transport.sending import send
from otfew.transport.transforms import refuse_transforms

Reduction = Literal["mean", "max"]


@dataclass(frozen=True)
class Sliced:
    """Sliced transport of a batch; tensors on the device of the points, numpy arrays where these were.

    Attributes:
        value: (*batch,) mean or largest of ``each``, float64, differentiable in points and weights.
        each: (*batch, directions) transport costs of the projections, float64, differentiable likewise.
        directions: (directions, d) unit vectors, float64.
    """

    value: Any
    each: Any
    directions: Any

    def __repr__(self) -> str:
        return f"Sliced(value={self.value!r}, directions={len(self.directions)})"


def sliced_along(
    directions: Tensor, x: Any, y: Any, a: Any, b: Any, p: float, reduce: Reduction, validate: bool
) -> Sliced:
    """Solve on the lines along given unit vectors (directions, d); see ``otfew.sliced_distance``."""
    return _sliced(directions, x, y, a, b, p, reduce, validate, totals_rtol(a, b))


@in_full_precision
def _sliced(
    directions: Tensor, x: Any, y: Any, a: Any, b: Any, p: float, reduce: Reduction, validate: bool, rtol: float
) -> Sliced:
    check_exponent(p)
    if reduce not in get_args(Reduction):
        raise ValueError(f"reduce must be 'mean' or 'max', got {reduce!r}")
    x_t, y_t, a_t, b_t = (as_tensor(*given) for given in (("x", x), ("y", y), ("a", a), ("b", b)))
    refuse_transforms(x_t, y_t, a_t, b_t)
    x_t, y_t, batch = check_clouds(x_t, y_t, a_t, b_t)
    if directions.ndim != 2 or not len(directions) or directions.shape[1] != x_t.shape[-1]:
        raise ValueError(
            f"directions must be (directions, {x_t.shape[-1]}) to fit x {tuple(x_t.shape)}, "
            f"got {tuple(directions.shape)}"
        )
    if validate:
        check_points(x_t, y_t, a_t, b_t, True, rtol)
    lines = send(directions.detach(), x_t.device, torch.float64)
    shadows = ((z.double() @ lines.mT).mT for z in (x_t, y_t))
    weights = (None if w is None else w.double()[..., None, :] for w in (a_t, b_t))
    each = solve_1d(*shadows, *weights, p=p, validate=False).value.expand(*batch, len(lines))
    value = each.mean(-1) if reduce == "mean" else each.amax(-1)
    found = (value, each, lines)
    return Sliced(*(z.detach().cpu().numpy() for z in found)) if isinstance(x, np.ndarray) else Sliced(*found)
