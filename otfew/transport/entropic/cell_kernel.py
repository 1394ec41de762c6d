"""Sums over point clouds on the CPU, compiled by numba: a cell of rows against one cell of columns after another.

Cells of columns come in the order of what they can at most add to a cell of rows. Once all that are left cannot add
more than a part ``negligible`` of what every row already has, they are left out (Schmitzer 2019; Feydy 2020, ch. 3).
Scores are made relative to that bound and to the centre of the cell of rows, so that what matters is small; their
exponentials are taken in the dtype of the points, a cell at a time in the nearest cache; sums of cells are added up in
float64. What a row gets depends on nothing but its own cell's points and all columns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from otfew.transport.jit import jit

CELL = 64
"""Points of a cell, consecutive ones."""

SQUARES, ROOT, MODULUS = 0, 1, 2
"""Kinds of metrics: sum_k (x_k - y_k)^2, its root, and sum_k |x_k - y_k|."""

LARGE = 2.0**30
"""Sum of a cell, relative to the top of a row, from which that top is moved: it need not be the largest score."""

NO_WEIGHT = -1e29
"""Logarithms below this are those of zero."""

_REORDER = {"nsz", "reassoc", "contract", "nnan"}
"""Nothing here is NaN: whoever calls looks first."""

_reordered = njit(fastmath=_REORDER, error_model="numpy", forceinline=True)
"""For loops that the compiler may reorder; see ``entropic.kernel``."""


def constants(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Constants of powers of two in the dtype, and an empty array of the integers of its width."""
    single = dtype == np.float32
    bias, mantissa = (127, 2**23) if single else (1023, 2**52)
    series = [math.log(2) ** k / math.factorial(k) for k in range(13)]
    # At the least the bits are those of zero, at the most still those of a number.
    values = [*series, -bias, bias, bias, mantissa, math.log2(math.e)]
    return np.array(values, dtype), np.empty(0, np.int32 if single else np.int64)


@_reordered
def _powers_of_two(x, shift, out, bits, table):
    """Write 2^(x + shift) = 2^k 2^r, |r| <= 1 / 2: 2^r into ``out`` and the bits of 2^k, which may be those of zero."""
    t0, t1, t2, t3, t4, t5, t6 = table[0], table[1], table[2], table[3], table[4], table[5], table[6]
    t7, t8, t9, t10, t11, t12 = table[7], table[8], table[9], table[10], table[11], table[12]
    least, most, bias, mantissa = table[13], table[14], table[15], table[16]
    if x.itemsize == 4:
        for j in range(CELL):
            r = min(max(x[j] + shift, least), most)
            whole = np.rint(r)
            r = r - whole
            bits[j] = bits.dtype.type((whole + bias) * mantissa)
            out[j] = ((((((t7 * r + t6) * r + t5) * r + t4) * r + t3) * r + t2) * r + t1) * r + t0
    else:
        for j in range(CELL):
            r = min(max(x[j] + shift, least), most)
            whole = np.rint(r)
            r = r - whole
            bits[j] = bits.dtype.type((whole + bias) * mantissa)
            head = ((((t12 * r + t11) * r + t10) * r + t9) * r + t8) * r + t7
            out[j] = ((((((head * r + t6) * r + t5) * r + t4) * r + t3) * r + t2) * r + t1) * r + t0


@_reordered
def _approach(centre, y, h, cell, offset, squares, near, base, dim):
    """Write the columns of a cell relative to a point, and (h - offset) / log 2, with squares less |y|^2 / log 2."""
    for k in range(dim):
        ck = centre[k]
        for j in range(CELL):
            near[k, j] = y[cell, k, j] - ck
    for j in range(CELL):
        score = h[cell, j] - offset
        if squares:
            for k in range(dim):
                score -= float(near[k, j]) * float(near[k, j])
        base[j] = base.dtype.type(max(score, -1e30) * math.log2(math.e))


