"""Where the tests of this folder run: on a GPU, or on a pretended one with kernels on the CPU.

The second proves, on every machine, that the tests themselves are right; it takes fewer and smaller problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

T = TypeVar("T")


class Place(Protocol):
    """What tests ask of a device.

    Attributes:
        real: Whether it is a GPU.
        device: Of its tensors.
    """

    real: bool
    device: torch.device

    def away(self, x: Any) -> Any:
        """Move tensors, alone or in lists, tuples and dictionaries; leaves stay leaves."""

    def home(self, x: Any) -> Any:
        """Copy tensors to the CPU, without graph."""

    def all_or(self, every: Sequence[T], few: Sequence[T]) -> Sequence[T]:
        """Take all on a GPU, and few elsewhere."""

    @contextmanager
    def waits(self, most: int) -> Iterator[None]:
        """Fail where more than so many waits for the device happen; a GPU can only tell none from some."""


class Card:
    """A GPU."""

    real = True

    def __init__(self) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())

    def away(self, x: Any) -> Any:
        return tree_map_only(Tensor, lambda t: t.detach().to(self.device, copy=True).requires_grad_(t.requires_grad), x)

    def home(self, x: Any) -> Any:
        return tree_map_only(Tensor, lambda t: t.detach().cpu(), x)

    def all_or(self, every: Sequence[T], few: Sequence[T]) -> Sequence[T]:
        return every

    @contextmanager
    def waits(self, most: int) -> Iterator[None]:
        if most:
            yield
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


class Pretence:
    """A pretended device that is running.

    Args:
        machine: It.
    """

    real = False

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.device = machine.device

    def away(self, x: Any) -> Any:
        return self.machine.away(x)

    def home(self, x: Any) -> Any:
        return self.machine.home(x)

    def all_or(self, every: Sequence[T], few: Sequence[T]) -> Sequence[T]:
        return few

    @contextmanager
    def waits(self, most: int) -> Iterator[None]:
        self.machine.clear()
        yield
        assert self.machine.waits + self.machine.uploads <= most, self.machine.report()


def on_each(every: Sequence[Any], few: Sequence[Any]) -> list[Any]:
    """Parameters of ``place`` (indirectly) and one more: all on a GPU, few on the pretended device."""
    return [*(pytest.param("cuda", x, marks=pytest.mark.cuda) for x in every), *(("pretended", x) for x in few)]
