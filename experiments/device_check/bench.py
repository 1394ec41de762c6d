"""What every part measures with: a device, a clock, and the time that is left."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otfew import devices

Row = dict[str, Any]
"""One figure: JSON-ready."""

Call = Callable[[], object]

CARD = "card"
"""Whose time a row is, where it is otfew's on the device that is checked; others are named in words."""


@dataclass(frozen=True)
class Timing:
    """What the turns of one call gave.

    Attributes:
        seconds: Of each turn.
    """

    seconds: tuple[float, ...]

    def figures(self, count: int) -> Row:
        """Reduce the turns to what a row says.

        Args:
            count: Problems, episodes or images of a call.
        """
        median = statistics.median(self.seconds)
        return {
            "ms": 1e3 * median,
            "least_ms": 1e3 * min(self.seconds),
            "repeats": len(self.seconds),
            "per_second": count / median if median > 0 else None,
        }


@dataclass(frozen=True)
class Bench:
    """Where and how long to measure.

    Attributes:
        device: What is checked.
        toy: Whether sizes are tiny.
        until: When this part must have ended, by ``time.monotonic``.
    """

    device: torch.device
    toy: bool
    until: float

    def left(self) -> float:
        """Seconds that this part still has."""
        return self.until - time.monotonic()

    def wait(self) -> None:
        """Wait for the device to have done what it was told."""
        devices.settle(self.device)

    def once(self, call: Call) -> float:
        """Time one call, from an idle device to an idle device, in seconds."""
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - start

    def turns(self, call: Call, seconds: float = 0.4, most: int = 30) -> Timing:
        """Time a call again and again, after one that is not counted.

        Args:
            call: What to time.
            seconds: How long to go on; at least once.
            most: Turns.
        """
        self.once(call)
        return Timing(tuple(self._repeat(lambda: self.once(call), seconds, most)))

    def race(self, calls: Mapping[str, Call], seconds: float = 2.0, most: int = 30) -> dict[str, Timing]:
        """Time contenders in turns, so that a card that slows down slows all of them."""
        for call in calls.values():
            self.once(call)
        taken: dict[str, list[float]] = {name: [] for name in calls}

        def round_of_all() -> float:
            for name, call in calls.items():
                taken[name].append(self.once(call))
            return 0.0

        for _ in self._repeat(round_of_all, seconds, most):
            pass
        return {name: Timing(tuple(each)) for name, each in taken.items()}

    def _repeat(self, turn: Callable[[], float], seconds: float, most: int) -> Iterator[float]:
        """Take turns until their time is over."""
        most = min(most, 2) if self.toy else most
        end = min(time.monotonic() + seconds, self.until)
        for count in range(most):
            if count and time.monotonic() > end:
                return
            yield turn()

    def fits(self, size: float) -> bool:
        """Tell whether so many bytes leave room on the device for as many again."""
        free = devices.room(self.device)
        return free is None or 2 * size < free


def tracked(*tensors: Tensor) -> list[Tensor]:
    """Copy tensors into leaves that collect gradients."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch, and with it the exact solver, use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
