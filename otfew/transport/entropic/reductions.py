"""Sums over one side of two point clouds, without the matrix: what entropic transport of points is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from otfew.transport.costs import euclidean, lp
from otfew.transport.precision import in_full_precision

ELEMENTS_PER_THREAD = 2**18
"""Entries of a block on the CPU: what a cache holds."""

ELEMENTS_ELSEWHERE = 2**25
"""Entries of a block on other devices: 256 MiB in float64."""


@dataclass(frozen=True)
class Metric:
    """A cost that is a function of x - y: sum_k |x_k - y_k|^p ("power") or |x - y| ("euclidean").

    C(s x, s y) = s^degree C(x, y): temperatures are absorbed in the points.
    """

    kind: Literal["power", "euclidean"]
    p: float = 2.0

    @property
    def degree(self) -> float:
        """Degree of homogeneity."""
        return 1.0 if self.kind == "euclidean" else self.p


SQUARED = Metric("power", 2.0)


class Reductions(ABC):
    """Sums over j for every i, C_ij = metric(x_i, y_j); x (problems, n, d), y (problems, m, d).

    Points come in their own dtype, in which the sums are taken; everything else comes and goes in float64. Sums over
    i are those with the clouds swapped, as the metrics are symmetric.
    """

    metric: Metric
    label: ClassVar[str]

    @abstractmethod
    def logsumexp(self, x: Tensor, y: Tensor, h: Tensor) -> Tensor:
        """Logarithms of sum_j exp(h_j - C_ij) (problems, n) of h (problems, m)."""

    @abstractmethod
    def apply(self, x: Tensor, y: Tensor, r: Tensor, c: Tensor, v: Tensor, weighted: bool = False) -> Tensor:
        """sum_j exp(r_i + c_j - C_ij) v_j (problems, n, k) of v (problems, m, k); terms times C_ij where weighted."""

    @abstractmethod
    def gradient(
        self, x: Tensor, y: Tensor, r: Tensor, c: Tensor, weights: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """sum_j exp(r_i + c_j - C_ij) dC_ij / dx_i (problems, n, d).

        Terms are multiplied by (s_i + t_j - C_ij) where weights (s, t) are given.
        """


@dataclass(frozen=True)
class ChunkedTorch(Reductions):
    """The sums in torch on any device, a block of rows at a time."""

    metric: Metric

    label: ClassVar[str] = "torch"

    @in_full_precision
    def logsumexp(self, x: Tensor, y: Tensor, h: Tensor) -> Tensor:
        """Reduce blocks in place."""
        out = h.new_empty(x.shape[:2])
        squares = self.metric == SQUARED
        if squares:
            h = h - _norms(y)
        for k, rows in _blocks(x, y):
            column = h[k, None, :].to(x.dtype)
            if squares:
                block = torch.baddbmm(column, x[k, rows], y[k].mT, alpha=2)
            else:
                block = column - self._cost(x[k, rows], y[k])
            largest = block.amax(-1, keepdim=True)
            sums = block.sub_(largest).exp_().sum(-1)
            out[k, rows] = sums.log().add_(largest[..., 0])
        return out - _norms(x) if squares else out

    @in_full_precision
    def apply(self, x: Tensor, y: Tensor, r: Tensor, c: Tensor, v: Tensor, weighted: bool = False) -> Tensor:
        """Multiply block by block."""
        out = r.new_empty((*x.shape[:2], v.shape[-1]))
        v = v.to(x.dtype)
        for k, rows in _blocks(x, y):
            cost, kernel = self._kernel(x[k, rows], y[k], r[k, rows], c[k])
            out[k, rows] = ((kernel * cost if weighted else kernel) @ v[k]).double()
        return out

    @in_full_precision
    def gradient(
        self, x: Tensor, y: Tensor, r: Tensor, c: Tensor, weights: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Differentiate block by block."""
        out = r.new_empty(x.shape)
        for k, rows in _blocks(x, y):
            cost, kernel = self._kernel(x[k, rows], y[k], r[k, rows], c[k])
            if weights is not None:
                s, t = weights
                kernel = kernel * (s[k, rows, None] + t[k, None, :] - cost)
            out[k, rows] = self._pull(x[k, rows], y[k], cost, kernel).double()
        return out

    @in_full_precision
    def dense(self, x: Tensor, y: Tensor, r: Tensor, c: Tensor) -> Tensor:
        """exp(r_i + c_j - C_ij) (problems, n, m) in the dtype of the points."""
        out = x.new_empty((*x.shape[:2], y.shape[1]))
        for k, rows in _blocks(x, y):
            out[k, rows] = self._kernel(x[k, rows], y[k], r[k, rows], c[k])[1]
        return out

    def _kernel(self, x: Tensor, y: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        cost = self._cost(x, y)
        # Row and column terms are large and nearly cancel: they meet before they are rounded to the points' dtype.
        return cost, (r[:, :, None] + c[:, None, :]).sub_(cost).exp_().to(x.dtype)

    def _cost(self, x: Tensor, y: Tensor) -> Tensor:
        if self.metric == SQUARED:
            norms = (_norms(x)[:, :, None] + _norms(y)[:, None, :]).to(x.dtype)
            return torch.baddbmm(norms, x, y.mT, alpha=-2).clamp_(min=0)
        return euclidean(x, y) if self.metric.kind == "euclidean" else lp(x, y, self.metric.p)

    def _pull(self, x: Tensor, y: Tensor, cost: Tensor, weights: Tensor) -> Tensor:
        """Sum weights_ij dC_ij / dx_i over j."""
        if self.metric.kind == "euclidean":
            apart = cost > 0
            weights = torch.where(apart, weights / torch.where(apart, cost, 1.0), 0.0)
        if self.metric.kind == "euclidean" or self.metric == SQUARED:
            factor = self.metric.degree
            return factor * (x * weights.sum(-1, keepdim=True).to(x.dtype) - weights.to(x.dtype) @ y)
        p = self.metric.p
        columns = []
        for axis in range(x.shape[-1]):
            step = x[:, :, None, axis] - y[:, None, :, axis]
            columns.append((weights * (step.sign() * step.abs() ** (p - 1))).sum(-1))
        return p * torch.stack(columns, -1)


def _norms(x: Tensor) -> Tensor:
    return x.double().square().sum(-1)


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, slice]]:
    """Cut the rows of a batch into slices of problems and of rows of bounded numbers of entries."""
    (size, n), m = x.shape[:2], y.shape[1]
    on_cpu = x.device.type == "cpu"
    rows = max(1, (ELEMENTS_PER_THREAD * torch.get_num_threads() if on_cpu else ELEMENTS_ELSEWHERE) // m)
    problems = max(1, rows // n)
    for k in range(0, size, problems):
        for i in range(0, n, rows):
            yield slice(k, k + problems), slice(i, i + rows)
