"""Speed of ``exact`` beside loops over cv2.EMD and POT, and of DeepEMD from features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otfew
from otfew.methods import METHODS

cv2 = pytest.importorskip("cv2")
ot = pytest.importorskip("ot")

SIZES = [(375, 9, 15), (375, 25, 15), (100, 49, 10), (20, 125, 5)]
"""Problems in a batch, nodes on each side, rounds."""


def opencv_loop(cost, a, b):
    """Solve one after another with cv2.EMD; the conversion to float32 columns is not timed."""
    problems = [
        (x.astype(np.float32)[:, None], y.astype(np.float32)[:, None], c.astype(np.float32))
        for c, x, y in zip(cost, a, b, strict=True)
    ]
    return lambda: [cv2.EMD(x, y, cv2.DIST_USER, c)[0] for x, y, c in problems]


def pot_loop(cost, a, b):
    """Solve one after another with ot.emd2 on numpy arrays; much of its time is checks and conversions."""
    return lambda: [ot.emd2(x, y, c) for c, x, y in zip(cost, a, b, strict=True)]


def pot_core_loop(cost, a, b):
    """Solve one after another with POT's compiled core alone."""
    from ot.lp.emd_wrap import emd_c

    return lambda: [emd_c(x, y, c, 1_000_000, 1) for c, x, y in zip(cost, a, b, strict=True)]


def exact(cost, a, b, threads=None):
    solver = otfew.Exact(threads=threads)
    return lambda: otfew.solve(cost, a, b, solver=solver).value


@pytest.mark.parametrize(("size", "n", "rounds"), SIZES)
def test_forward(size, n, rounds, race, nodes_batch):
    problem = nodes_batch(size, n)
    np.testing.assert_allclose(exact(*problem)(), pot_loop(*problem)(), atol=1e-12)
    contenders = {
        "exact": exact(*problem),
        "cv2.EMD loop": opencv_loop(*problem),
        "ot.emd2 loop": pot_loop(*problem),
        "POT's core loop": pot_core_loop(*problem),
    }
    race(f"{size} x {n}x{n} forward", contenders, rounds)


@pytest.mark.parametrize(("size", "n", "rounds"), SIZES)
def test_cores_in_cpu_time(size, n, rounds, race_cpu, nodes_batch):
    """Core against core, one thread, float32 costs as networks make them; rivals get theirs converted beforehand."""
    cost, a, b = (x.astype(np.float32) for x in nodes_batch(size, n))
    wide = [x.astype(np.float64) for x in (cost, a, b)]
    wide[2] *= wide[1].sum(-1, keepdims=True) / wide[2].sum(-1, keepdims=True)
    tensors = [torch.from_numpy(x) for x in (cost, a, b)]
    contenders = {
        "exact": exact(*tensors, threads=1),
        "POT's core loop": pot_core_loop(*wide),
        "cv2.EMD loop": opencv_loop(cost, a, b),
    }
    race_cpu(f"{size} x {n}x{n} forward, CPU time", contenders, rounds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_forward_and_backward(dtype, race, nodes_batch):
    cost, a, b = (torch.from_numpy(x).to(dtype) for x in nodes_batch(375, 25))
    leaves = [x.requires_grad_() for x in (cost, a, b)]

    def ours():
        return torch.autograd.grad(otfew.solve(*leaves).value.sum(), leaves)

    def forward():
        with torch.no_grad():
            return otfew.solve(*leaves).value

    def pots():
        values = [ot.emd2(x, y, c) for c, x, y in zip(*leaves, strict=True)]
        return torch.autograd.grad(torch.stack(values).sum(), leaves)

    contenders = {"exact": ours, "exact, forward only": forward, "ot.emd2 loop": pots}
    race(f"375 x 25x25 forward and backward, {dtype}", contenders, rounds=8)


def test_threads(race, nodes_batch):
    problem = nodes_batch(375, 25)
    contenders = {
        "2 threads": exact(*problem, threads=2),
        "1 thread": exact(*problem, threads=1),
        "POT's core, 1 thread": pot_core_loop(*problem),
    }
    race("375 x 25x25 by threads", contenders, rounds=25)


def test_uniform_weights(race, nodes_batch):
    from scipy.optimize import linear_sum_assignment

    cost, _, _ = nodes_batch(375, 25)
    contenders = {
        "exact": lambda: otfew.solve(cost).value,
        "linear_sum_assignment loop": lambda: [linear_sum_assignment(c) for c in cost],
    }
    race("375 x 25x25, uniform weights", contenders)


def test_one_large_problem(race):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 1000, 3))
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = rng.dirichlet(np.ones(1000), 2)
    contenders = {"exact": exact(cost, a, b), "ot.emd": lambda: ot.emd(a, b, cost)}
    race("one 1000x1000 squared Euclidean", contenders, rounds=3)


@pytest.mark.parametrize("episodes", [1, 16])
def test_deepemd_from_features(episodes, race):
    """5-way 1-shot, 75 queries, 25 nodes of 640 channels."""
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(episodes, 5, 1, 25, 640, generator=generator).relu()
    query = torch.randn(episodes, 75, 25, 640, generator=generator).relu()
    method = METHODS["deepemd-fcn"]()

    def score():
        with torch.inference_mode():
            return method(support, query)

    race(f"deepemd 5-way 1-shot, 25x640, {episodes} at once", {"deepemd": score}, rounds=5)
