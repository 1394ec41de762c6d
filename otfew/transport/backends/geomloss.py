"""GeomLoss's annealed Sinkhorn on point clouds, under our own certificate and gradients."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from otfew.transport.backends.keops_reductions import KeOpsReductions, compiling, import_quietly, obstacle
from otfew.transport.entropic.point_clouds import clouds, entropic_parts
from otfew.transport.entropic.points import Potentials, column_error, half_steps, largest_cost, scaled
from otfew.transport.entropic.reductions import SQUARED, ChunkedTorch, Metric, Reductions
from otfew.transport.options import check_number
from otfew.transport.problem import Status
from otfew.transport.registry import PointSolver
from otfew.transport.result import Parts
from otfew.transport.sending import send

Backend = Literal["auto", "tensorized", "online", "multiscale"]

DENSE = 2**22
"""Costs of a problem up to which "auto" lets GeomLoss hold their matrix: faster, in 32 MiB of float64."""


@dataclass(frozen=True)
class GeomLoss(PointSolver):
    """Entropic transport min <P, C> + reg KL(P | a b^T / total) of point clouds by ``geomloss.SamplesLoss``.

    GeomLoss halves the temperature's blur step by step, iterates once at each and stops at ``reg`` whatever the error
    (Feydy 2020, ch. 3). Only its potentials are used, for one problem after another, as its temperatures would depend
    on the whole batch: rows are solved for once more, the column sums are tested against ``tol``, and value, gap and
    gradients are made here. So results mean what those of ``otfew.KeOps`` mean, in units of the cost
    (GeomLoss's own are those of |x - y|^p / p and reg = blur^p).

    Costs: "sqeuclidean", "euclidean" and "cosine". ``value`` has its envelope gradient and ``value_linear`` its
    implicit one, in x, y, a and b; both trust that the marginal error is small.

    Args:
        reg: Strength of the regularisation, in units of the cost.
        tol: Marginal error, relative to the total, above which a problem counts as not solved.
        scaling: Factor of the blur (temperature^(1/p)) from one iteration to the next; nearer to 1 is more accurate.
        backend: "tensorized" holds the n x m costs, "online" and "multiscale" (up to three dimensions, truncates
            small entries) run on KeOps; "auto" is "tensorized" for small problems or without KeOps, else "online".

    Raises:
        ValueError: An option is out of range.
    """

    reg: float = 0.1
    tol: float = 1e-3
    scaling: float = 0.9
    backend: Backend = "auto"

    name: ClassVar[str] = "geomloss"
    kind: ClassVar[Literal["exact", "entropic"]] = "entropic"
    requires: ClassVar[str] = "geomloss"
    install: ClassVar[str] = 'pip install "otfew[solvers]"'
    gradients: ClassVar[str] = "value (envelope), value_linear (implicit) in x, y, a, b"
    remedy: ClassVar[str] = "bring scaling nearer to 1, raise reg"

    def __post_init__(self) -> None:
        check_number("GeomLoss", "reg", self.reg)
        check_number("GeomLoss", "tol", self.tol, below=1)
        check_number("GeomLoss", "scaling", self.scaling, below=1)
        if self.backend not in get_args(Backend):
            raise ValueError(f"GeomLoss: backend must be one of {', '.join(get_args(Backend))}, got {self.backend!r}")

    def solve_points(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost: str) -> Parts:
        """Solve a flat batch.

        Raises:
            ValueError: A cost that GeomLoss does not have.
            ImportError: A backend that runs on KeOps was asked for, and KeOps cannot run here.
        """
        cloud = clouds(x, y, cost)
        if cloud.metric not in (SQUARED, Metric("euclidean")):
            raise ValueError(f"solver 'geomloss' has no cost {cost!r}; use solver 'keops'")
        backend, sums = self._choose(cloud.metric, x.shape[1] * y.shape[1], x.device.type)
        found = self._solve(cloud.x.detach(), cloud.y.detach(), a.detach(), b.detach(), x.dtype, backend, sums)
        return entropic_parts(cloud, a, b, found, self.reg, sums, f"{self.name}[{backend}]")

    def _choose(self, metric: Metric, size: int, device: str) -> tuple[str, Reductions]:
        reason = obstacle(device)
        if self.backend in ("online", "multiscale") and reason is not None:
            raise ImportError(f"backend {self.backend!r} of solver 'geomloss' cannot run: {reason}; use 'tensorized'")
        if self.backend == "tensorized" or (self.backend == "auto" and (size <= DENSE or reason is not None)):
            return "tensorized", ChunkedTorch(metric)
        return ("online" if self.backend == "auto" else self.backend), KeOpsReductions(metric)

    def _solve(
        self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, dtype: torch.dtype, backend: str, sums: Reductions
    ) -> Potentials:
        if obstacle(x.device.type) is None:
            import_quietly()
        from geomloss import SamplesLoss

        # Its costs are |x - y|^p / p, its temperature is blur^p.
        p = 2 if sums.metric == SQUARED else 1
        blur = (self.reg / p) ** (1 / p)
        share_a, share_b = (w / w.sum(-1, keepdim=True) for w in (a, b))
        diameters = largest_cost(x, y, sums.metric) ** (1 / p)
        f, g = torch.empty_like(a), torch.empty_like(b)
        n_iter = []
        # Of a single point, the diameter may be zero.
        for k, diameter in enumerate(diameters.clamp(min=blur).tolist()):
            loss: Any = SamplesLoss(
                "sinkhorn",
                p=p,
                blur=blur,
                diameter=diameter,
                scaling=self.scaling,
                debias=False,
                potentials=True,
                backend=backend,
            )
            turn = contextlib.nullcontext() if backend == "tensorized" else compiling(backend, p, x.shape[-1], dtype)
            # It leaves autograd switched on, whatever it was.
            with torch.no_grad(), turn:
                potentials = loss(*(z[k].to(dtype).contiguous() for z in (share_a, x, share_b, y)))
            f[k], g[k] = (p * z.double() for z in potentials)
            n_iter.append(2 + math.ceil(math.log(diameter / blur) / -math.log(self.scaling)))
        temperature = torch.full_like(diameters, self.reg)
        x, y = (scaled(z, temperature, sums.metric, dtype) for z in (x, y))
        f, next_g = half_steps(sums, x, y, a, b, g, self.reg)
        error = column_error(g, next_g, b, self.reg)
        status = torch.where(error <= self.tol, int(Status.OPTIMAL), int(Status.MAX_ITER))
        status = torch.where(torch.isfinite(error), status, int(Status.FAILED)).to(torch.int8)
        return Potentials(f, g, next_g, send(torch.tensor(n_iter, dtype=torch.int64), x.device), status)