@_reordered
def _costs(kind, x, i, near, out, dim):
    """Write the costs between row i of x (n, dim) and the columns near it (dim, CELL), from differences."""
    out[:] = 0
    for k in range(dim):
        xk = x[i, k]
        if kind == MODULUS:
            for j in range(CELL):
                out[j] += abs(xk - near[k, j])
        else:
            for j in range(CELL):
                away = xk - near[k, j]
                out[j] += away * away
    if kind == ROOT:
        for j in range(CELL):
            out[j] = math.sqrt(out[j])


@_reordered
def _scores(kind, x, i, near, base, out, log2e, dim):
    """Write the scores of row i in units of log 2; those of squares lack its own, which is the same for all."""
    if kind != SQUARES:
        _costs(kind, x, i, near, out, dim)
        for j in range(CELL):
            out[j] = base[j] - log2e * out[j]
        return
    double = log2e + log2e
    if dim == 3:
        x0, x1, x2 = x[i, 0] * double, x[i, 1] * double, x[i, 2] * double
        for j in range(CELL):
            out[j] = base[j] + x0 * near[0, j] + x1 * near[1, j] + x2 * near[2, j]
        return
    x0 = x[i, 0] * double
    for j in range(CELL):
        out[j] = base[j] + x0 * near[0, j]
    for k in range(1, dim):
        xk = x[i, k] * double
        for j in range(CELL):
            out[j] += xk * near[k, j]


@_reordered
def _order_cells(kind, low_x, high_x, low_y, high_y, block, logs, weighted, order, rest, bounds):
    """Sort cells of columns by the logarithm of what they may add to a cell of rows; write that of the rest from each.

    ``logs`` are the cells' own sums, here lowered by the least cost between the two cells' boxes; terms times their
    costs are at most C exp(-C), which falls from C = 1 on.
    """
    cells, dim = low_y.shape
    for c in range(cells):
        least = 0.0
        for k in range(dim):
            away = max(low_x[block, k] - high_y[c, k], low_y[c, k] - high_x[block, k], 0.0)
            least += away if kind == MODULUS else away * away
        least = math.sqrt(least) if kind == ROOT else least
        if weighted:
            least = max(least, 1.0) - math.log(max(least, 1.0))
        bounds[c] = logs[c] - least
    order[:] = np.argsort(-bounds)
    total = -np.inf
    for c in range(cells - 1, -1, -1):
        add = bounds[order[c]]
        top, other = max(total, add), min(total, add)
        total = top if other == -np.inf else top + math.log1p(math.exp(other - top))
        rest[c] = total


@_reordered
def _own_square(kind, x, i, dim):
    square = 0.0
    if kind == SQUARES:
        for k in range(dim):
            square += float(x[i, k]) * float(x[i, k])
    return square


