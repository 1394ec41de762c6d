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
from otfew.transport.simplex.warm import restart

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
def _least(cost, i, v, m):
    """Least cost of a row, net of the column potentials."""
    least = np.inf
    for j in range(m):
        c = cost[i, j] - v[j]
        least = c if c < least else least
    return least


@njit(fastmath={"reassoc"})
def _all_finite(cost):
    """Tell whether a cost holds neither NaN nor infinity: times zero, either is NaN."""
    total = 0.0
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            total += cost[i, j] * 0.0
    return total == 0.0


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


@njit(error_model="numpy")
def _widen(given, out):
    """Copy float32 into float64."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = given[i, j]


@njit(error_model="numpy")
def _checked_total(weights, least, largest):
    """Total of weights, or NaN if one is negative, NaN or infinite or the total is out of range."""
    total = 0.0
    sound = True
    for weight in weights:
        sound &= weight >= 0.0
        total += weight
    return total if sound and least <= total <= largest else np.nan


@njit(error_model="numpy")
def _quantise(weights, total, kept, out, dropped):
    """Scale weights to integers that sum to SCALE; compress to those that do not round to zero, and mark the others."""
    used = 0
    rest = SCALE
    largest = 0
    for i in range(len(weights)):
        units = np.rint(weights[i] / total * SCALE)
        dropped[i] = units <= 0.0
        if units > 0.0:
            kept[used] = i
            out[used] = units
            rest -= units
            if units > out[largest]:
                largest = used
            used += 1
    out[largest] += rest
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
def _refresh(cost, n, m, root, potential, parent, order):
    """Recompute all potentials from the tree (after thousands of pivots they carry rounding errors)."""
    nodes = n + m
    done = np.zeros(nodes, np.bool_)
    done[root] = True
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
def _sort_down(keys, out, count, wide):
    # A test for None is decided before compilation, so that what follows is left out.
    if wide is not None and count > COUNTED:
        # Not a slice assignment, whose error message takes longer to compile than the sorting.
        ranks = np.argsort(-keys[:count])
        for k in range(count):
            out[k] = ranks[k]
        return
    # Counting what comes before each key takes more comparisons than sorting, but no branches.
    for j in range(count):
        key = keys[j]
        before = np.int64(0)
        for k in range(count):
            before += (keys[k] > key) | ((keys[k] == key) & (k < j))
        out[before] = j


@njit(error_model="numpy")
def _start(
    cost,
    n,
    m,
    words,
    supply,
    demand,
    cheapest,
    second,
    regret,
    ranked,
    potential,
    parent,
    flow,
    mask,
    order,
    active,
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
        mask[x, x >> 6] = np.int64(1) << (x & 63)
    count = 0
    open_columns = 0
    _sort_down(regret, ranked, m, wide)
    for k in range(m):
        j = ranked[k]
        i = cheapest[j]
        if supply[i] == 0.0:
            i = second[j]
        if supply[i] > 0.0:
            if demand[j] > supply[i]:
                demand[j] -= supply[i]
                count = _join(i, supply[i], n + j, parent, flow, mask, words, order, count)
                supply[i] = 0.0
                i = second[j]
            if supply[i] > 0.0:
                if demand[j] <= supply[i]:
                    supply[i] -= demand[j]
                    count = _join(n + j, demand[j], i, parent, flow, mask, words, order, count)
                    continue
                demand[j] -= supply[i]
                count = _join(i, supply[i], n + j, parent, flow, mask, words, order, count)
                supply[i] = 0.0
        active[open_columns] = j
        open_columns += 1
    root = -1
    ordered = True
    for i in range(n):
        if parent[i] >= 0:
            continue
        while open_columns > 0:
            best = np.inf
            at = 0
            for k in range(open_columns):
                if cost[i, active[k]] < best:
                    best = cost[i, active[k]]
                    at = k
            j = active[at]
            if demand[j] <= supply[i]:
                supply[i] -= demand[j]
                count = _join(n + j, demand[j], i, parent, flow, mask, words, order, count)
                open_columns -= 1
                active[at] = active[open_columns]
            else:
                demand[j] -= supply[i]
                count = _join(i, supply[i], n + j, parent, flow, mask, words, order, count)
                supply[i] = 0.0
                break
        if parent[i] < 0:
            if root < 0:
                root = i
            else:
                # All columns are exhausted: hang this row, without flow, under a column of the root's tree.
                j = 0
                while (mask[root, (n + j) >> 6] >> ((n + j) & 63)) & 1 == 0:
                    j += 1
                x = n + j
                ordered = False
                count = _join(i, 0.0, x, parent, flow, mask, words, order, count)
                while parent[x] >= 0:
                    x = parent[x]
                    for w in range(words):
                        mask[x, w] |= mask[i, w]
    potential[root] = 0.0
    if ordered:
        for k in range(count - 1, -1, -1):
            _tighten(order[k], cost, n, potential, parent)
    else:
        _refresh(cost, n, m, root, potential, parent, order)
    return root


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
def _pivot(i, j, reduced, n, nodes, words, u, v, parent, flow, mask, moved):
    """Bring the arc (row i, column node j) into the tree, whose reduced cost is negative."""
    # Rows and columns alternate on the way up: on the row's side rows may leave, on the column's side columns.
    theta = np.inf
    leaving = -1
    row_side = True
    word = j >> 6
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
    shift = reduced if row_side else -reduced
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
def _simplex(cost, n, m, words, grid, bits, tolerance, max_iter, root, potential, parent, flow, mask, order, moved):
    """Pivot to optimality; returns (status, pivots)."""
    nodes = n + m
    u = potential[:n]
    v = potential[n:nodes]
    # About sqrt(n m) arcs a block, but at least four rows: fewer pivots for little more pricing.
    block = max(4, int(np.sqrt(n * m) / m) + 1)
    cursor = 0
    pivots = 0
    refreshed = 0
    while True:
        row, cursor = _enter(cost, n, m, u, v, block, tolerance, cursor)
        if row < 0:
            if pivots - refreshed < 1000:
                return OPTIMAL, pivots
            _refresh(cost, n, m, root, potential, parent, order)
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
        _pivot(row, n + column, best - u[row], n, nodes, words, u, v, parent, flow, mask, moved)
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
def _reduce(given, rows, cols, n, m, cost, mean, low, cheapest, second, regret):
    """Copy the kept part of a cost less its row means, then less its column minima; returns the largest of the rest.

    Also finds the two rows where each column is cheapest and what the second costs more. (The means make rows
    comparable: a fifth fewer pivots than with column minima alone.)
    """
    whole = n == given.shape[0] and m == given.shape[1]
    share = 1.0 / m
    for j in range(m):
        low[j] = np.inf
        cheapest[j] = 0
        regret[j] = np.inf
        second[j] = 0
    for i in range(n):
        centre = 0.0
        if whole:
            for j in range(m):
                centre += given[i, j] * share
                cost[i, j] = given[i, j]
        else:
            for j in range(m):
                cost[i, j] = given[rows[i], cols[j]]
                centre += cost[i, j] * share
        mean[i] = centre
        for j in range(m):
            c = cost[i, j] - centre
            near = i if c < regret[j] else second[j]
            second[j] = cheapest[j] if c < low[j] else near
        for j in range(m):
            c = cost[i, j] - centre
            cost[i, j] = c
            lower = c < low[j]
            regret[j] = min(regret[j], max(low[j], c))
            cheapest[j] = i if lower else cheapest[j]
            low[j] = c if lower else low[j]
    spread = 0.0
    for i in range(n):
        for j in range(m):
            c = cost[i, j] - low[j]
            cost[i, j] = c
            spread = c if c > spread else spread
    for j in range(m):
        regret[j] -= low[j]
    return spread


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
    ``costs`` is empty:
    they are widened as they are read.
    """
    full_n = costs.shape[1]
    full_m = costs.shape[2]
    widened = np.empty((full_n, full_m) if len(narrow) > 0 else (0, 0))
    nodes = full_n + full_m
    cost = np.empty((full_n, full_m))
    storage = np.empty(nodes)
    low = np.empty(full_m)
    mean = np.empty(full_n)
    dropped_rows = np.empty(full_n, np.bool_)
    dropped_cols = np.empty(full_m, np.bool_)
    supply = np.empty(full_n)
    demand = np.empty(full_m)
    rows = np.empty(full_n, np.int64)
    cols = np.empty(full_m, np.int64)
    regret = np.empty(full_m)
    ranked = np.empty(full_m, np.int64)
    cheapest = np.empty(full_m, np.int64)
    second = np.empty(full_m, np.int64)
    active = np.empty(full_m, np.int64)
    parent = np.empty(nodes, np.int64)
    order = np.empty(nodes, np.int64)
    flow = np.empty(nodes)
    mask = np.empty((nodes, (nodes + 63) >> 6), np.int64)
    moved = np.empty(2 * ((nodes + 63) >> 6), np.int64)
    error = np.empty(nodes)
    scanned = np.empty(nodes, np.bool_)
    if trees is not None:
        room = np.empty((8, nodes), np.int64)
    for k in range(first, last):
        given = widened
        if len(narrow) > 0:
            _widen(narrow[cost_index[k]], widened)
        else:
            given = costs[cost_index[k]]
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
        if agree and _all_finite(given):
            n = _quantise(a, total_a, rows, supply, dropped_rows)
            m = _quantise(b, total_b, cols, demand, dropped_cols)
            spread = _reduce(given, rows, cols, n, m, cost, mean, low, cheapest, second, regret)
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
        v = potential[n:]
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
            status = OPTIMAL
            pivots = _assign(cost, n, spread, grid, bits, cheapest, v, parent, second, order, regret, ranked, scanned)
            for i in range(n):
                out_rows[k, i] = rows[i]
                out_cols[k, i] = cols[parent[i]]
                out_flow[k, i] = total_a / n
            arcs = n
        else:
            tolerance = max(spread * (1e-13 + 4e-16 * m), tol * spread)
            if trees is None:
                root = _start(
                    cost, n, m, words, supply, demand, cheapest, second, regret, ranked,
                    potential, parent, flow, mask, order, active, wide,
                )  # fmt: skip
            else:
                root = restart(
                    cost, n, m, words, supply, demand, rows, cols, full_n, full_m, trees[0][k], trees[1][k],
                    potential, parent, flow, mask, order, room,
                )  # fmt: skip
            # Where there is one word the compiler unrolls the loops over words.
            if large is None:
                status, pivots = _simplex(
                    cost, n, m, 1, grid, bits, tolerance, max_iter, root, potential, parent, flow, mask, order, moved
                )
            else:
                status, pivots = _simplex(
                    cost,
                    n,
                    m,
                    words,
                    grid,
                    bits,
                    tolerance,
                    max_iter,
                    root,
                    potential,
                    parent,
                    flow,
                    mask,
                    order,
                    moved,
                )
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
            f[rows[i]] = most if flat else _least(cost, i, v, m) + mean[i]
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
