"""A transport solver of one's own: ``otfew compare --methods deepemd --solver my_solver:Dual``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from otfew.transport.dense import solve_each
from otfew.transport.problem import Array, Problem, Solution, Status
from otfew.transport.registry import ArraySolver
from otfew.transport.simplex.scales import Rule


@dataclass(frozen=True)
class Dual(ArraySolver):
    """Exact transport through its dual: max a f + b g where f_i + g_j <= cost_ij; the plan is what the bounds cost.

    Options are fields with defaults, as in ``otfew.solve(cost, solver=Dual(tolerance=1e-9))``.

    Args:
        tolerance: Of HiGHS.
    """

    tolerance: float = 1e-10

    name: ClassVar[str] = "dual"
    kind: ClassVar[Literal["exact", "entropic"]] = "exact"
    requires: ClassVar[str] = "scipy"
    install: ClassVar[str] = "pip install scipy"

    def solve(self, problem: Problem) -> Solution:
        """Solve every problem of the batch; otfew certifies the answers."""
        from scipy import sparse
        from scipy.optimize import linprog

        n, m = problem.shape
        bounds = sparse.hstack(
            [sparse.kron(sparse.eye(n), np.ones((m, 1))), sparse.kron(np.ones((n, 1)), sparse.eye(m))]
        )

        def solve_one(cost: Array, a: Array, b: Array) -> tuple[Array, Array | None, Status, int]:
            scale = float(np.abs(cost).max()) or 1.0
            found = linprog(
                -np.concatenate([a, b]) * max(n, m),
                A_ub=bounds.tocsr(),
                b_ub=(cost / scale).ravel(),
                # f and g may be shifted against each other.
                bounds=[(0, 0), *[(None, None)] * (n + m - 1)],
                options={"primal_feasibility_tolerance": self.tolerance, "dual_feasibility_tolerance": self.tolerance},
            )
            if found.x is None:
                return np.outer(a, b), None, Status.FAILED, int(found.nit)
            plan = np.maximum(-found.ineqlin.marginals.reshape(n, m), 0) / max(n, m)
            return plan, found.x[n:] * scale, Status.OPTIMAL, int(found.nit)

        return solve_each(problem, solve_one, self.name, rule=Rule(reach=1e-8), trifle=1e-9)