def _log_sums(first, last, kind, x, y, h, centres, boxes_x, boxes_y, logs, negligible, table, whole, out):
    """Write log sum_j exp(h_j - C_ij) for the rows in cells first..last-1.

    Args:
        first: First cell of rows.
        last: The one after the last.
        kind: Of the metric.
        x: (n, dim), less the centres of their cells.
        y: (cells, dim, CELL), of the same dtype.
        h: (cells, CELL) float64, -1e30 behind the last column.
        centres: (cells of rows, dim), of the same dtype.
        boxes_x: (2, cells of rows, dim) float64, lowest and highest coordinates of the cells of rows.
        boxes_y: (2, cells, dim) float64.
        logs: (cells,) float64, log sum_j exp(h_j) of the cells of columns.
        negligible: Logarithm of the part of a sum that may be left out.
        table: See ``constants``.
        whole: See ``constants``.
        out: (n,) float64.
    """
    (n, dim), cells, dtype = x.shape, len(y), x.dtype
    order, rest, bounds = np.empty(cells, np.int64), np.empty(cells), np.empty(cells)
    near, base, score = np.empty((dim, CELL), dtype), np.empty(CELL, dtype), np.empty(CELL, dtype)
    value, bits = np.empty(CELL, dtype), np.empty(CELL, whole.dtype)
    scales = bits.view(dtype)
    top, total, found = np.empty(CELL, dtype), np.empty(CELL), np.empty(CELL)
    zero, log2e, many = dtype.type(0), table[17], math.log(CELL * cells)
    for block in range(first, last):
        start, size = block * CELL, min(n - block * CELL, CELL)
        _order_cells(kind, boxes_x[0], boxes_x[1], boxes_y[0], boxes_y[1], block, logs, False, order, rest, bounds)
        offset = bounds[order[0]]
        for i in range(size):
            found[i] = offset - _own_square(kind, x, start + i, dim)
        for visit in range(cells):
            if visit > 0:
                least = np.inf
                for i in range(size):
                    least = min(least, float(top[i]) * math.log(2.0) + found[i])
                # The top is that of one of the terms; logarithms are taken where they can matter.
                if rest[visit] <= least + negligible + many:
                    least = np.inf
                    for i in range(size):
                        least = min(least, float(top[i]) * math.log(2.0) + math.log(total[i]) + found[i])
                    if rest[visit] <= least + negligible:
                        break
            cell = np.uint64(order[visit])
            _approach(centres[block], y, h, cell, offset, kind == SQUARES, near, base, dim)
            for i in range(size):
                _scores(kind, x, np.uint64(start + i), near, base, score, log2e, dim)
                if visit > 0:
                    _powers_of_two(score, -top[i], value, bits, table)
                    part = zero
                    for j in range(CELL):
                        part += value[j] * scales[j]
                    if part < LARGE:
                        total[i] += part
                        continue
                highest = score[0]
                for j in range(CELL):
                    highest = max(highest, score[j])
                total[i] = 0.0 if visit == 0 else total[i] * 2.0 ** (float(top[i]) - float(highest))
                top[i] = highest
                _powers_of_two(score, -highest, value, bits, table)
                for j in range(CELL):
                    total[i] += value[j] * scales[j]
        for i in range(size):
            out[start + i] = float(top[i]) * math.log(2.0) + math.log(total[i]) + found[i]


def _products(
    first, last, kind, x, y, r, c, v, heavy, weighted, centres, boxes_x, boxes_y, logs, negligible, table, whole, out
):
    """Add sum_j exp(r_i + c_j - C_ij) v_jk, terms times C_ij where weighted, for the rows in cells first..last-1.

    What is left out is a part ``negligible`` of the same sum of the sizes of all terms.

    Arguments are as above, and r (n,) float64; c (cells, CELL) float64, -1e30 behind the last column; v (cells, k,
    CELL) of the dtype of the points, zero behind the last column; heavy (cells, CELL) of that dtype, sum_k |v_jk|; logs
    (cells,) float64, log sum_j exp(c_j) heavy_j; out (n, k) float64, zeros.
    """
    (n, dim), cells, dtype = x.shape, len(y), x.dtype
    order, rest, bounds = np.empty(cells, np.int64), np.empty(cells), np.empty(cells)
    near, base, cost = np.empty((dim, CELL), dtype), np.empty(CELL, dtype), np.empty(CELL, dtype)
    score, value, bits = np.empty(CELL, dtype), np.empty(CELL, dtype), np.empty(CELL, whole.dtype)
    scales = bits.view(dtype)
    sizes = np.empty(CELL)
    zero, log2e = dtype.type(0), table[17]
    for block in range(first, last):
        start, size = block * CELL, min(n - block * CELL, CELL)
        _order_cells(kind, boxes_x[0], boxes_x[1], boxes_y[0], boxes_y[1], block, logs, weighted, order, rest, bounds)
        offset = bounds[order[0]]
        sizes[:] = 0.0
        for visit in range(cells):
            if rest[visit] == -np.inf:
                break
            if visit > 0:
                more = False
                for i in range(size):
                    if r[start + i] > NO_WEIGHT:
                        have = r[start + i] + rest[visit] - negligible
                        more = more or sizes[i] == 0 or have > math.log(sizes[i])
                if not more:
                    break
            cell = np.uint64(order[visit])
            _approach(centres[block], y, c, cell, offset, False, near, base, dim)
            for i in range(size):
                _costs(kind, x, np.uint64(start + i), near, cost, dim)
                for j in range(CELL):
                    score[j] = base[j] - log2e * cost[j]
                shift = dtype.type(max(r[start + i] + offset, -1e30) * math.log2(math.e))
                _powers_of_two(score, shift, value, bits, table)
                if weighted:
                    for j in range(CELL):
                        value[j] *= cost[j]
                part = zero
                for j in range(CELL):
                    value[j] *= scales[j]
                    part += value[j] * heavy[cell, j]
                sizes[i] += part
                for k in range(v.shape[1]):
                    part = zero
                    for j in range(CELL):
                        part += value[j] * v[cell, k, j]
                    out[start + i, k] += part


