"""Plain-domain Sinkhorn on the CPU, compiled by numba: a problem stays in the cache until it has converged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from otfew.transport.jit import jit

LANES = 16
"""Rows are read in multiples of this many entries, so that every loop over them is made of whole vectors."""

# NaN must survive: a problem that holds one has to fail, not to converge.
_REORDER = {"nsz", "reassoc", "contract"}


def constants(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Constants of the exponential in the dtype, and an empty array of the integers of its width."""
    single = dtype == np.float32
    # log(2) in two parts, of which the first has so few bits that its multiples are exact.
    high = 0.693359375 if single else 6.93145751953125e-1
    low = -2.12194440e-4 if single else 1.42860682030941723212e-6
    bias, mantissa = (127, 2**23) if single else (1023, 2**52)
    series = [1 / math.factorial(k) for k in range(14)]
    values = [*series, 0, 0.5, math.log2(math.e), high, low, bias, mantissa]
    return np.array(values, dtype), np.empty(0, np.int32 if single else np.int64)


@njit(fastmath=_REORDER, error_model="numpy")
def _exp(x, out, powers, scales, table, size):
    """Write exp(x) = 2^k exp(r), |r| <= log(2) / 2, to a few ulp, where it neither under- nor overflows; x is lost.

    2^k is made from its bits: ``powers`` and ``scales`` are the same memory as integers and as floats.
    """
    t0, t1, t2, t3, t4, t5, t6 = table[0], table[1], table[2], table[3], table[4], table[5], table[6]
    t7, t8, t9, t10, t11, t12, t13 = table[7], table[8], table[9], table[10], table[11], table[12], table[13]
    half, log2e, high, low, bias, mantissa = table[15], table[16], table[17], table[18], table[19], table[20]
    for j in range(size):
        whole = np.floor(x[j] * log2e + half)
        x[j] = x[j] - whole * high - whole * low
        powers[j] = powers.dtype.type((whole + bias) * mantissa)
    if x.itemsize == 4:
        for j in range(size):
            r = x[j]
            out[j] = ((((((t7 * r + t6) * r + t5) * r + t4) * r + t3) * r + t2) * r + t1) * r + t0
    else:
        for j in range(size):
            r = x[j]
            out[j] = (((((t13 * r + t12) * r + t11) * r + t10) * r + t9) * r + t8) * r + t7
        for j in range(size):
            r = x[j]
            out[j] = ((((((out[j] * r + t6) * r + t5) * r + t4) * r + t3) * r + t2) * r + t1) * r + t0
    for j in range(size):
        out[j] *= scales[j]


@njit(fastmath=_REORDER, error_model="numpy")
def _scores(cost, k, out, inverse, reach, table, size):
    """Write (offset - cost) / reg, and return the offset and whether all are within ``reach``."""
    zero = table[14]
    total = zero
    for j in range(size):
        total += cost[k, j]
    offset = total / cost.dtype.type(size)
    beyond = zero
    for j in range(size):
        out[j] = (offset - cost[k, j]) * inverse
        beyond += max(abs(out[j]) - reach, zero)
    return offset, beyond <= zero


@njit(fastmath=_REORDER, error_model="numpy")
def _row_sums(kernel, v, out, k, zero, n, m, wide):
    """Write K v; four rows at a time, since a single one keeps the processor waiting for its sum."""
    four = np.uint64(4)
    blocked = n // four * four
    for i in range(np.uint64(0), blocked, four):
        start = i * m
        s0, s1, s2, s3 = zero, zero, zero, zero
        for j in range(wide):
            s0 += kernel[start + j] * v[j]
            s1 += kernel[start + m + j] * v[j]
            s2 += kernel[start + m + m + j] * v[j]
            s3 += kernel[start + m + m + m + j] * v[j]
        out[k, i], out[k, i + np.uint64(1)], out[k, i + np.uint64(2)], out[k, i + np.uint64(3)] = s0, s1, s2, s3
    for i in range(blocked, n):
        s0 = zero
        for j in range(wide):
            s0 += kernel[i * m + j] * v[j]
        out[k, i] = s0


