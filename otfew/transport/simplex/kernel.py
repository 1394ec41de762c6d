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
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from otfew.transport.certificate import CERTAIN, EPS
from otfew.transport.compilation import announced
from otfew.transport.jit import jit
from otfew.transport.problem import INVALID, TOTALS_RANGE, UNSURE
from otfew.transport.simplex.lanes import (
    GROUP,
    LANES,
    LOWEST,
    ancestors,
    best_open,
    best_rows,
    centre_columns,
    excess_after,
    excess_now,
    lanes_above,
    lanes_equal,
    least_flow,
    least_net,
    row_sum,
    send_around,
    shift_lanes,
    to_whole,
    two_best_rows,
)

SCALE = 2.0**52
"""Total mass of every problem inside the kernel."""

OPTIMAL = 0
MAX_ITER = 1
FAILED = 2
ASSIGNMENT = 128
"""Largest assignment problem (as many rows as columns, uniform weights) that is solved as one: measured, twice as fast
at 9 to 125 rows; from 300 on the simplex is faster."""

WORD = 64
"""Nodes whose subtrees fit one word of a mask."""

COUNTED = 128
"""Columns up to which counting sorts faster than sorting."""

WHOLE = 2.0**24
"""Costs in whole numbers reach up to this over the nodes: 32 times their sum along any path stays below 2^29."""

PART = 3
"""Part of the largest excess that is good enough, as a divisor: fewer looks at all arcs against more pivots."""

_reordered = njit(error_model="numpy", fastmath={"nnan", "nsz", "reassoc"}, forceinline=True)
"""For sums that the compiler may reorder. Always inlined: machine code of a function of its own would differ in its
rounding from that in the kernel, and a process that compiles calls the one, a process that loads the other."""


