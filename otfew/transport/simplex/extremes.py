"""Costs near the end of float64's range: solved as if a power of two smaller, which rounds nothing that counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from otfew.transport.problem import INVALID, Problem, Solution, Status

UNIT = 2.0**600
"""Costs in units of this are far from either end of the range where they, or their sums, were beyond the upper one."""


def within_range(problem: Problem, way: Callable[[Problem], Solution]) -> Solution:
    """Solve problems, those whose certificates overflow once more in larger units.

    What then does not fit into float64 - a potential, the value - is infinite, and its problem ``FAILED``.

    Args:
        problem: The problems, with any costs.
        way: Solves them.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = way(problem)
        beyond = ~np.isfinite(found.gap)
        if not beyond.any() or (not problem.checked and INVALID in found.status[beyond]):
            # Numbers that are no numbers are the caller's to complain of.
            return found
        index = np.flatnonzero(beyond)
        cost = problem.cost[problem.cost_index[index]].astype(np.float64) / UNIT
        each = np.arange(len(index))
        a, b = problem.a[problem.a_index[index]], problem.b[problem.b_index[index]]
        part = replace(problem, cost=cost, a=a, b=b, cost_index=each, a_index=each, b_index=each)
        part.basis = problem.trees(index)
        smaller = way(part)
        rows, cols, flow = found.arcs
        rows[index], cols[index], flow[index] = smaller.arcs
        found.marginal_error[index], found.n_iter[index] = smaller.marginal_error, smaller.n_iter
        for name in ("value", "gap", "f", "g"):
            getattr(found, name)[index] = getattr(smaller, name) * UNIT
        fits = np.isfinite(found.value[index]) & np.isfinite(found.gap[index])
        fits &= np.isfinite(found.f[index]).all(-1) & np.isfinite(found.g[index]).all(-1)
        found.status[index] = np.where(fits, smaller.status, Status.FAILED)
    return found
