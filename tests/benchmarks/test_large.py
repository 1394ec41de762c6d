"""``exact`` beside ``ot.emd2`` on one large problem, 1,000 to 4,000 nodes a side.

Processor time with one thread, and time on the clock with two, which on a busy machine says little.
"""

from __future__ import annotations

import gc
import statistics
import time

import numpy as np
import pytest
import torch

import otfew

ot = pytest.importorskip("ot")

FAMILIES = ("uniform costs", "2-D points", "3-D points", "cosine costs", "grid distances")
SHAPES = [(1000, 1000, 5), (2000, 2000, 3), (1000, 4000, 3), (4000, 4000, 1)]
"""Rows, columns, rounds."""


def costs(family, n, m, rng):
    if family == "uniform costs":
        return rng.random((n, m))
    if family == "cosine costs":
        x, y = (np.maximum(rng.standard_normal((k, 64)) + 0.5 * rng.standard_normal(64), 0) for k in (n, m))
        return 1 - (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T
    if family == "grid distances":
        x, y = rng.integers(0, 64, (n, 2)), rng.integers(0, 64, (m, 2))
        return np.abs(x[:, None] - y).sum(-1).astype(float)
    x, y = (rng.standard_normal((k, int(family[0]))) for k in (n, m))
    return ((x[:, None] - y) ** 2).sum(-1)


def in_turns(contenders, rounds):
    """Medians of seconds by contender, each with the clock that it is measured by."""
    taken = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (clock, work) in contenders.items():
            gc.collect()
            start = clock()
            work()
            taken[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


@pytest.mark.parametrize("uniform", [False, True], ids=["random weights", "uniform weights"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("n", "m", "rounds"), SHAPES)
def test_one_large_problem(n, m, rounds, family, uniform, benchmark, summarise):
    rng = np.random.default_rng(0)
    cost = costs(family, n, m, rng)
    a, b = (np.full(k, 1 / k) if uniform else rng.dirichlet(np.ones(k)) for k in (n, m))
    one, two = otfew.Exact(threads=1), otfew.Exact(threads=2)
    small = rng.random((800, 800))
    found = {}

    def ours(solver):
        found["ours"] = otfew.solve(cost, a, b, solver=solver).value

    def pots():
        found["pot"] = ot.emd2(a, b, cost, numItermax=100_000_000)

    otfew.solve(small, solver=two)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    medians = in_turns(
        {
            "exact": (time.process_time, lambda: ours(one)),
            "ot.emd2": (time.process_time, pots),
            "exact, 2 threads (clock)": (time.perf_counter, lambda: ours(two)),
        },
        rounds,
    )
    torch.set_num_threads(threads)
    assert found["ours"] == pytest.approx(found["pot"], abs=1e-10 * cost.max())
    title = f"{n} x {m}, {family}, {'uniform' if uniform else 'random'} weights"
    summarise(title, medians)
    benchmark.group = title
    benchmark.extra_info.update({f"median of {name} (s)": seconds for name, seconds in medians.items()})
    benchmark.pedantic(lambda: ours(one), rounds=1)
