"""Large exact problems: a simplex on few arcs of each row, checked against all (column generation, or sifting).

An optimal plan of n x m nodes uses n + m - 1 of n m arcs, and nearly all of them are among the few of least reduced
cost of their rows or columns, once potentials are roughly right. So:

1. the arcs of least cost of each row and column are listed, and annealed Sinkhorn iterations over them bring potentials
   near optimal ones; the lists are made anew by these, and the iterations go on;
2. a tree is built greedily in the order of reduced costs, and the network simplex pivots on the listed arcs;
3. all costs are priced. Arcs that violate dual feasibility join the lists and the simplex goes on from where it is;
   where there are none, the plan is optimal for all arcs, and the row minima of this last pass are its potentials.

Steps 1 and 2 decide how long it takes and nothing else. Passes over all costs are shared out over threads; each row,
and each column of a fixed half of the rows, is worked on by one thread, so that bits do not depend on their number.
Costs are read where they lie; what is kept beside them grows with n + m.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.transport.certificate import CERTAIN, EPS
from otfew.transport.compilation import announced
from otfew.transport.problem import INVALID, TOTALS_RANGE, UNSURE, Array, Problem, Solution, Status
from otfew.transport.threads import share_out

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Nodes = npt.NDArray[np.int32]

SCALE = 2.0**52
"""Units of flow, as in the kernel of small problems."""

ROW_ARCS = 20
"""Arcs that a row lists at first."""

COLUMN_ARCS = 20
"""Arcs that a column lists at first."""

VIOLATORS = 16
"""Arcs that join a row's list after a look at all costs."""

SAMPLE = 256
"""Arcs of a row or column from which it is estimated below which cost the listed ones lie."""

PARTS = 2
"""Parts of the rows in which columns find their arcs: fixed, whatever the number of threads."""

ANNEALING = ((0.6, 0.3), (0.4, 0.1))
"""First and last strength of the Sinkhorn iterations on each set of lists, in units of ``_unit``."""

TURNS = 12
"""Iterations at each strength."""

BLOCK = 0.7
"""Arcs that are priced before the worst of them enters, in units of the square root of the listed ones."""

CROWDED = 64
"""Listed arcs, times nodes, above which the dearer half is left out: bounds the memory."""


@dataclass
class Found:
    """What was found for one problem; see ``Solution``.

    Attributes:
        rows: (arcs,) int32.
        cols: (arcs,) int32.
        flow: (arcs,).
        f: (n,).
        g: (m,).
        value: Cost of the plan.
        gap: Value less dual value, and what rounding can hide.
        error: Largest deviation from a or b, relative to the total.
        status: See ``Status``, INVALID and UNSURE.
        n_iter: Pivots.
    """

    rows: Nodes
    cols: Nodes
    flow: Array
    f: Array
    g: Array
    value: float
    gap: float
    error: float
    status: int
    n_iter: int


def solve_all(problem: Problem, totals_rtol: float, tol: float, max_iter: int, threads: int, name: str) -> Solution:
    """Solve a batch: threads over problems where there are as many, else over the rows of each.

    Args:
        problem: The problems; their costs contiguous.
        totals_rtol: See ``solve_one``.
        tol: See ``solve_one``.
        max_iter: See ``solve_one``.
        threads: Threads to use.
        name: Of the solver.
    """
    size, (n, m) = len(problem), problem.shape
    arcs = n + m - 1
    rows, cols = np.empty((size, arcs), np.int32), np.empty((size, arcs), np.int32)
    flow, f, g = np.empty((size, arcs)), np.empty((size, n)), np.empty((size, m))
    value, gap, error = np.empty(size), np.empty(size), np.empty(size)
    status, n_iter = np.empty(size, np.int8), np.empty(size, np.int64)
    across = size >= threads

    def work(first: int, last: int) -> None:
        for k in range(first, last):
            found = solve_one(
                problem.cost[problem.cost_index[k]], problem.a[problem.a_index[k]], problem.b[problem.b_index[k]],
                totals_rtol, tol, max_iter, 1 if across else threads,
            )  # fmt: skip
            rows[k], cols[k], flow[k], f[k], g[k] = found.rows, found.cols, found.flow, found.f, found.g
            value[k], gap[k], error[k] = found.value, found.gap, found.error
            status[k], n_iter[k] = found.status, found.n_iter

    if across:
        share_out(work, size, threads)
    else:
        work(0, size)
    return Solution(value, f, g, gap, error, status, n_iter, name, rows=rows, cols=cols, flow=flow)


