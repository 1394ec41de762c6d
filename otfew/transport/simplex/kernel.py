"""Batched exact transport on dense bipartite graphs, compiled by numba.

The network simplex: nodes of the spanning tree are the rows 0..n-1 and the columns n..n+m-1; arcs run from rows to
columns. A tree is kept as parent pointers, the flow on the arc to the parent, and for each node a bit mask of its
subtree (64 nodes a word): the masks answer "is x above y" in one test and give the nodes whose potentials move in one
pivot, without child lists or depths.

Flows are integers of at most 2^52 held in float64, so sums are exact and degeneracy is recognised exactly: with the
strongly feasible rule (Cunningham 1976; Ahuja, Magnanti and Orlin 1993, ch. 11: the leaving arc is the last blocking
one, and an arc without flow leads from a row up to a column) no sequence of degenerate pivots can repeat.

Small assignment problems - uniform weights, as many rows as columns - go to shortest augmenting paths instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numba import types

from otfew.transport.certificate import CERTAIN, EPS
from otfew.transport.compilation import announced
from otfew.transport.jit import jit
from otfew.transport.problem import INVALID, TOTALS_RANGE, UNSURE
from otfew.transport.simplex.assignment import assign
from otfew.transport.simplex.lanes import GROUP, LANES, least_net, to_whole
from otfew.transport.simplex.pivots import FAILED, OPTIMAL, simplex, simplex_whole
from otfew.transport.simplex.reading import (
    SCALE,
    all_equal,
    checked_total,
    copy_if_finite,
    quantise,
    reduce_costs,
    take_off,
)
from otfew.transport.simplex.rows import largest_of, none_below, weighted_sum
from otfew.transport.simplex.start import COUNTED, first_tree
from otfew.transport.simplex.tree import refresh, refresh_bits
from otfew.transport.simplex.warm import restart

ASSIGNMENT = 128
"""Largest assignment problem (as many rows as columns, uniform weights) that is solved as one: measured, twice as fast
at 9 to 125 rows; from 300 on the simplex is faster."""

WORD = 64
"""Nodes whose subtrees fit one word of a mask."""

WHOLE = 2.0**24
"""Costs in whole numbers reach up to this over the nodes: 32 times their sum along any path stays below 2^29."""


def _solve_batch(
    large, wide, trees,
    costs, narrow, weights_a, weights_b, cost_index, a_index, b_index, first, last, totals_rtol, tol, max_iter,
    out_rows, out_cols, out_flow, out_f, out_g, out_value, out_gap, out_error, out_status, out_iter, out_assigned,
):  # fmt: skip
    """Solve problems first..last-1 and write plans, potentials and certificates in place.

    What is unsound - a cost or weight that is NaN or infinite, a negative weight, a total out of range, totals further
    apart than ``totals_rtol`` - gets the status INVALID and NaN, costs whose differences may overflow the status FAILED
    and NaN. A plan that is not certain in units of the costs it uses gets the status UNSURE.

    Compiled once for each kind of problem: ``large`` is None where a subtree's mask is one word, ``wide`` is None where
    columns are sorted by counting, ``trees`` is None where the search starts afresh, else the rows and columns, each
    (problems, arcs), of the trees that it starts from. Costs are those in ``costs``, or in ``narrow`` in float32, then
    ``costs`` is empty: they are widened as they are read.
    """
    full_n = costs.shape[1]
    full_m = costs.shape[2]
    flat_costs = costs.reshape(-1)
    flat_narrow = narrow.reshape(-1)
    copied = np.empty(full_n * full_m + LANES)
    given = copied[: full_n * full_m].reshape((full_n, full_m))
    squeezed = np.empty(full_n * full_m + LANES)
    nodes = full_n + full_m
    width = (full_m + LANES - 1) & -LANES
    height = (full_n + LANES - 1) & -LANES
    cost = np.empty((full_n, width))
    flat_cost = cost.reshape(-1)
    storage = np.empty(nodes + LANES)
    low = np.empty(width)
    high = np.empty(width)
    mean = np.empty(full_n)
    dropped_rows = np.empty(full_n, np.bool_)
    dropped_cols = np.empty(full_m, np.bool_)
    supply = np.empty(full_n)
    demand = np.empty(full_m)
    rows = np.empty(full_n, np.int64)
    cols = np.empty(full_m, np.int64)
    least_of = np.empty(full_n)
    ranked = np.empty(full_m, np.int64)
    column_of = np.empty(full_m, np.int64)
    whole = np.empty(full_n * width, np.int32)
    tag = np.empty(height, np.int32)
    whole_v = np.empty(width, np.int32)
    excess = np.empty(width, np.int32)
    row = np.empty(width, np.int32)
    net = np.empty(width, np.int32)
    whole_potential = np.empty(nodes, np.int64)
    active = np.empty(full_n + 1, np.int64)
    opened = np.empty(width >> 4, np.int64)
    regret = np.empty(width, np.int32)
    parent = np.empty(nodes, np.int64)
    order = np.empty(nodes, np.int64)
    flow = np.zeros((nodes + LANES - 1) & -LANES)
    mask = np.zeros(((nodes + LANES - 1) & -LANES, (nodes + 63) >> 6), np.int64)
    flat_mask = mask.reshape(-1)
    moved = np.empty(2 * ((nodes + 63) >> 6), np.int64)
    error = np.empty(nodes)
    scanned = np.empty(nodes, np.bool_)
    if trees is not None:
        room = np.empty((8, nodes), np.int64)
    for k in range(first, last):
        start = cost_index[k] * full_n * full_m
        if len(narrow) > 0:
            finite = copy_if_finite(flat_narrow[start : start + full_n * full_m], copied)
        else:
            finite = copy_if_finite(flat_costs[start : start + full_n * full_m], copied)
        a = weights_a[a_index[k]]
        b = weights_b[b_index[k]]
        total_a = checked_total(a, TOTALS_RANGE[0], TOTALS_RANGE[1])
        total_b = checked_total(b, TOTALS_RANGE[0], TOTALS_RANGE[1])
        agree = abs(total_a - total_b) <= totals_rtol * max(total_a, total_b)
        status = INVALID
        n = 0
        m = 0
        spread = 0.0
        reach = 0.0
        if agree and finite:
            n = quantise(a, total_a, rows, supply, dropped_rows)
            m = quantise(b, total_b, cols, demand, dropped_cols)
            spread = reduce_costs(copied, rows, cols, n, m, squeezed, flat_cost, mean, low, high)
            reach = spread + largest_of(mean, n) + largest_of(low, m)
            # Potentials are sums along paths of at most n + m arcs, those of closed columns four times as far away, and
            # pricing adds a row of their differences: no loop needs to reckon with infinity, or NaN, from here on.
            status = OPTIMAL if reach * 16.0 * (n + m) ** 2 < np.inf else FAILED
        if status != OPTIMAL:
            out_status[k] = status
            out_iter[k] = 0
            out_f[k] = np.nan
            out_g[k] = np.nan
            out_value[k] = np.nan
            out_gap[k] = np.nan
            out_error[k] = np.nan
            out_assigned[k] = False
            out_rows[k] = 0
            out_cols[k] = 0
            out_flow[k] = np.nan
            continue
        potential = storage[: n + m]
        padded = (m + LANES - 1) & -LANES
        v = storage[n : n + padded]
        for j in range(m, padded):
            v[j] = -np.inf
        words = (n + m + 63) >> 6
        bits = 1
        while (1 << bits) < m:
            bits += 1
        # The largest grid on which costs net of potentials stay below 2^62: a tree's path has n + m arcs at most, and
        # columns that are closed lie four times as far away.
        grid = min(2.0 ** (57 - bits) / ((n + m) * spread), 1e300) if spread > 0.0 else 1.0
        value = 0.0
        arcs = 0
        out_assigned[k] = n == m and n <= ASSIGNMENT and all_equal(a, rows, n) and all_equal(b, cols, m)
        if out_assigned[k]:
            take_off(cost, low, n, m, ranked)
            pivots = assign(cost, n, spread, grid, bits, ranked, v, parent, column_of, order, high, ranked, scanned)
            for i in range(n):
                out_rows[k, i] = rows[i]
                out_cols[k, i] = cols[parent[i]]
                out_flow[k, i] = total_a / n
                least_of[i] = least_net(flat_cost, i * width, v, m)
            arcs = n
        else:
            tolerance = max(spread * (1e-13 + 4e-16 * m), tol * spread)
            scale = min(WHOLE / ((n + m) * spread), 1e300) if spread > 0.0 else 0.0
            for at in range(0, m, LANES):
                for i in range(n):
                    to_whole(flat_cost, i * width + at, low, at, scale, whole, at * n + i * LANES)
            # No pivot for an excess that the tolerance allows.
            least = np.int64(GROUP * (1.0 + min(np.floor(tol * spread * scale), WHOLE)))
            # Where there is one word the compiler unrolls the loops over words.
            one = 1 if large is None else words
            if trees is None:
                root = first_tree(
                    whole, n, m, one, supply, demand, row, net, regret, ranked,
                    active, opened, whole_potential, tag, whole_v, parent, flow, mask, order, wide,
                )  # fmt: skip
                pivots = simplex_whole(
                    whole, n, m, large, one, least, max_iter, tag, whole_v, row, net, excess,
                    parent, flow, mask, flat_mask, moved,
                )  # fmt: skip
                if large is None:
                    refresh_bits(cost, n, m, root, potential, parent, order)
                else:
                    refresh(cost, n, m, root, potential, parent, order, scanned)
            else:
                # Few pivots are left as a rule: not worth whole numbers.
                pivots = 0
                root = restart(
                    cost, n, m, one, supply, demand, rows, cols, full_n, full_m, trees[0][k], trees[1][k],
                    potential, parent, flow, mask, order, room,
                )  # fmt: skip
            tight = True
            for i in range(n):
                least_of[i] = least_net(flat_cost, i * width, v, m)
                tight &= potential[i] - least_of[i] <= tolerance
            if not tight:
                status, pivots = simplex(
                    cost, n, m, one, grid, bits, tolerance, pivots, max_iter,
                    root, potential, parent, flow, mask, order, moved, scanned,
                )  # fmt: skip
                for i in range(n):
                    least_of[i] = least_net(flat_cost, i * width, v, m)
            for x in range(n + m):
                if x != root:
                    out_rows[k, arcs] = rows[min(x, parent[x])]
                    out_cols[k, arcs] = cols[max(x, parent[x]) - n]
                    out_flow[k, arcs] = flow[x] / SCALE * total_a
                    arcs += 1
        out_status[k] = status
        out_iter[k] = pivots

        for i in range(full_n):
            error[i] = -a[i]
        for j in range(full_m):
            error[full_n + j] = -b[j] * (total_a / total_b)
        gross = 0.0
        least = np.inf
        most = -np.inf
        for arc in range(arcs):
            amount = out_flow[k, arc]
            c = given[out_rows[k, arc], out_cols[k, arc]]
            value += amount * c
            gross += amount * abs(c)
            least = min(least, c)
            if amount > 0.0:
                most = max(most, c)
            error[out_rows[k, arc]] += amount
            error[full_n + out_cols[k, arc]] += amount
        for arc in range(arcs, nodes - 1):
            out_rows[k, arc] = 0
            out_cols[k, arc] = 0
            out_flow[k, arc] = 0.0
        worst = 0.0
        for x in range(nodes):
            worst = max(worst, abs(error[x]))

        # Feasible extreme potentials: f by c-transform over columns with mass, then g where there is none.
        f = out_f[k]
        g = out_g[k]
        # Where nothing can be cheaper, as for a set against itself, potentials of zero prove it exactly.
        flat = most <= least and none_below(given, rows, cols, n, m, most)
        for j in range(m):
            g[cols[j]] = 0.0 if flat else v[j] + low[j]
        for i in range(n):
            f[rows[i]] = most if flat else least_of[i] + mean[i]
        if n < full_n:
            for i in range(full_n):
                if dropped_rows[i]:
                    f[i] = np.inf
                    for j in range(m):
                        f[i] = min(f[i], given[i, cols[j]] - g[cols[j]])
        shift = 0.0
        for j in range(full_m):
            if dropped_cols[j]:
                g[j] = np.inf
                for i in range(full_n):
                    g[j] = min(g[j], given[i, j] - f[i])
            shift += g[j] * (b[j] / total_b)
        dual = 0.0
        # What rounding can hide of the dual value: in its sums, and in reduced costs of this reach.
        hidden = 0.0 if flat else reach
        for i in range(full_n):
            f[i] += shift
            dual += f[i] * a[i]
        for j in range(full_m):
            g[j] -= shift
        out_value[k] = value
        unit = EPS * (n + m + 16)
        rounding = EPS * (full_n + 2) * weighted_sum(f, a)
        rounding += EPS * (full_m + 6) * (weighted_sum(g, b) / total_b + 2.0 * abs(shift)) * total_a
        rounding += 8.0 * EPS * hidden * total_a
        out_gap[k] = value - dual + rounding
        allowed = CERTAIN * (value - least * total_a) + 16.0 * unit * gross + tol * spread * total_a
        if out_status[k] == OPTIMAL and not abs(value - dual) + rounding <= allowed:
            out_status[k] = UNSURE
        out_error[k] = worst / total_a


_READ = types.Array(types.int64, 1, "C")
_SIGNATURE = (
    types.Array(types.float64, 3, "C"), types.Array(types.float32, 3, "C"),
    types.Array(types.float64, 2, "C"), types.Array(types.float64, 2, "C"), _READ, _READ, _READ, types.int64,
    types.int64, types.float64, types.float64, types.int64,
    types.Array(types.int32, 2, "C"), types.Array(types.int32, 2, "C"), types.Array(types.float64, 2, "C"),
    types.Array(types.float64, 2, "C"), types.Array(types.float64, 2, "C"), types.Array(types.float64, 1, "C"),
    types.Array(types.float64, 1, "C"), types.Array(types.float64, 1, "C"), types.Array(types.int8, 1, "C"),
    types.Array(types.int64, 1, "C"), types.Array(types.boolean, 1, "C"),
)  # fmt: skip


_TREES = types.UniTuple(types.Array(types.int32, 2, "C"), 2)


def kernel_for(n: int, m: int, warm: bool = False) -> Callable[..., None]:
    """Give the batch kernel for problems of a size; it takes what follows ``wide`` above, ``trees`` only if warm."""
    return _compiled(n + m > WORD, m > COUNTED, warm)


@functools.cache
def _compiled(large: bool, wide: bool, warm: bool) -> Callable[..., None]:
    """Compile the batch kernel and say so, or load what was compiled before."""
    flags = [True if flag else None for flag in (large, wide)]
    kinds = [*(types.none if flag is None else types.boolean for flag in flags), _TREES if warm else types.none]
    with announced("the exact solver, for warm starts" if warm else "the exact solver"):
        kernel = jit(types.void(*kinds, *_SIGNATURE), nogil=True, error_model="numpy")(_solve_batch)
    return functools.partial(kernel, *flags) if warm else functools.partial(kernel, *flags, None)
