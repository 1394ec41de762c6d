"""Entropic transport of point clouds without their costs in memory: Sinkhorn with sums by KeOps, or torch in blocks."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from otfew.transport.backends.keops_reductions import KeOpsReductions, obstacle
from otfew.transport.complaints import warn
from otfew.transport.entropic.annealed import Report, anneal
from otfew.transport.entropic.cells import CellSums
from otfew.transport.entropic.large_clouds import LARGE, large_parts
from otfew.transport.entropic.point_clouds import clouds, entropic_parts
from otfew.transport.entropic.points import Potentials, sinkhorn, sinkhorn_from
from otfew.transport.entropic.reductions import ChunkedTorch, Metric, Reductions
from otfew.transport.entropic.symmetric import symmetric
from otfew.transport.options import check_count, check_number
from otfew.transport.problem import Potentials as Start
from otfew.transport.registry import PointSolver
from otfew.transport.result import Parts

Backend = Literal["auto", "keops", "torch"]

Options = tuple[torch.dtype, float, float, int, float]
"""Dtype of the sums, reg, tol, max_iter and scaling."""


@dataclass(frozen=True)
class KeOps(PointSolver):
    """Entropic transport min <P, C> + reg KL(P | a b^T / total) of point clouds, KL with its mass terms.

    Sinkhorn's iterations in the log domain with epsilon scaling (Feydy 2020, ch. 3); memory grows with n + m, not with
    n m. The potentials f, g are in units of the cost: P_ij = a_i b_j / total exp((f_i + g_j - C_ij) / reg). Row sums
    are exact, and the marginal error is that of the columns. ``value`` is the dual value and ``gap`` bounds that of a
    plan with exact marginals less the dual value. Each problem of a batch stops by itself. Sums are taken in the dtype
    of the points, the rest in float64.

    ``value`` has its envelope gradient and ``value_linear`` its implicit one (conjugate gradients at backward), in x,
    y, a and b. The plan is an operator, differentiable in the vectors it is multiplied with.

    On the CPU torch takes the sums, in blocks of rows; problems of 2^20 costs and more are solved one after another on
    merged points first, then on all, along a falling temperature, with iterations extrapolated, and (up to 16
    dimensions; "sqeuclidean", "cosine", "euclidean", "lp:1") with sums by compiled code that leaves out cells of points
    whose kernel vanishes: at most a quarter of the rounding of a sum, which ``gap`` accounts for. ``n_iter`` then
    counts iterations on all points.

    ``warm`` starts from the potentials of an earlier result, at a temperature as high as a first iteration at ``reg``
    would move them; what does not converge from there is solved afresh. Such large problems on the CPU always are.

    On a GPU KeOps takes the sums. It compiles each formula on first use per dimension, dtype and kind of batch: several
    seconds each, kept on disk. Where it cannot run, a warning says why, once, and torch takes them.

    Args:
        reg: Strength of the regularisation, in units of the cost.
        tol: Marginal error to reach, relative to the total.
        max_iter: Iterations a problem may take, those of epsilon scaling included.
        scaling: Factor of the temperature per iteration of epsilon scaling.
        backend: What takes the sums: "keops" (an error where it cannot), "torch", or "auto": as said above.
        progress: True writes a line to the standard error for every scale of a large problem on the CPU; a function is
            given each line instead.

    Raises:
        ValueError: An option is out of range.
    """

    reg: float = 0.1
    tol: float = 1e-6
    max_iter: int = 10_000
    scaling: float = 0.5
    backend: Backend = "auto"
    progress: bool | Report = False

    name: ClassVar[str] = "keops"
    kind: ClassVar[Literal["exact", "entropic"]] = "entropic"
    requires: ClassVar[str] = "torch"
    install: ClassVar[str] = 'pip install "otfew[solvers]"'
    gradients: ClassVar[str] = "value (envelope), value_linear (implicit) in x, y, a, b"
    warm: ClassVar[Literal["tree", "potentials"] | None] = "potentials"

    def __post_init__(self) -> None:
        check_number("KeOps", "reg", self.reg)
        check_number("KeOps", "tol", self.tol, below=1)
        check_count("KeOps", "max_iter", self.max_iter)
        check_number("KeOps", "scaling", self.scaling, below=1)
        if not isinstance(self.progress, bool) and not callable(self.progress):
            raise ValueError(f"KeOps: progress must be True, False or a function of a line, got {self.progress!r}")
        if self.backend not in get_args(Backend):
            raise ValueError(f"KeOps: backend must be one of {', '.join(get_args(Backend))}, got {self.backend!r}")

    def _report(self) -> Report | None:
        if callable(self.progress):
            return self.progress
        return _say if self.progress else None

    def solve_points(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost: str) -> Parts:
        """Solve a flat batch.

        Raises:
            ImportError: KeOps was asked for and cannot run here.
        """
        return self._solve(None, x, y, a, b, cost)

    def solve_points_from(self, start: Start, x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost: str) -> Parts:
        """Solve a flat batch from potentials, and afresh what does not get to its end from there.

        Raises:
            ImportError: KeOps was asked for and cannot run here.
        """
        return self._solve(start, x, y, a, b, cost)

    def _solve(self, start: Start | None, x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost: str) -> Parts:
        cloud = clouds(x, y, cost)
        options = cloud.dtype, self.reg, self.tol, self.max_iter, self.scaling
        if self.backend == "auto" and x.is_cpu and len(x) and x.shape[1] * y.shape[1] >= LARGE:

            def find(sums: CellSums, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Potentials:
                return self._find_large(sums, x, y, a, b, options)

            return large_parts(cloud, a, b, self.reg, find, f"{self.name}[{CellSums.label}]")
        sums = choose_sums(cloud.metric, self.backend, x.device.type)
        points = cloud.x.detach(), cloud.y.detach(), a.detach(), b.detach()

        def solve(index: Tensor, begin: tuple[Tensor, Tensor] | None) -> Potentials:
            x64, y64, a64, b64 = (z.index_select(0, index) for z in points)
            return sinkhorn(sums, x64, y64, a64, b64, *options, begin)

        if start is None:
            found = self._find(sums, *points, options)
        else:
            found = sinkhorn_from((start.f - cloud.row.detach(), start.g - cloud.column.detach()), solve)
        ran = self.name if sums.label == self.name else f"{self.name}[{sums.label}]"
        return entropic_parts(cloud, a, b, found, self.reg, sums, ran)

    def _find(self, sums: Reductions, x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Options) -> Potentials:
        return sinkhorn(sums, x, y, a, b, *options)

    def _find_large(self, sums: CellSums, x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Options) -> Potentials:
        return anneal(sums, x, y, a, b, *options, self._report())


@dataclass(frozen=True)
class KeOpsWithin(KeOps):
    """The same between a cloud and itself, by averaged iterations; y and b must be x and a."""

    def _find(self, sums: Reductions, x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Options) -> Potentials:
        del y, b
        return symmetric(sums, x, a, *options)

    def _find_large(self, sums: CellSums, x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Options) -> Potentials:
        return self._find(sums, x, y, a, b, options)


def _say(line: str) -> None:
    """Write a line of progress to the standard error."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False).print(f"otfew: {line}", markup=False)


def choose_sums(metric: Metric, backend: Backend, device: str) -> Reductions:
    """Choose what takes the sums, and say in one line where KeOps cannot.

    Raises:
        ImportError: KeOps was asked for and cannot run.
    """
    if backend == "torch" or (backend == "auto" and device == "cpu"):
        return ChunkedTorch(metric)
    reason = obstacle(device)
    if reason is None:
        return KeOpsReductions(metric)
    if backend == "keops":
        raise ImportError(f"solver 'keops' cannot run: {reason}; backend='auto' or 'torch' works without")
    _say_once(f"{reason}: torch takes the sums over point clouds instead, in blocks of rows")
    return ChunkedTorch(metric)


@functools.cache
def _say_once(message: str) -> None:
    warn(message, RuntimeWarning)
