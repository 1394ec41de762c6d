"""Our exact solver: a batched network simplex, threads over problems."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from otfew.transport.partial import Mass, with_dummies, without_dummies
from otfew.transport.problem import TOTALS_RTOL, Problem, Solution
from otfew.transport.registry import ArraySolver
from otfew.transport.threads import share_out


@dataclass(frozen=True)
class Exact(ArraySolver):
    """Exact LP by a primal network simplex in float64, one problem a thread.

    Flows are exact multiples of total / 2^52; an answer is the same, bit for bit, whatever its batch-mates and the
    number of threads. Assignment problems (uniform weights, as many rows as columns) of up to 128 rows go to shortest
    augmenting paths, which take 0.7 of the time there; ``result.solver`` says so. POT's code was not faster at any size
    up to 4,000 x 4,000, so nothing is handed to it.

    Args:
        tol: Allowed violation of dual feasibility, relative to the spread of a problem's costs; 0 means the rounding
            error.
        max_iter: Pivots a problem may take; None means a bound that no known problem reaches.
        threads: Threads to use; None means torch's number of threads.
        mass: How much to transport where a and b need not have the same total: a number, the same for all problems,
            or "min", the smaller total, as ``cv2.EMD`` does. Then row sums are at most a, column sums at most b;
            nothing is rescaled; ``potentials`` are the derivatives of ``value`` in a and b; ``marginal_error`` is
            what exceeds a or b or misses the mass, relative to it. None transports all and wants equal totals.

    Raises:
        ValueError: An option is out of range; when solving, ``mass`` is more than a problem holds.
    """

    tol: float = 0.0
    max_iter: int | None = None
    threads: int | None = None
    mass: Mass | None = None

    name: ClassVar[str] = "exact"
    kind: ClassVar[Literal["exact", "entropic"]] = "exact"
    requires: ClassVar[str] = "numba"
    install: ClassVar[str] = "pip install numba"

    def __post_init__(self) -> None:
        for name in ("max_iter", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Exact: {name} must be at least 1 or None, got {value}")
        if not (self.mass is None or self.mass == "min" or (not isinstance(self.mass, str) and self.mass > 0)):
            raise ValueError(f"Exact: mass must be positive, 'min' or None, got {self.mass!r}")

    @property
    def equal_totals(self) -> bool:
        """Whether the totals of a and b must agree."""
        return self.mass is None

    @property
    def checks_values(self) -> bool:
        """With dummy nodes, what is unsound may no longer look so to the kernel."""
        return self.mass is None

    def solve(self, problem: Problem) -> Solution:
        """Solve every problem of the batch."""
        if self.mass is None:
            return self._solve(problem)
        extended, moved = with_dummies(problem, self.mass)
        return without_dummies(problem, self._solve(extended), moved, self.mass)

    def _solve(self, problem: Problem) -> Solution:
        size, (n, m) = len(problem), problem.shape
        arcs = n + m - 1
        rows, cols = np.empty((size, arcs), np.int32), np.empty((size, arcs), np.int32)
        flow, f, g = np.empty((size, arcs)), np.empty((size, n)), np.empty((size, m))
        value, gap, error = np.empty(size), np.empty(size), np.empty(size)
        status, n_iter = np.empty(size, np.int8), np.empty(size, np.int64)
        assigned = np.empty(size, np.bool_)
        max_iter = 10_000 + 20 * n * m if self.max_iter is None else self.max_iter
        totals_rtol = np.inf if problem.checked else TOTALS_RTOL
        kernel = _kernel_for()(n, m)
        cost = np.ascontiguousarray(problem.cost)
        if cost.dtype == np.float32:
            costs, narrow = np.empty((0, n, m)), cost
        else:
            costs, narrow = cost, np.empty((0, n, m), np.float32)

        def work(first: int, last: int) -> None:
            kernel(
                costs, narrow, problem.a, problem.b, problem.cost_index, problem.a_index, problem.b_index,
                first, last, totals_rtol, self.tol, max_iter,
                rows, cols, flow, f, g, value, gap, error, status, n_iter, assigned,
            )  # fmt: skip

        # A chunk costs some ten microseconds to hand over: a few problems of 25 x 25, many of 5 x 5.
        share_out(work, size, self.threads or torch.get_num_threads(), least=1 + 10_000 // (n * m))
        ran = self.name
        paths = np.count_nonzero(assigned)
        if paths:
            ran += " (shortest augmenting paths)" if paths == size else " (simplex and shortest augmenting paths)"
        return Solution(value, f, g, gap, error, status, n_iter, ran, rows=rows, cols=cols, flow=flow)


@functools.cache
def _kernel_for() -> Callable[[int, int], Callable[..., None]]:
    """Load numba at the first solve."""
    from otfew.transport.exact_kernel import kernel_for

    return kernel_for
