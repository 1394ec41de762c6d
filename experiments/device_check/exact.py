"""The exact solver: its kernel alone, whole calls, gradients; beside the CPU of this machine and a loop over POT."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import otfew
from otfew.experiments.device_check.bench import CARD, Bench, Row, Timing, threads, tracked
from otfew.experiments.solver_timings.problems import drawn
from otfew.runs.processes import cores
from otfew.transport.cuda import machines

if TYPE_CHECKING:
    import ctypes

    from otfew.transport.cuda.programs import Kernel

NODES = (25, 9, 16, 49, 125)
COUNTS = (375, 10_000, 100_000)
TOY_NODES, TOY_COUNTS = (9, 5), (6, 12)
DIFFERENT = 2000
"""Problems that are drawn; larger batches hold them again and again."""
NO_ROOM = "no room on the card"
PATIENCE = 1.0
"""Calls of rivals that are predicted to take longer, in seconds, are not made."""


@dataclass
class Stopwatch:
    """A machine that times what another launches, on the device's own clock.

    Attributes:
        machine: What launches.
        spans: Beginning and end of each launch.
    """

    machine: machines.Machine
    spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)

    def address(self, tensor: Tensor) -> int:
        """Ask the machine."""
        return self.machine.address(tensor)

    def launch(self, kernel: Kernel, problems: int, arguments: ctypes.Structure) -> None:
        """Launch between two marks in the stream."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        self.machine.launch(kernel, problems, arguments)
        end.record()
        self.spans.append((begin, end))

    def seconds(self) -> float:
        """Add up the launches since the last time, once the device has ended them."""
        total = 0.0
        for begin, end in self.spans:
            end.synchronize()
            total += 1e-3 * begin.elapsed_time(end)
        self.spans.clear()
        return total


@contextmanager
def stopwatch(device: torch.device) -> Iterator[Stopwatch | None]:
    """Put a stopwatch at the seam where kernels are launched; None where no kernel runs on the device."""
    inner = machines.machine_for(device)
    if inner is None:
        yield None
        return
    watch = Stopwatch(inner)
    machines.register(device.type, lambda _: watch)
    try:
        yield watch
    finally:
        machines.register(device.type, lambda _: inner)


@dataclass(frozen=True)
class Batch:
    """A batch of problems.

    Attributes:
        cost: (count, n, n) float32.
        a: (count, n) float64, totals 1.
        b: (count, n) float64, totals 1.
    """

    cost: Tensor
    a: Tensor
    b: Tensor

    @property
    def where(self) -> Row:
        """Size and number of the problems."""
        return {"size": f"{self.cost.shape[1]}x{self.cost.shape[2]}", "count": len(self.cost)}

    def repeated(self, count: int) -> Batch:
        """Repeat problems until there are so many."""
        index = torch.arange(count, device=self.cost.device) % len(self.cost)
        return Batch(self.cost[index], self.a[index], self.b[index])


def measure(bench: Bench) -> Iterator[Row]:
    """Yield the rows of all sizes, the one that the bars are about first."""
    counts = TOY_COUNTS if bench.toy else COUNTS
    for n in TOY_NODES if bench.toy else NODES:
        here = _problems(n, min(counts[-1], DIFFERENT))
        there = Batch(*(side.to(bench.device) for side in (here.cost, here.a, here.b)))
        each: dict[str, float] = {}
        for count in counts:
            # Costs, their copy with a gradient, the gradient; all else is small beside them.
            if not bench.fits(3.0 * 4 * n * n * count):
                yield {"what": "whole call", "size": f"{n}x{n}", "count": count, "by": CARD, "skipped": NO_ROOM}
                continue
            yield from _card(bench, there.repeated(count))
            yield from _rivals(bench, here, count, each)


def _problems(n: int, count: int) -> Batch:
    """Draw problems as DeepEMD meets them, on the CPU."""
    made = drawn(n, count, "cpu")
    a, b = made.a.double(), made.b.double()
    return Batch(made.cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True))


def _card(bench: Bench, batch: Batch) -> Iterator[Row]:
    """Time the device: launches alone, the whole call, and the call with all gradients."""
    problem = (batch.cost, batch.a, batch.b)
    where = {**batch.where, "by": CARD}
    leaves = tracked(*problem)

    def solve() -> Any:
        with torch.no_grad():
            return otfew.solve(*problem)

    def with_gradients() -> Any:
        return torch.autograd.grad(otfew.solve(*leaves).value.sum(), leaves)

    count = len(batch.cost)
    found = solve()
    spread = (batch.cost.amax((1, 2)) - batch.cost.amin((1, 2))).double()
    answer = {
        "solver": found.solver,
        "gap": float((found.gap.abs() / spread).max()),
        "marginal_error": float(found.marginal_error.max()),
        "certified": bool((found.status == otfew.Status.OPTIMAL).all()),
    }
    yield {"what": "whole call", **where, **bench.turns(solve).figures(count), **answer}
    yield {"what": "whole call with gradients", **where, **bench.turns(with_gradients).figures(count)}
    with stopwatch(bench.device) as watch:
        if watch is None:
            yield {"what": "kernel", **where, "skipped": f"no kernel runs on {bench.device.type}"}
            return
        for what, call in {"kernel": solve, "kernels with gradients": with_gradients}.items():
            seconds: list[float] = []

            def launched(call: Callable[[], Any] = call, seconds: list[float] = seconds) -> None:
                call()
                seconds.append(watch.seconds())

            bench.turns(launched)
            # The first is that which the bench does not count either.
            yield {"what": what, **where, **Timing(tuple(seconds[1:])).figures(count)}


def _rivals(bench: Bench, some: Batch, count: int, each: dict[str, float]) -> Iterator[Row]:
    """Time the same problems on this machine's processor, with all threads and one, and POT in a loop.

    Args:
        bench: The time that is left.
        some: Different problems, on the CPU.
        count: Problems in a batch.
        each: Seconds a problem so far, by rival; those of this batch are added.
    """
    many = cores()
    rivals = {f"CPU, {many} threads": (_ours, many), "CPU, 1 thread": (_ours, 1)}
    if importlib.util.find_spec("ot") is not None:
        rivals["ot.emd2 in a loop"] = (_pots, 1)
    batch: Batch | None = None
    for name, (solve, used) in rivals.items():
        where = {"what": "whole call", **some.where, "count": count, "by": name}
        predicted = count * each.get(name, 0.0)
        if predicted > min(PATIENCE, bench.left()):
            yield {**where, "skipped": f"would take about {predicted:.1f} s"}
            continue
        batch = batch or some.repeated(count)
        with threads(used):
            timing = bench.turns(partial(solve, batch), most=7)
        each[name] = min(timing.seconds) / count
        yield {**where, **timing.figures(count)}


def _ours(batch: Batch) -> object:
    return otfew.solve(batch.cost, batch.a, batch.b)


def _pots(batch: Batch) -> object:
    import ot

    arrays = zip(*(side.numpy() for side in (batch.cost, batch.a, batch.b)), strict=True)
    return [ot.emd2(a, b, cost) for cost, a, b in arrays]
