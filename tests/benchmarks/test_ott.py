"""Beside ott-jax, in one process and in turns; runs where ott-jax is installed (``tox run -e ott``).

Both get float32. ott-jax stops at a norm of its own, so it is told the largest threshold at which no marginal misses by
more than ours may. What it compiles is compiled beforehand; those seconds are a row of their own. Wall clock and CPU
time of the whole process, medians. ``OTFEW_RECORD=FILE`` writes all of it there.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import otfew

if importlib.util.find_spec("ott") is None or importlib.util.find_spec("jax") is None:
    pytest.skip("ott-jax is not installed: `tox run -e ott` brings it", allow_module_level=True)

import jax
import jax.numpy as jnp
from ott.geometry import geometry, pointcloud
from ott.problems.linear import linear_problem
from ott.solvers.linear import acceleration, sinkhorn
from ott.tools import unreg

ERROR = 1e-5
"""Largest deviation of a marginal, of total 1."""

BATCHES = [(375, 25, 0.05), (375, 25, 0.01), (47, 100, 0.05), (47, 100, 0.01)]
"""Problems in a batch, nodes on each side, regularisation."""

ANDERSON = acceleration.AndersonAcceleration(memory=3, refresh_every=1)
SETTINGS = {
    "ott": {},
    "ott, Anderson": {"inner_iterations": 5, "anderson": ANDERSON},
    "ott, kernel": {"inner_iterations": 5, "lse_mode": False},
    "ott, kernel, Anderson": {"inner_iterations": 5, "lse_mode": False, "anderson": ANDERSON},
}
"""As it comes, and what may be quicker: scalings, not potentials; extrapolation; a look at the error more often."""

PARTS = {"value": "reg_ot_cost", "value_linear": "primal_cost"}
"""What ott-jax calls our results: the first has the envelope's gradient, the second the implicit one."""


def compiled(function, *arguments):
    """Compile for these arguments; give what runs and the seconds that took."""
    start = time.perf_counter()
    made = jax.jit(function).lower(*arguments).compile()
    return made, time.perf_counter() - start


def solved(geom, a, b, threshold, name):
    solver = sinkhorn.Sinkhorn(threshold=threshold, max_iterations=2000, **SETTINGS[name])
    return solver(linear_problem.LinearProblem(geom, a, b))


def forward(reg, name):
    def one(cost, a, b, threshold):
        found = solved(geometry.Geometry(cost_matrix=cost, epsilon=reg), a, b, threshold, name)
        return found.reg_ot_cost, found.matrix

    return jax.vmap(one, (0, 0, 0, None))


def backward(reg, name, part):
    def total(cost, a, b, threshold):
        def one(cost, a, b):
            found = solved(geometry.Geometry(cost_matrix=cost, epsilon=reg), a, b, threshold, name)
            return getattr(found, PARTS[part])

        return jax.vmap(one)(cost, a, b).sum()

    return jax.grad(total, (0, 1, 2))


def error(plan, a, b):
    plan = np.asarray(plan, np.float64)
    return max(abs(plan.sum(2) - a).max(), abs(plan.sum(1) - b).max())


def settled(run, arrays, a, b):
    """Find the largest of some thresholds at which no marginal misses by more than ERROR; None where none does."""
    for threshold in 4e-4 / 2.0 ** np.arange(9):
        if error(run(*arrays, threshold)[1], a, b) <= 1.01 * ERROR:
            return float(threshold)
    return None


def apart(ours, theirs):
    """Largest difference of two gradients, of the largest entry; of weights up to the constant that is free."""
    off = 0.0
    for place, pair in enumerate(zip(ours, theirs, strict=True)):
        x, y = (np.asarray(gradient, np.float64) for gradient in pair)
        difference = x - y
        if place:
            x, difference = (z - z.mean(-1, keepdims=True) for z in (x, difference))
        off = max(off, abs(difference).max() / abs(x).max())
    return off


