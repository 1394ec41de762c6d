"""Every kernel on a few problems: ``compute-sanitizer --tool memcheck python sanitized.py``.

Whatever the tool finds is its exit code; what this script finds is an AssertionError. A name of a device may be given.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import otfew
from otfew import Exact, Sinkhorn
from otfew.methods import DeepEMD, StructuredFC, _sfc_device
from otfew.transport.cuda import machines
from otfew.transport.cuda.programs import all_kernels

SIDES = (17, 49, 100)
"""A side of each number of nodes a lane."""


class Noted:
    """A machine that notes which kernels another launches.

    Args:
        machine: What launches.
    """

    def __init__(self, machine: machines.Machine) -> None:
        self._machine = machine
        self.names: set[str] = set()

    def address(self, tensor: Tensor) -> int:
        """Ask the machine."""
        return self._machine.address(tensor)

    def launch(self, kernel: Any, problems: int, arguments: Any) -> None:
        """Note and launch."""
        self.names.add(kernel.name)
        self._machine.launch(kernel, problems, arguments)


def noted(device: torch.device) -> Noted:
    """Put a notebook at the seam where kernels are launched."""
    machine = machines.machine_for(device)
    assert machine is not None, "no kernel runs on this device"
    note = Noted(machine)
    machines.register(device.type, lambda _: note)
    return note


def problems(n: int, m: int, dtype: torch.dtype, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw problems: some weights are zero, some costs tie."""
    generator = torch.Generator().manual_seed(n * m)
    cost = torch.rand(count, n, m, generator=generator, dtype=torch.float64)
    cost[1::3] = (4 * cost[1::3]).round()
    a, b = (torch.rand(count, side, generator=generator, dtype=torch.float64) for side in (n, m))
    a[:, 1::5] = b[:, 1::5] = 0
    return cost.to(dtype), a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


def steps(device: torch.device, count: int, sides: tuple[int, ...] = SIDES) -> Iterator[Callable[[], None]]:
    """Yield what runs each kernel, forward and backward.

    Args:
        device: Where.
        count: Problems in each batch.
        sides: Of the problems: all pairs.
    """
    for n, m, dtype in itertools.product(sides, sides, (torch.float32, torch.float64)):
        for solver in (Exact(), Sinkhorn(reg=0.2, max_iter=20), Sinkhorn(reg=0.01, max_iter=20)):
            yield lambda n=n, m=m, dtype=dtype, solver=solver: step(device, n, m, dtype, count, solver)  # type: ignore[misc]


def step(device: torch.device, n: int, m: int, dtype: torch.dtype, count: int, solver: otfew.Solver) -> None:
    """Solve a batch and differentiate it."""
    leaves = [x.to(device).requires_grad_() for x in problems(n, m, dtype, count)]
    result = otfew.solve(*leaves, solver=solver, on_fail="ignore")
    gradients = torch.autograd.grad(result.value.sum(), leaves)
    everything = (result.plan, *result.potentials, result.gap, *gradients)
    assert all(bool(torch.isfinite(x).all()) for x in everything), (n, m, dtype, solver)


def fit(device: torch.device, dtype: torch.dtype) -> None:
    """Fit the structured fully connected layer of DeepEMD to an episode of two classes."""
    generator = torch.Generator().manual_seed(0)
    support = torch.rand(1, 2, 3, 9, 16, generator=generator, dtype=torch.float64).to(dtype)
    query = torch.rand(1, 4, 9, 16, generator=generator, dtype=torch.float64).to(dtype)
    method = DeepEMD(shot_head=StructuredFC(epochs=2))
    assert bool(torch.isfinite(method(support.to(device), query.to(device))).all())


def main(device: torch.device, count: int = 50, sides: tuple[int, ...] = SIDES) -> set[str]:
    """Run all kernels; returns the names of those that never ran."""
    note = noted(device)
    for run in steps(device, count, sides):
        run()
    names = {kernel.name for kernel in all_kernels()}
    for dtype in (torch.float32, torch.float64):
        fit(device, dtype)
        names |= {_sfc_device.pose(dtype).name, _sfc_device.move(dtype, 1, 9).name}
    return names - note.names


if __name__ == "__main__":
    missed = main(torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda:0"))
    torch.cuda.synchronize()
    assert not missed, f"never launched: {sorted(missed)}"
