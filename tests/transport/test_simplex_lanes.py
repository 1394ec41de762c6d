"""Vector operations of the exact kernel, compiled, beside what they are in numpy."""

import numba
import numpy as np
import pytest

from otfew.transport.simplex import lanes

from . import plain_lanes

N, M, WIDTH = 37, 25, 32
"""Rows beyond one group of 32; columns that end within a group of sixteen."""


def arguments(name, rng):
    """Draw arguments of an operation, as the kernel gives them."""

    def small(*shape):
        return rng.integers(-5, 5, shape).astype(np.int32)

    whole = (-32 * rng.integers(0, 50, WIDTH * N)).astype(np.int32)
    tag = (32 * rng.integers(-20, 20, N) + np.arange(N) % 32).astype(np.int32)
    v, row = 32 * small(WIDTH), rng.integers(0, N, WIDTH).astype(np.int32)
    net, excess = 32 * small(WIDTH), 32 * small(WIDTH)
    moved, columns = (int(rng.integers(0, 2**62)) for _ in range(2))
    flow = rng.integers(0, 4, 64).astype(float)
    mask = rng.integers(-(2**63), 2**63 - 1, 64)
    masks = [int(rng.integers(1, 2**50)) for _ in range(4)]
    given, cost = rng.standard_normal(N * M + 16), rng.standard_normal(N * WIDTH)
    low, high, mean = rng.standard_normal((3, WIDTH + N))
    return {
        "best_rows": (whole, 16 * N, N, tag, v, row, net, excess, 16),
        "excess_now": (tag, v, row, net, excess, 16),
        "excess_after": (row, excess, 16, moved, columns, 96),
        "two_best_rows": (whole, 16 * N, N, 1, excess, net, 16),
        "best_open": (whole, 32, columns),
        "lanes_equal": (excess, 16, 0),
        "lanes_above": (excess, 16, 0),
        "shift_lanes": (tag, 16, columns, -64),
        "row_sum": (given, 3 * M, M),
        "centre_columns": (given, N, M, mean, cost, WIDTH, low, high, 16),
        "least_net": (cost, 2 * WIDTH, v.astype(float), M),
        "ancestors": (mask, 64, 3, 63),
        "least_flow": (flow, 64, moved | 1),
        "send_around": (flow, mask, 64, 2.0, masks[0], masks[1] & ~masks[0], masks[2], masks[3], masks[2] & ~masks[3]),
        "to_whole": (cost, WIDTH, low, 16, 1000.0, whole, 64),
    }[name]


@pytest.mark.parametrize("operation", plain_lanes.OPERATIONS, ids=lambda operation: operation.__name__)
def test_each_operation_is_what_it_is_called(operation):
    name = operation.__name__
    compiled = getattr(lanes, name)
    count = len(arguments(name, np.random.default_rng(0)))
    names = ", ".join(f"x{k}" for k in range(count))
    space = {"compiled": compiled}
    exec(f"def call({names}): return compiled({names})", space)
    call = numba.njit(space["call"])
    for seed in range(20):
        theirs, ours = (arguments(name, np.random.default_rng(seed)) for _ in range(2))
        expected, found = operation(*theirs), call(*ours)
        if expected is not None:
            assert found == pytest.approx(expected, rel=1e-14, abs=1e-14)
        for one, other in zip(theirs, ours, strict=True):
            assert np.array_equal(one, other), name
