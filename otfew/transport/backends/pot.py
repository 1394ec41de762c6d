"""POT's exact network simplex, one problem after another: an oracle, and the faster code for one large problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from otfew.transport.backends.keops_reductions import keops_quiet
from otfew.transport.dense import solve_each
from otfew.transport.options import check_count
from otfew.transport.problem import Array, Problem, Solution, Status
from otfew.transport.registry import ArraySolver

_STATUS = {1: Status.OPTIMAL, 3: Status.MAX_ITER}
"""What its codes mean; the others are an infeasible and an unbounded problem, which no transport problem is."""


@dataclass(frozen=True)
class POT(ArraySolver):
    """Exact LP by ``ot.lp.emd_wrap.emd_c`` (Bonneel et al. 2011), the C++ core behind ``ot.emd``.

    Args:
        max_iter: Pivots a problem may take.

    Raises:
        ValueError: An option is out of range.
    """

    max_iter: int = 1_000_000

    name: ClassVar[str] = "pot"
    kind: ClassVar[Literal["exact", "entropic"]] = "exact"
    requires: ClassVar[str] = "ot"
    install: ClassVar[str] = 'pip install "otfew[solvers]"'
    forbids: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("POT", "max_iter", self.max_iter)

    def solve(self, problem: Problem) -> Solution:
        """Solve every problem of the batch."""
        with keops_quiet():  # POT imports KeOps where it is installed
            from ot.lp.emd_wrap import emd_c

        def solve_one(cost: Array, a: Array, b: Array) -> tuple[Array, Array, Status, int]:
            # Its optimality test is absolute, so it gets costs from zero to one; it drops nodes without mass.
            low = cost.min()
            spread = float(cost.max() - low) or 1.0
            plan, _, _, g, code = emd_c(a, b, np.ascontiguousarray((cost - low) / spread), self.max_iter, 1)[:5]
            return plan, g * spread + low, _STATUS.get(code, Status.FAILED), 0

        return solve_each(problem, solve_one, self.name)
