"""Plain-domain Sinkhorn on the CPU, compiled by numba: a problem stays in the cache until it has converged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from otfew.transport.jit import jit

LANES = 16
"""Rows are read in multiples of this many entries, so that every loop over them is made of whole vectors."""

BLOCK = 4096
"""Entries of the kernel that are made at a time: their scores stay in the cache."""

DEPTH = 6
"""Iterations that an extrapolation looks back on."""

LARGEST_STEP = 8.0
"""Extrapolations that move a logarithm further are not made."""

GROWTH = 2.0
"""An error that grows by more shows that the past says little about the present: it is then forgotten."""

# NaN must survive: a problem that holds one has to fail, not to converge.
_REORDER = {"nsz", "reassoc", "contract"}

_reordered = njit(fastmath=_REORDER, error_model="numpy", forceinline=True)
"""For sums that the compiler may reorder. Always inlined: machine code of a function of its own would differ in its
rounding from that in the loop, and a process that compiles calls the one, a process that loads the other."""


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


@_reordered
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


@_reordered
def _centre(cost, k, size, zero):
    """Return the mean of the costs, and how far one is from it."""
    total = zero
    low, high = cost[k, 0], cost[k, 0]
    for j in range(size):
        total += cost[k, j]
    for j in range(size):
        low, high = min(low, cost[k, j]), max(high, cost[k, j])
    offset = total / cost.dtype.type(size)
    return offset, max(high - offset, offset - low)


@_reordered
def _make_kernel(cost, k, kernel, offset, inverse, scores, powers, table, size):
    """Write exp((offset - cost) / reg), a block at a time."""
    scales = powers.view(cost.dtype)
    block = np.uint64(BLOCK)
    for start in range(np.uint64(0), size, block):
        count = min(block, size - start)
        for j in range(count):
            scores[j] = (offset - cost[k, start + j]) * inverse
        _exp(scores, kernel[start : start + count], powers, scales, table, count)


@_reordered
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


@_reordered
def _sweep(kernel, a, v, p, u, out, zero, n, m, wide):
    """Write p = K v, u = a / p and K' u, reading the kernel once: memory is what large problems wait for.

    Four rows at a time, since a single one keeps the processor waiting for its sum.
    """
    four = np.uint64(4)
    blocked = n // four * four
    out[:] = zero
    for i in range(np.uint64(0), blocked, four):
        start = i * m
        i1, i2, i3 = i + np.uint64(1), i + np.uint64(2), i + np.uint64(3)
        s0, s1, s2, s3 = zero, zero, zero, zero
        for j in range(wide):
            s0 += kernel[start + j] * v[j]
            s1 += kernel[start + m + j] * v[j]
            s2 += kernel[start + m + m + j] * v[j]
            s3 += kernel[start + m + m + m + j] * v[j]
        p[i], p[i1], p[i2], p[i3] = s0, s1, s2, s3
        u0, u1, u2, u3 = a[i] / s0, a[i1] / s1, a[i2] / s2, a[i3] / s3
        u[i], u[i1], u[i2], u[i3] = u0, u1, u2, u3
        for j in range(wide):
            out[j] += (u0 * kernel[start + j] + u1 * kernel[start + m + j]) + (
                u2 * kernel[start + m + m + j] + u3 * kernel[start + m + m + m + j]
            )
    for i in range(blocked, n):
        s0 = zero
        for j in range(wide):
            s0 += kernel[i * m + j] * v[j]
        u0 = a[i] / s0
        p[i], u[i] = s0, u0
        for j in range(wide):
            out[j] += u0 * kernel[i * m + j]


@_reordered
def _combine(gram, right, held, ridge):
    """Solve (gram + ridge) x = right in place, for the first ``held`` unknowns, by Cholesky's method."""
    size = np.uint64(held)
    lower = np.empty((DEPTH, DEPTH))
    largest = 0.0
    for i in range(size):
        largest = max(largest, gram[i, i])
    for i in range(size):
        for k in range(i + np.uint64(1)):
            total = gram[i, k] + (ridge * largest if i == k else 0.0)
            for h in range(k):
                total -= lower[i, h] * lower[k, h]
            lower[i, k] = math.sqrt(total) if i == k else total / lower[k, k]
    for i in range(size):
        for k in range(i):
            right[i] -= lower[i, k] * right[k]
        right[i] /= lower[i, i]
    for back in range(size):
        j = size - np.uint64(1) - back
        for k in range(j + np.uint64(1), size):
            right[j] -= lower[k, j] * right[k]
        right[j] /= lower[j, j]