@njit(fastmath=_REORDER, error_model="numpy")
def _column_sums(kernel, u, out, zero, n, m, wide):
    """Write K' u."""
    four = np.uint64(4)
    blocked = n // four * four
    out[:] = zero
    for i in range(np.uint64(0), blocked, four):
        start = i * m
        u0, u1, u2, u3 = u[i], u[i + np.uint64(1)], u[i + np.uint64(2)], u[i + np.uint64(3)]
        for j in range(wide):
            out[j] += (u0 * kernel[start + j] + u1 * kernel[start + m + j]) + (
                u2 * kernel[start + m + m + j] + u3 * kernel[start + m + m + m + j]
            )
    for i in range(blocked, n):
        u0 = u[i]
        for j in range(wide):
            out[j] += u0 * kernel[i * m + j]


@njit(fastmath=_REORDER, error_model="numpy")
def _iterate(kernel, a, b, k, p, q, u, v, sums, zero, tol, max_iter, n, m, wide):
    """Alternate both scalings; return the largest deviation of a column's sum and the iterations used."""
    for i in range(n):
        u[i] = a[k, i]
    _column_sums(kernel, u, sums, zero, n, m, wide)
    used = 0
    while True:
        for j in range(m):
            q[k, j] = sums[j]
            v[j] = b[k, j] / sums[j]
        _row_sums(kernel, v, p, k, zero, n, m, wide)
        for i in range(n):
            u[i] = a[k, i] / p[k, i]
        _column_sums(kernel, u, sums, zero, n, m, wide)
        worst = zero
        for j in range(m):
            worst = max(worst, abs(v[j] * sums[j] - b[k, j]))
        used += 1
        if worst <= tol or used >= max_iter:
            return worst, used


@jit(nogil=True, fastmath=_REORDER, error_model="numpy")
def scale(table, integers, cost, a, b, first, last, inverse, reach, tol, max_iter, plan, p, q, offset, error, n_iter):
    """Scale the kernels exp((offset - cost) / reg) of problems first..last-1 to their marginals.

    Args:
        table: See ``constants``.
        integers: See ``constants``.
        cost: (problems, n * m), rows one after another.
        a: (problems, n) of total 1, in the cost's dtype, as all below.
        b: (problems, m) of total 1.
        first: First problem.
        last: One after the last problem.
        inverse: 1 / reg.
        reach: Largest |offset - cost| / reg; a problem beyond it is left alone, with n_iter 0.
        tol: Largest deviation of a column's sum.
        max_iter: Iterations a problem may take.
        plan: Out (problems, n * m), with exact row sums.
        p: Out (problems, n), the sums K v.
        q: Out (problems, m), the sums K' u that gave v = b / q.
        offset: Out (problems,), subtracted from the costs: about their mean.
        error: Out (problems,), largest deviation of a column's sum.
        n_iter: Out (problems,).
    """
    # Unsigned indices: numba lets signed ones count from the end, and loops over them do not vectorise.
    n, m, lanes = np.uint64(a.shape[1]), np.uint64(b.shape[1]), np.uint64(LANES)
    size, wide = n * m, (m + lanes - np.uint64(1)) // lanes * lanes
    # Row i is read from i * m to i * m + wide: what follows it meets zeros of v, or is added where nobody looks.
    kernel, scores = np.zeros(size + wide, cost.dtype), np.zeros(size + wide, cost.dtype)
    powers = np.zeros(size, integers.dtype)
    scales = powers.view(cost.dtype)
    u, v, sums = np.zeros(n, cost.dtype), np.zeros(wide, cost.dtype), np.zeros(wide, cost.dtype)
    for k in range(first, last):
        offset[k], near = _scores(cost, k, scores, inverse, reach, table, size)
        n_iter[k] = 0
        if not near:
            continue
        _exp(scores, kernel, powers, scales, table, size)
        error[k], n_iter[k] = _iterate(kernel, a, b, k, p, q, u, v, sums, table[14], tol, max_iter, n, m, wide)
        for i in range(n):
            weight = u[i]
            for j in range(wide):
                scores[i * m + j] = weight * kernel[i * m + j] * v[j]
        for j in range(size):
            plan[k, j] = scores[j]
