"""A start of the network simplex from a tree that solved a similar problem; compiled into the kernel.

For new weights, the flows on an old tree follow from its leaves up. Where one would be negative the tree is cut: the
node above the arc sends what it has down it and hangs there, and what the node below still lacks it gets elsewhere, at
the least reduced cost under the potentials of the old tree. What comes out is a strongly feasible tree, as the greedy
start's is: a node hangs under its partner when it is exhausted; when both are, the column hangs under the row, so that
arcs without flow lead from a row up to a column. With weights as they were it is the old tree.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(error_model="numpy")
def _top(x, parent):
    """Root of the tree that a node is in."""
    while parent[x] >= 0:
        x = parent[x]
    return x


@njit(error_model="numpy")
def _link(x, y, head, following, other, edge):
    """Put a node at the head of another one's list of neighbours."""
    other[edge] = y
    following[edge] = head[x]
    head[x] = edge


@njit(error_model="numpy")
def _forest(arc_rows, arc_cols, rows, cols, n, m, full_n, full_m, place, head, following, other):
    """List each node's neighbours among the nodes with mass."""
    whole = n == full_n and m == full_m
    if not whole:
        for x in range(full_n + full_m):
            place[x] = -1
        for i in range(n):
            place[rows[i]] = i
        for j in range(m):
            place[full_n + cols[j]] = n + j
    for x in range(n + m):
        head[x] = -1
    edges = 0
    # Where nodes had no mass, lists of arcs end with (0, 0).
    last = len(arc_rows)
    while last > 1 and arc_rows[last - 1] == 0 and arc_cols[last - 1] == 0:
        last -= 1
    for k in range(last):
        row = np.int64(arc_rows[k])
        column = full_n + np.int64(arc_cols[k])
        # Dummy nodes come after all others.
        if not (0 <= row < full_n <= column < full_n + full_m):
            continue
        if edges >= 2 * (full_n + full_m):
            break
        if not whole:
            row = place[row]
            column = place[column]
            if row < 0 or column < 0:
                continue
        _link(row, column, head, following, other, edges)
        _link(column, row, head, following, other, edges + 1)
        edges += 2


@njit(error_model="numpy")
def _walk(nodes, head, following, other, order, above, rank):
    """Order the nodes of the forest from its roots, which are rows, down; columns on their own come last.

    What would close a cycle is passed over: arcs that no tree has.
    """
    for x in range(nodes):
        rank[x] = -1
    count = 0
    for start in range(nodes):
        if rank[start] >= 0:
            continue
        rank[start] = count
        above[start] = -1
        order[count] = start
        at = count
        count += 1
        while at < count:
            x = order[at]
            at += 1
            edge = head[x]
            while edge >= 0:
                y = other[edge]
                edge = following[edge]
                if rank[y] < 0:
                    rank[y] = count
                    above[y] = x
                    order[count] = y
                    count += 1
        if count == nodes:
            break


@njit(error_model="numpy")
def _price(cost, n, m, order, above, rank, potential):
    """Set potentials at which the arcs of the forest are tight, those of each tree as high as those before allow."""
    for k in range(n + m):
        x = order[k]
        y = above[x]
        if y >= 0:
            potential[x] = cost[min(x, y), max(x, y) - n] - potential[y]
            continue
        least = np.inf
        if x < n:
            for j in range(m):
                if rank[n + j] < k:
                    least = min(least, cost[x, j] - potential[n + j])
        else:
            for i in range(n):
                if rank[i] < k:
                    least = min(least, cost[i, x - n] - potential[i])
        potential[x] = least if least < np.inf else 0.0


@njit(error_model="numpy")
def _exhaust(i, j, n, supply, demand, parent, flow):
    """Send what can be sent from an open row to an open column, and hang up who is exhausted."""
    if demand[j] <= supply[i]:
        parent[n + j] = i
        flow[n + j] = demand[j]
        supply[i] -= demand[j]
        demand[j] = 0.0
    else:
        parent[i] = n + j
        flow[i] = supply[i]
        demand[j] -= supply[i]
        supply[i] = 0.0


