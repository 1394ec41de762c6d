"""Backends that solve one problem at a time: the loop, the common certificate and the common layout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from otfew.transport.certificate import c_transform, certify_plan, recover_potentials
from otfew.transport.forbidden import feasibility
from otfew.transport.problem import Array, Problem, Solution, Status
from otfew.transport.simplex.scales import RESOLUTION, Answer, Rule, settle

SolveOne = Callable[[Array, Array, Array], tuple[Array, Array | None, Status, int]]
"""(cost (n, m), a (n,), b (m,), each of total 1) -> plan (n, m), column potentials (m,) or None, status, iterations."""


def solve_each(
    problem: Problem,
    solve_one: SolveOne,
    solver: str,
    tol: float = 1e-12,
    rule: Rule | None = None,
    trifle: float | None = None,
    missed: float = 1e-8,
    natively: bool = False,
) -> Solution:
    """Solve each problem with total mass 1 and judge it by its certificate.

    What the library calls optimal is called so only where plan and potentials prove it; where other costs are far above
    those that the plan uses, they are lowered and the problem is solved again (see ``scales``). A problem whose plan
    or potentials are not finite has failed: its answer is the product coupling, which meets the weights, with the gap
    that this leaves. Where pairs are forbidden, it is judged as our own solver's (see ``simplex.forbidding``).

    Args:
        problem: The batch.
        solve_one: Solves one problem; its potentials need not be feasible, they are c-transformed here. A solver
            that has none returns None for every problem: they are then recovered from the plans.
        solver: Name for the result.
        tol: Precision of the plans from which potentials are recovered, see ``recover_potentials``.
        rule: When a plan is good enough; by default as for our own solver.
        trifle: Share of the mass below which a flow may be a rounding error; by default that of float64.
        missed: Largest deviation of the plan's sums from the weights, relative to the total, of an optimal plan.
        natively: Whether ``solve_one`` knows that costs of +inf forbid a pair; if not, it gets high costs instead.

    Returns:
        The answers, with dense plans (problems, n, m), in float64.
    """
    size, (n, m) = len(problem), problem.shape
    cost, a, b = np.empty((size, n, m)), np.empty((size, n)), np.empty((size, m))
    for k in range(size):
        cost[k], a[k], b[k] = problem.item(k)
    total = a.sum(-1)
    forbidden = np.isposinf(cost)
    given, far = cost, np.zeros(size)
    forbids = bool(forbidden.any())
    if forbids:
        # numba compiles at import, so only where pairs are forbidden.
        from otfew.transport.simplex.forbidding import Survey, mend

        seen = Survey.of(cost)
        cost, far = seen.filled(seen.far).astype(np.float64, copy=False), seen.far
    rule = Rule() if rule is None else rule
    share = (n + m) * RESOLUTION if trifle is None else trifle

    def attempt(index: npt.NDArray[np.intp], costs: Array) -> Answer:
        """Solve some of the problems for these costs."""
        count = len(index)
        plan, g = np.empty((count, n, m)), np.zeros((count, m))
        status, n_iter = np.empty(count, np.int8), np.empty(count, np.int64)
        recovered = False
        for k, (x, y) in enumerate(zip(a[index], b[index], strict=True)):
            unit_a, unit_b = x / x.sum(), y / y.sum()
            barred = forbidden[index[k]] if forbids and natively else None
            shown = costs[k] if barred is None else np.where(barred, np.inf, costs[k])
            found, potential, status[k], n_iter[k] = solve_one(shown, unit_a, unit_b)
            if barred is not None and status[k] == Status.FAILED:
                # Weights may balance but for rounding: then little mass is on forbidden pairs, and dropped below.
                found, potential, status[k], n_iter[k] = solve_one(costs[k], unit_a, unit_b)
            recovered = recovered or potential is None
            potential = np.zeros(m) if potential is None else potential
            if not (np.isfinite(found).all() and np.isfinite(potential).all()):
                found, potential, status[k] = np.outer(unit_a, unit_b), np.zeros(m), Status.FAILED
            plan[k], g[k] = found * x.sum(), potential
        if recovered:
            g = recover_potentials(costs, a[index], b[index], plan, tol)[1]
        f, g = c_transform(cost[index], g, a[index], b[index])
        return Answer(None, plan.reshape(count, n * m), f, g, status, n_iter)

    answer = attempt(np.arange(size), cost)
    settle(cost, a, b, answer, attempt, rule, share * total, np.zeros(size))
    plan = answer.flow.reshape(size, n, m)
    astray = np.where(forbidden, plan, 0.0).sum((1, 2)) if forbids else np.zeros(size)
    if forbids:
        mend(given, np.arange(size), a, b, far, answer.f, answer.g)
        plan[forbidden] = 0.0
    value, gap, error = certify_plan(cost, a, b, plan, answer.f, answer.g)
    lost = (error > missed) & (answer.status == Status.OPTIMAL)
    answer.status[lost] = rule.short
    solution = Solution(value, answer.f, answer.g, gap, error, answer.status, answer.n_iter, solver, dense=plan)
    bad = np.flatnonzero(astray > 0)
    if len(bad):
        solution.refuse(bad, feasibility(~forbidden[bad], a[bad], b[bad], problem.rounding))
    return solution
