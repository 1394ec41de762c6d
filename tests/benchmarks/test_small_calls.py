"""What one small problem costs, most of which is not its solution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otfew


@pytest.fixture
def draw():
    def problem(n, dtype):
        rng = np.random.default_rng(0)
        drawn = rng.random((n, n)), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(n))
        return [torch.from_numpy(x).to(dtype) for x in drawn]

    return problem


def test_one_5x5_exact(race, draw):
    problem = draw(5, torch.float64)
    arrays = [x.numpy() for x in problem]
    solver = otfew.Exact(threads=1)
    contenders = {
        "exact": lambda: otfew.solve(*problem, solver=solver).value,
        "exact, by name": lambda: otfew.solve(*problem).value,
        "exact, numpy": lambda: otfew.solve(*arrays, solver=solver).value,
        "exact, float32 costs": lambda: otfew.solve(problem[0].float(), *problem[1:], solver=solver).value,
        "exact, uniform weights": lambda: otfew.solve(problem[0], solver=solver).value,
    }
    race("one 5x5, exact", contenders)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_25x25_sinkhorn(dtype, race, draw):
    problem = draw(25, dtype)
    solver = otfew.Sinkhorn(reg=0.1)
    contenders = {"sinkhorn": lambda: otfew.solve(*problem, solver=solver).value}
    race(f"one 25x25, sinkhorn, reg 0.1, {dtype}", contenders)
