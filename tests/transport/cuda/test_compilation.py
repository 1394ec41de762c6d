"""Every kernel, compiled by CUDA's own compiler for GPUs that need not be there: no warnings, all in registers.

Needs NVRTC (``pip install nvidia-cuda-nvrtc``; tox's environment ``beside`` brings it), not a GPU.
"""

from __future__ import annotations

import ctypes
import re

import pytest
import torch

from otfew.methods import _sfc_device
from otfew.transport.cuda import nvrtc, programs
from otfew.transport.errors import DeviceError

ARCHITECTURES = ("sm_80", "sm_90", "sm_120")
MOST_REGISTERS = 255
REGISTERS_OF_AN_SM = 65_536
STACK = {"entropic_f32": 80, "entropic_f64": 80}
"""Bytes of stack that a kernel may have, none where it is not named. Newton's method takes the sides of a problem, 40
bytes each, now one way round and now the other: they are looked up in memory, once a pass over all costs."""

LARGEST = ("exact_4_4_f64", "entropic_f64", "sfc_move_f64")
"""The kernels of each kind that need most registers: compiled for every architecture. Others, which take minutes
together, are compiled for one in turn, and for all where tests marked slow are run with NVRTC."""


def pairs():
    """Every kernel with every architecture."""
    kernels = programs.all_kernels()
    for dtype in (torch.float32, torch.float64):
        kernels += [_sfc_device.pose(dtype), _sfc_device.move(dtype, 35, 7)]
    for place, kernel in enumerate(kernels):
        for turn, architecture in enumerate(ARCHITECTURES):
            quick = kernel.name in LARGEST or turn == place % len(ARCHITECTURES)
            marks = () if quick else pytest.mark.slow
            yield pytest.param(kernel, architecture, id=f"{kernel.name}-{architecture}", marks=marks)


@pytest.fixture(scope="module")
def library():
    """Find NVRTC of any version that knows all the architectures."""
    for cuda in ("13.0", "12.8"):
        try:
            compiler = nvrtc.find(cuda)
        except DeviceError:
            continue
        if {int(name.removeprefix("sm_")) for name in ARCHITECTURES} <= set(compiler.capabilities):
            return compiler._library
    pytest.skip("CUDA's run-time compiler is not installed: pip install nvidia-cuda-nvrtc")


def compile_loudly(library, source, architecture):
    """Compile one source; returns whether it compiled and all that the compilers said."""
    options = [f"--gpu-architecture={architecture}", *nvrtc.OPTIONS, "--ptxas-options=-v"]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None) == 0
    encoded = [option.encode() for option in options]
    ended = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*encoded))
    assert library.nvrtcGetProgramLogSize(program, ctypes.byref(size)) == 0
    log = ctypes.create_string_buffer(size.value)
    assert library.nvrtcGetProgramLog(program, log) == 0
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return ended == 0, log.value.decode(errors="replace")


@pytest.mark.parametrize(("kernel", "architecture"), list(pairs()))
def test_kernels_compile_into_registers(kernel, architecture, library, capsys):
    right, log = compile_loudly(library, kernel.source, architecture)
    assert right, log[:2000]
    assert "warning" not in log, log[:2000]
    stack, stores, loads = (
        int(re.search(rf"(\d+) bytes {what}", log)[1]) for what in ("stack frame", "spill stores", "spill loads")
    )
    registers = int(re.search(r"Used (\d+) registers", log)[1])
    with capsys.disabled():
        warps = REGISTERS_OF_AN_SM // (32 * (-(-registers // 8) * 8))
        print(
            f"\n{kernel.name} {architecture}: {registers} registers, hence {warps} warps an SM; {stack} bytes of stack"
        )
    assert stores == loads == 0
    assert registers <= MOST_REGISTERS
    assert stack <= STACK.get(kernel.name, 0), "something in registers is indexed at run time"


def test_the_check_sees_a_warning(library):
    source = 'extern "C" __global__ void f(int* x) { int unused; x[0] = 1; }\n'
    right, log = compile_loudly(library, source, "sm_90")
    assert right
    assert "warning" in log
