"""The spanning tree of a large problem and its pivots, compiled by numba.

Nodes are the rows 0..n-1 and the columns n..n+m-1. Beside parents and flows a tree is kept as a thread: a circular list
in which each subtree is one stretch, with its size and its last node (Glover, Klingman and Stutz 1974; Ahuja, Magnanti
and Orlin 1993, ch. 11). A pivot then takes as long as its cycle, and to shift the potentials of the smaller side of the
cut. Flows are integers in float64 and trees stay strongly feasible, as in ``kernel``.

Potentials are u of rows and w = -g of columns, so that both move the same way: an arc's reduced cost is cost + w - u.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from otfew.transport.jit import jit


@jit(nogil=True, error_model="numpy")
def thread_up(root, count, parent, thread, back, size, last):
    """Lay the thread through a tree that is given by its parents.

    Args:
        root: Its root.
        count: Nodes in it.
        parent: (nodes,) int32, -1 at the root, -2 at nodes that are not in the tree.
        thread: (nodes,) int32 next node, overwritten.
        back: (nodes,) int32 previous node, overwritten.
        size: (nodes,) int32 nodes of the subtree, overwritten.
        last: (nodes,) int32 last node of the subtree, overwritten.
    """
    nodes = len(parent)
    child = np.full(nodes, -1, np.int32)
    sibling = np.full(nodes, -1, np.int32)
    for x in range(nodes):
        size[x] = 1
        if parent[x] >= 0:
            sibling[x] = child[parent[x]]
            child[parent[x]] = x
    order = np.empty(count, np.int32)
    x = root
    for k in range(count):
        order[k] = x
        if child[x] >= 0:
            x = child[x]
        else:
            while x != root and sibling[x] < 0:
                x = parent[x]
            x = sibling[x] if x != root else root
    for k in range(count):
        after = order[k + 1] if k + 1 < count else root
        thread[order[k]] = after
        back[after] = order[k]
    for k in range(count - 1, 0, -1):
        size[parent[order[k]]] += size[order[k]]
    for k in range(count):
        last[order[k]] = order[k + size[order[k]] - 1]


@jit(nogil=True, error_model="numpy")
def refresh(cost, root, parent, thread, potential):
    """Compute all potentials anew from the tree; returns the largest magnitude among them and the tree's costs.

    Args:
        cost: (n, m).
        root: Of the tree, whose potential is zero.
        parent: (nodes,) int32.
        thread: (nodes,) int32.
        potential: (nodes,) u and w, overwritten where the tree is.
    """
    n = cost.shape[0]
    potential[root] = 0.0
    largest = 0.0
    x = thread[root]
    while x != root:
        above = parent[x]
        if x < n:
            c = np.float64(cost[x, above - n])
            potential[x] = potential[above] + c
        else:
            c = np.float64(cost[above, x - n])
            potential[x] = potential[above] - c
        largest = max(largest, abs(potential[x]), abs(c))
        x = thread[x]
    return largest


@njit(error_model="numpy")
def _pivot(i, j, reduced, n, count, potential, parent, flow, thread, back, size, last):
    """Bring the arc (row i, column node j) into the tree, whose reduced cost is negative."""
    # Rows and columns alternate on the way up: on the row's side rows may leave, on the column's side columns. Of
    # those with the least flow the last on the way along the cycle, from its apex and over the new arc, leaves.
    row_least = np.inf
    row_out = -1
    column_least = np.inf
    column_out = -1
    x = i
    y = j
    while x != y:
        below = size[x]
        beside = size[y]
        if below <= beside:
            if x < n and flow[x] < row_least:
                row_least = flow[x]
                row_out = x
            x = parent[x]
        if beside <= below:
            if y >= n and flow[y] <= column_least:
                column_least = flow[y]
                column_out = y
            y = parent[y]
    apex = x
    row_side = row_least < column_least
    if row_side:
        theta, leaving, inner, outer = row_least, row_out, i, j
    else:
        theta, leaving, inner, outer = column_least, column_out, j, i
    if theta > 0.0:
        for start in (i, j):
            x = start
            change = -theta
            while x != apex:
                flow[x] += change
                change = -change
                x = parent[x]
    # Take the stretch of the subtree that is cut off out of the thread.
    moved = size[leaving]
    end = last[leaving]
    before = back[leaving]
    after = thread[end]
    thread[before] = after
    back[after] = before
    x = parent[leaving]
    while x != apex:
        size[x] -= moved
        x = parent[x]
    x = parent[leaving]
    while x >= 0 and last[x] == end:
        last[x] = before
        x = parent[x]
    # Turn the path from the entering arc down to the leaving one upside down. Each node on it keeps its other children
    # and gets, behind them, the node that was above it: so all on the path end at the same last node.
    x = inner
    above = outer
    amount = theta
    below = 0
    tail = last[x]
    ended = -1
    came_after = -1
    went_before = -1
    while True:
        up = parent[x]
        own_flow = flow[x]
        own_size = size[x]
        own_last = last[x]
        own_back = back[x]
        own_next = thread[own_last]
        if x != inner:
            if ended == own_last:
                own_next = went_before
            thread[tail] = x
            back[x] = tail
            if ended == own_last:
                tail = came_after
            else:
                thread[came_after] = went_before
                back[went_before] = came_after
                tail = own_last
        parent[x] = above
        flow[x] = amount
        size[x] = moved - below
        if x == leaving:
            break
        above = x
        amount = own_flow
        below = own_size
        ended = own_last
        came_after = own_back
        went_before = own_next
        x = up
    x = leaving
    while x != outer:
        last[x] = tail
        x = parent[x]
    # Put it in behind its new parent.
    after = thread[outer]
    thread[outer] = inner
    back[inner] = outer
    thread[tail] = after
    back[after] = tail
    x = outer
    while x != apex:
        size[x] += moved
        x = parent[x]
    x = outer
    while x >= 0 and last[x] == outer:
        last[x] = tail
        x = parent[x]
    # Shift the potentials of the moved nodes, or of all others the other way, whichever are fewer: from both ends of
    # the stretch, since each step waits for the one before it.
    shift = reduced if row_side else -reduced
    x = inner
    y = tail
    if 2 * moved > count:
        shift = -shift
        x = after
        y = outer
        moved = count - moved
    for _ in range(moved >> 1):
        potential[x] += shift
        potential[y] += shift
        x = thread[x]
        y = back[y]
    if moved & 1:
        potential[x] += shift


@jit(nogil=True, error_model="numpy")
def improve(
    n, count, begin, arcs, costs, block, tolerance, cursor, limit, potential, parent, flow, thread, back, size, last
):
    """Pivot until no listed arc violates dual feasibility; returns (pivots, cursor).

    Rows are priced in turn; the worst arc of each block enters.

    Args:
        n: Rows.
        count: Nodes in the tree.
        begin: (n + 1,) int64 where each row's arcs begin.
        arcs: (arcs,) int32 column nodes.
        costs: (arcs,) float64.
        block: Arcs to price before one is taken.
        tolerance: Reduced costs down to minus this are no violations.
        cursor: Row to go on with.
        limit: Pivots that may be taken.
        potential: (nodes,).
        parent: (nodes,) int32.
        flow: (nodes,) on the arc to the parent.
        thread: (nodes,) int32.
        back: (nodes,) int32.
        size: (nodes,) int32.
        last: (nodes,) int32.
    """
    pivots = 0
    row = cursor
    while True:
        best = -tolerance
        i = -1
        j = -1
        priced = 0
        left = n
        while left > 0 and (i < 0 or priced < block):
            u = potential[row]
            for k in range(begin[row], begin[row + 1]):
                reduced = costs[k] + potential[arcs[k]] - u
                if reduced < best:
                    best = reduced
                    i = row
                    j = arcs[k]
            priced += begin[row + 1] - begin[row]
            row = row + 1 if row + 1 < n else 0
            left -= 1
        if i < 0 or pivots >= limit:
            return pivots, row
        _pivot(i, j, best, n, count, potential, parent, flow, thread, back, size, last)
        pivots += 1
