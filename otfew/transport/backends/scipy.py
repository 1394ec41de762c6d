"""HiGHS through SciPy, one linear program after another: the slow oracle that shares no code with network simplices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from otfew.transport.dense import solve_each
from otfew.transport.problem import Array, Problem, Solution, Status
from otfew.transport.registry import ArraySolver
from otfew.transport.simplex.scales import Rule

_METHODS = ("highs", "highs-ds", "highs-ipm")
_STATUS = {0: Status.OPTIMAL, 1: Status.MAX_ITER}


@dataclass(frozen=True)
class SciPy(ArraySolver):
    """Exact LP by ``scipy.optimize.linprog``.

    Args:
        method: "highs", "highs-ds" (dual simplex) or "highs-ipm" (interior point).

    Raises:
        ValueError: Another method.
    """

    method: str = "highs"

    name: ClassVar[str] = "scipy"
    kind: ClassVar[Literal["exact", "entropic"]] = "exact"
    requires: ClassVar[str] = "scipy"
    install: ClassVar[str] = "pip install scipy"
    remedy: ClassVar[str] = "try another method"
    forbids: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(f"SciPy: method must be one of {', '.join(_METHODS)}, got {self.method!r}")

    def solve(self, problem: Problem) -> Solution:
        """Solve every problem of the batch."""
        from scipy import sparse
        from scipy.optimize import linprog

        n, m = problem.shape
        sums = sparse.vstack(
            [sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))], format="csr"
        )

        def solve_one(cost: Array, a: Array, b: Array) -> tuple[Array, Array, Status, int]:
            # One sum follows from the others: without the heaviest column's, the rest can bear the tolerances.
            kept = np.arange(n + m) != n + b.argmax()
            # HiGHS's tolerances are absolute: costs from zero to one, masses of one on average.
            allowed = np.isfinite(cost)
            low = cost.min(where=allowed, initial=np.inf) if allowed.any() else 0.0
            spread = float(cost.max(where=allowed, initial=-np.inf) - low) if allowed.any() else 1.0
            spread = spread or 1.0
            # A forbidden pair is a variable between zero and zero.
            bounds: Any = (0, None)
            if not allowed.all():
                bounds = np.stack([np.zeros(n * m), np.where(allowed.ravel(), np.inf, 0.0)], -1)
            scale = float(max(n, m))
            # Its presolve and simplex stop at 1e-7 unless told otherwise.
            options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
            found = linprog(
                (np.where(allowed, cost - low, 0.0) / spread).ravel(),
                A_eq=sums[kept],
                b_eq=np.concatenate([a, b])[kept] * scale,
                bounds=bounds,
                method=self.method,
                options=options,
            )
            status = _STATUS.get(found.status, Status.FAILED)
            if found.x is None:
                return np.outer(a, b), np.zeros(m), status, int(found.nit)
            plan = np.maximum(found.x.reshape(n, m), 0) / scale
            g = np.zeros(m)
            g[kept[n:]] = found.eqlin.marginals[n:]
            g = g * spread + low
            return plan, g, status, int(found.nit)

        # HiGHS meets its tolerances of 1e-10 in these units, and no better.
        return solve_each(problem, solve_one, self.name, rule=Rule(reach=1e-8), trifle=1e-9, natively=True)
