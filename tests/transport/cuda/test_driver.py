"""What CUDA's driver is asked for, in which context, on which stream, and what is said where it cannot be asked."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch

from otfew.transport import complaints
from otfew.transport.cuda import driver, machines
from otfew.transport.errors import DeviceError

H100 = {16: 132, 75: 9, 76: 0, 97: 232448}
"""What an H100 answers to ``cuDeviceGetAttribute``."""

TORCHS = 0x7F0000000100
"""Context that torch works in: a handle that does not fit 32 bits."""


class Arguments(ctypes.Structure):
    """Some kernel's."""

    _fields_ = (("pointer", ctypes.c_void_p), ("problems", ctypes.c_int32), ("tol", ctypes.c_double))


@dataclass(frozen=True)
class Kernel:
    """As much of one as is launched."""

    name: str = "k"
    digest: str = "d"
    shared_bytes: int = 4096
    source: str = ""


class Cuda:
    """A libcuda in Python, on which threads have contexts of their own."""

    def __init__(self, attributes=H100, fails=None, blocks=32, registers=65_536):
        self.attributes, self.fails, self.blocks, self.registers = attributes, fails or {}, blocks, registers
        self.launches, self.loaded, self.shared, self.here = [], [], [], threading.local()

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)
        # A partial takes the types that ctypes' functions are given.
        return self.__dict__.setdefault(name, functools.partial(self.call, name))

    @property
    def contexts(self):
        return self.here.__dict__.setdefault("contexts", [])

    def call(self, name, *arguments):
        if name in self.fails:
            return self.fails[name]
        getattr(self, name.removeprefix("cu").lower())(*arguments)
        return 0

    def geterrorstring(self, ended, out):
        out._obj.value = {2: b"out of memory"}.get(ended)

    def init(self, flags):
        assert flags == 0

    def deviceget(self, out, ordinal):
        out._obj.value = 40 + ordinal

    def devicegetattribute(self, out, attribute, device):
        assert device == 41
        out._obj.value = self.attributes[attribute]

    def deviceprimaryctxretain(self, out, device):
        assert device == 41
        out._obj.value = TORCHS

    def ctxgetcurrent(self, out):
        out._obj.value = self.contexts[-1] if self.contexts else None

    def ctxpushcurrent_v2(self, context):
        self.contexts.append(context.value)

    def ctxpopcurrent_v2(self, out):
        out._obj.value = self.contexts.pop()

    def moduleloaddata(self, out, code):
        assert self.contexts[-1] == TORCHS
        self.loaded.append(code)
        out._obj.value = 7

    def modulegetfunction(self, out, module, name):
        assert module.value == 7
        out._obj.value = 0x7F0000000200 + len(self.loaded)

    def occupancymaxactiveblockspermultiprocessor(self, out, function, threads, size):
        assert function.value in range(0x7F0000000200, 0x7F0000000300)
        assert self.shared
        assert size <= self.attributes[97]
        out._obj.value = min(self.blocks, self.registers // (threads * 80), 233472 // (size + 1024))

    def funcsetattribute(self, function, attribute, value):
        self.shared.append((function.value, attribute, value))

    def launchkernel(self, function, *rest):
        assert self.contexts[-1] == TORCHS
        *shape, stream, given, extra = rest
        assert extra is None
        assert len(given) == 1
        self.launches.append((function.value, *shape, stream, Arguments.from_address(given[0])))


@pytest.fixture
def gpu(monkeypatch):
    """Make the machine of cuda:1 of a fake driver; its stream is 0x7F0000000300."""
    streams = {torch.device("cuda", 1): types.SimpleNamespace(cuda_stream=0x7F0000000300)}
    monkeypatch.setattr(torch.cuda, "current_stream", streams.__getitem__)
    monkeypatch.setattr(driver.nvrtc, "compiled", lambda compiler, kernel, capability: f"{compiler} {capability}")
    return lambda cuda: driver.Gpu(torch.device("cuda", 1), driver.Driver(cuda), "compiled for")


def test_a_launch_is_on_torchs_stream_in_torchs_context_with_the_arguments_by_value(gpu):
    cuda = Cuda()
    machine = gpu(cuda)
    arguments = Arguments(0x7F0000000400, 375, 1e-9)
    machine.launch(Kernel(), 375, arguments)
    ((function, gx, gy, gz, bx, by, bz, shared, stream, given),) = cuda.launches
    assert function == 0x7F0000000201
    assert (gy, gz, by, bz) == (1, 1, 1, 1)
    assert gx * (bx // 32) >= 375 > (gx - 1) * (bx // 32)
    assert shared == 4096 * (bx // 32)
    assert stream == 0x7F0000000300
    assert (given.pointer, given.problems, given.tol) == (0x7F0000000400, 375, 1e-9)
    assert cuda.loaded == ["compiled for 90"]
    assert cuda.contexts == []


def test_a_thread_that_has_the_context_keeps_it_and_others_get_theirs_back(gpu):
    cuda = Cuda()
    machine = gpu(cuda)
    for before in ([], [TORCHS], [99], [TORCHS, 99]):
        cuda.here.contexts = list(before)
        machine.launch(Kernel(), 1, Arguments())
        assert cuda.contexts == before
    cuda.fails["cuLaunchKernel"] = 2
    cuda.here.contexts = [99]
    with pytest.raises(DeviceError):
        machine.launch(Kernel(), 1, Arguments())
    assert cuda.contexts == [99]


def test_no_problems_are_no_launch(gpu):
    cuda = Cuda()
    gpu(cuda).launch(Kernel(), 0, Arguments())
    assert cuda.launches == cuda.loaded == []


def test_a_kernel_is_loaded_once_with_all_the_shared_memory_there_is(gpu):
    cuda = Cuda()
    machine = gpu(cuda)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: machine.launch(Kernel(), 10, Arguments()), range(32)))
    assert len(cuda.loaded) == 1
    assert cuda.shared == [(0x7F0000000201, 8, 232448)]
    machine.launch(Kernel(name="other"), 1, Arguments())
    assert len(cuda.loaded) == 2


@pytest.mark.parametrize("problems", [65_535, 65_536, 10_000_000, 2**31 - 1])
def test_a_batch_may_have_more_than_65535_problems(gpu, problems):
    cuda = Cuda()
    gpu(cuda).launch(Kernel(), problems, Arguments())
    blocks, threads = cuda.launches[0][1], cuda.launches[0][4]
    assert blocks < 2**31
    assert blocks * (threads // 32) >= problems


@pytest.mark.parametrize(
    ("blocks", "problems", "size", "warps"),
    [
        # 25 x 25 on an H100: registers hold 25 warps, in as many blocks.
        (32, 375, 5_000, 1),
        (32, 100_000, 5_000, 1),
        (32, 100_000, 83_968, 1),
        # Sixteen blocks a multiprocessor: two warps in each fill it, unless there are too few problems.
        (16, 100_000, 1_000, 2),
        (16, 375, 1_000, 1),
        (16, 132 * 16, 1_000, 1),
        (16, 132 * 16 + 1, 1_000, 2),
        (4, 100_000, 1_000, 8),
        # Memory holds two however they are blocked.
        (4, 100_000, 100_000, 1),
        (32, 1, 232_448, 1),
        (32, 10, 0, 1),
    ],
)
def test_warps_share_a_block_where_blocks_run_out_first(gpu, blocks, problems, size, warps):
    cuda = Cuda(blocks=blocks)
    machine = gpu(cuda)
    for _ in range(2):
        machine.launch(Kernel(shared_bytes=size), problems, Arguments())
    for _, gx, _, _, bx, _, _, shared, _, _ in cuda.launches:
        assert (gx, bx, shared) == (-(-problems // warps), 32 * warps, warps * size)


def test_what_the_driver_refuses_is_one_sentence(gpu):
    cuda = Cuda()
    machine = gpu(cuda)
    cuda.fails["cuModuleLoadData"] = 2
    with pytest.raises(DeviceError, match=r"\(cuModuleLoadData, error 2: out of memory\).*cost\.cpu\(\)") as raised:
        machine.launch(Kernel(), 1, Arguments())
    assert "\n" not in str(raised.value)
    # Nothing half-loaded is kept.
    del cuda.fails["cuModuleLoadData"]
    machine.launch(Kernel(), 1, Arguments())
    cuda.fails["cuLaunchKernel"] = 700
    with pytest.raises(DeviceError, match=r"error 700: unknown error.*CUDA_LAUNCH_BLOCKING"):
        machine.launch(Kernel(), 1, Arguments())


STUB = r"""
#include <stddef.h>
#include <stdint.h>
#include <string.h>
static uint64_t seen[14];
static struct { uint64_t pointer; int32_t problems; double tol; } copied;
int cuDevicePrimaryCtxRetain(uint64_t* out, int device) { *out = 0x7f0000000100ull; return 0; }
int cuCtxPushCurrent_v2(uint64_t context) { seen[12] = context; return 0; }
int cuModuleGetFunction(uint64_t* out, uint64_t module, const char* name) {
  *out = 0x7f0000000200ull; seen[13] = module; return name[0] != 'k'; }
int cuFuncSetAttribute(uint64_t function, int attribute, int value) {
  return function != 0x7f0000000200ull || attribute != 8 || value != 232448; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* out, uint64_t function, int threads, size_t size) {
  *out = threads; return function != 0x7f0000000200ull || size != 5000000000ull; }
int cuLaunchKernel(uint64_t f, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned g, unsigned shared,
                   uint64_t stream, void** given, void** extra) {
  uint64_t all[11] = {f, a, b, c, d, e, g, shared, stream, 0, (uint64_t)extra};
  memcpy(seen, all, sizeof all); memcpy(&copied, given[0], sizeof copied); return 0; }
uint64_t word(int k) { return seen[k]; }
uint64_t pointer() { return copied.pointer; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_handles_and_numbers_arrive_whole_in_compiled_code(tmp_path):
    (tmp_path / "stub.c").write_text(STUB)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "stub.so", tmp_path / "stub.c"], check=True)
    library = ctypes.CDLL(str(tmp_path / "stub.so"))
    for name in ("word", "pointer"):
        getattr(library, name).restype = ctypes.c_uint64
    calls = driver.Driver(library)
    context, function = ctypes.c_void_p(), ctypes.c_void_p()
    calls.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 1)
    calls.call("cuCtxPushCurrent_v2", context)
    calls.call("cuModuleGetFunction", ctypes.byref(function), ctypes.c_void_p(0x7F0000000500), b"k")
    calls.call("cuFuncSetAttribute", function, 8, 232448)
    blocks = ctypes.c_int()
    name = "cuOccupancyMaxActiveBlocksPerMultiprocessor"
    calls.call(name, ctypes.byref(blocks), function, 256, 5_000_000_000)
    assert blocks.value == 256
    arguments = Arguments(0x7F0000000400, 375, 1e-9)
    given = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
    calls.call("cuLaunchKernel", function, 2**31 - 1, 1, 2, 32, 3, 4, 232448, 0x7F0000000300, given, None)
    assert [library.word(k) for k in range(9)] == [0x7F0000000200, 2**31 - 1, 1, 2, 32, 3, 4, 232448, 0x7F0000000300]
    assert [library.word(k) for k in (10, 12, 13)] == [0, 0x7F0000000100, 0x7F0000000500]
    assert library.pointer() == 0x7F0000000400


@pytest.fixture
def torch_for(monkeypatch):
    """A torch built for CUDA, a driver, and what else the case sets; the machine of cuda:1 is made anew."""

    def set_(cuda="13.0", hip=None, library=None, find=lambda cuda: "compiler"):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(driver.nvrtc, "find", find)
        monkeypatch.setattr(driver, "_driver", lambda: driver.Driver(library or Cuda()))
        monkeypatch.setattr(complaints, "_said", set())
        monkeypatch.setattr(machines, "_machines", {})
        return machines.machine_for(torch.device("cuda", 1))

    return set_


def test_a_machine_is_made_once_a_device_whatever_the_threads(torch_for):
    machine = torch_for()
    assert isinstance(machine, driver.Gpu)
    assert machine.capability == 90
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: machines.machine_for(torch.device("cuda", 1)), range(32))) == {machine}


def nowhere(_cuda):
    raise DeviceError("no compiler: pip install one")


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"hip": "6.2", "cuda": None}, "built for another kind of GPU"),
        ({"library": Cuda(H100 | {75: 7, 76: 5})}, r"need compute capability 8\.0, and it has 7\.5"),
        ({"find": nowhere}, "no compiler: pip install one"),
        ({"library": Cuda(fails={"cuInit": 100})}, "cuInit, error 100"),
    ],
    ids=["rocm", "old", "nvrtc", "driver"],
)
def test_where_no_kernel_can_run_one_sentence_says_so_once(torch_for, case, reason):
    with pytest.warns(RuntimeWarning, match=f"exactly on the CPU: .*{reason}") as caught:
        assert torch_for(**case) is None
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert machines.machine_for(torch.device("cuda", 1)) is None
        # Nor for another device with the same reason.
        machines._machines.clear()
        assert machines.machine_for(torch.device("cuda", 1)) is None


def test_without_the_drivers_library_it_says_so(monkeypatch):
    def load(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(driver.ctypes, "CDLL", load)
    with pytest.raises(DeviceError, match=r"driver does not load .*cannot open"):
        driver._driver.__wrapped__()


def test_other_kinds_of_devices_have_no_machine_until_one_is_registered():
    assert machines.machine_for(torch.device("cpu")) is None
    assert machines.machine_for(torch.device("mps")) is None
    made = object()
    machines.register("mps", lambda device: made)
    try:
        assert machines.machine_for(torch.device("mps")) is made
    finally:
        machines.register("mps", None)
    assert machines.machine_for(torch.device("mps")) is None
