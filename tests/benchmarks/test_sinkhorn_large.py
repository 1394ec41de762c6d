"""Speed of ``sinkhorn`` on one larger problem beside POT and OTT-JAX, at no larger a marginal error.

CPU seconds, one thread. OTT-JAX is compiled before it is timed and left out where it is not installed; it reads its
number of threads at import: XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1".
"""

from __future__ import annotations

import statistics
import time
import warnings

import numpy as np
import pytest

import otfew

ERROR = 1e-4
"""Sum of the deviations of all marginals, of total 1, that every solver is to reach."""

TURNS = 5


def problem(n, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.random((n, 2)), rng.random((n, 2))
    cost = ((x[:, None] - y) ** 2).sum(-1)
    weights = np.full(n, 1 / n)
    return tuple(z.astype(dtype) for z in (cost / cost.max(), weights, weights))


def error(plan, a, b):
    plan = np.asarray(plan, np.float64)
    return float(np.abs(plan.sum(0) - b).sum() + np.abs(plan.sum(1) - a).sum())


def ours(cost, a, b, reg):
    solver = otfew.Sinkhorn(reg=reg, tol=ERROR / len(a))
    return lambda: otfew.solve(cost, a, b, solver=solver).plan


def pot(cost, a, b, reg, method):
    """POT compares the Euclidean norm with its threshold."""
    ot = pytest.importorskip("ot")
    options = {"method": method, "stopThr": ERROR / len(a) ** 0.5, "numItermax": 20_000, "warn": False}
    return lambda: ot.sinkhorn(a, b, cost, reg, **options)


def ott(cost, a, b, reg, lse_mode, momentum):
    jax = pytest.importorskip("jax")
    pytest.importorskip("ott")
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import acceleration, sinkhorn

    solver = sinkhorn.Sinkhorn(
        lse_mode=lse_mode, threshold=ERROR, max_iterations=20_000, momentum=acceleration.Momentum(value=momentum)
    )

    @jax.jit
    def run(cost, a, b):
        return solver(linear_problem.LinearProblem(geometry.Geometry(cost_matrix=cost, epsilon=reg), a, b)).matrix

    given = tuple(jax.numpy.asarray(z) for z in (cost, a, b))
    return lambda: run(*given).block_until_ready()


@pytest.fixture
def contenders():
    """Makers by name; OTT-JAX in both its modes, without and with over-relaxation, where it is installed."""
    found = {"otfew": ours}
    for method in ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized"):
        found[f"POT {method}"] = lambda *given, method=method: pot(*given, method)
    try:
        import jax
        import ott as _  # noqa: F401
    except ImportError:
        return found
    jax.config.update("jax_enable_x64", True)
    for lse_mode in (False, True):
        for momentum in (1.0, 1.5):
            name = f"OTT {'log' if lse_mode else 'plain'} x{momentum}"
            found[name] = lambda *given, m=momentum, mode=lse_mode: ott(*given, mode, m)
    return found


def cpu_seconds(work, repeats):
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("reg", [0.1, 0.05, 0.02, 0.01])
@pytest.mark.parametrize("n", [100, 500, 1000, 2000])
def test_one_problem(n, reg, dtype, contenders, summarise, benchmark):
    """Not slower than the fastest of the others that reach the error."""
    given = problem(n, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = {name: make(*given, reg) for name, make in contenders.items()}
        errors = {name: error(run(), *given[1:]) for name, run in runs.items()}
        assert errors["otfew"] <= 1.1 * ERROR
        runs = {name: run for name, run in runs.items() if errors[name] <= 1.1 * ERROR}
        turns = {name: [] for name in runs}
        for _ in range(TURNS):
            for name, run in runs.items():
                turns[name].append(cpu_seconds(run, 10 if n == 100 else 1))
    medians = {name: statistics.median(times) for name, times in turns.items()}
    summarise(f"{n} x {n}, reg {reg}, {np.dtype(dtype).name}, CPU seconds", medians)
    benchmark.pedantic(runs["otfew"], rounds=1)
