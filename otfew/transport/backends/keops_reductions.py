"""The sums over point clouds by KeOps, which compiles each formula on first use, and what keeps it from running."""

from __future__ import annotations

import functools
import importlib.util
import os
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from otfew.transport.backends import keops_trial
from otfew.transport.entropic.reductions import Metric, Reductions

VERBOSITY = ("KEOPS_VERBOSE", "PYKEOPS_VERBOSE")
"""KeOps reads its switches at import, and prints what it misses unless they are "0"."""


@contextmanager
def keops_quiet() -> Iterator[None]:
    """Keep KeOps, when it is imported, from its messages about CUDA and compilation; switches that are set stay."""
    given = {name: os.environ.get(name) for name in VERBOSITY}
    os.environ.update({name: "0" for name, value in given.items() if value is None})
    try:
        yield
    finally:
        for name, value in given.items():
            if value is None:
                os.environ.pop(name, None)


@functools.cache
def import_quietly() -> None:
    """Import KeOps without its messages."""
    with keops_quiet():
        import pykeops.torch  # noqa: F401


_ready: set[tuple[Any, ...]] = set()


@contextmanager
def compiling(*formula: Any) -> Iterator[None]:
    """Let one process at a time run a formula for the first time: KeOps loads what another one has half written."""
    if formula in _ready:
        yield
        return
    import_quietly()
    import pykeops
    from filelock import FileLock

    with FileLock(Path(pykeops.get_build_folder()) / "otfew.lock"):
        yield
    _ready.add(formula)


@functools.cache
def obstacle(device: str) -> str | None:
    """Say what keeps KeOps from running on a type of device, or None.

    KeOps itself ends in an unrelated ModuleNotFoundError where it cannot compile.
    """
    if importlib.util.find_spec("pykeops") is None:
        return 'pykeops is not installed (pip install "otfew[solvers]")'
    if device not in ("cpu", "cuda"):
        return f"KeOps does not work on {device}"
    import_quietly()
    from keopscore.config import config

    if config.get_cxx_compiler() is None:
        return "KeOps finds no C++ compiler (install g++ or set CXX)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "KeOps finds no Python.h (install the headers of Python)"
    return None if device == "cpu" else _obstacle_on_cuda()


def _obstacle_on_cuda() -> str | None:
    """Say what else keeps KeOps, which compiles for the CPU, from running on a GPU."""
    from keopscore.config import cuda_config

    if not cuda_config.get_use_cuda():
        return "KeOps finds no NVRTC library beside the GPU's driver (install NVIDIA's CUDA toolkit)"
    if cuda_config.get_cuda_include_path() is None:
        return "KeOps finds no CUDA headers (set CUDA_HOME to a toolkit with include/cuda.h and include/nvrtc.h)"
    reason = keops_trial.ends_badly()
    return None if reason is None else f"KeOps does not run on this GPU: {reason}"


