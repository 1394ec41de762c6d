"""What the exact kernel makes of weights and costs before it solves: units of flow, costs that are comparable."""

from __future__ import annotations

import numpy as np
from numba import njit

from otfew.transport.simplex.lanes import LANES, centre_columns, row_sum
from otfew.transport.simplex.rows import reordered

SCALE = 2.0**52
"""Total mass of every problem inside the kernel."""


@njit(fastmath={"reassoc"})
def copy_if_finite(given, out):
    """Copy costs into float64 and tell whether they hold neither NaN nor infinity: times zero, either is NaN."""
    total = 0.0
    for k in range(len(given)):
        total += given[k] * 0.0
        out[k] = given[k]
    return total == 0.0


@njit(error_model="numpy")
def checked_total(weights, least, largest):
    """Total of weights, or NaN if one is negative, NaN or infinite or the total is out of range."""
    total = 0.0
    sound = True
    for weight in weights:
        sound &= weight >= 0.0
        total += weight
    return total if sound and least <= total <= largest else np.nan


@njit(error_model="numpy", fastmath={"reassoc"})
def quantise(weights, total, kept, out, dropped):
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


@njit(error_model="numpy")
def all_equal(weights, kept, count):
    """Tell whether all weights that count are the same."""
    same = True
    for k in range(count):
        same &= weights[kept[k]] == weights[kept[0]]
    return same


@reordered
def reduce_costs(given, rows, cols, n, m, squeezed, cost, mean, low, high):
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
def take_off(cost, low, n, m, cheapest):
    """Take off column minima; find the first row of each."""
    for j in range(m):
        cheapest[j] = 0
    for i in range(n - 1, -1, -1):
        for j in range(m):
            cost[i, j] -= low[j]
            cheapest[j] = i if cost[i, j] == 0.0 else cheapest[j]