def solve_one(
    cost: npt.NDArray[np.floating],
    a: Array,
    b: Array,
    totals_rtol: float,
    tol: float,
    max_iter: int,
    threads: int,
) -> Found:
    """Solve one problem; what is unsound gets the status INVALID and NaN.

    Args:
        cost: (n, m) float32 or float64, contiguous.
        a: (n,).
        b: (m,).
        totals_rtol: Difference of totals, relative to the larger, up to which they agree.
        tol: Allowed violation of dual feasibility, relative to the spread of the costs.
        max_iter: Pivots that may be taken.
        threads: Threads for passes over all costs.
    """
    n, m = cost.shape
    total_a, total_b = _checked_total(a), _checked_total(b)
    if not abs(total_a - total_b) <= totals_rtol * max(total_a, total_b):
        return _nothing(n, m, INVALID)
    supply, demand = _quantised(a, total_a), _quantised(b, total_b)
    search = _Search(cost, supply, demand, threads)
    low, high = search.survey()
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return _nothing(n, m, INVALID)
    kept = supply > 0
    floor, top = float(low[kept].min()), float(high[kept].max())
    reach = max(abs(floor), abs(top))
    # Potentials are sums along paths of at most n + m arcs, and Sinkhorn's stay within 200 times the largest cost.
    if not reach * 1024.0 * (n + m) < np.inf:
        return _nothing(n, m, Status.FAILED)
    spread = top - floor
    search.list_arcs()
    search.plant()
    pivots, status = search.run(tol * spread, max_iter)
    return _certified(search, a, b, total_a, total_b, floor, tol * spread, pivots, status)


