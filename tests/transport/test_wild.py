"""Costs and weights near the ends of the floating range end with a proof, or as failed: never in a crash or a loop."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import otfew

from .cuda import wild

ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("error")
def test_wild_problems_end_and_prove_what_they_call_optimal():
    ended = Counter(status for note, problem in wild.problems(1) for status in wild.judge(note, *problem))
    # Most fit.
    assert ended[otfew.Status.OPTIMAL] > 2 * ended[otfew.Status.FAILED] > 0


def grown(x):
    """Undo the change of units, as far as that goes."""
    with np.errstate(over="ignore"):
        return x * 2.0**600


def drawn(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = rng.random((6, n)) + 1e-3, rng.random((6, m)) + 1e-3
    a, b = (x / x.sum(-1, keepdims=True) for x in (a, b))
    return 2 * rng.random((6, n, m)) - 1, a, b


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mass", [None, "min", 0.5])
@pytest.mark.parametrize(("n", "m"), [(33, 40), (25, 25), (60, 7), (1, 3)])
def test_ranges_that_overflow_are_solved_in_larger_units(n, m, mass):
    cost, a, b = drawn(2, n, m)
    solver = otfew.Exact(mass=mass)
    for weights in ((a, b), (None, None)):
        wide = otfew.solve(cost * 1.7e308, *weights, solver=solver, on_fail="ignore")
        small = otfew.solve(cost * 1.7e308 / 2.0**600, *weights, solver=solver)
        for k, status in enumerate(wide.status.tolist()):
            # The same to the bit, wherever it fits.
            potentials = [grown(x[k]) for x in small.potentials]
            assert (status == otfew.Status.OPTIMAL) == all(np.isfinite(x).all() for x in potentials)
            assert wide.value[k] == grown(small.value[k])
            assert wide.gap[k] == grown(small.gap[k])
            np.testing.assert_array_equal(wide.plan[k], small.plan[k])
            for there, here in zip(wide.potentials, potentials, strict=True):
                np.testing.assert_array_equal(there[k], here)


def test_values_beyond_the_range_are_failures():
    cost, a, b = drawn(0, 5, 4)
    a[3], b[3] = 100 * a[3], 100 * b[3]
    found = otfew.solve(np.abs(cost) * 1.5e308, a, b, on_fail="ignore")
    assert found.status.tolist() == [0, 0, 0, otfew.Status.FAILED, 0, 0]
    assert found.value[3] == np.inf
    with pytest.raises(otfew.ConvergenceError, match="batch index 3"):
        otfew.solve(np.abs(cost) * 1.5e308, a, b)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("mass", [None, "min"])
def test_unsound_costs_that_nobody_looked_at_fail_alone(bad, mass):
    cost, a, b = drawn(1, 9, 8)
    cost[2, 3, 4] = bad
    found = otfew.solve(cost, a, b, solver=otfew.Exact(mass=mass), on_fail="ignore", validate=False)
    assert found.status.tolist() == [0, 0, otfew.Status.FAILED, 0, 0, 0]


@pytest.mark.slow
def test_no_index_leaves_its_array(tmp_path):
    """Compiled with numba's checks of bounds, into a cache of its own: its key does not know of them."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.transport.cuda.wild"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[1:] == ["ended"]


@pytest.mark.parametrize("floor", [0.0, 1.0, -3.0])
def test_totals_that_agree_up_to_rounding_force_no_dear_flow(floor):
    """Where arcs of the least cost carry all but a rounding error of the mass, the optimum is that cost times the mass.

    Whole-number weights against equal ones of the same total, which float64 cannot hold: a few 1e-15 are left over,
    and reach their end only through a dear arc.
    """
    forced = 0
    for n in range(5, 17):
        rng = np.random.default_rng([n, 7])
        cost = rng.integers(0, 3, (200, n, n)) + floor
        a = rng.integers(1, 4, (200, n)) + 0.0
        b = np.ones((200, n)) * (a.sum(-1) / n)[:, None]
        result = otfew.solve(cost, a, b)
        total = a.sum(-1)
        whole = otfew.solve(cost, np.rint(n * a), np.rint(n * b))
        np.testing.assert_allclose(result.value, whole.value / n, rtol=1e-13, atol=1e-13)
        free = whole.value == floor * n * total
        forced += int(free.sum())
        assert (np.abs(result.gap[free]) <= 1e-14 * total[free] * (1 + abs(floor))).all()
    assert forced > 200
