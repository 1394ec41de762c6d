"""Which kernel solves a problem, its source text, and the memory that it needs."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
from dataclasses import dataclass
from importlib import resources

import torch

from otfew.transport.cuda.arguments import ExactProblems, PlanTimes
from otfew.transport.cuda.entropic_arguments import EntropicProblems

LARGEST = 128
"""Rows or columns of the largest problem that the kernels solve."""

ROOM = 99 * 1024
"""Shared memory that a block may have on every GPU since sm_80."""

WARPS = 4
"""Warps of a block, unless shared memory holds fewer."""

WARP = ("warp.h", "entry.h")
"""What every kernel is made from; tests put other lanes in the place of the first."""

_EXACT = (
    *WARP,
    "arguments.h",
    "problem.h",
    "weights.h",
    "costs.h",
    "pricing.h",
    "start.h",
    "tree.h",
    "pivot.h",
    "certificate.h",
    "network_simplex.h",
)
_PLAN = (*WARP, "arguments.h", "plan.h")
_ENTROPIC = (*WARP, "entropic_arguments.h", "elementary.h", "newton.h", "sinkhorn.h")
_GIVEN = {torch.float32: ("f32", "float"), torch.float64: ("f64", "double")}
_LOCAL = re.compile(r'^#(pragma once|include ".*")$', re.MULTILINE)


@dataclass(frozen=True)
class Kernel:
    """A kernel to be compiled and launched: one warp a problem.

    Attributes:
        name: Of its entry in the compiled code.
        instance: The last line of its source, which makes the entry.
        parts: Files of its source, each after those it includes: of this folder, or "package:file".
        arguments: Its one argument, passed by value; its ``problems`` tells how many there are.
        shared_bytes: Shared memory of a warp, a multiple of 16; a block of w warps needs w times as much.
    """

    name: str
    instance: str
    parts: tuple[str, ...]
    arguments: type[ctypes.Structure]
    shared_bytes: int = 0

    @property
    def source(self) -> str:
        """Its whole text; nothing needs to be included."""
        return source(self.parts) + self.instance + "\n"

    @property
    def digest(self) -> str:
        """Sha256 of the source: what was compiled from another text must not be used."""
        return _digest(self.parts, self.instance)


@functools.cache
def source(parts: tuple[str, ...]) -> str:
    """Files of kernels as one text, without what only ties them together."""
    return "".join(_LOCAL.sub("", _file(part)) for part in parts)


def _file(part: str) -> str:
    package, _, name = part.rpartition(":")
    return (resources.files(package or __package__) / name).read_text(encoding="utf-8")


@functools.cache
def _digest(parts: tuple[str, ...], instance: str) -> str:
    return hashlib.sha256((source(parts) + instance).encode()).hexdigest()


def slots(size: int) -> int:
    """Nodes that each lane holds of a side of this size: 1, 2 or 4.

    Raises:
        ValueError: The side is larger than ``LARGEST``.
    """
    if not 1 <= size <= LARGEST:
        raise ValueError(f"the kernels solve problems of up to {LARGEST} rows and columns, got {size}")
    return 1 if size <= 32 else 2 if size <= 64 else 4


def exact_bytes(n: int, m: int) -> int:
    """Shared memory of one exact problem, as ``Memory::bytes`` has it."""
    rows, columns = 32 * slots(n), 32 * slots(m)
    nodes = rows + columns
    words = nodes // 32
    by_row, by_column, by_node = 8 + 8 + 4, 8 + 8, 8 + 12 + 4 * words + 4
    return by_row * rows + by_column * columns + by_node * nodes + 4 * (-(-n // 4) * 4) * (columns + 1)


@functools.cache
def exact(n: int, m: int, dtype: torch.dtype) -> Kernel:
    """Find the kernel that solves exact problems of a size, for costs of a dtype."""
    rows, columns = slots(n), slots(m)
    short, given = _GIVEN[dtype]
    name = f"exact_{rows}_{columns}_{short}"
    return Kernel(name, f"EXACT({name}, {rows}, {columns}, {given})", _EXACT, ExactProblems, exact_bytes(n, m))


@functools.cache
def plan_times(dtype: torch.dtype) -> Kernel:
    """Find the kernel that writes plans densely in a dtype, times a number for each problem."""
    short, given = _GIVEN[dtype]
    return Kernel(f"plan_times_{short}", f"PLAN(plan_times_{short}, {given})", _PLAN, PlanTimes)


def plain_bytes(n: int, m: int, dtype: torch.dtype) -> int:
    """Shared memory of one entropic problem in the plain domain."""
    return dtype.itemsize * (n * (m | 1) + 3 * n + 4 * m)


def newton_bytes(n: int, m: int) -> int:
    """Shared memory of one entropic problem under Newton's method."""
    least = min(n, m)
    return 8 * (least * (least + 1) // 2 + 9 * least)


@functools.cache
def entropic(n: int, m: int, dtype: torch.dtype) -> tuple[Kernel, bool] | None:
    """Find the kernel that solves entropic problems of a size, for costs of a dtype.

    Returns:
        None where problems of this size are not for a single warp; else the kernel, and whether its memory holds the
        plain domain.
    """
    plain = plain_bytes(n, m, dtype)
    if min(n, m) > LARGEST or (plain > ROOM and max(n, m) > LARGEST):
        return None
    short, given = _GIVEN[dtype]
    room = max(newton_bytes(n, m), plain if plain <= ROOM else 0)
    name = f"entropic_{short}"
    kernel = Kernel(name, f"ENTROPIC({name}, {given})", _ENTROPIC, EntropicProblems, -(-room // 16) * 16)
    return kernel, plain <= ROOM


def all_kernels() -> list[Kernel]:
    """List every kernel once, with the memory of the largest problem of its kind."""
    sides = (32, 64, 128)
    exacts = [exact(n, m, dtype) for n in sides for m in sides for dtype in _GIVEN]
    entropics = [found[0] for dtype in _GIVEN if (found := entropic(LARGEST, LARGEST, dtype)) is not None]
    return [*exacts, *(plan_times(dtype) for dtype in _GIVEN), *entropics]
