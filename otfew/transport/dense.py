"""Backends that solve one problem at a time: the loop, the common certificate and the common layout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from otfew.transport.certificate import c_transform, certify_plan, recover_potentials
from otfew.transport.problem import Array, Problem, Solution, Status

SolveOne = Callable[[Array, Array, Array], tuple[Array, Array | None, Status, int]]
"""(cost (n, m), a (n,), b (m,), each of total 1) -> plan (n, m), column potentials (m,) or None, status, iterations."""


def solve_each(problem: Problem, solve_one: SolveOne, solver: str, tol: float = 1e-12) -> Solution:
    """Solve each problem with total mass 1 and certify it.

    A problem whose plan or potentials are not finite has failed: its answer is the product coupling, which meets the
    weights, with the gap that this leaves.

    Args:
        problem: The batch.
        solve_one: Solves one problem; its potentials need not be feasible, they are c-transformed here. A solver
            that has none returns None for every problem: they are then recovered from the plans.
        solver: Name for the result.
        tol: Precision of the plans from which potentials are recovered, see ``recover_potentials``.
    """
    size, (n, m) = len(problem), problem.shape
    cost, plan = np.empty((size, n, m)), np.empty((size, n, m))
    a, b, g = np.empty((size, n)), np.empty((size, m)), np.zeros((size, m))
    status, n_iter = np.empty(size, np.int8), np.empty(size, np.int64)
    has_potentials = True
    for k in range(size):
        cost[k], a[k], b[k] = problem.item(k)
        total = a[k].sum()
        unit_a, unit_b = a[k] / total, b[k] / b[k].sum()
        found, potential, status[k], n_iter[k] = solve_one(cost[k], unit_a, unit_b)
        has_potentials = has_potentials and potential is not None
        potential = np.zeros(m) if potential is None else potential
        if not (np.isfinite(found).all() and np.isfinite(potential).all()):
            found, potential, status[k] = np.outer(unit_a, unit_b), np.zeros(m), Status.FAILED
        plan[k], g[k] = found * total, potential
    f, g = c_transform(cost, g, a, b) if has_potentials else recover_potentials(cost, a, b, plan, tol)
    value, gap, error = certify_plan(cost, a, b, plan, f, g)
    return Solution(value, f, g, gap, error, status, n_iter, solver, dense=plan)
