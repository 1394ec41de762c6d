"""Pivots of the network simplex: in whole numbers while that finds arcs to enter, then by the costs as they are."""

from __future__ import annotations

import numpy as np
from numba import njit

from otfew.transport.simplex.bits import trailing_zeros
from otfew.transport.simplex.lanes import (
    GROUP,
    LANES,
    LOWEST,
    best_rows,
    excess_after,
    excess_now,
    lanes_equal,
    shift_lanes,
)
from otfew.transport.simplex.rows import cheapest_column, violation
from otfew.transport.simplex.tree import exchange, exchange_bits, follow, refresh

OPTIMAL = 0

MAX_ITER = 1

FAILED = 2

PART = 3
"""Part of the largest excess that is good enough, as a divisor: fewer looks at all arcs against more pivots."""


@njit(forceinline=True, error_model="numpy")
def place_of(excess, number):
    """First place of a number that is there."""
    at = 0
    while True:
        bits = lanes_equal(excess, at, number)
        if bits != 0:
            return at + trailing_zeros(bits)
        at += LANES


@njit(forceinline=True, error_model="numpy")
def place_of_bits(excess, number, m):
    """Do what ``place_of`` does for at most 64 columns, without branches."""
    bits = np.int64(0)
    for at in range(0, m, LANES):
        bits |= lanes_equal(excess, at, number) << at
    return trailing_zeros(bits)


@njit(forceinline=True, error_model="numpy")
def bits_from(moved, first, words):
    """Sixteen bits or more of a mask, from one on."""
    word = first >> 6 if words > 1 else 0
    offset = np.uint64(first & 63)
    bits = np.uint64(moved[word]) >> offset
    if words > 1 and offset > 64 - LANES and word + 1 < words:
        bits |= np.uint64(moved[word + 1]) << (np.uint64(64) - offset)
    return np.int64(bits)


@njit(forceinline=True, error_model="numpy")
def simplex_whole(
    whole, n, m, large, words, least, max_iter, tag, v, row, net, excess, parent, flow, mask, flat_mask, moved
):
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
            j = place_of_bits(excess, best, m)
            row_side = exchange_bits(np.int64(row[j]), n + j, n, n + m, parent, flow, flat_mask, moved)
        else:
            j = place_of(excess, best)
            row_side = exchange(np.int64(row[j]), n + j, n, words, parent, flow, mask, moved)
        shift = best & -GROUP
        shift = -shift if row_side else shift
        for at in range(0, n, LANES):
            shift_lanes(tag, at, bits_from(moved, at, words), shift)
        best = np.int64(LOWEST)
        for at in range(0, m, LANES):
            columns = bits_from(moved, n + at, words)
            shift_lanes(v, at, columns, -shift)
            if large is None:
                best = max(best, excess_after(row, excess, at, moved[0], columns, shift))
            else:
                best = max(best, excess_now(tag, v, row, net, excess, at))
        pivots += 1
    return pivots


@njit(forceinline=True, error_model="numpy")
def enter(cost, n, m, u, v, block, tolerance, cursor):
    """Price rows by blocks; return the worst row of the first block with a violation, or -1, and the next cursor."""
    best = -tolerance
    row = -1
    left = n
    r = cursor
    while left > 0 and row < 0:
        size = min(block, left)
        for _ in range(size):
            total = violation(cost, r, v, u[r], m)
            if total < best:
                best = total
                row = r
            r += 1
            if r == n:
                r = 0
        left -= size
    return row, r


@njit(forceinline=True, error_model="numpy")
def simplex(
    cost,
    n,
    m,
    words,
    grid,
    bits,
    tolerance,
    pivots,
    max_iter,
    root,
    potential,
    parent,
    flow,
    mask,
    order,
    moved,
    scanned,
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
        row, cursor = enter(cost, n, m, u, v, block, tolerance, cursor)
        if row < 0:
            if pivots - refreshed < 1000:
                return OPTIMAL, pivots
            refresh(cost, n, m, root, potential, parent, order, scanned)
            refreshed = pivots
            continue
        if pivots >= max_iter:
            return MAX_ITER, pivots
        column = cheapest_column(cost, row, v, m, grid, bits)
        best = cost[row, column] - v[column]
        if best >= u[row]:
            # The grid was too coarse to tell.
            for j in range(m):
                if cost[row, j] - v[j] < best:
                    best = cost[row, j] - v[j]
                    column = j
        reduced = best - u[row]
        row_side = exchange(row, n + column, n, words, parent, flow, mask, moved)
        follow(reduced if row_side else -reduced, n, nodes, words, u, v, moved)
        pivots += 1
