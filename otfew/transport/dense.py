"""Backends that solve one problem at a time: the loop, the common certificate and the common layout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from otfew.transport.certificate import c_transform, certify_plan
from otfew.transport.problem import Array, Problem, Solution, Status

SolveOne = Callable[[Array, Array, Array], tuple[Array, Array, Status, int]]
"""(cost (n, m), a (n,), b (m,), each of total 1) -> plan (n, m), column potentials (m,), status, iterations."""


def solve_each(problem: Problem, solve_one: SolveOne, solver: str) -> Solution:
    """Solve each problem with total mass 1 and certify it.

    Args:
        problem: The batch.
        solve_one: Solves one problem; its potentials need not be feasible, they are c-transformed here.
        solver: Name for the result.
    """
    size, (n, m) = len(problem), problem.shape
    plan, f, g = np.empty((size, n, m)), np.empty((size, n)), np.empty((size, m))
    value, gap, error = np.empty(size), np.empty(size), np.empty(size)
    status, n_iter = np.empty(size, np.int8), np.empty(size, np.int64)
    for k in range(size):
        cost, a, b = problem.item(k)
        total = a.sum()
        unit_plan, potential, status[k], n_iter[k] = solve_one(cost, a / total, b / b.sum())
        plan[k] = unit_plan * total
        f[k], g[k] = c_transform(cost, potential, a, b)
        value[k], gap[k], error[k] = certify_plan(cost, a, b, plan[k], f[k], g[k])
    return Solution(value, f, g, gap, error, status, n_iter, solver, dense=plan)
