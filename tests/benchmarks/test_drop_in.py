"""POT's, SciPy's and OpenCV's names beside the libraries' own, called as a user calls them, one problem a call.

Times are CPU time of the process, so that a busy machine disturbs them little; give it one thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import gc
import statistics
import time

import cv2
import numpy as np
import pytest
import torch
from scipy import optimize

import otfew.compat.pot as mine
from otfew.compat import opencv
from otfew.compat.scipy import linear_sum_assignment

ot = pytest.importorskip("ot")

TURN = 0.02
"""CPU seconds that a turn lasts at least."""


@pytest.fixture
def duel(benchmark, summarise):
    """Time ours and theirs in turns and put the medians into what is printed at the end."""

    def seconds(work, repeats):
        start = time.process_time()
        for _ in range(repeats):
            work()
        return (time.process_time() - start) / repeats

    def run(title, ours, theirs, rounds=25):
        contenders = {"otfew": ours, "theirs": theirs}
        repeats = {}
        for name, work in contenders.items():
            work()
            repeats[name] = 1 + int(TURN / max(seconds(work, 1), 1e-6))
        turns = {name: [] for name in contenders}
        gc.collect()
        gc.disable()
        for _ in range(rounds):
            for name, work in contenders.items():
                turns[name].append(seconds(work, repeats[name]))
        gc.enable()
        summarise(title, {name: statistics.median(values) for name, values in turns.items()})
        benchmark.group = title
        benchmark.pedantic(ours, rounds=3)

    return run


def nodes(n):
    """Weights and squared distances of n nodes a side, as images have them: in many dimensions."""
    rng = np.random.default_rng(n)
    x, y = rng.random((n, 64)), rng.random((n, 64))
    return rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(n)), ((x[:, None] - y) ** 2).sum(-1)


@pytest.mark.parametrize("n", [5, 25, 125, 500])
def test_emd(n, duel):
    problem = nodes(n)
    duel(f"ot.emd, {n} x {n}", lambda: mine.emd(*problem), lambda: ot.emd(*problem), 25 if n < 500 else 7)


@pytest.mark.parametrize("n", [5, 25, 125, 500])
def test_emd2(n, duel):
    problem = nodes(n)
    duel(f"ot.emd2, {n} x {n}", lambda: mine.emd2(*problem), lambda: ot.emd2(*problem), 25 if n < 500 else 7)


@pytest.mark.parametrize("n", [25, 125])
def test_emd2_and_its_gradient(n, duel):
    leaves = [torch.tensor(x, requires_grad=True) for x in nodes(n)]

    def way(library):
        return lambda: torch.autograd.grad(library.emd2(*leaves), leaves)

    duel(f"ot.emd2 and backward, {n} x {n}", way(mine), way(ot))


def test_emd2_of_many_histograms(duel):
    a, _, M = nodes(25)
    b = np.random.default_rng(0).dirichlet(np.ones(25), 375).T
    duel("ot.emd2, 375 histograms of 25", lambda: mine.emd2(a, b, M), lambda: ot.emd2(a, b, M), 7)


@pytest.mark.parametrize("share", [0.1, 0.01])
@pytest.mark.parametrize("n", [25, 125, 500])
def test_sinkhorn(n, share, duel):
    a, b, M = nodes(n)
    reg = share * float(np.ptp(M))
    duel(
        f"ot.sinkhorn, {n} x {n}, reg {share} of the range",
        lambda: mine.sinkhorn(a, b, M, reg),
        lambda: ot.sinkhorn(a, b, M, reg, warn=False),
        7,
    )


@pytest.mark.parametrize("n", [25, 125])
def test_partial(n, duel):
    a, b, M = nodes(n)
    duel(
        f"ot.partial.partial_wasserstein, {n} x {n}, half the mass",
        lambda: mine.partial_wasserstein(a, b, M, 0.5),
        lambda: ot.partial.partial_wasserstein(a, b, M, 0.5),
    )


@pytest.mark.parametrize("n", [25, 125, 500, 1500])
def test_assignment(n, duel):
    cost = nodes(n)[2]
    duel(
        f"linear_sum_assignment, {n} x {n}",
        lambda: linear_sum_assignment(cost),
        lambda: optimize.linear_sum_assignment(cost),
        25 if n < 500 else 5,
    )


def test_a_batch_of_assignments(duel):
    cost = np.random.default_rng(0).random((375, 25, 25))
    duel(
        "linear_sum_assignment, 375 of 25 x 25",
        lambda: linear_sum_assignment(cost),
        lambda: [optimize.linear_sum_assignment(x) for x in cost],
    )


@pytest.mark.parametrize("n", [9, 25, 49, 125])
def test_opencv(n, duel):
    a, b, M = nodes(n)
    problem = a.astype(np.float32)[:, None], b.astype(np.float32)[:, None], -1, M.astype(np.float32)
    duel(f"cv2.EMD, {n} x {n}", lambda: opencv.EMD(*problem), lambda: cv2.EMD(*problem))
