"""CUDA's driver by ctypes: load what was compiled, launch it on torch's stream of the tensors' device."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otfew.transport.complaints import warn_once
from otfew.transport.cuda import nvrtc
from otfew.transport.errors import DeviceError

if TYPE_CHECKING:
    from otfew.transport.cuda.programs import Kernel

OLDEST = 80
"""Compute capability 8.0: before it, a warp has no instruction for the least of its integers."""

LANES = 32

SHAPES = (1, 2, 4, 8)
"""Warps that a block may have."""

_MULTIPROCESSORS = 16
_CAPABILITY = 75, 76
_SHARED_A_BLOCK = 97
"""What ``cuDeviceGetAttribute`` calls what it is asked for."""

_MAX_DYNAMIC_SHARED = 8
"""What ``cuFuncSetAttribute`` calls the shared memory that a launch may ask for."""


class Driver:
    """The driver's functions that are used here, each raising for what goes wrong.

    Attributes:
        cuda: Its library.
    """

    def __init__(self, library: Any) -> None:
        self.cuda = library
        # Without types, ctypes would cut handles to 32 bits.
        handle, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint
        library.cuDevicePrimaryCtxRetain.argtypes = [handle, number]
        library.cuCtxPushCurrent_v2.argtypes = [handle]
        library.cuModuleGetFunction.argtypes = [handle, handle, ctypes.c_char_p]
        library.cuFuncSetAttribute.argtypes = [handle, number, number]
        library.cuOccupancyMaxActiveBlocksPerMultiprocessor.argtypes = [handle, handle, number, ctypes.c_size_t]
        library.cuLaunchKernel.argtypes = [handle, *[size] * 7, handle, handle, handle]

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            DeviceError: It did not succeed; the message has the driver's words.
        """
        ended = getattr(self.cuda, name)(*arguments)
        if ended:
            said = ctypes.c_char_p()
            self.cuda.cuGetErrorString(ended, ctypes.byref(said))
            words = said.value.decode() if said.value else "unknown error"
            raise DeviceError(
                f"CUDA's driver refused otfew's work ({name}, error {ended}: {words}); if an earlier operation on the "
                "GPU is to blame, CUDA_LAUNCH_BLOCKING=1 in the environment finds it; cost.cpu() solves without a GPU"
            )

    def asked(self, attribute: int, device: int) -> int:
        """Look an attribute of a device up."""
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        return value.value


def warps_a_block(resident: Sequence[int], wanted: int) -> int:
    """Choose how many problems share a block: the fewest that let as many as possible be at work at a time.

    One finishes blocks soonest and spreads few problems over all multiprocessors; more are for kernels of which a
    multiprocessor holds more warps than blocks.

    Args:
        resident: Warps that a multiprocessor holds, for each of ``SHAPES``.
        wanted: Problems for each multiprocessor.
    """
    enough = min(wanted, max(resident))
    return next(warps for warps, held in zip(SHAPES, resident, strict=True) if held >= enough)


class Gpu:
    """The machine of one CUDA device; its functions are loaded when they are first launched.

    Args:
        device: With an index.
        driver: The driver.
        compiler: Compiles what the user's cache does not hold.
    """

    def __init__(self, device: torch.device, driver: Driver, compiler: nvrtc.Nvrtc) -> None:
        self.device = device
        self._driver, self._compiler = driver, compiler
        ordinal, self._context = ctypes.c_int(), ctypes.c_void_p()
        driver.call("cuInit", 0)
        driver.call("cuDeviceGet", ctypes.byref(ordinal), device.index)
        # The context that torch works in; it stays for as long as the process does.
        driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), ordinal.value)
        major, minor = (driver.asked(attribute, ordinal.value) for attribute in _CAPABILITY)
        self.capability = 10 * major + minor
        self._multiprocessors = driver.asked(_MULTIPROCESSORS, ordinal.value)
        self._block_bytes = driver.asked(_SHARED_A_BLOCK, ordinal.value)
        self._functions: dict[str, ctypes.c_void_p] = {}
        self._resident: dict[tuple[str, int], list[int]] = {}
        self._lock = threading.Lock()

    def address(self, tensor: Tensor) -> int:
        """Address of a tensor's first element."""
        return tensor.data_ptr()

    def launch(self, kernel: Kernel, problems: int, arguments: ctypes.Structure) -> None:
        """Run a kernel on torch's current stream of the device, one warp a problem.

        Raises:
            DeviceError: It cannot be compiled, loaded or launched.
        """
        if problems == 0:
            return
        with self._current():
            function = self._functions.get(kernel.name) or self._load(kernel)
            size = kernel.shared_bytes
            resident = self._resident.get((kernel.name, size)) or self._hold(kernel.name, function, size)
            warps = warps_a_block(resident, -(-problems // self._multiprocessors))
            stream = torch.cuda.current_stream(self.device).cuda_stream
            given = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
            self._driver.call(
                "cuLaunchKernel", function, -(-problems // warps), 1, 1, LANES * warps, 1, 1, warps * size, stream,
                given, None,
            )  # fmt: skip

    def _load(self, kernel: Kernel) -> ctypes.c_void_p:
        with self._lock:
            if kernel.name not in self._functions:
                code = nvrtc.compiled(self._compiler, kernel, self.capability)
                module, function = ctypes.c_void_p(), ctypes.c_void_p()
                self._driver.call("cuModuleLoadData", ctypes.byref(module), code)
                self._driver.call("cuModuleGetFunction", ctypes.byref(function), module, kernel.name.encode())
                self._driver.call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED, self._block_bytes)
                self._functions[kernel.name] = function
            return self._functions[kernel.name]

    def _hold(self, name: str, function: ctypes.c_void_p, size: int) -> list[int]:
        """Ask how many warps of a function, with their bytes of shared memory, a multiprocessor holds."""
        resident = []
        for warps in SHAPES:
            blocks = ctypes.c_int()
            if warps * size <= self._block_bytes:
                asked = function, LANES * warps, warps * size
                self._driver.call("cuOccupancyMaxActiveBlocksPerMultiprocessor", ctypes.byref(blocks), *asked)
            resident.append(warps * blocks.value)
        self._resident[name, size] = resident
        return resident

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make the device's context this thread's, which may have none yet, or that of another device."""
        context = ctypes.c_void_p()
        self._driver.call("cuCtxGetCurrent", ctypes.byref(context))
        if context.value == self._context.value:
            yield
            return
        self._driver.call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._driver.call("cuCtxPopCurrent_v2", ctypes.byref(context))


def machine(device: torch.device) -> Gpu | None:
    """Make the machine of a CUDA device, or say, once, why there is none."""
    try:
        return _machine(device)
    except DeviceError as error:
        warn_once(
            f"otfew runs no kernels of its own on this GPU, but solves exactly on the CPU: {error}", RuntimeWarning
        )
        return None


def _machine(device: torch.device) -> Gpu:
    if torch.version.hip is not None or torch.version.cuda is None:
        raise DeviceError("they are written for CUDA, and this torch is built for another kind of GPU")
    gpu = Gpu(device, _driver(), nvrtc.find(torch.version.cuda))
    if gpu.capability < OLDEST:
        raise DeviceError(
            f"they need compute capability {OLDEST // 10}.{OLDEST % 10}, and it has "
            f"{gpu.capability // 10}.{gpu.capability % 10}"
        )
    return gpu


@functools.cache
def _driver() -> Driver:
    """Load the driver's library.

    Raises:
        DeviceError: It is not there.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return Driver(ctypes.CDLL(name))
    except OSError as error:
        raise DeviceError(f"CUDA's driver does not load ({error})") from None
