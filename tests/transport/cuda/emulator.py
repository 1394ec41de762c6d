"""Kernels on a CPU: their own source, compiled by a C++ compiler for 32 lanes in lockstep."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from otfew.transport.cuda.programs import Kernel, source

_WARP, _WATCH = ((Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("emulated_warp.h", "watch.h"))
WARP = _WARP.replace('#include "watch.h"\n', _WATCH)
FLAGS = ("-O1", "-std=c++17", "-ffp-contract=off", "-fPIC", "-shared", "-w")


def compiler() -> str | None:
    """Path of a C++ compiler, if there is one."""
    return shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


class LanesMetError(AssertionError):
    """Lanes met where they must not."""


@functools.cache
def _library(kernel: Kernel, defines: tuple[str, ...]) -> ctypes.CDLL:
    """Compile a kernel, or load what was compiled from the same text before."""
    path = compiler()
    assert path is not None
    parts = tuple(part for part in kernel.parts if part != "warp.h")
    text = WARP.replace("#pragma once", "") + source(parts) + kernel.instance + "\n"
    options = (*FLAGS, *(f"-D{name}" for name in defines))
    digest = hashlib.sha256("\n".join((path, *options, text)).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"otfew-emulator-{os.getuid() if hasattr(os, 'getuid') else 0}"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder / f"{kernel.name}-{digest}.so"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            (Path(work) / "kernel.cpp").write_text(text, encoding="utf-8")
            built = Path(work) / "kernel.so"
            done = subprocess.run(
                [path, *options, "kernel.cpp", "-o", str(built)], cwd=work, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr[:4000]
            built.replace(made)
    library = ctypes.CDLL(str(made))
    library.run.restype = ctypes.c_char_p
    return library


class Emulator:
    """A machine that runs kernels on this computer's processor, problem after problem.

    Args:
        address: Where the values of a tensor lie; by default the tensor is on the CPU. The pretended device gives that
            of the tensor inside.
        last_lane_first: In which order the lanes of a store write.
        watched: Whether to report what the lanes do to each other's memory without a barrier; slow.
        counted: Whether to count the warp's operations.

    Attributes:
        launches: Names of the kernels launched so far.
        operations: Operations of all warps of the last launch, if they are counted.
    """

    def __init__(
        self,
        address: Callable[[Tensor], int] = Tensor.data_ptr,
        last_lane_first: bool = False,
        watched: bool = False,
        counted: bool = False,
    ) -> None:
        self._address = address
        self._order = last_lane_first
        self._defines = ("WATCHED",) * watched + ("COUNTED",) * counted
        self.launches: list[str] = []
        self.operations = 0

    def address(self, tensor: Tensor) -> int:
        """Where a tensor's values lie."""
        return self._address(tensor)

    def launch(self, kernel: Kernel, problems: int, arguments: ctypes.Structure) -> None:
        """Solve all problems before returning.

        Raises:
            LanesMetError: Lanes met in memory.
        """
        self.launches.append(kernel.name)
        assert isinstance(arguments, kernel.arguments)
        assert arguments.problems == problems
        library = _library(kernel, self._defines)
        operations = ctypes.c_int64()
        bytes_needed = kernel.shared_bytes
        said = library.run(ctypes.byref(arguments), bytes_needed, int(self._order), ctypes.byref(operations))
        self.operations = operations.value
        if said:
            raise LanesMetError(f"{kernel.name}: {said.decode()}")

    def sizes(self, kernel: Kernel, arguments: ctypes.Structure) -> tuple[int, int]:
        """Size of the arguments and of a warp's memory as the compiled code has them."""
        library = _library(kernel, self._defines)
        return library.struct_bytes(), library.warp_bytes(ctypes.byref(arguments))
