"""Callers in threads and in forked processes."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import otfew


@pytest.mark.parametrize("solver", [otfew.Exact(threads=1), otfew.Exact(threads=2), otfew.POT()], ids=str)
def test_several_threads_may_solve_at_once(solver, batch):
    problems = [batch(size=50, n=9, m=11, seed=seed) for seed in range(8)]
    expected = [otfew.solve(*problem, solver=solver).value for problem in problems]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = pool.map(lambda problem: otfew.solve(*problem, solver=solver).value, problems)
            for x, y in zip(found, expected, strict=True):
                np.testing.assert_array_equal(x, y)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_can_solve_after_its_parent(threads, batch):
    """As in a data loader's worker: threads do not survive a fork, so the child needs its own."""
    cost, a, b = batch(size=20)
    solver = otfew.Exact(threads=threads)
    expected = otfew.solve(cost, a, b, solver=solver).value
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def child():
        queue.put(otfew.solve(cost, a, b, solver=solver).value)
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
        pytest.fail("the child hangs")
    assert process.exitcode == 0
    np.testing.assert_array_equal(queue.get(), expected)
    np.testing.assert_array_equal(otfew.solve(cost, a, b, solver=solver).value, expected)
