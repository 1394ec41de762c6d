"""Whether any plan uses allowed pairs only, and if none does, which rows are to blame (Hall 1935; Gale 1957).

A set of rows can only be served by the columns that are allowed for any of them. If those hold less than the rows, no
plan exists; and if no plan exists, there is such a set: by duality of linear programs, with a cost of one on forbidden
pairs and zero elsewhere, the least mass on forbidden pairs is the largest deficit of any set. Potentials of that
problem are whole numbers, and the rows of the highest one are such a set.
"""

from __future__ import annotations

import numpy as np

from otfew.transport.problem import Array, Bools, Feasibility

RESOLUTION = 2.0**-52
"""Share of the mass in which the kernel counts flows."""

ROUNDINGS = 4.0
"""Roundings of each weight that a deficit has to exceed: its own, that of a total it was divided by, and as much again
for how it was computed."""

_CHUNK = 2**22
"""Pairs at a time, which are copied."""


def feasibility(allowed: Bools, a: Array, b: Array, rounding: float = 2.0**-53) -> Feasibility:
    """Tell which problems have a plan whose mass is on allowed pairs alone, and prove it of the others.

    A deficit counts where it is more than rounding explains: that of the weights, and that of the units in which the
    solvers count mass, nodes * 2^-52 of the total. So blocks which balance before their weights are rounded, 0.1 + 0.2
    against 0.3, have a plan.

    Args:
        allowed: (problems, n, m) bool.
        a: (problems, n) non-negative.
        b: (problems, m) non-negative; rescaled here to the totals of a.
        rounding: Largest relative error of one rounding of a weight: 2^-53, or 2^-24 where they come from float32.

    Returns:
        A ``Feasibility``. What it calls infeasible it proves: sum a[rows] > sum b[columns], and nothing else is
        allowed for these rows.
    """
    size, n, m = allowed.shape
    total = a.sum(-1, keepdims=True)
    b = b * (total / b.sum(-1, keepdims=True))
    rows = np.zeros((size, n), np.bool_)
    step = max(1, _CHUNK // (n * m))
    for first in range(0, size, step):
        chunk = slice(first, first + step)
        rows[chunk] = _highest(allowed[chunk], a[chunk], b[chunk])
    columns = (allowed & rows[:, :, None]).any(1)
    needed, held = (np.where(side, weights, 0.0).sum(-1) for side, weights in ((rows, a), (columns, b)))
    floor = (n + m) * RESOLUTION * total[:, 0]
    open_ = needed - held > floor
    rows[~open_] = False
    for k in np.flatnonzero(open_):
        _keep_proven(allowed[k], a[k], b[k], rows[k], ROUNDINGS * rounding, floor[k])
    columns = (allowed & rows[:, :, None]).any(1)
    return Feasibility(np.asarray(rows.any(1)), rows, np.asarray(columns))


def _keep_proven(allowed: Bools, a: Array, b: Array, rows: Bools, rounding: float, floor: float) -> None:
    """Leave of a problem's rows, in place, the parts that share no columns and whose deficit proves something.

    Together, many parts that balance but for rounding would hide the one that does not.
    """
    rest = rows.copy()
    while rest.any():
        new = np.zeros_like(rows)
        new[rest.argmax()] = True
        part, columns = new, np.zeros(len(b), np.bool_)
        while new.any():
            rest &= ~new
            reached = allowed[new].any(0) & ~columns
            columns |= reached
            new = rest & allowed[:, reached].any(1)
            part = part | new
        needed, held = a[part].sum(), b[columns].sum()
        if needed - held <= rounding * (needed + held) + floor:
            rows[part] = False


def _highest(allowed: Bools, a: Array, b: Array) -> Bools:
    """Rows (problems, n), of those with mass, of the highest potential where forbidden pairs cost one."""
    from otfew.transport.simplex.kernel import kernel_for

    size, n, m = allowed.shape
    arcs, each = n + m - 1, np.arange(size)
    f, g = np.empty((size, n)), np.empty((size, m))
    kernel_for(n, m)(
        np.empty((0, n, m)), np.ascontiguousarray(~allowed, np.float32),
        np.ascontiguousarray(a, np.float64), np.ascontiguousarray(b, np.float64),
        each, each, each, 0, size, np.inf, 0.0, 10_000 + 20 * n * m,
        np.empty((size, arcs), np.int32), np.empty((size, arcs), np.int32), np.empty((size, arcs)), f, g,
        *(np.empty(size) for _ in range(3)), np.empty(size, np.int8), np.empty(size, np.int64),
        np.empty(size, np.bool_),
    )  # fmt: skip
    held = a > 0
    highest = np.max(f, -1, where=held, initial=-np.inf, keepdims=True)
    found: Bools = held & (f > highest - 0.5)
    return found
