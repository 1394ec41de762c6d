"""The structured FC's SGD where the support is: three kernels a step, and one look from the host at the end."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.scores.pairwise import NORM_EPS, WEIGHT_EPS
from otfew.transport import Exact
from otfew.transport.cuda import machines, programs
from otfew.transport.cuda.arguments import ExactProblems
from otfew.transport.cuda.machines import Machine
from otfew.transport.cuda.outputs import Slab
from otfew.transport.cuda.programs import Kernel
from otfew.transport.problem import UNSURE
from otfew.transport.sending import send

_BYTES = 1 << 30
"""About how much the episodes that are fitted in step may take."""

_PARTS = (*programs.WARP, "elementary.h", "otfew.methods:_sfc_step.h")
_GIVEN = {torch.float32: ("f32", "float"), torch.float64: ("f64", "double")}

_POINTERS = (
    "gram", "length", "mean", "dots", "dots_step", "share", "share_step", "own", "node_mean", "square", "labels",
    "chosen", "cost", "d", "d_slope", "s", "s_slope", "rows", "cols", "flow", "value", "f", "g",
)  # fmt: skip
_NUMBERS = ("channels", "least", "eps", "temperature", "lr", "keep", "take")
_COUNTS = ("problems", "episodes", "way", "n", "m", "images", "batch", "weighted")


class FitStep(ctypes.Structure):
    """Arguments of both kernels, as _sfc_step.h has them."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_double) for name in _NUMBERS),
        *((name, ctypes.c_int32) for name in _COUNTS),
    )


@functools.cache
def pose(dtype: torch.dtype) -> Kernel:
    """Find the kernel that poses the transport problems of a mini-batch, a warp each."""
    short, given = _GIVEN[dtype]
    return Kernel(
        name=f"sfc_pose_{short}", instance=f"POSE(sfc_pose_{short}, {given})", parts=_PARTS, arguments=FitStep
    )


