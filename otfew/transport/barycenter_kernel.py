"""The fixed-point iteration where plans are assignments, compiled: a problem from its first plan to its last at once.

Sets of as many nodes as the barycentre, all masses alike. An assignment problem of 25 nodes takes ten microseconds, of
which a call for all problems of an iteration spends half on what lies around it; and the plans of an iteration are
nearly those of the one before, so the search starts from these, and from their potentials, and only mends. Plans, and
so nodes, are those of the iteration in ``barycenter_iteration``, which a test compares.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from numba import njit, types

from otfew.transport.barycenter_iteration import Found, Geometry, Nodes
from otfew.transport.compilation import announced
from otfew.transport.jit import jit
from otfew.transport.simplex.assignment import augment
from otfew.transport.threads import share_out


def assigned(geometry: Geometry, nodes: Nodes, n_iter: int, tol: float, threads: int) -> Found:
    """Iterate as ``barycenter_iteration.fixed_point`` does, for masses alike and as many nodes as a set has.

    Args:
        geometry: Of the problems, on the CPU, with products ahead.
        nodes: Where to start.
        n_iter: Most updates of the nodes.
        tol: Relative to ``geometry.scale``.
        threads: Threads to use.
    """
    sets = geometry.sets
    size, n_sets, m, _ = sets.points.shape
    assert geometry.gram is not None
    columns = np.zeros((size, n_sets, m), np.int64)
    value, count, status = np.empty(size), np.empty(size, np.int64), np.empty(size, np.int8)
    begun = np.full((size, n_sets, m), -1, np.int64)
    if nodes.members is not None:
        weight, at = nodes.members.max(-1)
        begun[:] = at.where(weight > 0, -1).numpy()
    kernel = _compiled(sets.points.dtype == torch.float32)
    given = [
        np.ascontiguousarray(tensor.numpy())
        for tensor in (geometry.gram, geometry.squares, nodes.products, nodes.squares, sets.weights, geometry.scale)
    ]

    def work(first: int, last: int) -> None:
        kernel(*given, begun, sets.cost == "cosine", n_iter, tol, first, last, columns, value, count, status)

    share_out(work, size, threads)
    # weights_s P_s / b: of a permutation, the weight of the set.
    members = sets.points.new_zeros(size, n_sets, m, m)
    weights = sets.weights.to(members.dtype)[..., None, None].expand(-1, -1, m, 1)
    # Sets that do not count have no columns, and no weight.
    members.scatter_(3, torch.from_numpy(columns.clip(0))[..., None], weights)
    return Found(members, *map(torch.from_numpy, (value, count, status)))


SWEEPS = 12
"""Passes over the rows in which potentials have to prove that an assignment is still the best."""


@njit(error_model="numpy", fastmath={"nnan", "nsz", "reassoc"})
def _still_best(cost, n, v, column_of):
    """Lower potentials of the columns until no reduced cost is negative (Bellman and Ford), if that comes soon."""
    largest = 0.0
    for i in range(n):
        for j in range(n):
            largest = max(largest, abs(cost[i, j]))
    slack = 1e-14 * n * largest
    for _ in range(SWEEPS):
        lowered = 0.0
        for i in range(n):
            u = cost[i, column_of[i]] - v[column_of[i]]
            for j in range(n):
                at = cost[i, j] - u
                lowered += max(v[j] - at - slack, 0.0)
                v[j] = min(v[j], at)
        if lowered == 0.0:
            return True
    return False


@njit(error_model="numpy", fastmath={"nnan", "nsz"})
def _mend(cost, n, v, column_of, row_of, free, distance, previous, scanned):
    """Assign rows from potentials of the columns, and from an assignment of which the cheapest columns are kept."""
    for j in range(n):
        row_of[j] = -1
    waiting = 0
    for i in range(n):
        first = np.inf
        for j in range(n):
            first = min(first, cost[i, j] - v[j])
        kept = column_of[i]
        if kept >= 0 and cost[i, kept] - v[kept] <= first and row_of[kept] < 0:
            row_of[kept] = i
            continue
        at = 0
        while cost[i, at] - v[at] > first:
            at += 1
        if row_of[at] < 0:
            column_of[i] = at
            row_of[at] = i
        else:
            column_of[i] = -1
            free[waiting] = i
            waiting += 1
    for k in range(waiting):
        augment(free[k], cost, n, v, column_of, row_of, distance, previous, scanned)


def _iterate(
    gram, squares, products, own, weights, scale, begun, cosine, n_iter, tol, first, last,
    out_columns, out_value, out_count, out_status,
):  # fmt: skip
    """Iterate problems first..last-1; see ``assigned``."""
    n_sets = squares.shape[1]
    n = squares.shape[2]
    cost = np.empty((n, n))
    v = np.empty((n_sets, n))
    column_of = np.empty((n_sets, n), np.int64)
    before = np.empty((n_sets, n), np.int64)
    row_of = np.empty(n, np.int64)
    free = np.empty(n, np.int64)
    distance = np.empty(n)
    previous = np.empty(n, np.int64)
    scanned = np.empty(n, np.bool_)
    dots = np.empty((n, n_sets * n))
    new = np.empty((n, n_sets * n))
    square = np.empty(n)
    for k in range(first, last):
        for i in range(n):
            square[i] = own[k, i]
            for j in range(n_sets * n):
                dots[i, j] = products[k, i, j]
        before[:] = begun[k]
        ended = False
        count = 0
        total = 0.0
        for step in range(n_iter + 1):
            total = 0.0
            for s in range(n_sets):
                if weights[k, s] <= 0.0:
                    column_of[s] = before[s]
                    continue
                for i in range(n):
                    length = np.sqrt(square[i]) if square[i] > 1e-14 else 1.0
                    for j in range(n):
                        dot = dots[i, s * n + j]
                        cost[i, j] = (
                            1.0 - dot / length if cosine else max(square[i] + squares[k, s, j] - 2.0 * dot, 0.0)
                        )
                if step == 0:
                    for j in range(n):
                        v[s, j] = cost[0, j]
                    for i in range(1, n):
                        for j in range(n):
                            v[s, j] = min(v[s, j], cost[i, j])
                    column_of[s] = -1
                if step == 0 or not _still_best(cost, n, v[s], column_of[s]):
                    _mend(cost, n, v[s], column_of[s], row_of, free, distance, previous, scanned)
                paid = 0.0
                for i in range(n):
                    paid += cost[i, column_of[s, i]]
                total += weights[k, s] * paid / n
            if step == n_iter:
                break
            count = step + 1
            same = True
            for s in range(n_sets):
                if weights[k, s] > 0.0:
                    for i in range(n):
                        same &= column_of[s, i] == before[s, i]
            if same:
                ended = True
                break
            drop = 0.0
            for i in range(n):
                new[i] = 0.0
                for s in range(n_sets):
                    weight = weights[k, s]
                    if weight > 0.0:
                        at = s * n + column_of[s, i]
                        for j in range(n_sets * n):
                            new[i, j] += weight * gram[k, at, j]
                moved = 0.0
                mixed = 0.0
                for s in range(n_sets):
                    if weights[k, s] > 0.0:
                        moved += weights[k, s] * new[i, s * n + column_of[s, i]]
                        mixed += weights[k, s] * dots[i, s * n + column_of[s, i]]
                if cosine:
                    length = np.sqrt(square[i]) if square[i] > 1e-14 else 1.0
                    drop += np.sqrt(max(moved, 0.0)) - mixed / length
                else:
                    drop += moved - 2.0 * mixed + square[i]
                square[i] = moved
            drop = max(drop / n, 0.0)
            before[:] = column_of
            dots[:] = new
            if drop <= tol * scale[k]:
                ended = True
                total = max(total - drop, 0.0)
                break
        out_columns[k] = before
        out_value[k] = total
        out_count[k] = count
        out_status[k] = 0 if ended else 1


@functools.cache
def _compiled(narrow: bool) -> Callable[..., None]:
    """Compile the iteration for float32 or float64 and say so, or load what was compiled before."""
    kind = types.float32 if narrow else types.float64
    wide, whole = types.float64, types.int64
    signature = types.void(
        types.Array(kind, 3, "C"), types.Array(kind, 3, "C"), types.Array(kind, 3, "C"), types.Array(kind, 2, "C"),
        types.Array(wide, 2, "C"), types.Array(wide, 1, "C"), types.Array(whole, 3, "C"), types.boolean, whole, wide,
        whole, whole,
        types.Array(whole, 3, "C"), types.Array(wide, 1, "C"), types.Array(whole, 1, "C"),
        types.Array(types.int8, 1, "C"),
    )  # fmt: skip
    with announced("barycentres"):
        kernel: Callable[..., None] = jit(signature, nogil=True, error_model="numpy")(_iterate)
    return kernel