@intrinsic
def _trailing_zeros(_context: Any, _bits: Any) -> Any:
    """Index of the lowest set bit of a non-zero int64."""

    def generate(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@intrinsic
def _count_ones(_context: Any, _bits: Any) -> Any:
    """Number of set bits of an int64."""

    def generate(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), generate


@_reordered
def _violation(cost, i, v, u, m):
    """Sum of the negative reduced costs of a row: unlike their minimum with its index, it vectorises."""
    total = 0.0
    for j in range(m):
        total += min(cost[i, j] - v[j] - u, 0.0)
    return total


@njit(error_model="numpy")
def _cheapest(cost, i, v, m, grid, bits):
    """Column of a row's least cost, net of the column potentials, up to 1 / grid.

    A floating minimum does not vectorise with its index; one of integers that end in the index does.
    """
    best = np.int64(2**62)
    for j in range(m):
        best = min(best, (np.int64((cost[i, j] - v[j]) * grid) << bits) + j)
    return best & ((np.int64(1) << bits) - 1)


@_reordered
def _reach(x, count):
    """Largest magnitude."""
    largest = 0.0
    for i in range(count):
        largest = max(largest, abs(x[i]))
    return largest


@_reordered
def _weight(x, weights):
    """Sum of weighted magnitudes."""
    total = 0.0
    for i in range(len(x)):
        total += abs(x[i]) * weights[i]
    return total


@njit(error_model="numpy")
def _none_below(given, rows, cols, n, m, price):
    """Tell whether no cost of the kept part is below a price."""
    for i in range(n):
        for j in range(m):
            if given[rows[i], cols[j]] < price:
                return False
    return True


@njit(fastmath={"reassoc"})
def _copy_if_finite(given, out):
    """Copy costs into float64 and tell whether they hold neither NaN nor infinity: times zero, either is NaN."""
    total = 0.0
    for k in range(len(given)):
        total += given[k] * 0.0
        out[k] = given[k]
    return total == 0.0


@njit(error_model="numpy")
def _checked_total(weights, least, largest):
    """Total of weights, or NaN if one is negative, NaN or infinite or the total is out of range."""
    total = 0.0
    sound = True
    for weight in weights:
        sound &= weight >= 0.0
        total += weight
    return total if sound and least <= total <= largest else np.nan


@njit(error_model="numpy", fastmath={"reassoc"})
def _quantise(weights, total, kept, out, dropped):
    """Scale weights to integers that sum to SCALE; compress to those that do not round to zero, and mark the others."""
    size = len(weights)
    used = 0
    sum_of = 0.0
    most = 0.0
    for i in range(size):
        units = np.rint(weights[i] / total * SCALE)
        out[i] = units
        # Sums of whole numbers up to SCALE are exact, in any order.
        sum_of += units
        most = max(most, units)
        dropped[i] = units <= 0.0
        kept[i] = i
        used += units > 0.0
    if used < size:
        used = 0
        for i in range(size):
            if not dropped[i]:
                kept[used] = i
                out[used] = out[i]
                used += 1
    largest = 0
    while out[largest] != most:
        largest += 1
    out[largest] += SCALE - sum_of
    return used


@njit(forceinline=True, error_model="numpy")
def _join(child, amount, at, parent, flow, mask, words, order, count):
    """Hang a finished node under another one; children are finished before their parents, so masks are complete."""
    parent[child] = at
    flow[child] = amount
    order[count] = child
    for w in range(words):
        mask[at, w] |= mask[child, w]
    return count + 1


@njit(error_model="numpy")
def _tighten(x, cost, n, potential, parent):
    """Give a node the potential at which the arc to its parent has reduced cost zero."""
    above = parent[x]
    potential[x] = cost[min(x, above), max(x, above) - n] - potential[above]


@njit(error_model="numpy")
def _refresh(cost, n, m, root, potential, parent, order, done):
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
            _tighten(order[k], cost, n, potential, parent)
            done[order[k]] = True


@njit(error_model="numpy")
def _refresh_bits(cost, n, m, root, potential, parent, children):
    """Do what ``_refresh`` does where a bit for each node fits one word."""
    nodes = n + m
    for x in range(nodes):
        children[x] = 0
    for x in range(nodes):
        if x != root:
            children[parent[x]] |= np.int64(1) << x
    potential[root] = 0.0
    waiting = children[root]
    while waiting != 0:
        x = _trailing_zeros(waiting)
        waiting = (waiting & (waiting - 1)) | children[x]
        _tighten(x, cost, n, potential, parent)


@njit(error_model="numpy")
def _rank(best, second, regret, ranked, m, bits, wide):
    """Order columns by what their second choice costs more, the largest first; also read the choices' rows."""
    row = (np.int64(GROUP) << bits) - 1
    for j in range(m):
        regret[j] = (best[j] >> (bits + 5)) - (second[j] >> (bits + 5))
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
            before += _count_ones(lanes_above(regret, at, regret[j]))
        ranked[before] = j


@njit(error_model="numpy")
def _start(
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
    _rank(cheapest, second, regret, ranked, m, bits, wide)
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
                count = _join(i, supply[i], n + j, parent, flow, mask, words, order, count)
                supply[i] = 0.0
                i = other
            if supply[i] > 0.0:
                if demand[j] <= supply[i]:
                    supply[i] -= demand[j]
                    count = _join(n + j, demand[j], i, parent, flow, mask, words, order, count)
                    continue
                demand[j] -= supply[i]
                count = _join(i, supply[i], n + j, parent, flow, mask, words, order, count)
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
        count = _join(child, amount, n + j + i - child, parent, flow, mask, words, order, count)
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
            count = _join(active[k], 0.0, above, parent, flow, mask, words, order, count)
            x = above
            while parent[x] >= 0:
                x = parent[x]
                for w in range(words):
                    mask[x, w] |= mask[active[k], w]
    potential[root] = 0
    _tighten_whole(whole, n, order, 0, ordered, potential, parent)
    if ordered < count:
        # Their trees come with the root's.
        _tighten_whole(whole, n, order, ordered, count, potential, parent)
        _tighten_whole(whole, n, order, 0, ordered, potential, parent)
    for i in range(n):
        tag[i] = potential[i] + (i & (GROUP - 1))
    for j in range(m):
        v[j] = potential[n + j]
    for j in range(m, (m + LANES - 1) & -LANES):
        v[j] = LOWEST
    return root


@njit(error_model="numpy")
def _tighten_whole(whole, n, order, first, last, potential, parent):
    """Give nodes, the last first, the whole potentials at which the arcs to their parents have excess zero."""
    for k in range(last - 1, first - 1, -1):
        x = order[k]
        above = parent[x]
        i = min(x, above)
        j = max(x, above) - n
        potential[x] = -np.int64(whole[((j & -LANES) * n) + i * LANES + (j & (LANES - 1))]) - potential[above]


@njit(forceinline=True, error_model="numpy")
def _find(excess, number):
    """First place of a number that is there."""
    at = 0
    while True:
        bits = lanes_equal(excess, at, number)
        if bits != 0:
            return at + _trailing_zeros(bits)
        at += LANES


@njit(forceinline=True, error_model="numpy")
def _find_bits(excess, number, m):
    """Do what ``_find`` does for at most 64 columns, without branches."""
    bits = np.int64(0)
    for at in range(0, m, LANES):
        bits |= lanes_equal(excess, at, number) << at
    return _trailing_zeros(bits)


@njit(forceinline=True, error_model="numpy")
def _bits_from(moved, first, words):
    """Sixteen bits or more of a mask, from one on."""
    word = first >> 6 if words > 1 else 0
    offset = np.uint64(first & 63)
    bits = np.uint64(moved[word]) >> offset
    if words > 1 and offset > 64 - LANES and word + 1 < words:
        bits |= np.uint64(moved[word + 1]) << (np.uint64(64) - offset)
    return np.int64(bits)


@njit(forceinline=True, error_model="numpy")
def _simplex_whole(whole, n, m, large, words, least, max_iter, tag, v, row, net, excess, parent, flow, mask, flat_mask, moved):
    """Pivot to optimality by costs in whole numbers; returns the pivots.

    Each column keeps the row that was its best when all arcs were looked at; as long as one of these few arcs still has
    a good part of the largest excess of that time, no arc else is looked at.
    """
    pivots = 0
    best = np.int64(LOWEST)
    enough = np.int64(0)
    while pivots < max_iter:
        if best < enough or pivots == 0:
            best = np.int64(LOWEST)
            for at in range(0, m, LANES):
                best = max(best, best_rows(whole, at * n, n, tag, v, row, net, excess, at))
            if best < least:
                break
            enough = max(least, best // PART)
        if large is None:
            j = _find_bits(excess, best, m)
            row_side = _exchange_bits(np.int64(row[j]), n + j, n, n + m, parent, flow, flat_mask, moved)
        else:
            j = _find(excess, best)
            row_side = _exchange(np.int64(row[j]), n + j, n, words, parent, flow, mask, moved)
        shift = best & -GROUP
        shift = -shift if row_side else shift
        for at in range(0, n, LANES):
            shift_lanes(tag, at, _bits_from(moved, at, words), shift)
        best = np.int64(LOWEST)
        for at in range(0, m, LANES):
            columns = _bits_from(moved, n + at, words)
            shift_lanes(v, at, columns, -shift)
            if large is None:
                best = max(best, excess_after(row, excess, at, moved[0], columns, shift))
            else:
                best = max(best, excess_now(tag, v, row, net, excess, at))
        pivots += 1
    return pivots


@njit(forceinline=True, error_model="numpy")
def _enter(cost, n, m, u, v, block, tolerance, cursor):
    """Price rows by blocks; return the worst row of the first block with a violation, or -1, and the next cursor."""
    best = -tolerance
    row = -1
    left = n
    r = cursor
    while left > 0 and row < 0:
        size = min(block, left)
        for _ in range(size):
            total = _violation(cost, r, v, u[r], m)
            if total < best:
                best = total
                row = r
            r += 1
            if r == n:
                r = 0
        left -= size
    return row, r


@njit(forceinline=True, error_model="numpy")
def _exchange(i, j, n, words, parent, flow, mask, moved):
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
def _exchange_bits(i, j, n, nodes, parent, flow, mask, moved):
    """Do what ``_exchange`` does, where masks are one word: the cycle as bits, and all its nodes at once."""
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
            x = _trailing_zeros(blocking)
            blocking &= blocking - 1
            below = _count_ones(mask[x])
            if leaving < 0 or (below < size if row_side else below > size):
                leaving = x
                size = below
    else:
        leaving = _trailing_zeros(blocking)
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
def _follow(shift, n, nodes, words, u, v, moved):
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
        size += _count_ones(moved[w])
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
            x = (w << 6) + _trailing_zeros(bits)
            bits &= bits - 1
            if x < n:
                u[x] += shift
            else:
                v[x - n] -= shift


@njit(forceinline=True, error_model="numpy")
def _simplex(
    cost, n, m, words, grid, bits, tolerance, pivots, max_iter, root, potential, parent, flow, mask, order, moved, scanned
):
    """Pivot to optimality by the costs as they are; returns (status, pivots)."""
    nodes = n + m
    u = potential[:n]
    v = potential[n:nodes]
    # About sqrt(n m) arcs a block, but at least four rows: fewer pivots for little more pricing.
    block = max(4, int(np.sqrt(n * m) / m) + 1)
    cursor = 0
    refreshed = pivots
    while True:
        row, cursor = _enter(cost, n, m, u, v, block, tolerance, cursor)
        if row < 0:
            if pivots - refreshed < 1000:
                return OPTIMAL, pivots
            _refresh(cost, n, m, root, potential, parent, order, scanned)
            refreshed = pivots
            continue
        if pivots >= max_iter:
            return MAX_ITER, pivots
        column = _cheapest(cost, row, v, m, grid, bits)
        best = cost[row, column] - v[column]
        if best >= u[row]:
            # The grid was too coarse to tell.
            for j in range(m):
                if cost[row, j] - v[j] < best:
                    best = cost[row, j] - v[j]
                    column = j
        reduced = best - u[row]
        row_side = _exchange(row, n + column, n, words, parent, flow, mask, moved)
        _follow(reduced if row_side else -reduced, n, nodes, words, u, v, moved)
        pivots += 1


@njit(error_model="numpy")
def _search_two(cost, i, v, n):
    """Find what ``_two_least`` does where its grid is too coarse."""
    first = np.inf
    second = np.inf
    at = 0
    then = 0
    for j in range(n):
        c = cost[i, j] - v[j]
        if c < first:
            second = first
            then = at
            first = c
            at = j
        elif c < second:
            second = c
            then = j
    return first, at, second, then


@njit(error_model="numpy")
def _two_least(cost, i, v, n, grid, bits, closed):
    """Least and second least cost of a row, net of the column potentials, with their columns."""
    at = _cheapest(cost, i, v, n, grid, bits)
    potential = v[at]
    first = cost[i, at] - potential
    v[at] = closed
    then = _cheapest(cost, i, v, n, grid, bits)
    second = cost[i, then] - v[then]
    beaten = _violation(cost, i, v, second, n)
    v[at] = potential
    if beaten < 0.0 or second < first:
        return _search_two(cost, i, v, n)
    return first, at, second, then


@njit(error_model="numpy")
def _augment(start, cost, n, v, column_of, row_of, distance, previous, scanned):
    """Assign a free row along a shortest path and mend the column potentials (Dijkstra on reduced costs)."""
    for j in range(n):
        distance[j] = cost[start, j] - v[j]
        previous[j] = start
        scanned[j] = False
    while True:
        least = np.inf
        column = -1
        for j in range(n):
            if not scanned[j] and distance[j] < least:
                least = distance[j]
                column = j
        row = row_of[column]
        if row < 0:
            break
        scanned[column] = True
        offset = least - (cost[row, column] - v[column])
        for j in range(n):
            through = cost[row, j] - v[j] + offset
            if not scanned[j] and through < distance[j]:
                distance[j] = through
                previous[j] = row
    for j in range(n):
        if scanned[j]:
            v[j] += distance[j] - least
    row = -1
    while row != start:
        row = previous[column]
        row_of[column] = row
        column, column_of[row] = column_of[row], column


@njit(error_model="numpy")
def _assign(cost, n, spread, grid, bits, cheapest, v, column_of, row_of, free, distance, previous, scanned):
    """Solve an assignment problem by shortest augmenting paths (Jonker and Volgenant 1987); returns the steps taken.

    The costs are column-reduced, so that v = 0 is feasible and tight at ``cheapest``.
    """
    for j in range(n):
        v[j] = 0.0
        row_of[j] = -1
        column_of[j] = -1
    for j in range(n - 1, -1, -1):
        if column_of[cheapest[j]] < 0:
            column_of[cheapest[j]] = j
            row_of[j] = cheapest[j]
    waiting = 0
    # Out of reach of all potentials.
    closed = -4.0 * n * (spread if spread > 0.0 else 1.0)
    for i in range(n):
        if column_of[i] < 0:
            free[waiting] = i
            waiting += 1
        else:
            # What the second choice costs more may be asked for the first.
            _, at, second, _ = _two_least(cost, i, v, n, grid, bits, closed)
            if at == column_of[i]:
                v[at] -= second - (cost[i, at] - v[at]) if n > 1 else 0.0
    steps = 0
    for _ in range(2):
        # Free rows bid for their first choice; who is driven out bids at once, as long as bids make progress.
        k = 0
        last = waiting
        waiting = 0
        while k < last:
            i = free[k]
            k += 1
            steps += 1
            first, at, second, then = _two_least(cost, i, v, n, grid, bits, closed)
            rises = first < second
            if rises:
                v[at] -= second - first
            elif row_of[at] >= 0:
                at = then
            loser = row_of[at]
            column_of[i] = at
            row_of[at] = i
            if loser >= 0:
                column_of[loser] = -1
                if rises and steps < n:
                    k -= 1
                    free[k] = loser
                else:
                    free[waiting] = loser
                    waiting += 1
    for k in range(waiting):
        _augment(free[k], cost, n, v, column_of, row_of, distance, previous, scanned)
    return steps + waiting


@njit(error_model="numpy")
def _all_equal(weights, kept, count):
    """Tell whether all weights that count are the same."""
    same = True
    for k in range(count):
        same &= weights[kept[k]] == weights[kept[0]]
    return same


@_reordered
def _reduce(given, rows, cols, n, m, squeezed, cost, mean, low, high):
    """Take row means off the kept part of a cost and find its column minima; returns the largest of the rest.

    (The means make rows comparable: a fifth fewer pivots than with column minima alone.) Costs are laid out anew, and
    columns padded to whole groups.
    """
    full_m = len(cols)
    width = (full_m + LANES - 1) & -LANES
    padded = (m + LANES - 1) & -LANES
    share = 1.0 / m
    if n < len(rows) or m < full_m:
        for i in range(n):
            for j in range(m):
                squeezed[i * m + j] = given[rows[i] * full_m + cols[j]]
        given = squeezed
    for i in range(n):
        mean[i] = row_sum(given, i * m, m) * share
    for at in range(0, m, LANES):
        centre_columns(given, n, m, mean, cost, width, low, high, at)
    spread = 0.0
    for j in range(padded):
        spread = max(spread, high[j] - low[j])
    return spread


@njit(error_model="numpy")
def _take_off(cost, low, n, m, cheapest):
    """Take off column minima; find the first row of each."""
    for j in range(m):
        cheapest[j] = 0
    for i in range(n - 1, -1, -1):
        for j in range(m):
            cost[i, j] -= low[j]
            cheapest[j] = i if cost[i, j] == 0.0 else cheapest[j]


def _solve_batch(
    large, wide, costs, narrow, weights_a, weights_b, cost_index, a_index, b_index, first, last, totals_rtol, tol,
    max_iter,
    out_rows, out_cols, out_flow, out_f, out_g, out_value, out_gap, out_error, out_status, out_iter, out_assigned,
):  # fmt: skip
    """Solve problems first..last-1 and write plans, potentials and certificates in place.

    What is unsound - a cost or weight that is NaN or infinite, a negative weight, a total out of range, totals further
    apart than ``totals_rtol`` - gets the status INVALID and NaN, costs whose differences may overflow the status FAILED
    and NaN. A plan that is not certain in units of the costs it uses gets the status UNSURE.

    Compiled once for each kind of problem: ``large`` is None where a subtree's mask is one word, ``wide`` is None where
    columns are sorted by counting. Costs are those in ``costs``, or in ``narrow`` in float32, then ``costs`` is empty:
    they are widened as they are read.
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
    for k in range(first, last):
        start = cost_index[k] * full_n * full_m
        if len(narrow) > 0:
            finite = _copy_if_finite(flat_narrow[start : start + full_n * full_m], copied)
        else:
            finite = _copy_if_finite(flat_costs[start : start + full_n * full_m], copied)
        a = weights_a[a_index[k]]
        b = weights_b[b_index[k]]
        total_a = _checked_total(a, TOTALS_RANGE[0], TOTALS_RANGE[1])
        total_b = _checked_total(b, TOTALS_RANGE[0], TOTALS_RANGE[1])
        agree = abs(total_a - total_b) <= totals_rtol * max(total_a, total_b)
        status = INVALID
        n = 0
        m = 0
        spread = 0.0
        reach = 0.0
        if agree and finite:
            n = _quantise(a, total_a, rows, supply, dropped_rows)
            m = _quantise(b, total_b, cols, demand, dropped_cols)
            spread = _reduce(copied, rows, cols, n, m, squeezed, flat_cost, mean, low, high)
            reach = spread + _reach(mean, n) + _reach(low, m)
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
        out_assigned[k] = n == m and n <= ASSIGNMENT and _all_equal(a, rows, n) and _all_equal(b, cols, m)
        if out_assigned[k]:
            _take_off(cost, low, n, m, ranked)
            pivots = _assign(cost, n, spread, grid, bits, ranked, v, parent, column_of, order, high, ranked, scanned)
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
            root = _start(
                whole, n, m, one, supply, demand, row, net, regret, ranked,
                active, opened, whole_potential, tag, whole_v, parent, flow, mask, order, wide,
            )  # fmt: skip
            pivots = _simplex_whole(
                whole, n, m, large, one, least, max_iter, tag, whole_v, row, net, excess, parent, flow, mask, flat_mask, moved
            )
            if large is None:
                _refresh_bits(cost, n, m, root, potential, parent, order)
            else:
                _refresh(cost, n, m, root, potential, parent, order, scanned)
            tight = True
            for i in range(n):
                least_of[i] = least_net(flat_cost, i * width, v, m)
                tight &= potential[i] - least_of[i] <= tolerance
            if not tight:
                status, pivots = _simplex(
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
        flat = most <= least and _none_below(given, rows, cols, n, m, most)
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
        rounding = EPS * (full_n + 2) * _weight(f, a)
        rounding += EPS * (full_m + 6) * (_weight(g, b) / total_b + 2.0 * abs(shift)) * total_a
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


def kernel_for(n: int, m: int) -> Callable[..., None]:
    """Give the batch kernel for problems of a size; it takes what follows ``wide`` above."""
    return _compiled(n + m > WORD, m > COUNTED)


@functools.cache
def _compiled(large: bool, wide: bool) -> Callable[..., None]:
    """Compile the batch kernel and say so, or load what was compiled before."""
    flags = [True if flag else None for flag in (large, wide)]
    signature = types.void(*(types.none if flag is None else types.boolean for flag in flags), *_SIGNATURE)
    with announced("the exact solver"):
        kernel = jit(signature, nogil=True, error_model="numpy")(_solve_batch)
    return functools.partial(kernel, *flags)
