"""Lists of arcs for the sparse simplex of a large problem and a tree to start from, compiled by numba."""

from __future__ import annotations

import numpy as np
from numba import njit

from otfew.transport.jit import jit

LEAST = 1e-12
"""Scalings are kept between this and its inverse: the arcs of the lists alone may not carry all the mass."""

BUCKETS = 4096
"""Reduced costs are sorted into as many."""


@jit(nogil=True, error_model="numpy")
def list_arcs(cost, near, counts, column_near, column_keys, column_counts):
    """Join the lists of rows and columns; returns (begin, arcs, costs) by rows, without repetitions.

    Args:
        cost: (n, m).
        near: (n, k) int32 columns.
        counts: (n,) int64.
        column_near: (parts, m, l) int32 rows.
        column_keys: (parts, m, l) ascending.
        column_counts: (parts, m) int64.
    """
    n, m = cost.shape
    parts, _, most = column_near.shape
    degree = np.zeros(n + 1, np.int64)
    for i in range(n):
        degree[i] = counts[i]
    chosen = np.full((m, most), -1, np.int32)
    at = np.zeros(parts, np.int64)
    for j in range(m):
        at[:] = 0
        for k in range(most):
            best = -1
            for p in range(parts):
                if at[p] < column_counts[p, j] and (
                    best < 0 or column_keys[p, j, at[p]] < column_keys[best, j, at[best]]
                ):
                    best = p
            if best < 0:
                break
            chosen[j, k] = column_near[best, j, at[best]]
            degree[chosen[j, k]] += 1
            at[best] += 1
    place = np.zeros(n + 1, np.int64)
    for i in range(n):
        place[i + 1] = place[i] + degree[i]
    wanted = np.empty(place[n], np.int32)
    filled = place[:n].copy()
    for i in range(n):
        for k in range(counts[i]):
            wanted[filled[i]] = near[i, k]
            filled[i] += 1
    for j in range(m):
        for k in range(most):
            i = chosen[j, k]
            if i < 0:
                break
            wanted[filled[i]] = j
            filled[i] += 1
    begin = np.zeros(n + 1, np.int64)
    arcs = np.empty(len(wanted), np.int32)
    costs = np.empty(len(wanted))
    seen = np.full(m, -1, np.int32)
    total = 0
    for i in range(n):
        for k in range(place[i], place[i + 1]):
            j = wanted[k]
            if seen[j] != i:
                seen[j] = i
                arcs[total] = n + j
                costs[total] = cost[i, j]
                total += 1
        begin[i + 1] = total
    return begin, arcs[:total].copy(), costs[:total].copy()


@jit(nogil=True, error_model="numpy")
def add_arcs(cost, begin, arcs, costs, near, counts, potential, cut):
    """Add arcs to lists, and leave out those whose reduced cost is above a cut; returns (begin, arcs, costs).

    Args:
        cost: (n, m).
        begin: (n + 1,) int64.
        arcs: (arcs,) int32.
        costs: (arcs,).
        near: (n, k) int32 columns to add.
        counts: (n,) int64.
        potential: (nodes,).
        cut: Infinity leaves none out.
    """
    n = cost.shape[0]
    size = len(arcs)
    for i in range(n):
        size += counts[i]
    new_begin = np.zeros(n + 1, np.int64)
    new_arcs = np.empty(size, np.int32)
    new_costs = np.empty(size)
    total = 0
    for i in range(n):
        for k in range(begin[i], begin[i + 1]):
            if costs[k] + potential[arcs[k]] - potential[i] <= cut:
                new_arcs[total] = arcs[k]
                new_costs[total] = costs[k]
                total += 1
        for k in range(counts[i]):
            new_arcs[total] = n + near[i, k]
            new_costs[total] = cost[i, near[i, k]]
            total += 1
        new_begin[i + 1] = total
    return new_begin, new_arcs[:total], new_costs[:total]