@pytest.fixture(scope="module")
def record():
    """Collect rows; write them down if asked to."""
    rows = []
    yield rows
    if not (file := os.environ.get("OTFEW_RECORD")):
        return
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in ("jax", "numba", "numpy", "ott-jax", "torch")}
    content = {
        "command": "tox run -e ott",
        "host": {"cores": os.cpu_count(), "processor": names[0] if names else platform.machine()},
        "rows": rows,
        "threads": torch.get_num_threads(),
        "versions": versions,
    }
    Path(file).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@pytest.fixture
def compare(race, summarise, benchmark, record):
    """Race contenders by the wall clock and note the CPU time of the process beside it."""

    def run(title, contenders, rounds, **more):
        spent = {name: [] for name in contenders}

        def noted(name, work):
            def call():
                start = time.process_time()
                work()
                spent[name].append(time.process_time() - start)

            return call

        race(title, {name: noted(name, work) for name, work in contenders.items()}, rounds)
        wall = {name: benchmark.extra_info[f"median of {name} (s)"] for name in contenders}
        note(record, summarise, title, wall, {name: statistics.median(times) for name, times in spent.items()}, **more)

    return run


def note(record, summarise, title, wall, cpu, **more):
    summarise(f"{title}, CPU time", cpu)
    if compiling := more.get("compiling"):
        summarise(f"{title}, compiling beforehand", compiling)
    rounded = {"wall": wall, "cpu": cpu, **more}
    record.append({"title": title, **{kind: _rounded(values) for kind, values in rounded.items()}})


def _rounded(values):
    return {name: value if isinstance(value, str) else float(f"{value:.3g}") for name, value in values.items()}


THRESHOLDS: dict[tuple[int, int, float, str], float | None] = {}


@pytest.fixture
def batch(nodes_batch):
    def draw(size, n):
        arrays = [x.astype(np.float32) for x in nodes_batch(size, n)]
        return arrays, [torch.from_numpy(x) for x in arrays], [jnp.asarray(x) for x in arrays]

    return draw


@pytest.mark.parametrize(("size", "n", "reg"), BATCHES)
def test_forward(size, n, reg, compare, batch):
    """Value and plan."""
    (_, a, b), tensors, arrays = batch(size, n)
    solver = otfew.Sinkhorn(reg=reg, tol=ERROR)

    def ours():
        result = otfew.solve(*tensors, solver=solver)
        return result.value, result.plan

    values, plan = ours()
    errors, compiling = {"otfew": error(plan, a, b)}, {}
    assert errors["otfew"] <= 1.01 * ERROR
    contenders = {"otfew": ours}
    for name in SETTINGS:
        run, seconds = compiled(forward(reg, name), *arrays, ERROR)
        threshold = THRESHOLDS[size, n, reg, name] = settled(run, arrays, a, b)
        if threshold is None:
            errors[name] = "misses the accuracy"
            continue
        found = run(*arrays, threshold)
        np.testing.assert_allclose(found[0], values, rtol=1e-4)
        errors[name], compiling[name] = error(found[1], a, b), seconds
        contenders[name] = lambda run=run, at=threshold: jax.block_until_ready(run(*arrays, at))
    compare(f"{size} x {n}x{n}, reg {reg}, forward", contenders, 5, error=errors, compiling=compiling)


@pytest.mark.parametrize("part", list(PARTS))
@pytest.mark.parametrize(("size", "n", "reg"), BATCHES)
def test_forward_and_backward(size, n, reg, part, compare, batch):
    """Gradients in costs and weights; who gives none, or others, is left out and said to."""
    (_, a, b), tensors, arrays = batch(size, n)
    leaves = [x.requires_grad_() for x in tensors]
    solver = otfew.Sinkhorn(reg=reg, tol=ERROR)

    def ours():
        return torch.autograd.grad(getattr(otfew.solve(*leaves, solver=solver), part).sum(), leaves)

    reference = ours()
    contenders, off, compiling = {"otfew": ours}, {}, {}
    for name in SETTINGS:
        if (size, n, reg, name) not in THRESHOLDS:
            run, _ = compiled(forward(reg, name), *arrays, ERROR)
            THRESHOLDS[size, n, reg, name] = settled(run, arrays, a, b)
        threshold = THRESHOLDS[size, n, reg, name]
        if threshold is None:
            off[name] = "misses the accuracy"
            continue
        run, seconds = compiled(backward(reg, name, part), *arrays, ERROR)
        try:
            off[name] = apart(reference, run(*arrays, threshold))
        except jax.errors.JaxRuntimeError:
            off[name] = "fails: its linear solver gives NaN"
            continue
        if off[name] <= 0.02:
            compiling[name] = seconds
            contenders[name] = lambda run=run, at=threshold: jax.block_until_ready(run(*arrays, at))
    title = f"{size} x {n}x{n}, reg {reg}, forward and backward of {part}"
    compare(title, contenders, 5, apart=off, compiling=compiling)


