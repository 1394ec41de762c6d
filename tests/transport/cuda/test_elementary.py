"""Exponentials and logarithms of the kernels against the processor's own, in units of rounding."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from otfew.transport.cuda.programs import WARP, Kernel

from .emulator import Emulator, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")


class Numbers(ctypes.Structure):
    """Warps of 32 numbers, and what is made of them."""

    _fields_ = (("x", ctypes.c_void_p), ("y", ctypes.c_void_p), ("problems", ctypes.c_int), ("unused", ctypes.c_int))


def kernel(name: str, given: str) -> Kernel:
    """Apply a function of elementary.h to numbers of a type."""
    text = (
        f"struct Numbers {{ const {given}* x; {given}* y; int problems, unused; }};\n"
        f"DEVICE void apply(const Numbers& of, int k) {{\n"
        f"  const Lanes<int> at = lane_index() + 32 * k;\n"
        f"  store(of.y, at, {name}(load(of.x, at)), Lanes<bool>(true));\n}}\n"
        f"KERNEL({name}_of_{given}, Numbers, 0, apply(problems, k))"
    )
    return Kernel(f"{name}_of_{given}", text, (*WARP, "elementary.h"), Numbers)


def applied(name, x):
    """Compute ``name`` of numbers, float32 or float64."""
    x = np.ascontiguousarray(x)
    wide = np.resize(x, -(-len(x) // 32) * 32)
    y = np.empty_like(wide)
    arguments = Numbers(wide.ctypes.data, y.ctypes.data, len(wide) // 32)
    given = "float" if x.dtype == np.float32 else "double"
    Emulator().launch(kernel(name, given), len(wide) // 32, arguments)
    return y[: len(x)]


def units(found, expected):
    """Largest error in units of rounding of what is expected."""
    with np.errstate(invalid="ignore"):
        return np.max(np.abs(found - expected) / np.spacing(np.abs(expected)))


def test_exponential():
    rng = np.random.default_rng(0)
    for x in (rng.uniform(-700, 709, 4096), rng.uniform(-1, 1, 4096), np.linspace(-1e-9, 1e-9, 32)):
        assert units(applied("exponential", x), np.exp(x)) <= 2
    assert applied("exponential", np.array([-709.0, -1e300, -np.inf, 0.0])).tolist() == [0, 0, 0, 1]
    assert np.isnan(applied("exponential", np.array([np.nan]))).all()


def test_exponential_of_float32():
    x = np.random.default_rng(0).uniform(-80, 80, 4096).astype(np.float32)
    assert units(applied("exponential", x), np.exp(x.astype(np.float64)).astype(np.float32)) <= 2
    assert np.isnan(applied("exponential", np.array([np.nan], np.float32))).all()


def test_logarithm():
    rng = np.random.default_rng(0)
    for x in (10 ** rng.uniform(-307, 308, 4096), rng.uniform(0.5, 2, 4096), 1 + np.linspace(-1e-8, 1e-8, 64)):
        assert units(applied("logarithm", x), np.log(x)) <= 3
    below = np.array([5e-324, 1e-310, 2.2e-308])
    assert units(applied("logarithm", below), np.log(below)) <= 3
    assert applied("logarithm", np.array([0.0, 1.0, np.inf])).tolist() == [-np.inf, 0, np.inf]
    assert np.isnan(applied("logarithm", np.array([np.nan]))).all()


def test_logarithm_of_one_and_more():
    x = 10 ** np.random.default_rng(0).uniform(-300, 10, 4096)
    assert units(applied("logarithm_of_one_and", x), np.log1p(x)) <= 4
    assert applied("logarithm_of_one_and", np.array([0.0])).tolist() == [0]