@functools.cache
def move(dtype: torch.dtype, pulling: int, m: int) -> Kernel:
    """Find the kernel that moves class nodes, a warp each.

    Args:
        dtype: Of the support.
        pulling: Nodes of a mini-batch.
        m: Nodes of an image.
    """
    short, given = _GIVEN[dtype]
    name = f"sfc_move_{short}"
    room = -(-(8 * m + (dtype.itemsize + 4) * pulling) // 16) * 16
    return Kernel(name=name, instance=f"MOVE({name}, {given})", parts=_PARTS, arguments=FitStep, shared_bytes=room)


def descend_there(
    items: Tensor,
    labels: Tensor,
    start: Tensor,
    steps: Sequence[npt.NDArray[np.int64]],
    *,
    solver: Exact,
    cross_reference: bool,
    weight_gradient: bool,
    temperature: float,
    lr: float,
    momentum: float,
    dampening: float,
) -> Tensor | None:
    """Fit each episode's class nodes as ``otfew.methods._sfc_descent.descend`` does, on the device of the support.

    Args:
        items: (E, images, M, C) the support.
        labels: (E, images) int64.
        start: (E, W, N, C) class nodes to start from.
        steps: Mini-batches of image numbers, alike for all episodes.
        solver: Its options.
        cross_reference: Cross-reference weights; else uniform ones.
        weight_gradient: Differentiate in the weights.
        temperature: Factor of the scores.
        lr: Step size.
        momentum: Factor of the previous step.
        dampening: 1 - dampening weighs each gradient but the first.

    Returns:
        (E, W, N, C), the fitted class nodes; None where kernels do not run there, where images have too many nodes for
        them, or where a transport problem did not end well: the CPU is then to fit.
    """
    machine = machines.machine_for(items.device)
    images, m = items.shape[1:3]
    way, n = start.shape[1:3]
    largest = max(len(chosen) for chosen in steps)
    if machine is None or solver.mass is not None or max(n, m) > programs.LARGEST:
        return None
    if move(items.dtype, largest * m, m).shared_bytes > programs.ROOM:
        return None
    width, rows = images * m, way * n
    each = width * (width + 4 * rows) * items.element_size() + largest * way * n * m * 16
    together = min(max(1, _BYTES // each), (2**31 - 1) // max(largest * way, rows))
    chosen = send(torch.from_numpy(np.concatenate(steps)), items.device)
    flag = torch.zeros(1, dtype=torch.int32, device=items.device)
    fitted = []
    parts = zip(*(torch.split(x, together) for x in (items, labels, start)), strict=True)
    for some_items, some_labels, some_start in parts:
        weighted = cross_reference and weight_gradient
        fit = _Fit(machine, solver, some_items, some_labels, some_start, cross_reference, weighted, flag)
        fit.numbers(temperature=temperature, lr=lr)
        done = 0
        for count, step in enumerate(steps):
            fit.update(chosen, done, len(step), momentum if count else 0.0, 1 - dampening if count else 1.0)
            done += len(step)
        fitted.append(fit.result())
    # A plan that is optimal to the rounding of its costs is good enough for a step.
    return None if int(flag) & ~(1 << UNSURE) else torch.cat(fitted)


class _Fit:
    """Episodes on their way: what ``otfew.methods._sfc_kernel`` calls support and nodes, on a device."""

    def __init__(
        self,
        machine: Machine,
        solver: Exact,
        items: Tensor,
        labels: Tensor,
        start: Tensor,
        cross_reference: bool,
        weighted: bool,
        flag: Tensor,
    ) -> None:
        self.machine, self.solver, self.flag = machine, solver, flag
        self.like, self.cross_reference = start, cross_reference
        episodes, images, m, channels = items.shape
        way, n = start.shape[1:3]
        self.episodes, self.way, self.n, self.m = episodes, way, n, m
        support = items.flatten(1, 2)
        mean = support.mean(-1)
        centred = support - mean[..., None]
        length = torch.linalg.vector_norm(centred, dim=-1)
        self.units = centred / length.clamp_min(NORM_EPS)[..., None]
        nodes = start.flatten(1, 2)
        node_mean = nodes.mean(-1)
        self.centred = nodes - node_mean[..., None]
        square = self.centred.double().square().sum(-1)
        zero = torch.zeros_like(square)
        dots = torch.bmm(self.centred, self.units.mT)
        self.state = {
            "gram": torch.bmm(self.units, self.units.mT),
            "length": length,
            "mean": mean,
            "dots": dots,
            "dots_step": torch.zeros_like(dots),
            "share": torch.zeros_like(dots),
            "share_step": torch.zeros_like(dots),
            "own": torch.stack([torch.ones_like(square), zero]),
            "node_mean": torch.stack([node_mean.double(), zero]),
            "square": torch.stack([square, zero, zero]),
            "labels": labels.contiguous(),
        }
        self.step = FitStep(
            **{name: machine.address(tensor) for name, tensor in self.state.items()},
            channels=channels,
            least=NORM_EPS,
            eps=WEIGHT_EPS,
            episodes=episodes,
            way=way,
            n=n,
            m=m,
            images=images,
            weighted=weighted,
        )
        self.problems: dict[int, _Problems] = {}

    def numbers(self, **numbers: float) -> None:
        """Set numbers of the steps."""
        for name, value in numbers.items():
            setattr(self.step, name, value)

    def update(self, chosen: Tensor, first: int, batch: int, keep: float, take: float) -> None:
        """Take one step of SGD on the images ``chosen[first : first + batch]``."""
        if batch not in self.problems:
            self.problems[batch] = _Problems(self, batch)
        problems, step = self.problems[batch], self.step
        problems.enter(step)
        step.chosen = self.machine.address(chosen) + chosen.element_size() * first
        step.keep, step.take = keep, take
        step.problems = problems.count
        self.machine.launch(pose(self.like.dtype), step.problems, step)
        self.machine.launch(problems.kernel, problems.count, problems.exact)
        step.problems = self.episodes * self.way * self.n
        self.machine.launch(move(self.like.dtype, batch * self.m, self.m), step.problems, step)

    def result(self) -> Tensor:
        """Form the class nodes (E, W, N, C)."""
        own, mean = (self.state[name][0].to(self.like.dtype)[..., None] for name in ("own", "node_mean"))
        return torch.baddbmm(own * self.centred + mean, self.state["share"], self.units).view_as(self.like)


class _Problems:
    """The transport problems of mini-batches of one size, and what comes of them."""

    def __init__(self, fit: _Fit, batch: int) -> None:
        machine, device, dtype = fit.machine, fit.like.device, fit.like.dtype
        n, m = fit.n, fit.m
        self.count = fit.episodes * batch * fit.way
        self.batch = batch
        self.cost = torch.empty(self.count, n, m, dtype=dtype, device=device)
        self.value = torch.empty(self.count, dtype=torch.float64, device=device)
        # Weights and their slopes, where nodes do not all count the same.
        sizes = {"d": n, "s": m} if fit.cross_reference else {}
        self.sides = {
            name: torch.empty(2, self.count, size, dtype=torch.float64, device=device) for name, size in sizes.items()
        }
        self.slab = Slab(machine, device, self.count, n, m)
        outputs = {name: self.slab.address(name) for name in ("rows", "cols", "flow", "f", "g")}
        weights = {name: machine.address(x[0]) for name, x in self.sides.items()}
        slopes = {f"{name}_slope": machine.address(x[1]) for name, x in self.sides.items()}
        shared = {"cost": machine.address(self.cost), "value": machine.address(self.value)} | outputs
        self.pointers: dict[str, Any] = shared | weights | slopes
        self.kernel = programs.exact(n, m, dtype)
        self.exact = ExactProblems(
            **shared,
            a=weights.get("d"),
            b=weights.get("s"),
            problems=self.count,
            n=n,
            m=m,
            dims=1,
            size=(self.count,),
            cost_stride=(n * m,),
            a_stride=(n,),
            b_stride=(m,),
            cost_row=m,
            cost_col=1,
            a_step=1,
            b_step=1,
            tol=fit.solver.tol,
            totals_rtol=math.inf,
            max_iter=10_000 + 20 * n * m if fit.solver.max_iter is None else fit.solver.max_iter,
            gap=self.slab.address("gap"),
            error=self.slab.address("marginal_error"),
            status=self.slab.address("status"),
            n_iter=self.slab.address("n_iter"),
            flag=machine.address(fit.flag),
        )

    def enter(self, step: FitStep) -> None:
        """Make a step one on these problems."""
        if step.batch != self.batch:
            step.batch = self.batch
            for name, address in self.pointers.items():
                setattr(step, name, address)
