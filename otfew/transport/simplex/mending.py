"""Costs with forbidden pairs surveyed and filled, and potentials mended: what ``forbidding`` needs compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from otfew.transport.jit import jit

FINITE = 0
FORBIDS = 1
UNSOUND = 2


@jit(nogil=True)
def survey(cost, low, high, kind):
    """Find the least and the largest finite cost of each of ``cost`` (costs, n, m), and which kind it is."""
    for k in range(cost.shape[0]):
        least, most, forbids, sound = np.inf, -np.inf, False, True
        for i in range(cost.shape[1]):
            for j in range(cost.shape[2]):
                c = cost[k, i, j]
                finite = c < np.inf
                forbids |= not finite
                sound &= c > -np.inf
                least = min(least, c)
                most = max(most, c if finite else -np.inf)
        low[k], high[k] = least, most
        kind[k] = UNSOUND if not sound else FORBIDS if forbids else FINITE


@jit(nogil=True)
def fill(cost, top, out):
    """Copy costs (costs, n, m) with ``top[k]`` in place of +inf."""
    for k in range(cost.shape[0]):
        for i in range(cost.shape[1]):
            for j in range(cost.shape[2]):
                c = cost[k, i, j]
                out[k, i, j] = c if c < np.inf else top[k]


@njit(error_model="numpy")
def _first(taken):
    """Index of the first that is not taken, or -1."""
    for x in range(len(taken)):
        if not taken[x]:
            return x
    return -1


@njit(error_model="numpy")
def _nearest(taken, slack, within):
    """Index of the least slack below ``within`` of what is not taken, or -1."""
    at = -1
    for x in range(len(taken)):
        if not taken[x] and slack[x] < within:
            within = slack[x]
            at = x
    return at


@njit(error_model="numpy")
def _shift(u, v, rows, cols, by):
    """Raise the potentials of rows of a block and lower those of its columns."""
    for i in range(len(u)):
        u[i] += by if rows[i] else 0.0
    for j in range(len(v)):
        v[j] -= by if cols[j] else 0.0


@njit(error_model="numpy")
def _gather(c, u, v, row_in, col_in, rows, cols, into, out, tight):
    """Gather a block: what hangs together by allowed pairs; potentials move until those that join it are tight.

    ``out`` holds the slack of each column that is not in it beside the block's rows, ``into`` that of each row beside
    its columns. Returns how many nodes it has, and whether potentials have moved.
    """
    rows[:], cols[:] = False, False
    into[:], out[:] = np.inf, np.inf
    row = _first(row_in)
    column = -1 if row >= 0 else _first(col_in)
    count, moved = 0, False
    while row >= 0 or column >= 0:
        count += 1
        if row >= 0:
            row_in[row] = rows[row] = True
            for j in range(len(v)):
                out[j] = min(out[j], c[row, j] - u[row] - v[j])
        else:
            col_in[column] = cols[column] = True
            for i in range(len(u)):
                into[i] = min(into[i], c[i, column] - u[i] - v[column])
        column = _nearest(col_in, out, np.inf)
        row = _nearest(row_in, into, out[column] if column >= 0 else np.inf)
        by = -into[row] if row >= 0 else out[column] if column >= 0 else 0.0
        if abs(by) > tight:
            moved = True
            _shift(u, v, rows, cols, by)
            for j in range(len(v)):
                out[j] -= by
            for i in range(len(u)):
                into[i] += by
    return count, moved


@njit(error_model="numpy")
def _close(c, u, v, held_rows, held_cols):
    """Give nodes without mass the least that what they may be paired with allows; where that is nothing, zero."""
    for i in range(len(u)):
        if not held_rows[i]:
            least = np.inf
            for j in range(len(v)):
                if held_cols[j]:
                    least = min(least, c[i, j] - v[j])
            u[i] = least if least < np.inf else 0.0
    for j in range(len(v)):
        if not held_cols[j]:
            least = np.inf
            for i in range(len(u)):
                least = min(least, c[i, j] - u[i])
            v[j] = least if least < np.inf else 0.0


@jit(nogil=True, error_model="numpy")
def mend_all(cost, cost_index, held_rows, held_cols, b, tight, f, g, moved):
    """Mend potentials in place; see ``forbidding.mend``.

    Args:
        cost: (costs, n, m), +inf where a pair is forbidden.
        cost_index: (problems,) the cost of each.
        held_rows: (problems, n) bool, rows with mass.
        held_cols: (problems, m) bool.
        b: (problems, m).
        tight: (problems,) slack that is as good as none.
        f: (problems, n).
        g: (problems, m).
        moved: (problems,) bool, written: whether potentials of nodes with mass have changed.
    """
    n, m = cost.shape[1], cost.shape[2]
    row_in, col_in = np.empty(n, np.bool_), np.empty(m, np.bool_)
    rows, cols = np.empty(n, np.bool_), np.empty(m, np.bool_)
    into, out = np.empty(n), np.empty(m)
    for k in range(len(cost_index)):
        c = cost[cost_index[k]]
        left = 0
        for i in range(n):
            row_in[i] = not held_rows[k, i]
            left += held_rows[k, i]
        for j in range(m):
            col_in[j] = not held_cols[k, j]
            left += held_cols[k, j]
        massless = left < n + m
        moved[k] = False
        while left > 0:
            count, shifted = _gather(c, f[k], g[k], row_in, col_in, rows, cols, into, out, tight[k])
            left -= count
            moved[k] |= shifted or left > 0
            if moved[k]:
                mass, paid = 0.0, 0.0
                for j in range(m):
                    if cols[j]:
                        mass += b[k, j]
                        paid += b[k, j] * g[k, j]
                _shift(f[k], g[k], rows, cols, paid / mass if mass > 0.0 else 0.0)
        if massless:
            _close(c, f[k], g[k], held_rows[k], held_cols[k])
