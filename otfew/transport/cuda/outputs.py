"""What a kernel writes: few allocations, and tensors within them only where somebody asks for one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from otfew.transport.cuda.machines import Machine

WORD = 8
"""Bytes that outputs are aligned to."""


class Outputs(Protocol):
    """Outputs of a flat batch of problems by name: rows, cols, flow, f, g, gap, error, status, n_iter."""

    def tensor(self, name: str) -> Tensor:
        """Output as a tensor that shares its memory."""

    def address(self, name: str) -> int:
        """Where kernels find it."""


@dataclass(frozen=True)
class Place:
    """Where an output lies in a slab.

    Attributes:
        word: That it begins with.
        shape: Of the tensor, contiguous.
        dtype: Of the tensor.
    """

    word: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@functools.lru_cache(maxsize=256)
def places(problems: int, n: int, m: int) -> tuple[int, dict[str, Place]]:
    """Lay outputs out, each after the other; also returns the words that they take."""
    arcs = n + m - 1
    wanted: tuple[tuple[str, tuple[int, ...], torch.dtype], ...] = (
        ("flow", (problems, arcs), torch.float64),
        ("f", (problems, n), torch.float64),
        ("g", (problems, m), torch.float64),
        ("gap", (problems,), torch.float64),
        ("marginal_error", (problems,), torch.float64),
        ("n_iter", (problems,), torch.int64),
        ("rows", (problems, arcs), torch.int32),
        ("cols", (problems, arcs), torch.int32),
        ("status", (problems,), torch.int32),
    )
    words, found = 0, {}
    for name, shape, dtype in wanted:
        found[name] = Place(words, shape, dtype)
        words += -(-torch.Size(shape).numel() * dtype.itemsize // WORD)
    return words, found


class Slab:
    """Outputs in one piece of memory of a device."""

    def __init__(self, machine: Machine, device: torch.device, problems: int, n: int, m: int) -> None:
        words, self._places = places(problems, n, m)
        self._memory = torch.empty(words, dtype=torch.float64, device=device)
        self._first = machine.address(self._memory)

    def tensor(self, name: str) -> Tensor:
        """View a part."""
        place = self._places[name]
        typed = self._memory if place.dtype == torch.float64 else self._memory.view(place.dtype)
        stride = (place.shape[1], 1) if len(place.shape) == 2 else (1,)
        return typed.as_strided(place.shape, stride, place.word * WORD // place.dtype.itemsize)

    def address(self, name: str) -> int:
        """Add to the address of the whole."""
        return self._first + WORD * self._places[name].word


class Loose:
    """Outputs that are tensors of their own."""

    def __init__(self, machine: Machine, tensors: Mapping[str, Tensor]) -> None:
        self._machine, self._tensors = machine, tensors

    def tensor(self, name: str) -> Tensor:
        """Hand one out."""
        return self._tensors[name]

    def address(self, name: str) -> int:
        """Ask the machine."""
        return self._machine.address(self._tensors[name])
