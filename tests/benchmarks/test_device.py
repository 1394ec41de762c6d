"""A GPU beside the CPU of its machine: exact transport, forward and backward, and DeepEMD from features."""

from __future__ import annotations

import pytest
import torch

import otfew
from otfew.methods import METHODS

pytestmark = pytest.mark.cuda

SIZES = [(375, 9, 15), (375, 25, 15), (10_000, 25, 5), (375, 49, 10), (375, 125, 5)]
"""Problems in a batch, nodes on each side, rounds."""


def waited(work):
    """A call that ends when the GPU has ended."""

    def call():
        result = work()
        torch.cuda.synchronize()
        return result

    return call


def batch(nodes_batch, size, n):
    """A batch of problems, on the CPU and on the GPU: costs in float32, weights in float64."""
    some = min(size, 1000)
    cost, a, b = (torch.from_numpy(x).repeat(size // some, *[1] * (x.ndim - 1)) for x in nodes_batch(some, n))
    here = (cost.float(), a, b)
    return here, tuple(x.cuda() for x in here)


@pytest.mark.parametrize(("size", "n", "rounds"), SIZES)
def test_forward(size, n, rounds, race, nodes_batch):
    here, there = batch(nodes_batch, size, n)
    contenders = {
        "GPU": waited(lambda: otfew.solve(*there).value),
        "GPU, nobody looks": waited(lambda: otfew.solve(*there, validate=False, on_fail="ignore").value),
        "CPU": lambda: otfew.solve(*here).value,
    }
    race(f"{size} x {n}x{n} forward", contenders, rounds)


@pytest.mark.parametrize(("size", "n", "rounds"), SIZES)
def test_forward_and_backward(size, n, rounds, race, nodes_batch):
    here, there = ([x.requires_grad_() for x in each] for each in batch(nodes_batch, size, n))

    def gradients(leaves):
        return torch.autograd.grad(otfew.solve(*leaves).value.sum(), leaves)

    contenders = {"GPU": waited(lambda: gradients(there)), "CPU": lambda: gradients(here)}
    race(f"{size} x {n}x{n} forward and backward", contenders, rounds)


@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
@pytest.mark.parametrize("episodes", [1, 16])
def test_deepemd_from_features(episodes, solver, race):
    """5-way 1-shot, 75 queries, 25 nodes of 640 channels."""
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(episodes, 5, 1, 25, 640, generator=generator).relu()
    query = torch.randn(episodes, 75, 25, 640, generator=generator).relu()
    method = METHODS["deepemd-fcn"](solver=solver)
    there = support.cuda(), query.cuda()

    @torch.inference_mode()
    def score(*nodes):
        return method(*nodes)

    contenders = {"GPU": waited(lambda: score(*there)), "CPU": lambda: score(support, query)}
    race(f"deepemd 5-way 1-shot, 25x640, {episodes} at once, {solver}", contenders, rounds=5)
