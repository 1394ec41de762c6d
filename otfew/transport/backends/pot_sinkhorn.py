"""POT's Sinkhorn iterations, one problem after another: the oracle of entropic transport."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from otfew.transport.backends.keops_reductions import keops_quiet
from otfew.transport.options import check_count, check_number
from otfew.transport.problem import Array, Problem, Solution, Status
from otfew.transport.registry import ArraySolver

_METHODS = ("sinkhorn_log", "sinkhorn", "sinkhorn_stabilized")


@dataclass(frozen=True)
class POTSinkhorn(ArraySolver):
    """Entropic transport by ``ot.sinkhorn``: min <P, C> + reg KL(P | a b^T / total), KL with its mass terms.

    The potentials f, g are in units of the cost: P_ij = a_i b_j / total exp((f_i + g_j - C_ij) / reg). POT's column
    scalings are kept and the rows solved for once more, so that row sums are exact and the plan is that of the
    potentials. POT reports no failure: whether the column sums hold is tested here. ``value_linear`` and ``plan`` are
    constants for autograd.

    Args:
        reg: Strength of the regularisation, in units of the cost.
        method: "sinkhorn_log" (log domain), "sinkhorn" (Cuturi 2013; underflows where reg is small beside the costs)
            or "sinkhorn_stabilized" (Schmitzer 2019).
        tol: Marginal error to reach, relative to the total.
        max_iter: Iterations a problem may take.

    Raises:
        ValueError: An option is out of range.
    """

    reg: float = 0.1
    method: str = "sinkhorn_log"
    tol: float = 1e-9
    max_iter: int = 10_000

    name: ClassVar[str] = "pot-sinkhorn"
    kind: ClassVar[Literal["exact", "entropic"]] = "entropic"
    requires: ClassVar[str] = "ot"
    install: ClassVar[str] = 'pip install "otfew[solvers]"'

    def __post_init__(self) -> None:
        check_number("POTSinkhorn", "reg", self.reg)
        if self.method not in _METHODS:
            raise ValueError(f"POTSinkhorn: method must be one of {', '.join(_METHODS)}, got {self.method!r}")
        check_number("POTSinkhorn", "tol", self.tol, below=1)
        check_count("POTSinkhorn", "max_iter", self.max_iter)

    def solve(self, problem: Problem) -> Solution:
        """Solve every problem of the batch."""
        size, (n, m) = len(problem), problem.shape
        plan, f, g = np.empty((size, n, m)), np.empty((size, n)), np.empty((size, m))
        value, linear, gap, error = (np.empty(size) for _ in range(4))
        status, n_iter = np.empty(size, np.int8), np.empty(size, np.int64)
        # Weights without mass and failures are dealt with here.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for k in range(size):
                cost, a, b = problem.item(k)
                total = a.sum()
                unit_a, unit_b = a / total, b / b.sum()
                g[k], n_iter[k] = self._scale_columns(cost, unit_a, unit_b)
                f[k], g[k] = _potentials(cost, g[k], unit_a, unit_b, self.reg)
                # Rows and columns without mass have potentials, but no flow however large those are.
                log_density = np.where(np.outer(a, b) > 0, (f[k][:, None] + g[k] - cost) / self.reg, 0)
                unit_plan = np.outer(unit_a, unit_b) * np.exp(log_density)
                unit_linear = (unit_plan * cost).sum()
                mass = unit_plan.sum()
                primal = unit_linear + self.reg * ((unit_plan * log_density).sum() - mass + 1)
                dual = f[k] @ unit_a + g[k] @ unit_b + self.reg * (1 - mass)
                plan[k], value[k], linear[k] = unit_plan * total, primal * total, unit_linear * total
                gap[k] = (primal - dual) * total
                error[k] = max(np.abs(unit_plan.sum(1) - unit_a).max(), np.abs(unit_plan.sum(0) - unit_b).max())
                status[k] = Status.OPTIMAL if error[k] <= self.tol else Status.MAX_ITER
        return Solution(value, f, g, gap, error, status, n_iter, self.name, dense=plan, linear=linear)

    def _scale_columns(self, cost: Array, a: Array, b: Array) -> tuple[Array, int]:
        """Run POT and return its column scalings as potentials, without those of weights of zero, and iterations."""
        with keops_quiet():  # POT imports KeOps where it is installed
            import ot

        rows, columns = a > 0, b > 0
        options = {"numItermax": self.max_iter, "stopThr": self.tol, "warn": False, "log": True}
        held = np.ascontiguousarray(cost[np.ix_(rows, columns)])
        log = ot.sinkhorn(a[rows], b[columns], held, self.reg, method=self.method, **options)[1]
        scalings = {
            "sinkhorn_log": lambda: self.reg * log["log_v"],
            "sinkhorn": lambda: self.reg * np.log(log["v"]),
            "sinkhorn_stabilized": lambda: log["beta"],
        }
        g = np.zeros(len(b))
        g[columns] = scalings[self.method]() - self.reg * np.log(b[columns])
        return g, int(log["n_iter" if self.method == "sinkhorn_stabilized" else "niter"]) + 1


def _potentials(cost: Array, g: Array, a: Array, b: Array, reg: float) -> tuple[Array, Array]:
    """Potentials for which rows have their sums, those of weights of zero included; gauge sum_j g_j b_j = 0."""
    f = -reg * _logsumexp(np.log(b) + (g - cost) / reg)
    # Where a column has no weight, its potential is the derivative towards some.
    g = np.where(b > 0, g, -reg * _logsumexp(np.log(a) + (f - cost.T) / reg))
    shift = float(g @ b)
    return f + shift, g - shift


def _logsumexp(x: Array) -> Array:
    largest = x.max(1)
    summed: Array = largest + np.log(np.exp(x - largest[:, None]).sum(1))
    return summed
