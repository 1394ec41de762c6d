"""Our exact solver: a batched network simplex, threads over problems."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.certificate import c_transform, missed
from otfew.transport.options import check_count, check_number, is_positive
from otfew.transport.partial import Mass, with_dummies, without_dummies
from otfew.transport.problem import INVALID, TOTALS_RTOL, UNSURE, Array, Problem, Solution, Status
from otfew.transport.registry import ArraySolver
from otfew.transport.result import Parts
from otfew.transport.simplex.extremes import within_range
from otfew.transport.simplex.scales import RESOLUTION, Answer, Rule, settle
from otfew.transport.threads import share_out

LARGE = 600_000
"""Costs in a problem above which ``large`` solves it, which is slower below: measured at 200 to 1,000 nodes a side."""


@dataclass(frozen=True)
class Exact(ArraySolver):
    """Exact LP by a primal network simplex (Dantzig 1951) in float64: one problem a thread, on a GPU one a warp.

    Problems of more than 600,000 costs, 775 nodes a side, are solved on few arcs of each node and checked against all;
    there threads share what looks at all costs.

    Flows are exact multiples of total / 2^52; an answer is the same, bit for bit, whatever its batch-mates and the
    number of threads. Assignment problems (uniform weights, as many rows as columns) of up to 128 rows go to shortest
    augmenting paths (Jonker and Volgenant 1987) on the CPU, which take 0.7 of the time there; ``result.solver`` says
    so. Nothing is handed to POT's code, which is faster only where plans of thousands of nodes reach far.

    Forbidden pairs, costs of +inf, are tried at a cost a little above the others, and where a plan then uses them, at
    one so high that no optimal plan does unless all do; those problems are infeasible, and ``result.cut`` proves it.

    Costs on a CUDA device of compute capability 8.0 or later, of at most 128 rows and columns, are solved there, where
    they lie, by kernels that are compiled at their first use; at ties the plan may be another one than on the CPU, and
    with ``mass`` the last bits may depend on the size of the batch.
    Problems that the kernel is not sure of, since costs differ by many digits, are settled on the CPU. All else that is
    not on the CPU is copied there and back, which a warning says once.

    On the CPU ``warm`` starts the search from the tree of an earlier exact result: its flows are made anew for the new
    weights, and the tree is mended where they would be negative. Assignment problems, problems of more than 600,000
    costs and kernels of a GPU start afresh.

    Args:
        tol: Allowed violation of dual feasibility, relative to the spread of a problem's costs; 0 means the rounding
            error.
        max_iter: Pivots a problem may take; None means a bound that no known problem reaches.
        threads: Threads to use on the CPU; None means torch's number of threads.
        mass: How much to transport where a and b need not have the same total: a number, the same for all problems,
            or "min", the smaller total, as ``cv2.EMD`` does. Then row sums are at most a, column sums at most b;
            nothing is rescaled; ``potentials`` are the derivatives of ``value`` in a and b; ``marginal_error`` is
            what exceeds a or b or misses the mass, relative to it. A problem of whose mass allowed pairs cannot carry
            as much is infeasible. None transports all and wants equal totals.

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
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    forbids: ClassVar[bool] = True
    warm: ClassVar[Literal["tree", "potentials"] | None] = "tree"

    def __post_init__(self) -> None:
        check_number("Exact", "tol", self.tol, least=0.0)
        for name in ("max_iter", "threads"):
            if getattr(self, name) is not None:
                check_count("Exact", name, getattr(self, name), "or None")
        if not (self.mass is None or self.mass == "min" or is_positive(self.mass)):
            raise ValueError(f"Exact: mass must be positive and finite, 'min' or None, got {self.mass!r}")

    @property
    def equal_totals(self) -> bool:
        """Whether the totals of a and b must agree."""
        return self.mass is None

    @property
    def checks_values(self) -> bool:
        """With dummy nodes, what is unsound may no longer look so to the kernel."""
        return self.mass is None

    def solve_there(
        self, cost: Tensor, a: Tensor | None, b: Tensor | None, batch: torch.Size, looks: bool, rtol: float
    ) -> Parts | None:
        """Solve problems of at most 128 rows and columns where their device runs the kernel; see ``Solver``."""
        from otfew.transport.cuda.exact import parts_there

        return parts_there(self, cost, a, b, batch, looks, rtol)

    def solve(self, problem: Problem) -> Solution:
        """Solve every problem of the batch."""
        if self.mass is None:
            return self.solve_all(problem)
        return within_range(problem, self._solve_part)

    def solve_all(self, problem: Problem) -> Solution:
        """Transport all the mass, whatever ``mass`` is.

        Args:
            problem: (problems, n, m), as of ``solve``.

        Returns:
            As ``solve``.
        """
        return within_range(problem, self._solve_whole)

    def _solve_part(self, problem: Problem) -> Solution:
        assert self.mass is not None
        extended, moved = with_dummies(problem, self.mass)
        found = self._solve_whole(extended)
        basis = found.arcs[:2]
        return replace(without_dummies(problem, found, moved, self.mass), basis=basis)

    def _solve_whole(self, problem: Problem) -> Solution:
        if problem.forbids:
            from otfew.transport.simplex.forbidding import Survey, solved

            return solved(problem, Survey.of(problem.cost), self._solve_finite)
        found = self._run(problem)
        if not np.count_nonzero(found.status):
            return found
        self._settle_unsure(problem, found)
        unsound = np.flatnonzero(found.status == INVALID)
        return self._solve_allowed(problem, found, unsound) if len(unsound) else found

    def _solve_finite(self, problem: Problem) -> Solution:
        found = self._run(problem)
        if np.count_nonzero(found.status):
            self._settle_unsure(problem, found)
        return found

    def _settle_unsure(self, problem: Problem, found: Solution) -> None:
        unsure = np.flatnonzero((found.status == UNSURE) & np.isfinite(found.gap))
        if len(unsure):
            self._settle(problem, found, unsure)

    def _solve_allowed(self, problem: Problem, found: Solution, unsound: npt.NDArray[np.intp]) -> Solution:
        """Solve those of the problems that the kernel takes for unsound which have forbidden pairs."""
        from otfew.transport.simplex.forbidding import Survey, solved
        from otfew.transport.simplex.mending import FORBIDS

        costs, index = np.unique(problem.cost_index[unsound], return_inverse=True)
        whole = len(costs) == len(problem.cost)
        seen = Survey.of(problem.cost if whole else problem.cost[costs])
        forbids = seen.kind[index] == FORBIDS
        chosen = unsound[forbids]
        if not len(chosen):
            return found
        part = replace(problem.part(chosen), cost=seen.cost, cost_index=index[forbids])
        answer = solved(part, seen, self._solve_finite)
        return answer if len(chosen) == len(problem) else found.put(chosen, answer)

    def _settle(self, problem: Problem, found: Solution, unsure: npt.NDArray[np.intp]) -> None:
        """Bring what the kernel is unsure of to an end, in place."""
        cost = problem.cost[problem.cost_index[unsure]].astype(np.float64)
        a, b = problem.a[problem.a_index[unsure]], problem.b[problem.b_index[unsure]]
        total = a.sum(-1)
        b = b * (total / b.sum(-1))[:, None]
        m = problem.shape[1]

        def answer_of(solution: Solution, index: npt.NDArray[np.intp]) -> Answer:
            rows, cols, flow = solution.arcs
            arcs = rows[index].astype(np.int64) * m + cols[index]
            status = solution.status[index]
            status = np.where(status == UNSURE, Status.OPTIMAL, status).astype(np.int8)
            return Answer(arcs, flow[index], solution.f[index], solution.g[index], status, solution.n_iter[index])

        def again(index: npt.NDArray[np.intp], lowered: Array) -> Answer:
            each = np.arange(len(index))
            costs = lowered.astype(problem.cost.dtype)
            part = replace(problem, cost=costs, a=a[index], b=b[index], cost_index=each, a_index=each, b_index=each)
            part.basis = problem.trees(unsure[index])
            return answer_of(self._run(part), each)

        answer = answer_of(found, unsure)
        answer.f, answer.g = c_transform(cost, answer.g, a, b)
        nodes = (a > 0).sum(-1) + (b > 0).sum(-1)
        slack = self.tol * np.ptp(cost, (1, 2)) * total
        seen = settle(cost, a, b, answer, again, Rule(), nodes * RESOLUTION * total, slack)
        assert answer.arcs is not None
        rows, cols, flow = found.arcs
        rows[unsure], cols[unsure], flow[unsure] = answer.arcs // m, answer.arcs % m, answer.flow
        found.f[unsure], found.g[unsure], found.value[unsure] = answer.f, answer.g, seen.value
        found.gap[unsure], found.status[unsure], found.n_iter[unsure] = (
            seen.gap + seen.error,
            answer.status,
            answer.n_iter,
        )
        found.marginal_error[unsure] = missed(answer.arcs // m, answer.arcs % m, answer.flow, a, b).max(-1) / total

    def _run(self, problem: Problem) -> Solution:
        size, (n, m) = len(problem), problem.shape
        arcs = n + m - 1
        rows, cols = np.empty((size, arcs), np.int32), np.empty((size, arcs), np.int32)
        flow, f, g = np.empty((size, arcs)), np.empty((size, n)), np.empty((size, m))
        value, gap, error = np.empty(size), np.empty(size), np.empty(size)
        status, n_iter = np.empty(size, np.int8), np.empty(size, np.int64)
        assigned = np.empty(size, np.bool_)
        max_iter = 10_000 + 20 * n * m if self.max_iter is None else self.max_iter
        totals_rtol = np.inf if problem.checked else TOTALS_RTOL
        threads = self.threads or torch.get_num_threads()
        cost = np.ascontiguousarray(problem.cost)
        if n * m > LARGE:
            from otfew.transport.simplex.large import solve_all

            return solve_all(replace(problem, cost=cost), totals_rtol, self.tol, max_iter, threads, self.name)
        trees = problem.basis
        kernel: Callable[..., None] = _kernel_for()(n, m, trees is not None)
        if trees is not None:
            kernel = functools.partial(kernel, trees)
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
        share_out(work, size, threads, least=1 + 10_000 // (n * m))
        ran = self.name
        paths = np.count_nonzero(assigned)
        if paths:
            ran += " (shortest augmenting paths)" if paths == size else " (simplex and shortest augmenting paths)"
        return Solution(value, f, g, gap, error, status, n_iter, ran, rows=rows, cols=cols, flow=flow)


@functools.cache
def _kernel_for() -> Callable[[int, int, bool], Callable[..., None]]:
    """Load numba at the first solve."""
    from otfew.transport.simplex.kernel import kernel_for

    return kernel_for
