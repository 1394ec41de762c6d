"""Numbers near the ends of the range, and what are no numbers: every kernel ends, within its memory, and says so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import otfew
from otfew.transport.cuda.sinkhorn import solve_entropic
from otfew.transport.problem import INVALID, UNSURE

from . import running, wild
from .emulator import Emulator, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")

SMALL = ((1, 1), (1, 5), (4, 1), (7, 3), (16, 16), (30, 32))
LARGE = ((33, 40), (64, 64), (60, 7), (20, 50), (3, 128), (100, 2), (128, 120))
BAD = (math.nan, math.inf, -math.inf)


def check_exact(machine, shapes):
    """Solve wild problems: they fail, or are left to the CPU, or are proven."""
    ended = []
    for note, problem in wild.problems(2, shapes):
        cost, a, b = map(torch.from_numpy, problem)
        found = running.exact(machine, cost, a, b)
        plan = found.plan(*cost.shape[1:]).numpy()
        assert ((found.rows >= 0) & (found.rows < cost.shape[1])).all(), note
        assert ((found.cols >= 0) & (found.cols < cost.shape[2])).all(), note
        for k, status in enumerate(found.status.tolist()):
            assert status in {otfew.Status.OPTIMAL, otfew.Status.FAILED, UNSURE}, note
            if status == otfew.Status.OPTIMAL:
                assert math.isfinite(found.value[k]), note
                assert math.isfinite(found.gap[k]), note
                wild.prove(note, *(x[k] for x in problem), plan[k], found.f[k].numpy(), found.g[k].numpy())
        ended += found.status.tolist()
    assert ended.count(otfew.Status.OPTIMAL) > len(ended) / 2
    assert ended.count(otfew.Status.FAILED) > 0


def test_the_exact_kernel_ends_and_proves_what_it_calls_optimal():
    check_exact(Emulator(), SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("watched", [False, True])
def test_larger_kernels_do_and_lanes_keep_to_their_memory(watched):
    check_exact(Emulator(watched=watched), SMALL + LARGE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_number_is_refused_alone(bad, dtype):
    rng = np.random.default_rng(0)
    sound = [torch.from_numpy(rng.random(shape)) for shape in ((3, 9, 8), (3, 9), (3, 8))]
    sound[0] = sound[0].to(dtype)
    plain = running.exact(Emulator(), *sound, totals_rtol=math.inf)
    for spoilt in range(3):
        tensors = [x.clone() for x in sound]
        tensors[spoilt][1].view(-1)[-2] = bad
        found = running.exact(Emulator(), *tensors, totals_rtol=math.inf)
        assert found.status.tolist() == [0, INVALID, 0]
        assert found.value[1].isnan()
        assert found.f[[0, 2]].equal(plain.f[[0, 2]])


def check_entropic(machine, shapes):
    """Solve wild problems with a penalty, with prices of any size: what is called solved is finite."""
    for turn, (note, problem) in enumerate(wild.problems(2, shapes)):
        cost, a, b = map(torch.from_numpy, problem)
        reg = (1e-300, 1e-3, 1.0, 1e30, 1e300)[turn % 5]
        rhos = ((None, None), (1.0, 2.0), (None, 1e-3))[turn % 3]
        found = solve_entropic(machine, cost, a, b, reg, rhos, 1e-6, 60)
        solved = found.solved
        assert set(solved.status.tolist()) <= {*otfew.Status, INVALID}, note
        right = solved.status == otfew.Status.OPTIMAL
        assert (solved.error[right] <= 1e-6).all(), note
        assert solved.phi[right][a[right] > 0].isfinite().all(), note


def test_the_entropic_kernels_end():
    check_entropic(Emulator(), SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("watched", [False, True])
def test_larger_entropic_kernels_end_within_their_memory(watched):
    check_entropic(Emulator(watched=watched), SMALL + LARGE)
