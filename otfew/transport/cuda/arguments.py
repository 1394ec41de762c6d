"""Arguments of the kernels as ``ctypes`` lays them out: mirrors of the structs in arguments.h, passed by value."""

from __future__ import annotations

import ctypes

MOST_DIMS = 6
"""Batch dimensions that a kernel can walk by strides."""

_Dims = ctypes.c_int64 * MOST_DIMS


class ExactProblems(ctypes.Structure):
    """A batch of exact problems, read in place; pointers are addresses in the device's memory, strides in elements.

    ``a`` or ``b`` zero: uniform with the total of the other, 1 if both are. Problem k, unravelled over
    ``size[:dims]``, finds its cost and weights by the strides, which are 0 where something is broadcast. Outputs are
    contiguous: ``rows``, ``cols`` (int32) and ``flow`` (problems, n + m - 1), ``f`` (problems, n), ``g`` (problems, m),
    ``value``, ``gap``, ``error`` (problems,) float64, ``status`` (problems,) int32, ``n_iter`` (problems,) int64;
    ``flag`` is one int32 that the caller sets to zero and that gathers 1 << status of what is not optimal.
    """

    _fields_ = (
        ("cost", ctypes.c_void_p),
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("problems", ctypes.c_int32),
        ("n", ctypes.c_int32),
        ("m", ctypes.c_int32),
        ("dims", ctypes.c_int32),
        ("size", _Dims),
        ("cost_stride", _Dims),
        ("a_stride", _Dims),
        ("b_stride", _Dims),
        ("cost_row", ctypes.c_int64),
        ("cost_col", ctypes.c_int64),
        ("a_step", ctypes.c_int64),
        ("b_step", ctypes.c_int64),
        ("tol", ctypes.c_double),
        ("totals_rtol", ctypes.c_double),
        ("max_iter", ctypes.c_int64),
        ("rows", ctypes.c_void_p),
        ("cols", ctypes.c_void_p),
        ("flow", ctypes.c_void_p),
        ("f", ctypes.c_void_p),
        ("g", ctypes.c_void_p),
        ("value", ctypes.c_void_p),
        ("gap", ctypes.c_void_p),
        ("error", ctypes.c_void_p),
        ("status", ctypes.c_void_p),
        ("n_iter", ctypes.c_void_p),
        ("flag", ctypes.c_void_p),
    )


class PlanTimes(ctypes.Structure):
    """Plans kept as arcs, to be written densely times ``grad``: the gradient in the costs.

    ``rows``, ``cols`` (int32) and ``flow`` (float64) are (problems, arcs); ``grad`` float64 with
    ``grad_stride`` elements between problems, 0 where one number is for all; a zero pointer means ones. ``out``
    (problems, n, m) is in the kernel's dtype.
    """

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("cols", ctypes.c_void_p),
        ("flow", ctypes.c_void_p),
        ("grad", ctypes.c_void_p),
        ("grad_stride", ctypes.c_int64),
        ("out", ctypes.c_void_p),
        ("problems", ctypes.c_int32),
        ("n", ctypes.c_int32),
        ("m", ctypes.c_int32),
        ("arcs", ctypes.c_int32),
    )
