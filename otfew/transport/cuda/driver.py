"""CUDA's driver by ctypes: load what was compiled, launch it on torch's stream of the tensors' device."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

_MULTIPROCESSORS = 16
_CAPABILITY = 75, 76
_SHARED_A_MULTIPROCESSOR = 81
_SHARED_A_BLOCK = 97
_BLOCKS = 106
_SHARED_RESERVED = 111
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


@dataclass(frozen=True)
class Limits:
    """What bounds the warps that are at work at a time; memory is shared memory in bytes.

    Attributes:
        multiprocessors: Of the GPU.
        blocks: On a multiprocessor at a time.
        memory: Of a multiprocessor.
        block_memory: That one block may ask for.
        reserved: That each block takes for itself.
    """

    multiprocessors: int
    blocks: int
    memory: int
    block_memory: int
    reserved: int

    @staticmethod
    def of(driver: Driver, device: int) -> Limits:
        """Ask the driver."""
        wanted = _MULTIPROCESSORS, _BLOCKS, _SHARED_A_MULTIPROCESSOR, _SHARED_A_BLOCK, _SHARED_RESERVED
        return Limits(*(driver.asked(attribute, device) for attribute in wanted))

    def warps_a_block(self, problems: int, warp_bytes: int) -> int:
        """Choose how many problems share a block: the fewest that let as many as possible be at work at a time.

        One finishes blocks soonest and spreads few problems over all multiprocessors; more are for GPUs that run out of
        blocks before they run out of memory.
        """
        wanted = min(LANES, -(-problems // self.multiprocessors))
        best, most = 1, 0
        for warps in (1, 2, 4, 8):
            if warps * warp_bytes > self.block_memory:
                break
            resident = warps * min(self.blocks, self.memory // (warps * warp_bytes + self.reserved))
            if min(resident, wanted) > most:
                best, most = warps, min(resident, wanted)
        return best


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
        self.limits = Limits.of(driver, ordinal.value)
        self._functions: dict[str, ctypes.c_void_p] = {}
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
            warps = self.limits.warps_a_block(problems, kernel.shared_bytes)
            stream = torch.cuda.current_stream(self.device).cuda_stream
            given = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
            self._driver.call(
                "cuLaunchKernel", function, -(-problems // warps), 1, 1, LANES * warps, 1, 1,
                warps * kernel.shared_bytes, stream, given, None,
            )  # fmt: skip

    def _load(self, kernel: Kernel) -> ctypes.c_void_p:
        with self._lock:
            if kernel.name not in self._functions:
                code = nvrtc.compiled(self._compiler, kernel, self.capability)
                module, function = ctypes.c_void_p(), ctypes.c_void_p()
                self._driver.call("cuModuleLoadData", ctypes.byref(module), code)
                self._driver.call("cuModuleGetFunction", ctypes.byref(function), module, kernel.name.encode())
                self._driver.call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED, self.limits.block_memory)
                self._functions[kernel.name] = function
            return self._functions[kernel.name]

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