@njit(error_model="numpy")
def _complete(cost, n, m, supply, demand, potential, parent, flow):
    """Serve what the old tree left open, each row by the columns that are cheapest for it, and make one tree."""
    left = 0
    for j in range(m):
        left += parent[n + j] < 0
    root = -1
    for i in range(n):
        while parent[i] < 0 and left > 0:
            best = np.inf
            at = -1
            for j in range(m):
                if parent[n + j] < 0 and (at < 0 or cost[i, j] - potential[n + j] < best):
                    best = cost[i, j] - potential[n + j]
                    at = j
            _exhaust(i, at, n, supply, demand, parent, flow)
            left -= parent[n + at] >= 0
        if parent[i] >= 0:
            continue
        if root < 0:
            root = i
            continue
        # All columns are exhausted: this row hangs, without flow, under one that does not hang under it.
        best = np.inf
        at = -1
        for j in range(m):
            reduced = cost[i, j] - potential[n + j]
            if (at < 0 or reduced < best) and _top(n + j, parent) != i:
                best = reduced
                at = j
        parent[i] = n + at
        flow[i] = 0.0


@njit(error_model="numpy")
def _finish(cost, n, m, words, root, potential, parent, mask, head, following, order):
    """Set the potentials of a tree and the masks of its subtrees."""
    nodes = n + m
    for x in range(nodes):
        head[x] = -1
        for w in range(words):
            mask[x, w] = 0
        mask[x, x >> 6] = np.int64(1) << (x & 63)
    for x in range(nodes):
        if x != root:
            following[x] = head[parent[x]]
            head[parent[x]] = x
    order[0] = root
    potential[root] = 0.0
    count = 1
    at = 0
    while at < count:
        x = order[at]
        at += 1
        y = head[x]
        while y >= 0:
            potential[y] = cost[min(x, y), max(x, y) - n] - potential[x]
            order[count] = y
            count += 1
            y = following[y]
    for k in range(nodes - 1, 0, -1):
        x = order[k]
        for w in range(words):
            mask[parent[x], w] |= mask[x, w]


@njit(error_model="numpy")
def restart(
    cost, n, m, words, supply, demand, rows, cols, full_n, full_m, arc_rows, arc_cols,
    potential, parent, flow, mask, order, room,
):  # fmt: skip
    """Build a strongly feasible tree from the arcs of an earlier one and set its potentials.

    Args:
        cost: (n, m) and more, of the nodes with mass.
        n: Rows with mass.
        m: Columns with mass.
        words: Of a mask.
        supply: (n,) flow units of the rows, used up.
        demand: (m,) of the columns, used up; of the same total.
        rows: (n,) which rows those are.
        cols: (m,) which columns.
        full_n: All rows.
        full_m: All columns.
        arc_rows: (arcs,) of the earlier tree, among all rows; what does not exist or closes a cycle is passed over.
        arc_cols: (arcs,) among all columns.
        potential: Out (n + m,).
        parent: Out (n + m,), -1 at the root.
        flow: Out (n + m,), on the arc to the parent.
        mask: Out (n + m, words).
        order: (n + m,) room.
        room: (8, full_n + full_m) room.

    Returns:
        The root, a row.
    """
    place, head, above, rank = room[0], room[1], room[2], room[3]
    size = room.shape[1]
    following = room[4:6].reshape(2 * size)
    other = room[6:8].reshape(2 * size)
    nodes = n + m
    _forest(arc_rows, arc_cols, rows, cols, n, m, full_n, full_m, place, head, following, other)
    _walk(nodes, head, following, other, order, above, rank)
    for x in range(nodes):
        parent[x] = -1
    hung = 0
    for k in range(nodes - 1, -1, -1):
        x = order[k]
        y = above[x]
        if y >= 0 and parent[x] < 0 and parent[y] < 0:
            _exhaust(min(x, y), max(x, y) - n, n, supply, demand, parent, flow)
            hung += 1
    if hung < nodes - 1:
        _price(cost, n, m, order, above, rank, potential)
        _complete(cost, n, m, supply, demand, potential, parent, flow)
    root = 0
    while parent[root] >= 0:
        root += 1
    _finish(cost, n, m, words, root, potential, parent, mask, head, following, order)
    return root