@_reordered
def _extrapolate(memory, gram, right, weights, q, sums, m, seen, ridge):
    """Write the next q: the sums K' u, less what the past says of their further way (Anderson 1965).

    In logarithms, x -> log K' (a / K (b / exp x)) is an iteration near a linear one. The last steps are combined so
    that the change which would remain, were it linear, is least in squares weighted by b: conjugate directions of a
    kind, for which no rate needs to be known.

    Args:
        memory: (2 * DEPTH + 2, m): changes of the residuals, changes of the images, last residual, last step.
        gram: (DEPTH, DEPTH) inner products of the changes of the residuals.
        right: (DEPTH,) room.
        weights: (m,), b.
        q: (m,), the last one; overwritten.
        sums: (m,) K' u.
        m: Columns.
        seen: Residuals that the memory has seen, 0 to start afresh.
        ridge: See ``_combine``.

    Returns:
        What the next call is to be told as ``seen``.
    """
    last, step = memory[2 * DEPTH], memory[2 * DEPTH + 1]
    held = min(seen, DEPTH)
    if seen > 0:
        slot = (seen - 1) % DEPTH
        changes, images = memory[slot], memory[DEPTH + slot]
    else:
        slot = 0
        changes, images = last, step
    for j in range(m):
        residual = math.log(sums[j] / q[j]) if weights[j] > 0 else 0.0
        if seen > 0:
            changes[j] = residual - last[j]
            images[j] = step[j] + changes[j]
        last[j] = residual
    for i in range(held):
        other = memory[i]
        inner, along = 0.0, 0.0
        for j in range(m):
            weighted = weights[j] * other[j]
            inner += weighted * changes[j]
            along += weighted * last[j]
        gram[slot, i] = gram[i, slot] = inner
        right[i] = along
    _combine(gram, right, held, ridge)
    furthest = 0.0
    for j in range(m):
        moved = 0.0
        for i in range(held):
            moved += right[i] * memory[DEPTH + i, j]
        step[j] = moved
        furthest = max(furthest, abs(moved))
    sound = furthest <= LARGEST_STEP
    for j in range(m):
        moved = step[j] if sound else 0.0
        step[j] = last[j] - moved
        q[j] = sums[j] * math.exp(-moved)
    return seen + 1 if sound else 1


@_reordered
def _begin(kernel, start, k, a, q, u, sums, zero, n, m, wide):
    """Write the first q: from where the problem is to start, or K' a."""
    # A test for None is decided before compilation, so that what follows is left out.
    if start is not None and abs(start[k, 0]) < math.inf:
        for j in range(m):
            q[j] = math.exp(-start[k, j])
        return
    for i in range(n):
        u[i] = a[i]
    _column_sums(kernel, u, sums, zero, n, m, wide)
    for j in range(m):
        q[j] = sums[j]


@_reordered
def _iterate(
    kernel, start, k, a, b, p, q, u, v, sums, memory, gram, right, zero, tol, max_iter, patience, ridge, n, m, wide
):  # fmt: skip
    """Alternate both scalings; return the largest deviation of a column's sum and the iterations used."""
    _begin(kernel, start, k, a, q, u, sums, zero, n, m, wide)
    used, seen = 0, 0
    before = zero
    while True:
        for j in range(m):
            v[j] = b[j] / q[j]
        _sweep(kernel, a, v, p, u, sums, zero, n, m, wide)
        worst = zero
        for j in range(m):
            worst = max(worst, abs(v[j] * sums[j] - b[j]))
        used += 1
        if worst <= tol or used >= max_iter:
            return worst, used
        if used < patience:
            for j in range(m):
                q[j] = sums[j]
        else:
            seen = 0 if worst > GROWTH * before else seen
            seen = _extrapolate(memory, gram, right, b, q, sums, m, seen, ridge)
        before = worst


@_reordered
def _divide(weights, k, unit, out, size):
    """Write a problem's weights over their total, in float64 and in the kernel's dtype; return the total."""
    total = 0.0
    for i in range(size):
        total += weights[k, i]
    for i in range(size):
        unit[k, i] = weights[k, i] / total
        out[i] = out.dtype.type(unit[k, i])
    return total


@_reordered
def _potentials(sums, unit, k, out, size):
    """Write the potentials of one side, -log of its sums, over reg; return their mean under the weights."""
    mean = 0.0
    for i in range(size):
        out[k, i] = -math.log(np.float64(sums[i]))
        mean += unit[k, i] * out[k, i]
    return mean


