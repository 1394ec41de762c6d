"""Rows of costs in float64, looked at as a whole: sums and minima that compilers turn into vectors."""

from __future__ import annotations

import numpy as np
from numba import njit

reordered = njit(error_model="numpy", fastmath={"nnan", "nsz", "reassoc"}, forceinline=True)
"""For sums that the compiler may reorder. Always inlined: machine code of a function of its own would differ in its
rounding from that in the kernel, and a process that compiles calls the one, a process that loads the other."""


@reordered
def violation(cost, i, v, u, m):
    """Sum of the negative reduced costs of a row: unlike their minimum with its index, it vectorises."""
    total = 0.0
    for j in range(m):
        total += min(cost[i, j] - v[j] - u, 0.0)
    return total


@njit(error_model="numpy")
def cheapest_column(cost, i, v, m, grid, bits):
    """Column of a row's least cost, net of the column potentials, up to 1 / grid.

    A floating minimum does not vectorise with its index; one of integers that end in the index does.
    """
    best = np.int64(2**62)
    for j in range(m):
        best = min(best, (np.int64((cost[i, j] - v[j]) * grid) << bits) + j)
    return best & ((np.int64(1) << bits) - 1)


@reordered
def largest_of(x, count):
    """Largest magnitude."""
    largest = 0.0
    for i in range(count):
        largest = max(largest, abs(x[i]))
    return largest


@reordered
def weighted_sum(x, weights):
    """Sum of weighted magnitudes."""
    total = 0.0
    for i in range(len(x)):
        total += abs(x[i]) * weights[i]
    return total


@njit(error_model="numpy")
def none_below(given, rows, cols, n, m, price):
    """Tell whether no cost of the kept part is below a price."""
    for i in range(n):
        for j in range(m):
            if given[rows[i], cols[j]] < price:
                return False
    return True
