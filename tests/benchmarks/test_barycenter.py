"""Barycentres of 5 shots for 5 classes of 16 episodes, beside a loop over POT's from the same start; CPU time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otfew
from otfew.methods import METHODS

STEPS = 1000


@pytest.fixture
def one_thread():
    given = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(given)


def draw(channels, dtype):
    """Nodes (80, 5 shots, 25, channels) with class structure: features as a network has them, or points of a plane."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    nodes = 0.5 * normal(80, 1, 1, channels) + normal(80, 5, 25, channels)
    return (nodes.relu() if channels > 2 else nodes).to(dtype)


def loop_over_pot(points, start):
    import ot

    masses = [np.full(points.shape[2], 1 / points.shape[2])] * points.shape[1]
    return [
        ot.lp.free_support_barycenter(list(sets), masses, init, numItermax=STEPS)
        for sets, init in zip(points, start, strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("channels", [2, 160, 640])
def test_beside_a_loop_over_pots(channels, dtype, race_cpu, one_thread):
    points = draw(channels, dtype)
    arrays = points.numpy()
    found = otfew.barycenter(points, init=points[:, 0], n_iter=STEPS, tol=1e-10)
    nodes = np.stack(loop_over_pot(arrays, arrays[:, 0]))
    assert np.abs(found.points.numpy() - nodes).max() < (1e-4 if dtype == torch.float32 else 1e-9)
    contenders = {
        "otfew": lambda: otfew.barycenter(points, init=points[:, 0], n_iter=STEPS, tol=1e-10),
        "POT, one after another": lambda: loop_over_pot(arrays, arrays[:, 0]),
    }
    steps = found.n_iter.double().mean()
    race_cpu(f"80 barycentres, 5 x 25 x {channels}, {dtype}, {steps:.1f} updates", contenders, rounds=5)


def test_masses_and_warm_starts(race_cpu, one_thread):
    """Masses that differ, whose plans are no assignments: one call for all problems of an iteration."""
    points = draw(160, torch.float32)
    masses = points.mean(-1)
    masses = masses / masses.sum(-1, keepdim=True)
    contenders = {
        "alike": lambda: otfew.barycenter(points, init=points[:, 0], cost="cosine"),
        "alike, from the medoid": lambda: otfew.barycenter(points, cost="cosine"),
        "masses": lambda: otfew.barycenter(points, masses=masses, init=points[:, 0], cost="cosine"),
    }
    race_cpu("80 barycentres, 5 x 25 x 160, cosine", contenders, rounds=5)


def test_heads(race_cpu, one_thread):
    """An episode of 5-way 5-shot with 75 queries, 160 channels, by head."""
    support = draw(160, torch.float32).view(16, 5, 5, 25, 160)[:4]
    query = draw(160, torch.float32)[:60].view(4, 75, 25, 160)

    def run(options):
        method = METHODS["deepemd"](**options)

        def score():
            with torch.inference_mode():
                return method(support, query)

        return score

    contenders = {
        "mean": {},
        "barycenter": {"shot_head": "barycenter"},
        "barycenter, masses alike": {"shot_head": "barycenter+masses=uniform+start=medoid"},
        "kmeans": {"shot_head": "kmeans"},
        "mass 0.9": {"mass": 0.9},
    }
    race_cpu("deepemd, 4 episodes", {name: run(options) for name, options in contenders.items()}, rounds=3)