@jit(nogil=True, error_model="numpy")
def reduced_costs(begin, arcs, costs, potential):
    """Reduced costs (arcs,) of listed arcs.

    Args:
        begin: (n + 1,) int64.
        arcs: (arcs,) int32.
        costs: (arcs,).
        potential: (nodes,).
    """
    out = np.empty(len(costs))
    for i in range(len(begin) - 1):
        for k in range(begin[i], begin[i + 1]):
            out[k] = costs[k] + potential[arcs[k]] - potential[i]
    return out


@njit(error_model="numpy", forceinline=True)
def _beyond(change):
    """Take a change to the power 5/8: relaxation by 13/8 without a logarithm."""
    root = np.sqrt(change)
    return root * np.sqrt(np.sqrt(root))


@jit(nogil=True, error_model="numpy")
def smooth(begin, arcs, costs, supply, demand, potential, reg, least, turns):
    """Bring potentials near optimal ones by over-relaxed Sinkhorn iterations over listed arcs, annealed.

    (Thibault, Chizat, Dossal and Papadakis 2021 for the relaxation.) They need not converge: whatever they give, the
    simplex ends at the optimum.

    Args:
        begin: (n + 1,) int64.
        arcs: (arcs,) int32.
        costs: (arcs,).
        supply: (n,) mass of the rows, zero for rows that have no arcs.
        demand: (m,).
        potential: (n + m,) u and w; moved.
        reg: Strength of the regularisation, halved until it is ``least``.
        least: The last one.
        turns: Iterations at each strength.
    """
    n = len(begin) - 1
    m = len(potential) - n
    nodes = n + m
    kernel = np.empty(len(arcs), np.float32)
    scaling = np.empty(nodes, np.float32)
    sums = np.empty(nodes, np.float32)
    mass = np.empty(nodes, np.float32)
    total = 0.0
    for i in range(n):
        total += supply[i]
    for x in range(nodes):
        mass[x] = (supply[x] if x < n else demand[x - n]) / total * nodes
    tiny = np.float32(LEAST)
    while True:
        for i in range(n):
            low = np.inf
            for k in range(begin[i], begin[i + 1]):
                low = min(low, costs[k] + potential[arcs[k]])
            potential[i] = low if begin[i] < begin[i + 1] else potential[i]
            for k in range(begin[i], begin[i + 1]):
                kernel[k] = np.exp(np.float32((low - costs[k] - potential[arcs[k]]) / reg))
        for x in range(nodes):
            scaling[x] = 1.0
        for turn in range(turns):
            for x in range(n, nodes):
                sums[x] = tiny * tiny
            for i in range(n):
                if begin[i] == begin[i + 1]:
                    continue
                gives = np.float32(0.0)
                for k in range(begin[i], begin[i + 1]):
                    gives += kernel[k] * scaling[arcs[k]]
                now = mass[i] / max(gives, tiny * tiny)
                if turn > 0:
                    now *= _beyond(now / scaling[i])
                now = min(max(now, tiny), np.float32(1.0) / tiny)
                scaling[i] = now
                for k in range(begin[i], begin[i + 1]):
                    sums[arcs[k]] += kernel[k] * now
            for x in range(n, nodes):
                if mass[x] == 0.0:
                    continue
                now = mass[x] / sums[x]
                if turn > 0:
                    now *= _beyond(now / scaling[x])
                scaling[x] = min(max(now, tiny), np.float32(1.0) / tiny)
        for x in range(nodes):
            change = reg * np.log(scaling[x])
            potential[x] += change if x < n else -change
        if reg <= least:
            return
        reg = max(0.5 * reg, least)