def _derivatives(
    first, last, kind, x, y, r, c, s, t, weighted, centres, boxes_x, boxes_y, logs, negligible, table, whole, out
):
    """Add sum_j exp(r_i + c_j - C_ij) dC_ij / dx_i, terms times (s_i + t_j - C_ij) where weighted; as above.

    What is left out is a part ``negligible`` of the mass sum_j exp(r_i + c_j - C_ij). Further arguments are s (n,) and
    t (cells, CELL), float64, and out (n, dim) float64, zeros.
    """
    (n, dim), cells, dtype = x.shape, len(y), x.dtype
    order, rest, bounds = np.empty(cells, np.int64), np.empty(cells), np.empty(cells)
    near, base, cost = np.empty((dim, CELL), dtype), np.empty(CELL, dtype), np.empty(CELL, dtype)
    score, value, bits = np.empty(CELL, dtype), np.empty(CELL, dtype), np.empty(CELL, whole.dtype)
    scales = bits.view(dtype)
    sizes = np.empty(CELL)
    zero, log2e = dtype.type(0), table[17]
    for block in range(first, last):
        start, size = block * CELL, min(n - block * CELL, CELL)
        _order_cells(kind, boxes_x[0], boxes_x[1], boxes_y[0], boxes_y[1], block, logs, False, order, rest, bounds)
        offset = bounds[order[0]]
        sizes[:] = 0.0
        for visit in range(cells):
            if visit > 0:
                more = False
                for i in range(size):
                    if r[start + i] > NO_WEIGHT:
                        have = r[start + i] + rest[visit] - negligible
                        more = more or sizes[i] == 0 or have > math.log(sizes[i])
                if not more:
                    break
            cell = np.uint64(order[visit])
            _approach(centres[block], y, c, cell, offset, False, near, base, dim)
            for i in range(size):
                row = np.uint64(start + i)
                _costs(kind, x, row, near, cost, dim)
                for j in range(CELL):
                    score[j] = base[j] - log2e * cost[j]
                shift = dtype.type(max(r[start + i] + offset, -1e30) * math.log2(math.e))
                _powers_of_two(score, shift, value, bits, table)
                part = zero
                for j in range(CELL):
                    value[j] *= scales[j]
                    part += value[j]
                sizes[i] += part
                if weighted:
                    for j in range(CELL):
                        value[j] *= dtype.type(s[start + i] + t[cell, j] - cost[j])
                if kind == ROOT:
                    for j in range(CELL):
                        value[j] = value[j] / cost[j] if cost[j] > 0 else zero
                for k in range(dim):
                    xk, part = x[row, k], zero
                    for j in range(CELL):
                        away = xk - near[k, j]
                        part += value[j] * (np.sign(away) if kind == MODULUS else away)
                    out[start + i, k] += part + part if kind == SQUARES else part


_compiled = jit(fastmath=_REORDER, error_model="numpy", nogil=True)
log_sums, products, derivatives = _compiled(_log_sums), _compiled(_products), _compiled(_derivatives)
