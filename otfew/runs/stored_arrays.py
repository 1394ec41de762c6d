"""Arrays in ``.safetensors`` and ``.npz`` files: looked at first, then read once, a piece at a time.

Tensors of safetensors are mapped from disk. Those of npz are read straight into the array that is kept, and whatever is
not float32 is converted on the way, so that there is never a second copy of a large one.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.runs.npz import check_unpacked
from otfew.runs.regular_file import GIB, open_regular, regular_size

Array = npt.NDArray[Any]
FLOATING = ("float16", "bfloat16", "float32", "float64")
"""Types that are read as float32."""

LARGEST = 1024 * GIB
PIECE = 1 << 24
"""Bytes that are read, converted or looked at together."""


@dataclass(frozen=True)
class Stored:
    """An array that was not read yet.

    Attributes:
        shape: Its shape.
        dtype: Name of its type, as in numpy or torch.
        floats: Reads it as float32; for the types of ``FLOATING``.
        array: Reads it as it is.
    """

    shape: tuple[int, ...]
    dtype: str
    floats: Callable[[], Tensor]
    array: Callable[[], Array]

    @property
    def floating(self) -> bool:
        """True where ``floats`` can read it."""
        return self.dtype in FLOATING


def open_safetensors(path: Path) -> dict[str, Stored]:
    """Look at the tensors of a safetensors file.

    Raises:
        Exception: It is no such file; many kinds.
    """
    from safetensors import safe_open

    regular_size(path, LARGEST)
    with safe_open(path, framework="pt") as file:
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {name: _mapped(path, name, tensor) for name, tensor in tensors.items()}


def _mapped(path: Path, name: str, tensor: Tensor) -> Stored:
    """Describe a tensor that is mapped from disk."""
    from safetensors import safe_open

    def floats() -> Tensor:
        if tensor.dtype == torch.float32:
            return tensor
        converted = torch.empty(tensor.shape, dtype=torch.float32)
        for rows in pieces(tensor.shape, tensor.element_size()):
            # Mapped anew for each piece, so that what was read before does not stay in memory.
            with safe_open(path, framework="pt") as file:
                converted[rows] = file.get_slice(name)[rows]
        return converted

    return Stored(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), floats, tensor.numpy)


def open_npz(path: Path) -> dict[str, Stored]:
    """Look at the arrays of an npz file; nothing is ever unpickled.

    Raises:
        Exception: It is no such file; many kinds.
    """
    with open_regular(path, LARGEST) as file, zipfile.ZipFile(file) as opened:
        check_unpacked(opened)
        members = [info for info in opened.infolist() if info.filename.endswith(".npy")]
        found = {}
        for info in members:
            with opened.open(info) as member:
                shape, fortran, dtype = _header(member)
            if dtype.hasobject:  # as pandas has strings
                raise ValueError(f"{info.filename} holds Python objects; store text with astype(str)")
            # Before an array is made for it: a header may claim what it likes.
            if math.prod(shape) * dtype.itemsize > info.file_size:
                raise ValueError(f"{info.filename} holds less than it claims")
            found[info.filename.removesuffix(".npy")] = _member(path, info.filename, shape, fortran, dtype)
    return found


def _member(path: Path, name: str, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]) -> Stored:
    """Describe an array of an npz file."""

    def floats() -> Tensor:
        kept = np.empty(shape, np.float32)
        # In Fortran's order, an array is its transpose in C's.
        target = kept.T if fortran else kept
        with _opened(path, name) as member, np.errstate(over="ignore"):
            _header(member)
            for rows in pieces(target.shape, dtype.itemsize):
                part = target[rows]
                data = _exactly(member, part.size * dtype.itemsize)
                target[rows] = np.frombuffer(data, dtype).reshape(part.shape)
        return torch.from_numpy(kept)

    def array() -> Array:
        with _opened(path, name) as member:
            found: Array = np.lib.format.read_array(member, allow_pickle=False)
        return found

    return Stored(shape, dtype.name, floats, array)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    """Open a member of a zip file."""
    with open_regular(path, LARGEST) as file, zipfile.ZipFile(file) as opened, opened.open(name) as member:
        yield member


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read what comes before an array's values: shape, whether it is in Fortran's order, type."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    return shape, fortran, dtype


def _exactly(member: IO[bytes], size: int) -> bytes:
    """Read so many bytes; raises ``ValueError`` where there are fewer."""
    data = member.read(size)
    while len(data) < size and (more := member.read(size - len(data))):
        data += more
    if len(data) < size:
        raise ValueError("it ends too early")
    return data


def pieces(shape: tuple[int, ...] | torch.Size, itemsize: int) -> list[slice]:
    """Divide the first axis so that a piece has about ``PIECE`` bytes."""
    row = max(1, math.prod(shape[1:]) * itemsize)
    step = max(1, PIECE // row)
    return [slice(i, min(i + step, shape[0])) for i in range(0, shape[0], step)]
