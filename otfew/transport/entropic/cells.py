"""Sums over large point clouds on the CPU by cells of neighbours: what vanishes is left out, by a bound.

Neighbours in a cloud are expected to follow each other (see ``ordered``): where they do not, nothing is left out, and
the sums are the same to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.costs import FEW_DIMENSIONS
from otfew.transport.entropic.reductions import ChunkedTorch, Metric
from otfew.transport.precision import in_full_precision
from otfew.transport.threads import share_out

Array = npt.NDArray[Any]

LEFT_OUT = 0.25
"""Part of a sum that may be left out, in units of its dtype's rounding."""

THREADS = 2
"""Threads that share the cells of rows, at most."""


def left_out(dtype: torch.dtype) -> float:
    """Part of a sum of exponentials that may be left out."""
    return LEFT_OUT * torch.finfo(dtype).eps


@dataclass(frozen=True)
class CellSums(ChunkedTorch):
    """The sums by compiled code, cell by cell; by torch in many dimensions and for other powers than 1 and 2."""

    label: ClassVar[str] = "cells"

    def suits(self, dim: int) -> bool:
        """Tell whether sums over points of ``dim`` dimensions are taken by compiled code."""
        return dim <= FEW_DIMENSIONS and (self.metric.kind == "euclidean" or self.metric.p in (1, 2))

    @in_full_precision
    def logsumexp(self, x: Tensor, y: Tensor, h: Tensor) -> Tensor:
        """Reduce cell by cell."""
        if not self.suits(x.shape[-1]):
            return super().logsumexp(x, y, h)

        def one(sides: _Sides, k: int) -> Array:
            terms = h[k].numpy()
            out = np.empty(sides.rows)
            sides.run("log_sums", (_in_cells(terms, -1e30),), _logs(terms, None), sides.negligible, out)
            return out

        return self._each(x, y, (h,), one)

    @in_full_precision
    def apply(self, x: Tensor, y: Tensor, r: Tensor, c: Tensor, v: Tensor, weighted: bool = False) -> Tensor:
        """Multiply cell by cell."""
        if not self.suits(x.shape[-1]):
            return super().apply(x, y, r, c, v, weighted)

        def one(sides: _Sides, k: int) -> Array:
            factors = v[k].to(x.dtype).numpy()
            sizes = np.abs(factors).sum(1)
            terms = c[k].numpy()
            given = (r[k].numpy(), _in_cells(terms, -1e30), _in_cells(factors, 0), _in_cells(sizes, 0), weighted)
            out = np.zeros((sides.rows, factors.shape[1]))
            sides.run("products", given, _logs(terms, sizes), sides.negligible, out)
            return out

        return self._each(x, y, (r, c, v), one)

    @in_full_precision
    def gradient(
        self, x: Tensor, y: Tensor, r: Tensor, c: Tensor, weights: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Differentiate cell by cell; with weights nothing is left out, since they may be anything."""
        if not self.suits(x.shape[-1]):
            return super().gradient(x, y, r, c, weights)
        s, t = weights if weights is not None else (r, c)

        def one(sides: _Sides, k: int) -> Array:
            terms = c[k].numpy()
            weighted = weights is not None
            given = (
                r[k].numpy(), _in_cells(terms, -1e30), s[k].numpy(), _in_cells(t[k].numpy(), 0), weighted,
            )  # fmt: skip
            out = np.zeros((sides.rows, x.shape[-1]))
            negligible = -math.inf if weighted else sides.negligible
            sides.run("derivatives", given, _logs(terms, None), negligible, out)
            return out

        return self._each(x, y, (r, c, s, t), one)

    def _each(self, x: Tensor, y: Tensor, given: tuple[Tensor, ...], one: Callable[[_Sides, int], Array]) -> Tensor:
        """Take the sums of every problem; those of one that holds NaN or infinity are NaN."""
        found = []
        for k in range(len(x)):
            sound = all(math.isfinite(float(z[k].sum())) for z in (x, y, *given))
            found.append(torch.from_numpy(one(_Sides(self.metric, x[k], y[k]), k)) if sound else None)
        shape = next((z.shape for z in found if z is not None), None)
        if shape is None:
            # No problem at all, or none that is sound.
            return torch.full_like(given[0], math.nan)
        return torch.stack([torch.full(shape, math.nan, dtype=torch.float64) if z is None else z for z in found])


class _Sides:
    """The two clouds of one problem as compiled code takes them."""

    def __init__(self, metric: Metric, x: Tensor, y: Tensor) -> None:
        from otfew.transport.entropic import cell_kernel

        self._kernel = cell_kernel
        rows, columns = x.numpy(), y.numpy()
        self.rows = len(rows)
        self.kind = cell_kernel.ROOT
        if metric.kind == "power":
            self.kind = cell_kernel.SQUARES if metric.p == 2 else cell_kernel.MODULUS
        self.boxes_x, self.boxes_y = _boxes(rows), _boxes(columns)
        self.centres = self.boxes_x.mean(0).astype(rows.dtype)
        self.x = rows - np.repeat(self.centres, cell_kernel.CELL, 0)[: len(rows)]
        self.y = _in_cells(columns, 0)
        self.negligible = math.log(left_out(x.dtype))

    def run(self, name: str, given: tuple[Any, ...], logs: Array, negligible: float, out: Array) -> None:
        """Run a function of the kernel on all cells of rows, in parallel."""
        function = getattr(self._kernel, name)
        tail = (self.centres, self.boxes_x, self.boxes_y, logs, negligible, *self._kernel.constants(self.x.dtype), out)

        def work(first: int, last: int) -> None:
            function(first, last, self.kind, self.x, self.y, *given, *tail)

        share_out(work, len(self.centres), min(THREADS, torch.get_num_threads()))


def _starts(size: int) -> Array:
    from otfew.transport.entropic.cell_kernel import CELL

    return np.arange(0, size, CELL)


def _boxes(points: Array) -> Array:
    """Lowest and highest coordinates (2, cells, d) of the cells of points (n, d), in float64."""
    starts = _starts(len(points))
    return np.stack([np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)]).astype(np.float64)


def _in_cells(values: Array, fill: float) -> Array:
    """Lay values (m,) or (m, k) out by cells: (cells, CELL) or (cells, k, CELL), filled up."""
    from otfew.transport.entropic.cell_kernel import CELL

    cells = -(-len(values) // CELL)
    out = np.full((cells * CELL, *values.shape[1:]), fill, values.dtype)
    out[: len(values)] = values
    out = out.reshape(cells, CELL, *values.shape[1:])
    return out if values.ndim == 1 else np.ascontiguousarray(out.swapaxes(1, 2))


def _logs(terms: Array, sizes: Array | None) -> Array:
    """Logarithms of sum_j exp(terms_j) sizes_j over the cells."""
    starts = _starts(len(terms))
    top = np.maximum.reduceat(terms, starts)
    shares = np.exp(terms - np.repeat(top, np.diff([*starts, len(terms)])))
    sums = np.add.reduceat(shares if sizes is None else shares * sizes, starts)
    with np.errstate(divide="ignore"):
        found: Array = top + np.log(sums)
    return found