@dataclass(frozen=True)
class KeOpsReductions(Reductions):
    """The sums by KeOps where the points are; a formula is compiled once per dimension, dtype and kind of batch.

    Compiling takes seconds; the result is kept on disk. CUDA devices run one thread a row, in arithmetic as precise as
    the CPU's: KeOps' own choice there is CUDA's fast one, and for tensors on the CPU a GPU, if there is any.
    """

    metric: Metric

    label: ClassVar[str] = "keops"

    def logsumexp(self, x: Tensor, y: Tensor, h: Tensor) -> Tensor:
        """Reduce by LogSumExp."""
        return self._run("h - {C}", "LogSumExp", {"x": x}, {"y": y, "h": h[..., None]})[..., 0]

    def apply(self, x: Tensor, y: Tensor, r: Tensor, c: Tensor, v: Tensor, weighted: bool = False) -> Tensor:
        """Sum columns by ones or by blocks, so that few formulas need compiling."""
        width = 1 if v.shape[-1] == 1 else WIDTH
        # Terms times w + (1 - w) C: both kinds share one formula.
        w = torch.full_like(r, 0.0 if weighted else 1.0)[..., None]
        left = {"x": x, "r": r[..., None], "w": w}
        sums = []
        for block in torch.split(v, width, -1):
            padded = torch.nn.functional.pad(block, (0, width - block.shape[-1]))
            formula = "Exp(r + c - {C}) * (w + (IntCst(1) - w) * {C}) * v"
            sums.append(self._run(formula, "Sum", left, {"y": y, "c": c[..., None], "v": padded}))
        return torch.cat(sums, -1)[..., : v.shape[-1]]

    def gradient(
        self, x: Tensor, y: Tensor, r: Tensor, c: Tensor, weights: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Sum the derivative of the cost."""
        # Factors s + t - w C: with and without weights share one formula.
        s, t = weights if weights is not None else (torch.ones_like(r), torch.zeros_like(c))
        w = torch.full_like(r, 0.0 if weights is None else 1.0)
        left = {"x": x, "r": r[..., None], "s": s[..., None], "w": w[..., None]}
        right = {"y": y, "c": c[..., None], "t": t[..., None]}
        return self._run("Exp(r + c - {C}) * (s + t - w * {C}) * {D}", "Sum", left, right)

    def _run(self, formula: str, reduction: str, left: dict[str, Tensor], right: dict[str, Tensor]) -> Tensor:
        x = left["x"]
        cost, derivative = FORMULAS[self.metric.kind, self.metric.p == 2]
        if (self.metric.kind, self.metric.p) not in {("power", 2.0), ("euclidean", 2.0)}:
            p, e = self.metric.p, torch.finfo(x.dtype).tiny
            left = {**left, "p": x.new_full((*x.shape[:2], 1), p), "e": x.new_full((*x.shape[:2], 1), e)}
        # One problem goes without its batch dimension, which would compile and run as a case of its own.
        flat = len(x) == 1
        given = [z[0] if flat else z for z in (*left.values(), *right.values())]
        given = [z.to(x.dtype).contiguous() for z in given]
        kinds = [(name, "Vi", z.shape[-1]) for name, z in left.items()]
        kinds += [(name, "Vj", z.shape[-1]) for name, z in right.items()]
        text = formula.format(C=cost, D=derivative)
        where = {"backend": "CPU"} if x.is_cpu else {"backend": "GPU_1D", "device_id": x.device.index or 0}
        with compiling(text, tuple(kinds), reduction, flat, x.dtype, str(x.device)):
            out: Tensor = _compiled(text, tuple(kinds), reduction, x.is_cpu)(*given, **where).double()
        return out.reshape(*x.shape[:2], out.shape[-1])


WIDTH = 8
"""Columns that one run of a compiled product with a matrix takes."""

FORMULAS = {
    ("power", True): ("SqDist(x, y)", "(IntCst(2) * (x - y))"),
    ("power", False): (
        "Sum(Exp(p * Log(Abs(x - y) + e)))",
        "(p * Sign(x - y) * Exp((p - IntCst(1)) * Log(Abs(x - y) + e)))",
    ),
    ("euclidean", True): ("Sqrt(SqDist(x, y))", "(Rsqrt(SqDist(x, y)) * (x - y))"),
}
"""Cost and its derivative in x by kind and whether p is 2.

Rsqrt(0) is 0 there; Powf has the precision of float32 only; e, the least normal number, keeps logarithms finite.
"""


@functools.cache
def _compiled(
    formula: str, variables: tuple[tuple[str, str, int], ...], reduction: str, fast: bool
) -> Callable[..., Any]:
    """Make a reduction; ``fast`` arithmetic is a matter of CUDA alone, and a part of what compiled code is known by."""
    import_quietly()
    from pykeops.torch import Genred

    aliases = [f"{name} = {kind}({size})" for name, kind, size in variables]
    compiled: Callable[..., Any] = Genred(formula, aliases, reduction_op=reduction, axis=1, use_fast_math=fast)
    return compiled