class _Search:
    """The state of the search: lists of arcs by rows, tree and potentials."""

    begin: Ints
    arcs: Nodes
    costs: Array

    def __init__(self, cost: npt.NDArray[np.floating], supply: Array, demand: Array, threads: int) -> None:
        self.cost, self.supply, self.demand, self.threads = cost, supply, demand, threads
        self.n, self.m = cost.shape
        self.dropped: Bools = supply == 0
        self.count = int(np.count_nonzero(supply) + np.count_nonzero(demand))
        nodes = self.n + self.m
        self.potential: Array = np.zeros(nodes)
        self.u, self.w = self.potential[: self.n], self.potential[self.n :]
        self.w[demand == 0] = np.inf
        self.parent, self.thread, self.back, self.size, self.last = (np.zeros(nodes, np.int32) for _ in range(5))
        self.flow: Array = np.zeros(nodes)
        self.root = 0
        self.low: Array = np.empty(self.n)
        self.code = _compiled(cost.dtype.name)

    def _over_rows(self, work: Any) -> None:
        """Share rows out over threads."""
        share_out(work, self.n, self.threads, least=1 + 100_000 // self.m)

    def survey(self) -> tuple[Array, Array]:
        """Find each row's least and largest cost (n,), NaN where one is not finite."""
        low, high = np.empty(self.n), np.empty(self.n)
        self._over_rows(lambda first, last: self.code.survey(self.cost, first, last, self.w, low, high))
        return low, high

    def _choose(self) -> Array:
        """List the arcs of least reduced cost; returns those of the rows (n, k), infinity where there are fewer."""
        n, m = self.n, self.m
        near, keys = np.empty((n, min(ROW_ARCS, m)), np.int32), np.full((n, min(ROW_ARCS, m)), np.inf)
        counts = np.zeros(n, np.int64)
        most = min(COLUMN_ARCS, n)
        column_near, column_keys = np.empty((PARTS, m, most), np.int32), np.empty((PARTS, m, most))
        column_counts = np.zeros((PARTS, m), np.int64)
        edges = [n * p // PARTS for p in range(PARTS + 1)]
        row_step, row_rank = _sample(m, near.shape[1])
        column_step, column_rank = _sample(n, most)
        limits = np.empty((PARTS, m))
        self.code.sample(self.cost, self.dropped, self.u, self.w, column_step, column_rank, limits[0])
        limits[1:] = limits[0]

        def work(first: int, last: int) -> None:
            for p in range(first, last):
                self.code.choose(
                    self.cost, edges[p], edges[p + 1], self.dropped, self.u, self.w, row_step, row_rank,
                    near, keys, counts, limits[p], column_near[p], column_keys[p], column_counts[p],
                )  # fmt: skip

        share_out(work, PARTS, self.threads)
        self.begin, self.arcs, self.costs = self.code.list_arcs(
            self.cost, near, counts, column_near, column_keys, column_counts
        )
        return keys

    def list_arcs(self) -> None:
        """List arcs by their costs, then by potentials that Sinkhorn iterations over these make."""
        unit = _unit(self._choose()[~self.dropped])
        if unit == 0.0:
            return
        for k, (first, last) in enumerate(ANNEALING):
            if k > 0:
                self._choose()
            self.code.smooth(
                self.begin, self.arcs, self.costs, self.supply, self.demand, self.potential,
                first * unit, last * unit, TURNS,
            )  # fmt: skip

    def plant(self) -> None:
        """Build the first tree."""
        keys = self.code.reduced_costs(self.begin, self.arcs, self.costs, self.potential)
        above = keys - keys.min()
        unit = float(np.median(above)) or float(np.minimum(above, 1e300).mean()) or 1.0
        self.root = self.code.plant(
            self.begin, self.arcs, keys, unit, self.supply.copy(), self.demand.copy(), self.parent, self.flow
        )
        self.code.thread_up(self.root, self.count, self.parent, self.thread, self.back, self.size, self.last)

    def run(self, slack: float, max_iter: int) -> tuple[int, Status]:
        """Pivot and price to optimality; returns pivots and how it ended."""
        n = self.n
        near, keys = np.empty((n, min(VIOLATORS, self.m)), np.int32), np.empty((n, min(VIOLATORS, self.m)))
        counts = np.zeros(n, np.int64)
        pivots, cursor = 0, 0
        tolerance = self._refresh(slack)
        while True:
            block = int(BLOCK * np.sqrt(len(self.arcs)))
            more, cursor = self.code.improve(
                n, self.count, self.begin, self.arcs, self.costs, block, tolerance, cursor, max_iter - pivots,
                self.potential, self.parent, self.flow, self.thread, self.back, self.size, self.last,
            )  # fmt: skip
            pivots += more
            tolerance = self._refresh(slack)
            self._over_rows(
                lambda first, last, tolerance=tolerance: self.code.price(
                    self.cost, first, last, self.dropped, self.u, self.w, tolerance, near, keys, counts, self.low
                )
            )
            if not counts.any():
                return pivots, Status.OPTIMAL
            if pivots >= max_iter:
                return pivots, Status.MAX_ITER
            cut = np.inf
            if len(self.arcs) > CROWDED * (n + self.m):
                cut = float(np.median(self.code.reduced_costs(self.begin, self.arcs, self.costs, self.potential)))
            self.begin, self.arcs, self.costs = self.code.add_arcs(
                self.cost, self.begin, self.arcs, self.costs, near, counts, self.potential, cut
            )

    def _refresh(self, slack: float) -> float:
        """Compute the potentials anew; returns the reduced cost that is as good as none."""
        largest: float = self.code.refresh(self.cost, self.root, self.parent, self.thread, self.potential)
        return max(largest * 1e-14, slack)


def _certified(
    search: _Search,
    a: Array,
    b: Array,
    total_a: float,
    total_b: float,
    floor: float,
    slack: float,
    pivots: int,
    status: Status,
) -> Found:
    """Measure a plan by potentials that are feasible and extreme, as the kernel of small problems does."""
    cost, n, m = search.cost, search.n, search.m
    child = np.flatnonzero(search.parent >= 0)
    above = search.parent[child]
    rows, cols, flow = np.zeros(n + m - 1, np.int32), np.zeros(n + m - 1, np.int32), np.zeros(n + m - 1)
    rows[: len(child)], cols[: len(child)] = np.minimum(child, above), np.maximum(child, above) - n
    flow[: len(child)] = search.flow[child] / SCALE * total_a
    paid = cost[rows[: len(child)], cols[: len(child)]].astype(np.float64)
    amounts = flow[: len(child)]
    value, gross = float(amounts @ paid), float(amounts @ np.abs(paid))
    least, most = float(paid.min()), float(paid[amounts > 0].max())
    wanted = np.concatenate([a, b * (total_a / total_b)])
    sums = np.bincount(rows, flow, n + m) + np.bincount(n + cols, flow, n + m)
    error = float(np.abs(sums - wanted).max()) / total_a

    # f is the c-transform over columns with mass, g where there is none that over rows.
    # Where nothing can be cheaper, as for a set against itself, potentials of zero prove it exactly.
    flat = most <= floor
    f = np.full(n, most) if flat else search.low
    g = np.zeros(m) if flat else -search.w
    empty = np.flatnonzero(search.demand == 0)
    if flat:
        search.code.price(
            cost, 0, n, np.ones(n, np.bool_), search.u, np.where(search.demand == 0, np.inf, 0.0), np.inf,
            np.empty((n, 1), np.int32), np.empty((n, 1)), np.empty(n, np.int64), search.low,
        )  # fmt: skip
        f[search.dropped] = search.low[search.dropped]
    if len(empty):
        extreme = np.empty(len(empty))
        search.code.lowest(cost, empty, f, extreme)
        g[empty] = extreme
    shift = float(g @ (b / total_b))
    f, g = f + shift, g - shift
    dual = float(f @ a + g @ b)
    hidden = 0.0 if flat else float(np.abs(f).max() + np.abs(g).max() + abs(shift))
    nodes = search.count
    rounding = EPS * (n + 2) * float(np.abs(f) @ a)
    rounding += EPS * (m + 6) * (float(np.abs(g) @ b) / total_b + 2.0 * abs(shift)) * total_a
    rounding += 8.0 * EPS * hidden * total_a
    allowed = CERTAIN * (value - least * total_a) + 16.0 * EPS * (nodes + 16) * gross + slack * total_a
    sure = abs(value - dual) + rounding <= allowed
    ended = UNSURE if status == Status.OPTIMAL and not sure else int(status)
    return Found(rows, cols, flow, f, g, value, value - dual + rounding, error, ended, pivots)


def _nothing(n: int, m: int, status: int) -> Found:
    """Make the answer to a problem that has none."""
    arcs, nan = np.zeros(n + m - 1, np.int32), float("nan")
    return Found(
        arcs, arcs, np.full(n + m - 1, nan), np.full(n, nan), np.full(m, nan), nan, nan, nan, status, 0
    )  # fmt: skip


def _checked_total(weights: Array) -> float:
    """Total of weights, or NaN if one is negative, NaN or infinite or the total is out of range."""
    total = float(weights.sum())
    sound = bool((weights >= 0).all()) and TOTALS_RANGE[0] <= total <= TOTALS_RANGE[1]
    return total if sound else float("nan")


def _quantised(weights: Array, total: float) -> Array:
    """Scale weights to integers that sum to SCALE."""
    units: Array = np.rint(weights / total * SCALE)
    units[np.argmax(units)] += SCALE - units.sum()
    return units


def _sample(size: int, wanted: int) -> tuple[int, int]:
    """Tell in which steps to sample, and which of the sampled keys some more than the wanted ones lie below."""
    step = max(1, size // SAMPLE)
    sampled = -(-size // step)
    return step, min(sampled, 1 + (3 * wanted * sampled) // (2 * size))


def _unit(keys: Array) -> float:
    """Tell how far apart the costs of neighbouring arcs are: what the eighth of a row costs more than the first."""
    if keys.shape[1] < 2:
        return 0.0
    above = keys[:, min(7, keys.shape[1] - 1)] - keys[:, 0]
    above = above[np.isfinite(above)]
    if not len(above):
        return 0.0
    return float(np.median(above)) or float(above.mean())


@functools.cache
def _compiled(dtype: str) -> SimpleNamespace:
    """Compile all that is run for costs of a type and say so, or load what was compiled before."""
    import numba
    from numba import types

    from otfew.transport.simplex import large_passes, large_start, large_tree

    integer, number = types.int64, types.float64
    real, reals, whole = types.float64[::1], types.float64[:, ::1], types.int64[::1]
    flags, nodes, lists = types.boolean[::1], types.int32[::1], types.int32[:, ::1]
    cost = numba.from_dtype(np.dtype(dtype))[:, ::1]
    listed = (whole, nodes, real)
    row_lists = (lists, reals, whole)
    tree = (nodes, nodes, nodes, nodes)
    signatures = {
        large_passes.survey: (cost, integer, integer, real, real, real),
        large_passes.sample: (cost, flags, real, real, integer, integer, real),
        large_passes.choose: (
            cost, integer, integer, flags, real, real, integer, integer, *row_lists, real, *row_lists,
        ),
        large_passes.price: (cost, integer, integer, flags, real, real, number, *row_lists, real),
        large_passes.lowest: (cost, whole, real, real),
        large_start.list_arcs: (
            cost, lists, whole, types.int32[:, :, ::1], types.float64[:, :, ::1], types.int64[:, ::1],
        ),
        large_start.add_arcs: (cost, *listed, lists, whole, real, number),
        large_start.reduced_costs: (*listed, real),
        large_start.smooth: (*listed, real, real, real, number, number, integer),
        large_start.plant: (*listed, number, real, real, nodes, real),
        large_tree.thread_up: (integer, integer, nodes, *tree),
        large_tree.refresh: (cost, integer, nodes, nodes, real),
        large_tree.improve: (
            integer, integer, *listed, integer, number, integer, integer, real, nodes, real, *tree,
        ),
    }  # fmt: skip
    with announced("the exact solver of large problems"):
        for function, signature in signatures.items():
            function.compile(signature)
    return SimpleNamespace(**{function.__name__: function for function in signatures})
