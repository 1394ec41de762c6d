"""Costs near the end of float64's range: solved as if a power of two smaller, which rounds nothing that counts."""

from __future__ import annotations

from collections.abc import Callable

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
        finite = np.isfinite(found.gap)
        # A small problem is solved sooner than three arrays are looked at.
        if np.count_nonzero(finite) == len(finite):
            return found
        beyond = ~finite & (found.status != Status.INFEASIBLE)
        if not beyond.any() or (not problem.checked and INVALID in found.status[beyond]):
            # Numbers that are no numbers are the caller's to complain of.
            return found
        index = np.flatnonzero(beyond)
        cost = problem.cost[problem.cost_index[index]].astype(np.float64) / UNIT
        part = problem.part(index, cost)
        part.basis = problem.trees(index)
        smaller = way(part)
        for name in ("value", "gap", "f", "g"):
            setattr(smaller, name, getattr(smaller, name) * UNIT)
        fits = np.isfinite(smaller.value) & np.isfinite(smaller.gap)
        fits &= np.isfinite(smaller.f).all(-1) & np.isfinite(smaller.g).all(-1)
        fits |= smaller.status == Status.INFEASIBLE
        smaller.status[~fits] = Status.FAILED
        return found.put(index, smaller)
