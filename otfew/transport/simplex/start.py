"""A first tree: greedy by least cost and by regret, strongly feasible, in costs that are whole numbers."""

from __future__ import annotations

import numpy as np
from numba import njit

from otfew.transport.simplex.bits import count_ones
from otfew.transport.simplex.lanes import GROUP, LANES, LOWEST, best_open, lanes_above, two_best_rows
from otfew.transport.simplex.tree import join

DEAREST = 2**23
"""At least what any cost is in whole numbers."""

COUNTED = 128
"""Columns up to which counting sorts faster than sorting."""


@njit(error_model="numpy")
def rank_columns(best, second, regret, ranked, m, bits, wide):
    """Order columns by what their second choice costs more, the largest first; also read the choices' rows."""
    row = (np.int64(GROUP) << bits) - 1
    for j in range(m):
        # Where there is one row, its second choice is out of all bounds.
        regret[j] = min((best[j] >> (bits + 5)) - (second[j] >> (bits + 5)), DEAREST)
        best[j] = row - (best[j] & row)
        second[j] = row - (second[j] & row)
    # A test for None is decided before compilation, so that what follows is left out.
    if wide is not None and m > COUNTED:
        # Not a slice assignment, whose error message takes longer to compile than the sorting.
        ranks = np.argsort(-regret[:m])
        for k in range(m):
            ranked[k] = ranks[k]
        return
    # Counting what comes before each takes more comparisons than sorting, but no branches.
    for j in range(m):
        regret[j] = regret[j] * COUNTED + (COUNTED - 1 - j)
    for j in range(m, (m + LANES - 1) & -LANES):
        regret[j] = LOWEST
    for j in range(m):
        before = np.int64(0)
        for at in range(0, m, LANES):
            before += count_ones(lanes_above(regret, at, regret[j]))
        ranked[before] = j


@njit(error_model="numpy")
def first_tree(
    whole,
    n,
    m,
    words,
    supply,
    demand,
    cheapest,
    second,
    regret,
    ranked,
    active,
    opened,
    potential,
    tag,
    v,
    parent,
    flow,
    mask,
    order,
    wide,
):
    """Build a strongly feasible tree greedily on column-reduced costs and set its potentials.

    Each column first takes from the row in which it is cheapest and then from the second cheapest, the column that
    would lose most by its second choice first; then each row with mass left takes the cheapest open columns. A node
    hangs under its partner when it is exhausted; when both are, the column hangs under the row and the row goes on
    with nothing left, so that arcs without flow lead from a row up to a column.
    """
    nodes = n + m
    for x in range(nodes):
        parent[x] = -1
        for w in range(words):
            mask[x, w] = 0
        mask[x, x >> 6 if words > 1 else 0] = np.int64(1) << (x & 63)
    for x in range(nodes, len(mask)):
        for w in range(words):
            mask[x, w] = 0
    count = 0
    bits = 0
    while (GROUP << bits) < n:
        bits += 1
    for at in range(0, m, LANES):
        two_best_rows(whole, at * n, n, bits, cheapest, second, at)
    rank_columns(cheapest, second, regret, ranked, m, bits, wide)
    open_columns = 0
    for at in range(0, m, LANES):
        opened[at >> 4] = 0
    for k in range(m):
        j = ranked[k]
        i = np.int64(cheapest[j])
        # Where there is one row, it is the second choice as well.
        other = min(np.int64(second[j]), n - 1)
        if supply[i] == 0.0:
            i = other
        if supply[i] > 0.0:
            if demand[j] > supply[i]:
                demand[j] -= supply[i]
                count = join(i, supply[i], n + j, parent, flow, mask, words, order, count)
                supply[i] = 0.0
                i = other
            if supply[i] > 0.0:
                if demand[j] <= supply[i]:
                    supply[i] -= demand[j]
                    count = join(n + j, demand[j], i, parent, flow, mask, words, order, count)
                    continue
                demand[j] -= supply[i]
                count = join(i, supply[i], n + j, parent, flow, mask, words, order, count)
                supply[i] = 0.0
        opened[j >> 4] |= np.int64(1) << (j & (LANES - 1))
        open_columns += 1
    waiting = 0
    for i in range(n):
        active[waiting] = i
        waiting += parent[i] < 0
    # What rows and columns have left adds up to the same: rows last as long as columns.
    turn = 0
    while open_columns > 0:
        i = active[turn]
        best = np.int64(LOWEST)
        group = 0
        for at in range(0, m, LANES):
            key = best_open(whole, at * n + i * LANES, opened[at >> 4])
            group = at if key > best else group
            best = max(key, best)
        j = group + (~best & (LANES - 1))
        # Who is exhausted is not to be foreseen: no branches.
        filled = demand[j] <= supply[i]
        amount = demand[j] if filled else supply[i]
        supply[i] -= amount
        demand[j] -= amount
        opened[j >> 4] ^= np.int64(filled) << (j & (LANES - 1))
        child = n + j if filled else i
        count = join(child, amount, n + j + i - child, parent, flow, mask, words, order, count)
        open_columns -= filled
        turn += not filled
    root = active[turn]
    ordered = count
    if turn + 1 < waiting:
        # All columns are exhausted: hang these rows, without flow, under a column of the root's tree.
        above = n
        while (mask[root, above >> 6] >> (above & 63)) & 1 == 0:
            above += 1
        for k in range(turn + 1, waiting):
            count = join(active[k], 0.0, above, parent, flow, mask, words, order, count)
            x = above
            while parent[x] >= 0:
                x = parent[x]
                for w in range(words):
                    mask[x, w] |= mask[active[k], w]
    potential[root] = 0
    tighten_whole(whole, n, order, 0, ordered, potential, parent)
    if ordered < count:
        # Their trees come with the root's.
        tighten_whole(whole, n, order, ordered, count, potential, parent)
        tighten_whole(whole, n, order, 0, ordered, potential, parent)
    for i in range(n):
        tag[i] = potential[i] + (i & (GROUP - 1))
    for j in range(m):
        v[j] = potential[n + j]
    for j in range(m, (m + LANES - 1) & -LANES):
        v[j] = LOWEST
    return root


@njit(error_model="numpy")
def tighten_whole(whole, n, order, first, last, potential, parent):
    """Give nodes, the last first, the whole potentials at which the arcs to their parents have excess zero."""
    for k in range(last - 1, first - 1, -1):
        x = order[k]
        above = parent[x]
        i = min(x, above)
        j = max(x, above) - n
        potential[x] = -np.int64(whole[((j & -LANES) * n) + i * LANES + (j & (LANES - 1))]) - potential[above]
