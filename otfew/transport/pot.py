"""POT's exact network simplex, one problem after another: an oracle, and the faster code for one large problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from otfew.transport.dense import solve_each
from otfew.transport.problem import Array, Problem, Solution, Status
from otfew.transport.registry import ArraySolver


@dataclass(frozen=True)
class POT(ArraySolver):
    """Exact LP by ``ot.lp.emd_wrap.emd_c`` (Bonneel et al. 2011), the C++ core behind ``ot.emd``.

    Args:
        max_iter: Pivots a problem may take.
    """

    max_iter: int = 1_000_000

    name: ClassVar[str] = "pot"
    kind: ClassVar[Literal["exact", "entropic"]] = "exact"
    requires: ClassVar[str] = "ot"
    install: ClassVar[str] = 'pip install "otfew[solvers]"'

    def solve(self, problem: Problem) -> Solution:
        """Solve every problem of the batch."""
        from ot.lp.emd_wrap import emd_c

        def solve_one(cost: Array, a: Array, b: Array) -> tuple[Array, Array, Status, int]:
            # Its optimality test is absolute, so it gets costs from zero to one; it drops nodes without mass.
            low = cost.min()
            spread = float(cost.max() - low) or 1.0
            plan, _, _, g, code = emd_c(a, b, np.ascontiguousarray((cost - low) / spread), self.max_iter, 1)[:5]
            return plan, g * spread + low, Status.OPTIMAL if code == 1 else Status.MAX_ITER, 0

        return solve_each(problem, solve_one, self.name)
