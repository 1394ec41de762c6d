"""Small assignment problems by shortest augmenting paths."""

from __future__ import annotations

import numpy as np
from numba import njit

from otfew.transport.simplex.rows import cheapest_column, violation


@njit(error_model="numpy")
def search_two(cost, i, v, n):
    """Find what ``two_least`` does where its grid is too coarse."""
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
def two_least(cost, i, v, n, grid, bits, closed):
    """Least and second least cost of a row, net of the column potentials, with their columns."""
    at = cheapest_column(cost, i, v, n, grid, bits)
    potential = v[at]
    first = cost[i, at] - potential
    v[at] = closed
    then = cheapest_column(cost, i, v, n, grid, bits)
    second = cost[i, then] - v[then]
    beaten = violation(cost, i, v, second, n)
    v[at] = potential
    if beaten < 0.0 or second < first:
        return search_two(cost, i, v, n)
    return first, at, second, then


@njit(error_model="numpy")
def augment(start, cost, n, v, column_of, row_of, distance, previous, scanned):
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
def assign(cost, n, spread, grid, bits, cheapest, v, column_of, row_of, free, distance, previous, scanned):
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
            _, at, second, _ = two_least(cost, i, v, n, grid, bits, closed)
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
            first, at, second, then = two_least(cost, i, v, n, grid, bits, closed)
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
        augment(free[k], cost, n, v, column_of, row_of, distance, previous, scanned)
    return steps + waiting
