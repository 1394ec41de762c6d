"""Entropic transport of point clouds without their costs in memory: Sinkhorn with sums by KeOps, or torch in blocks."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from otfew.transport.backends.keops_reductions import KeOpsReductions, obstacle
from otfew.transport.complaints import warn
from otfew.transport.entropic.point_clouds import clouds, entropic_parts
from otfew.transport.entropic.points import Potentials, sinkhorn, sinkhorn_from
from otfew.transport.entropic.reductions import ChunkedTorch, Metric, Reductions
from otfew.transport.options import check_count, check_number
from otfew.transport.problem import Potentials as Start
from otfew.transport.registry import PointSolver
from otfew.transport.result import Parts

Backend = Literal["auto", "keops", "torch"]


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

    ``warm`` starts from the potentials of an earlier result, at a temperature as high as a first iteration at ``reg``
    would move them; what does not converge from there is solved afresh.

    KeOps compiles each formula on first use per dimension, dtype and kind of batch: several seconds each, kept on
    disk. Where it cannot run, a warning says why, once, and torch takes the sums in blocks of rows. On few CPU cores
    torch is the faster of the two.

    Args:
        reg: Strength of the regularisation, in units of the cost.
        tol: Marginal error to reach, relative to the total.
        max_iter: Iterations a problem may take, those of epsilon scaling included.
        scaling: Factor of the temperature per iteration of epsilon scaling.
        backend: What takes the sums: "keops" (an error where it cannot), "torch", or "auto": KeOps where it can.

    Raises:
        ValueError: An option is out of range.
    """

    reg: float = 0.1
    tol: float = 1e-6
    max_iter: int = 10_000
    scaling: float = 0.5
    backend: Backend = "auto"

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
        if self.backend not in get_args(Backend):
            raise ValueError(f"KeOps: backend must be one of {', '.join(get_args(Backend))}, got {self.backend!r}")

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
        sums = choose_sums(cloud.metric, self.backend, x.device.type)
        points = cloud.x.detach(), cloud.y.detach(), a.detach(), b.detach()

        def solve(index: Tensor | None, begin: tuple[Tensor, Tensor] | None) -> Potentials:
            x64, y64, a64, b64 = points if index is None else (z.index_select(0, index) for z in points)
            return sinkhorn(sums, x64, y64, a64, b64, x.dtype, self.reg, self.tol, self.max_iter, self.scaling, begin)

        if start is None:
            found = solve(None, None)
        else:
            found = sinkhorn_from((start.f - cloud.row.detach(), start.g - cloud.column.detach()), solve)
        ran = self.name if sums.label == self.name else f"{self.name}[{sums.label}]"
        return entropic_parts(cloud, a, b, found, self.reg, sums, ran)


def choose_sums(metric: Metric, backend: Backend, device: str) -> Reductions:
    """Choose what takes the sums, and say in one line where KeOps cannot.

    Raises:
        ImportError: KeOps was asked for and cannot run.
    """
    if backend == "torch":
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
