"""The spanning tree of the network simplex: how it grows, how it takes an arc for another, potentials along it.

A tree is kept as parent pointers, the flow on the arc to the parent, and for each node a bit mask of its subtree (64
nodes a word): the masks answer "is x above y" in one test and give the nodes whose potentials move in one pivot,
without child lists or depths. Where there is one word, the nodes above a node are bits as well, and a whole cycle is
worked on at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from otfew.transport.simplex.bits import count_ones, trailing_zeros
from otfew.transport.simplex.lanes import ancestors, least_flow, send_around


@njit(forceinline=True, error_model="numpy")
def join(child, amount, at, parent, flow, mask, words, order, count):
    """Hang a finished node under another one; children are finished before their parents, so masks are complete."""
    parent[child] = at
    flow[child] = amount
    order[count] = child
    for w in range(words):
        mask[at, w] |= mask[child, w]
    return count + 1


@njit(error_model="numpy")
def tighten(x, cost, n, potential, parent):
    """Give a node the potential at which the arc to its parent has reduced cost zero."""
    above = parent[x]
    potential[x] = cost[min(x, above), max(x, above) - n] - potential[above]


@njit(error_model="numpy")
def refresh(cost, n, m, root, potential, parent, order, done):
    """Compute all potentials from the tree."""
    nodes = n + m
    for x in range(nodes):
        done[x] = False
    done[root] = True
    potential[root] = 0.0
    for start in range(nodes):
        length = 0
        x = start
        while not done[x]:
            order[length] = x
            length += 1
            x = parent[x]
        for k in range(length - 1, -1, -1):
            tighten(order[k], cost, n, potential, parent)
            done[order[k]] = True


@njit(error_model="numpy")
def refresh_bits(cost, n, m, root, potential, parent, children):
    """Do what ``refresh`` does where a bit for each node fits one word."""
    nodes = n + m
    for x in range(nodes):
        children[x] = 0
    for x in range(nodes):
        if x != root:
            children[parent[x]] |= np.int64(1) << x
    potential[root] = 0.0
    waiting = children[root]
    while waiting != 0:
        x = trailing_zeros(waiting)
        waiting = (waiting & (waiting - 1)) | children[x]
        tighten(x, cost, n, potential, parent)


@njit(forceinline=True, error_model="numpy")
def exchange(i, j, n, words, parent, flow, mask, moved):
    """Bring the arc (row i, column node j) into the tree for the one that leaves; ``moved`` marks the turned subtree.

    Returns whether the arc that leaves is on the row's side: then the row's subtree is turned, else the column's.
    """
    # Rows and columns alternate on the way up: on the row's side rows may leave, on the column's side columns.
    theta = np.inf
    leaving = -1
    row_side = True
    # Known before compilation where there is one word.
    word = j >> 6 if words > 1 else 0
    bit = j & 63
    x = i
    while (mask[x, word] >> bit) & 1 == 0:
        amount = flow[x]
        lower = amount < theta
        theta = amount if lower else theta
        leaving = x if lower else leaving
        x = parent[x]
        if (mask[x, word] >> bit) & 1 != 0:
            break
        x = parent[x]
    apex = x
    x = j
    while x != apex:
        amount = flow[x]
        lower = amount <= theta
        theta = amount if lower else theta
        leaving = x if lower else leaving
        row_side = False if lower else row_side
        x = parent[x]
        if x == apex:
            break
        x = parent[x]
    inner, outer = (i, j) if row_side else (j, i)
    # Rows on the row's side and columns on the column's side send less, the others more.
    row_change, column_change = (-theta, theta) if row_side else (theta, -theta)
    for w in range(words):
        moved[w] = mask[leaving, w]
        moved[words + w] = 0
    x = outer
    change = row_change if x < n else column_change
    while x != apex:
        flow[x] -= change
        change = -change
        for w in range(words):
            mask[x, w] |= moved[w]
        x = parent[x]
    x = parent[leaving]
    change = row_change if x < n else column_change
    while x != apex:
        flow[x] += change
        change = -change
        for w in range(words):
            mask[x, w] &= ~moved[w]
        x = parent[x]
    # Turn the path from the entering arc down to the leaving one upside down.
    x = inner
    above = outer
    amount = theta
    change = row_change if x < n else column_change
    while True:
        for w in range(words):
            below = mask[x, w]
            mask[x, w] = moved[w] & ~moved[words + w]
            moved[words + w] = below
        old_parent = parent[x]
        old_flow = flow[x] + change
        change = -change
        parent[x] = above
        flow[x] = amount
        if x == leaving:
            break
        above = x
        amount = old_flow
        x = old_parent
    return row_side


@njit(forceinline=True, error_model="numpy")
def exchange_bits(i, j, n, nodes, parent, flow, mask, moved):
    """Do what ``exchange`` does, where masks are one word: the cycle as bits, and all its nodes at once."""
    above_i, above_j = ancestors(mask, nodes, i, j)
    row_path = above_i & ~above_j
    column_path = above_j & ~above_i
    is_row = (np.int64(1) << n) - 1
    less = (row_path & is_row) | (column_path & ~is_row)
    more = (row_path | column_path) & ~less
    theta, blocking = least_flow(flow, nodes, less)
    row_side = blocking & column_path == 0
    if blocking & (blocking - 1) != 0:
        # The last in the direction of the flow: on the column's side the highest up, on the row's side the lowest.
        blocking = blocking & (row_path if row_side else column_path)
        leaving = -1
        size = np.int64(0)
        while blocking != 0:
            x = trailing_zeros(blocking)
            blocking &= blocking - 1
            below = count_ones(mask[x])
            if leaving < 0 or (below < size if row_side else below > size):
                leaving = x
                size = below
    else:
        leaving = trailing_zeros(blocking)
    turned = mask[leaving]
    inner, outer = (i, j) if row_side else (j, i)
    gains, path = (column_path, row_path) if row_side else (row_path, column_path)
    send_around(flow, mask, nodes, theta, less, more, turned, gains, path & ~turned)
    moved[0] = turned
    # Turn the path from the entering arc down to the leaving one upside down.
    x = inner
    above = outer
    amount = theta
    done = np.int64(0)
    while True:
        below = mask[x]
        mask[x] = turned & ~done
        done = below
        old_parent = parent[x]
        old_flow = flow[x]
        parent[x] = above
        flow[x] = amount
        if x == leaving:
            return row_side
        above = x
        amount = old_flow
        x = old_parent


@njit(forceinline=True, error_model="numpy")
def follow(shift, n, nodes, words, u, v, moved):
    """Shift the potentials of the rows that moved, and those of the columns against it."""
    if words == 1:
        # Without branches this is vectorised.
        bits = moved[0]
        for k in range(n):
            u[k] += shift if (bits >> k) & 1 != 0 else 0.0
        bits >>= n
        for k in range(nodes - n):
            v[k] -= shift if (bits >> k) & 1 != 0 else 0.0
        return
    # Shift the potentials of the moved nodes, or of all others the other way, whichever are fewer.
    size = np.int64(0)
    for w in range(words):
        size += count_ones(moved[w])
    others = 2 * size > nodes
    if others:
        shift = -shift
    for w in range(words):
        bits = moved[w]
        if others:
            bits = ~bits
            if w == words - 1 and nodes & 63:
                bits &= (np.int64(1) << (nodes & 63)) - 1
        while bits != 0:
            x = (w << 6) + trailing_zeros(bits)
            bits &= bits - 1
            if x < n:
                u[x] += shift
            else:
                v[x - n] -= shift
