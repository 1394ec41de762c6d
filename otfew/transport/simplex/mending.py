"""Costs with forbidden pairs surveyed and filled, and potentials mended: what ``forbidding`` needs compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from otfew.transport.certificate import EPS
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


@njit(error_model="numpy", fastmath={"nnan", "nsz", "reassoc"})
def _least(x):
    """Least of some numbers: unlike their minimum with its index, it vectorises."""
    least = np.inf
    for k in range(len(x)):
        least = min(least, x[k])
    return least


@njit(error_model="numpy")
def _first(x, value):
    """Index of the first number that is a value, or -1."""
    for k in range(len(x)):
        if x[k] == value:
            return k
    return -1


@njit(error_model="numpy")
def _shift(u, v, block_rows, block_cols, by):
    """Raise the potentials of rows of a block and lower those of its columns; those not in it have infinity there."""
    for i in range(len(u)):
        u[i] += by if block_rows[i] == 0.0 else 0.0
    for j in range(len(v)):
        v[j] -= by if block_cols[j] == 0.0 else 0.0


@njit(error_model="numpy")
def _gather(c, u, v, row_in, col_in, rows, cols, into, out, tight):
    """Gather a block: what hangs together by allowed pairs; potentials move until those that join it are tight.

    ``row_in`` and ``col_in`` hold infinity for what is in this or an earlier block, or has no mass, and zero for the
    rest; ``rows`` and ``cols`` zero for what is in this one and infinity for the rest. ``out`` holds the slack of each
    column that is in none beside the block's rows, ``into`` that of each row beside its columns. Returns how many nodes
    the block has, and whether potentials have moved.
    """
    n, m = len(u), len(v)
    rows[:] = np.inf
    cols[:] = np.inf
    into[:] = np.inf
    out[:] = np.inf
    row = _first(row_in, 0.0)
    column = -1 if row >= 0 else _first(col_in, 0.0)
    count = 0
    moved = False
    while row >= 0 or column >= 0:
        count += 1
        if row >= 0:
            row_in[row] = into[row] = np.inf
            rows[row] = 0.0
            for j in range(m):
                out[j] = min(out[j], c[row, j] - u[row] - v[j] + col_in[j])
        else:
            col_in[column] = out[column] = np.inf
            cols[column] = 0.0
            for i in range(n):
                into[i] = min(into[i], c[i, column] - u[i] - v[column] + row_in[i])
        outward = _least(out)
        inward = _least(into)
        row = column = -1
        by = 0.0
        if outward <= inward and outward < np.inf:
            column = _first(out, outward)
            by = outward
        elif inward < np.inf:
            row = _first(into, inward)
            by = -inward
        if abs(by) > tight:
            moved = True
            _shift(u, v, rows, cols, by)
            for j in range(m):
                out[j] -= by
            for i in range(n):
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


@njit(error_model="numpy")
def _connected(c, row_in, col_in, stack, seen):
    """Tell whether allowed pairs join all nodes with mass; ``row_in`` and ``col_in`` are zero for these."""
    n, m = c.shape
    wanted = 0
    top = 0
    for x in range(n + m):
        seen[x] = (row_in[x] if x < n else col_in[x - n]) != 0.0
        wanted += not seen[x]
    for x in range(n):
        if not seen[x]:
            stack[top] = x
            seen[x] = True
            top += 1
            break
    found = top
    while top > 0 and found < wanted:
        top -= 1
        x = stack[top]
        for y in range(n, n + m) if x < n else range(n):
            if not seen[y] and c[min(x, y), max(x, y) - n] < np.inf:
                seen[y] = True
                found += 1
                stack[top] = y
                top += 1
    return found == wanted


@njit(error_model="numpy")
def _certify(c, u, v, a, b):
    """Dual value, and a bound of what rounding can hide of it; see ``certificate.rounding``."""
    n, m = c.shape
    dual = size = hidden = 0.0
    for j in range(m):
        dual += v[j] * b[j]
        size += abs(v[j]) * b[j]
    for i in range(n):
        dual += u[i] * a[i]
        size += abs(u[i]) * a[i]
        over = 0.0
        for j in range(m):
            if b[j] > 0.0:
                over = max(over, u[i] + v[j] - c[i, j])
        hidden += over * a[i]
    return dual, hidden + EPS * (n + m + 8) * size


@jit(nogil=True, error_model="numpy")
def mend_all(cost, cost_index, held_rows, held_cols, a, b, tight, loose, reach, f, g, moved, dual, hidden):
    """Mend potentials in place; see ``forbidding.mend``.

    Args:
        cost: (costs, n, m), +inf where a pair is forbidden.
        cost_index: (problems,) the cost of each.
        held_rows: (problems, n) bool, rows with mass.
        held_cols: (problems, m) bool.
        a: (problems, n).
        b: (problems, m), of the totals of a.
        tight: (problems,) slack that is as good as none.
        loose: (problems,) 0 where tight allowed pairs join all nodes with mass already, 1 where they may not, 2 where
            that only matters if allowed pairs do not join them either, or potentials are further apart than ``reach``.
        reach: (problems,).
        f: (problems, n).
        g: (problems, m).
        moved: (problems,) bool, written: whether potentials of nodes with mass have changed.
        dual: (problems,) dual value of these.
        hidden: (problems,) what rounding hides of it at most.
    """
    n, m = cost.shape[1], cost.shape[2]
    row_in, rows, into = np.empty(n), np.empty(n), np.empty(n)
    col_in, cols, out = np.empty(m), np.empty(m), np.empty(m)
    stack, seen = np.empty(n + m, np.int64), np.empty(n + m, np.bool_)
    for k in range(len(cost_index)):
        c = cost[cost_index[k]]
        left = 0
        least, most = np.inf, -np.inf
        for i in range(n):
            row_in[i] = 0.0 if held_rows[k, i] else np.inf
            left += held_rows[k, i]
            if held_rows[k, i]:
                least, most = min(least, f[k, i]), max(most, f[k, i])
        for j in range(m):
            col_in[j] = 0.0 if held_cols[k, j] else np.inf
            left += held_cols[k, j]
        massless = left < n + m
        moved[k] = False
        if loose[k] == 0 or (loose[k] == 2 and most - least <= reach[k] and _connected(c, row_in, col_in, stack, seen)):
            left = 0
        while left > 0:
            count, shifted = _gather(c, f[k], g[k], row_in, col_in, rows, cols, into, out, tight[k])
            left -= count
            moved[k] |= shifted or left > 0
            if moved[k]:
                mass, paid = 0.0, 0.0
                for j in range(m):
                    if cols[j] == 0.0:
                        mass += b[k, j]
                        paid += b[k, j] * g[k, j]
                _shift(f[k], g[k], rows, cols, paid / mass if mass > 0.0 else 0.0)
        if massless:
            _close(c, f[k], g[k], held_rows[k], held_cols[k])
        if moved[k]:
            dual[k], hidden[k] = _certify(c, f[k], g[k], a[k], b[k])