@njit(error_model="numpy")
def _sorted(keys, unit):
    """Order keys by buckets up to 8 units above the least, as they stand within a bucket; returns indices."""
    total = len(keys)
    low = np.inf
    for k in range(total):
        low = min(low, keys[k])
    place = np.zeros(BUCKETS + 1, np.int64)
    bucket = np.empty(total, np.int32)
    for k in range(total):
        # What is no number here, or none that fits, is far above.
        level = (keys[k] - low) / unit * (BUCKETS / 8.0)
        bucket[k] = np.int32(level) if level < BUCKETS else BUCKETS - 1
        place[bucket[k] + 1] += 1
    for b in range(BUCKETS):
        place[b + 1] += place[b]
    order = np.empty(total, np.int64)
    for k in range(total):
        order[place[bucket[k]]] = k
        place[bucket[k]] += 1
    return order


@njit(error_model="numpy")
def _top(above, x):
    """Find the open node above a node, and shorten the way to it."""
    while above[x] != x:
        above[x] = above[above[x]]
        x = above[x]
    return x


@jit(nogil=True, error_model="numpy")
def plant(begin, arcs, keys, unit, supply, demand, parent, flow):
    """Build a strongly feasible tree greedily; returns its root.

    Arcs take what they can in the order of their keys. A node hangs under its partner when it is exhausted; when both
    are, the column hangs under the row and the row goes on with nothing left, so that arcs without flow lead from a row
    up to a column. What is left over is joined as it comes.

    Args:
        begin: (n + 1,) int64.
        arcs: (arcs,) int32.
        keys: (arcs,) float64.
        unit: Keys that differ by far less than this are as good as one another; positive.
        supply: (n,) whole units, used up; zero for rows that stay outside of the tree.
        demand: (m,) the same of the columns.
        parent: (nodes,) int32, overwritten: -1 at the root, -2 at nodes outside of the tree.
        flow: (nodes,), overwritten.
    """
    n = len(begin) - 1
    nodes = len(parent)
    above = np.empty(nodes, np.int32)
    row_of = np.empty(len(arcs), np.int32)
    open_rows = 0
    for x in range(nodes):
        outside = (supply[x] if x < n else demand[x - n]) == 0.0
        parent[x] = -2 if outside else -1
        flow[x] = 0.0
        above[x] = x
        open_rows += x < n and not outside
    for i in range(n):
        for k in range(begin[i], begin[i + 1]):
            row_of[k] = i
    order = _sorted(keys, unit)
    for k in order:
        i = row_of[k]
        x = arcs[k]
        if parent[i] != -1 or parent[x] != -1 or supply[i] == 0.0:
            continue
        if demand[x - n] <= supply[i]:
            supply[i] -= demand[x - n]
            parent[x] = i
            flow[x] = demand[x - n]
            above[x] = i
        else:
            demand[x - n] -= supply[i]
            parent[i] = x
            flow[i] = supply[i]
            above[i] = x
            supply[i] = 0.0
            open_rows -= 1
    x = n
    for i in range(n):
        while x < nodes and parent[i] == -1 and supply[i] > 0.0:
            if parent[x] != -1:
                x += 1
            elif demand[x - n] <= supply[i]:
                supply[i] -= demand[x - n]
                parent[x] = i
                flow[x] = demand[x - n]
                above[x] = i
            else:
                demand[x - n] -= supply[i]
                parent[i] = x
                flow[i] = supply[i]
                above[i] = x
                supply[i] = 0.0
                open_rows -= 1
    # Rows with nothing left are the roots of trees: each hangs, without flow, under a column of another tree.
    for k in order:
        if open_rows == 1:
            break
        i = row_of[k]
        if parent[i] == -1 and _top(above, arcs[k]) != i:
            parent[i] = arcs[k]
            above[i] = arcs[k]
            open_rows -= 1
    root = -1
    column = -1
    for i in range(n):
        if parent[i] != -1:
            continue
        if root < 0:
            root = i
            if open_rows > 1:
                column = n
                while parent[column] == -2 or _top(above, column) != root:
                    column += 1
        else:
            parent[i] = column
            above[i] = column
    return root
