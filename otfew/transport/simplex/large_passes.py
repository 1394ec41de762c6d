"""Passes over all costs of a large problem, compiled by numba: what the sparse simplex is given, and what checks it.

Costs are read where they lie, in float32 or float64, and never copied; a row stays in the cache while it is looked at.
Potentials are those of the simplex: the reduced cost of a pair is cost_ij + w_j - u_i, where w_j = -g_j, and infinity
marks columns without mass. Rows are independent, so passes may be shared out over threads at will.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from otfew.transport.jit import jit

CHUNK = 16
"""Columns that are looked at together: most chunks hold nothing, which vectorised code sees at once."""


SPREAD = 40503
"""Odd, and about 0.618 of 2^16: multiples of it are spread evenly."""


@intrinsic
def _bits(_context: Any, _x: Any) -> Any:
    """The bits of a float64 as an int64."""

    def generate(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def _float(_context: Any, _bits: Any) -> Any:
    """The float64 of the bits in an int64."""

    def generate(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit(error_model="numpy", forceinline=True)
def _rank(bits):
    """Integers in the order of the floats whose bits they are, and back: minima of integers vectorise."""
    return bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))


@njit(error_model="numpy", forceinline=True)
def _least(row, w):
    """Least cost of (part of) a row with the column potentials."""
    least = np.int64(0x7FFFFFFFFFFFFFFF)
    for j in range(len(row)):
        least = min(least, _rank(_bits(np.float64(row[j]) + w[j])))
    return _float(_rank(least))


@njit(error_model="numpy", forceinline=True)
def _range(row, w):
    """Ranks of the least and the largest cost of a row; NaN ranks beyond infinity, on either side."""
    least = np.int64(0x7FFFFFFFFFFFFFFF)
    largest = -np.int64(0x7FFFFFFFFFFFFFFF)
    for j in range(len(row)):
        c = np.float64(row[j])
        least = min(least, _rank(_bits(c + w[j])))
        largest = max(largest, _rank(_bits(c - w[j])))
    return least, largest


@njit(error_model="numpy", forceinline=True)
def _beaten(row, w, u, limit):
    """Count columns whose reduced cost is below their own limits."""
    count = 0
    for j in range(len(row)):
        count += 1 if np.float64(row[j]) + w[j] - u < limit[j] else 0
    return count


@njit(error_model="numpy", forceinline=True)
def _insert(key, at, keys, ats, count):
    """Put into a list that is sorted by keys, earlier ones first among equals; returns how many it holds."""
    size = len(keys)
    p = count if count < size else size - 1
    while p > 0 and keys[p - 1] > key:
        keys[p] = keys[p - 1]
        ats[p] = ats[p - 1]
        p -= 1
    keys[p] = key
    ats[p] = at
    return count + 1 if count < size else count


@jit(nogil=True, error_model="numpy")
def survey(cost, first, last, w, low, high):
    """Find each row's least and largest cost over columns with mass; NaN where the row is not finite.

    Args:
        cost: (n, m).
        first: Rows first..last-1 are looked at.
        last: See ``first``.
        w: (m,) zero, infinity for columns without mass.
        low: (n,), overwritten.
        high: (n,), overwritten.
    """
    zero = np.zeros(len(w))
    end = _rank(_bits(np.inf))
    empty = False
    for j in range(len(w)):
        empty |= w[j] > 0.0
    for i in range(first, last):
        row = cost[i]
        least, largest = _range(row, zero)
        finite = -end - 1 < least and largest < end
        if empty and finite:
            least, largest = _range(row, w)
        low[i] = _float(_rank(least)) if finite else np.nan
        high[i] = _float(_rank(largest)) if finite else np.nan


@jit(nogil=True, error_model="numpy")
def sample(cost, dropped, u, w, step, rank, limit):
    """Estimate below which reduced cost each column has its best arcs, from some of the rows.

    Args:
        cost: (n, m).
        dropped: (n,) rows without mass.
        u: (n,) row potentials.
        w: (m,) column potentials with the other sign, infinity for columns without mass.
        step: Every so many rows are looked at.
        rank: The limit is the so many-th least reduced cost among those.
        limit: (m,) just above it, infinity where there are fewer; overwritten.
    """
    n, m = cost.shape
    keys = np.empty((m, rank))
    ats = np.empty((m, rank), np.int32)
    counts = np.zeros(m, np.int64)
    limit[:] = np.inf
    for i in range(0, n, step):
        if dropped[i]:
            continue
        row = cost[i]
        potential = u[i]
        for start in range(0, m, CHUNK):
            stop = min(start + CHUNK, m)
            if _beaten(row[start:stop], w[start:stop], potential, limit[start:stop]) > 0:
                for j in range(start, stop):
                    key = np.float64(row[j]) + w[j] - potential
                    if key < limit[j]:
                        counts[j] = _insert(key, i, keys[j], ats[j], counts[j])
                        if counts[j] == rank:
                            limit[j] = keys[j, rank - 1]
    for j in range(m):
        limit[j] = np.nextafter(limit[j], np.inf)


@jit(nogil=True, error_model="numpy")
def choose(
    cost, first, last, dropped, u, w, step, rank, near, keys, counts, limit, column_near, column_keys, column_counts
):
    """List arcs of little reduced cost of each row, and of each column among rows first..last-1.

    They are the least of those below a limit, which is estimated from a sample: it may leave out some.

    Args:
        cost: (n, m).
        first: Rows first..last-1 are looked at.
        last: See ``first``.
        dropped: (n,) rows without mass, which get none.
        u: (n,) row potentials.
        w: (m,) column potentials with the other sign, infinity for columns without mass.
        step: Every so many columns are sampled.
        rank: A row's limit is the so many-th least reduced cost among those.
        near: (n, k) int32 columns, overwritten.
        keys: (n, k) their reduced costs, ascending, overwritten.
        counts: (n,) int64 how many there are, overwritten.
        limit: (m,) reduced costs below which columns list arcs; overwritten.
        column_near: (m, l) int32 rows, overwritten.
        column_keys: (m, l), overwritten.
        column_counts: (m,) int64, overwritten.
    """
    m = cost.shape[1]
    chunks = -(-m // CHUNK)
    most = keys.shape[1]
    column_most = column_keys.shape[1]
    sampled = np.empty(rank)
    ats = np.empty(rank, np.int32)
    column_counts[:] = 0
    for i in range(first, last):
        counts[i] = 0
        if dropped[i]:
            continue
        row = cost[i]
        potential = u[i]
        worst = np.inf
        count = 0
        for j in range(0, m, step):
            key = np.float64(row[j]) + w[j] - potential
            if key < worst:
                count = _insert(key, j, sampled, ats, count)
                if count == rank:
                    worst = sampled[rank - 1]
        worst = np.nextafter(worst, np.inf)
        count = 0
        # Each row begins elsewhere, so that rows with many arcs of one cost do not all list the same columns.
        turn = (i * SPREAD) % chunks
        for k in range(chunks):
            start = (k + turn if k + turn < chunks else k + turn - chunks) * CHUNK
            stop = min(start + CHUNK, m)
            if _least(row[start:stop], w[start:stop]) - potential < worst:
                for j in range(start, stop):
                    key = np.float64(row[j]) + w[j] - potential
                    if key < worst:
                        count = _insert(key, j, keys[i], near[i], count)
                        if count == most:
                            worst = min(worst, keys[i, most - 1])
            if _beaten(row[start:stop], w[start:stop], potential, limit[start:stop]) > 0:
                for j in range(start, stop):
                    key = np.float64(row[j]) + w[j] - potential
                    if key < limit[j]:
                        column_counts[j] = _insert(key, i, column_keys[j], column_near[j], column_counts[j])
                        if column_counts[j] == column_most:
                            limit[j] = min(limit[j], column_keys[j, column_most - 1])
        counts[i] = count


@jit(nogil=True, error_model="numpy")
def price(cost, first, last, dropped, u, w, tolerance, near, keys, counts, low):
    """Find each row's least cost with the column potentials, and the arcs that violate dual feasibility most.

    Args:
        cost: (n, m).
        first: Rows first..last-1 are looked at.
        last: See ``first``.
        dropped: (n,) rows without mass: any potential suits them.
        u: (n,) row potentials.
        w: (m,) column potentials with the other sign, infinity for columns without mass.
        tolerance: Reduced costs down to minus this are no violations.
        near: (n, k) int32 columns of the violating arcs, overwritten.
        keys: (n, k) their reduced costs, ascending, overwritten.
        counts: (n,) int64 how many there are, overwritten.
        low: (n,) least of cost_ij + w_j, overwritten.
    """
    m = cost.shape[1]
    chunks = -(-m // CHUNK)
    most = keys.shape[1]
    for i in range(first, last):
        counts[i] = 0
        low[i] = _least(cost[i], w)
        if dropped[i] or low[i] - u[i] >= -tolerance:
            continue
        row = cost[i]
        potential = u[i]
        count = 0
        worst = -tolerance
        # Each row begins elsewhere, so that rows with many arcs of one cost do not all list the same columns.
        turn = (i * SPREAD) % chunks
        for k in range(chunks):
            start = (k + turn if k + turn < chunks else k + turn - chunks) * CHUNK
            stop = min(start + CHUNK, m)
            if _least(row[start:stop], w[start:stop]) - potential < worst:
                for j in range(start, stop):
                    key = np.float64(row[j]) + w[j] - potential
                    if key < worst:
                        count = _insert(key, j, keys[i], near[i], count)
                        if count == most:
                            worst = keys[i, most - 1]
        counts[i] = count


@jit(nogil=True, error_model="numpy")
def lowest(cost, columns, f, out):
    """Find the extreme potentials g_j = min_i cost_ij - f_i of some columns.

    Args:
        cost: (n, m).
        columns: (k,) int64.
        f: (n,).
        out: (k,), overwritten.
    """
    for k in range(len(columns)):
        out[k] = np.inf
    for i in range(cost.shape[0]):
        for k in range(len(columns)):
            out[k] = min(out[k], cost[i, columns[k]] - f[i])