@pytest.mark.parametrize(("size", "n"), [(375, 25), (47, 100)])
def test_assignment(size, n, compare, batch):
    """Uniform weights, the one exact problem that ott-jax solves; as one program for all, and one after another."""
    _, (cost, _, _), (array, _, _) = batch(size, n)

    def one(cost):
        return unreg.hungarian(geometry.Geometry(cost_matrix=cost))[0]

    contenders = {"otfew": lambda: otfew.solve(cost).value}
    values, compiling = contenders["otfew"](), {}
    for name, work in {"ott, vmap": jax.vmap(one), "ott, map": lambda costs: jax.lax.map(one, costs)}.items():
        run, compiling[name] = compiled(work, array)
        np.testing.assert_allclose(run(array), values, rtol=1e-5)
        contenders[name] = lambda run=run: jax.block_until_ready(run(array))
    compare(f"{size} x {n}x{n}, uniform weights, exact", contenders, 3, compiling=compiling)


def test_points(summarise, benchmark, record):
    """5,000 points a side in the unit cube; each misses a weight by at most a tenth of a thousandth of it.

    The norm of ott-jax is the sum over all weights: a quarter of that share lets none miss by more.
    """
    n, reg, share, turns = 5000, 0.05, 1e-4, 3
    x, y = np.random.default_rng(0).random((2, n, 3)).astype(np.float32)
    solver = otfew.KeOps(reg=reg, tol=share / n)
    otfew.solve_points(x[:1100], y[:1100], solver=solver)

    def ours():
        result = otfew.solve_points(x, y, solver=solver)
        return float(result.value), n * float(result.marginal_error)

    contenders, compiling = {"otfew": ours}, {}
    kinds = {f"{name}, online": (name, 1000) for name in ("ott", "ott, Anderson")}
    for label, (name, size) in {**kinds, "ott, kernel, all pairs held": ("ott, kernel", None)}.items():

        def work(x, y, threshold, name=name, size=size):
            found = solved(pointcloud.PointCloud(x, y, epsilon=reg, batch_size=size), None, None, threshold, name)
            return found.reg_ot_cost, found.marginal(0), found.marginal(1)

        arrays = jnp.asarray(x), jnp.asarray(y)
        run, compiling[label] = compiled(work, *arrays, share)

        def theirs(run=run, arrays=arrays):
            value, *marginals = jax.block_until_ready(run(*arrays, share / 4))
            return float(value), max(float(abs(n * side - 1).max()) for side in marginals)

        contenders[label] = theirs
    wall, cpu = ({name: [] for name in contenders} for _ in range(2))
    errors, expected = {}, ours()[0]
    for _ in range(turns):
        for name, call in contenders.items():
            start, before = time.perf_counter(), time.process_time()
            value, errors[name] = call()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - before)
            assert errors[name] <= share
            assert abs(value - expected) <= 1e-4 * expected
    title = f"{n} x {n} points in 3 dimensions, reg {reg}"
    medians = [{name: statistics.median(times) for name, times in each.items()} for each in (wall, cpu)]
    summarise(title, medians[0])
    note(record, summarise, title, *medians, error=errors, compiling=compiling)
    benchmark.pedantic(lambda: None, rounds=1)
