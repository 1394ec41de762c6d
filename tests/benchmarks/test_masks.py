"""What forbidden pairs cost: a mask, +inf, and high costs in their place, beside the same problems without."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otfew


@pytest.mark.parametrize("weights", ["random", "uniform"])
@pytest.mark.parametrize(("size", "n"), [(1, 5), (375, 25), (50, 49), (16, 125)])
def test_half_of_the_pairs_forbidden(size, n, weights, race):
    rng = np.random.default_rng(0)
    cost = torch.from_numpy(rng.random((size, n, n)).astype(np.float32))
    mask = torch.from_numpy(rng.random((size, n, n)) > 0.5)
    # Neighbours on the diagonal, so that each problem has a plan.
    mask |= torch.from_numpy(np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= max(1, n // 8))
    a = b = None
    if weights == "random":
        a = torch.from_numpy(rng.uniform(0.9, 1.1, (size, n)))
        b = torch.from_numpy(rng.uniform(0.9, 1.1, (size, n)))
        b *= a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True)
    solver = otfew.Exact(threads=1)
    infinite, high = cost.masked_fill(~mask, torch.inf), cost.masked_fill(~mask, 100.0)
    contenders = {
        "no mask": lambda: otfew.solve(cost, a, b, solver=solver),
        "mask": lambda: otfew.solve(cost, a, b, mask=mask, solver=solver),
        "+inf": lambda: otfew.solve(infinite, a, b, solver=solver),
        "high costs": lambda: otfew.solve(high, a, b, solver=solver),
    }
    race(f"{size} x {n}x{n}, {weights} weights, half of the pairs forbidden", contenders)


def test_problems_of_different_sizes(race):
    rng = np.random.default_rng(1)
    costs = [rng.random((n, m)) for n, m in rng.integers(5, 40, (200, 2))]
    padded = otfew.pad(costs)
    solver = otfew.Exact(threads=1)
    contenders = {
        "one by one": lambda: [otfew.solve(cost, solver=solver) for cost in costs],
        "padded": lambda: otfew.solve(padded.cost, padded.a, padded.b, mask=padded.mask, solver=solver),
        "padding": lambda: otfew.pad(costs),
    }
    race("200 problems of 5 to 39 nodes, float64", contenders)