@jit(nogil=True, fastmath=_REORDER, error_model="numpy")
def scale(
    table, integers, cost, start, a, b, first, last, reg, inverse, reach, tol, max_iter, patience, ridge,
    plan, unit_a, unit_b, phi, psi, numbers, status, n_iter, closed,
):  # fmt: skip
    """Scale the kernels exp((offset - cost) / reg) of problems first..last-1 to their marginals, for a total of 1.

    Args:
        table: See ``constants``.
        integers: See ``constants``.
        cost: (problems, n * m), rows one after another.
        start: (problems, m) float64, psi to start from, NaN where there is none; None: all start afresh.
        a: (problems, n) float64.
        b: (problems, m) float64.
        first: First problem.
        last: One after the last problem.
        reg: Regularisation.
        inverse: 1 / reg, within the range of the cost's dtype.
        reach: Largest |offset - cost| / reg; a problem beyond it is left alone, with n_iter 0.
        tol: Largest deviation of a column's sum.
        max_iter: Iterations a problem may take.
        patience: Iterations from which on the next is extrapolated.
        ridge: Added to the matrix of extrapolations, relative to its diagonal: what rounding makes of it.
        plan: Out (problems, n * m) of the cost's dtype, with exact row sums.
        unit_a: Out (problems, n), a over its total.
        unit_b: Out (problems, m), b over its total.
        phi: Out (problems, n), -log K v.
        psi: Out (problems, m), -log K' u for the u that gave v = b / K' u.
        numbers: Out (4, problems): the total of a; the dual value for that total; what was subtracted from the costs,
            about their mean; the largest deviation of a column's sum.
        status: Out (problems,): 0 for a problem that has converged, else 1.
        n_iter: Out (problems,).
        closed: (problems, n * m) bool, pairs that are not to be used, at any cost between the others', or None. Each
            row then has a column with weight that it may use, and each column a row.
    """
    # Unsigned indices: numba lets signed ones count from the end, and loops over them do not vectorise.
    n, m, lanes = np.uint64(a.shape[1]), np.uint64(b.shape[1]), np.uint64(LANES)
    size, wide = n * m, (m + lanes - np.uint64(1)) // lanes * lanes
    # Row i is read from i * m to i * m + wide: what follows it meets zeros of v, or is added where nobody looks.
    kernel = np.zeros(size + wide, cost.dtype)
    scores, powers = np.empty(BLOCK, cost.dtype), np.empty(BLOCK, integers.dtype)
    rows, p, u = np.empty(n, cost.dtype), np.empty(n, cost.dtype), np.empty(n, cost.dtype)
    columns, q = np.empty(m, cost.dtype), np.empty(m, cost.dtype)
    v, sums, row = np.zeros(wide, cost.dtype), np.zeros(wide, cost.dtype), np.zeros(wide, cost.dtype)
    memory, gram, right = np.zeros((2 * DEPTH + 2, m), cost.dtype), np.zeros((DEPTH, DEPTH)), np.zeros(DEPTH)
    zero = table[14]
    factor, furthest = cost.dtype.type(inverse), cost.dtype.type(reach)
    for k in range(first, last):
        total = _divide(a, k, unit_a, rows, n)
        _divide(b, k, unit_b, columns, m)
        offset, range_ = _centre(cost, k, size, zero)
        p[:], q[:], worst = 1.0, 1.0, zero
        status[k], n_iter[k] = 1, 0
        if range_ * factor <= furthest:
            _make_kernel(cost, k, kernel, offset, factor, scores, powers, table, size)
            if closed is not None:
                for j in range(size):
                    if closed[k, j]:
                        kernel[j] = zero
            worst, n_iter[k] = _iterate(
                kernel, start, k, rows, columns, p, q, u, v, sums, memory, gram, right, zero, tol, max_iter, patience,
                ridge, n, m, wide,
            )  # fmt: skip
            status[k] = 0 if worst <= tol else 1
            for i in range(n):
                weight = u[i]
                for j in range(wide):
                    row[j] = weight * kernel[i * m + j] * v[j]
                for j in range(m):
                    plan[k, i * m + j] = row[j]
        gain = _potentials(p, unit_a, k, phi, n) + _potentials(q, unit_b, k, psi, m)
        numbers[0, k], numbers[1, k], numbers[2, k], numbers[3, k] = total, total * (reg * gain + offset), offset, worst
        # The largest of several numbers may pass over NaN, their sum does not.
        if not abs(gain) < math.inf:
            status[k], numbers[3, k] = 1, math.nan
