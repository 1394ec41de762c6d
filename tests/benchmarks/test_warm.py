"""Where a warm start pays: costs of real nodes before and after a training step, and those of the structured FC's fit.

CPU time of one thread, in turns; each title says how many pivots or iterations a problem takes afresh and warm.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import otfew
from otfew.backbones import load as load_backbone
from otfew.data import load as load_images
from otfew.methods import METHODS, _sfc_descent
from otfew.scores.emd import EMDScore
from otfew.scores.node_weights import CrossReference

NETWORK = "cub-resnet12-quarter-deepemd"
TURNS = 11


@pytest.fixture(scope="module")
def birds():
    """Images (5 classes, 16, 3, side, side) of training classes, in [0, 1], by side."""
    root = Path(os.environ.get("OTFEW_DATA", ""))
    if not (root / "CUB_200_2011" / "images").is_dir():
        pytest.skip("needs the birds of $OTFEW_DATA")
    images = load_images("cub", "train", root)
    many = [c for c in range(len(images.classes)) if (images.labels == c).sum() >= 16][:5]

    def at(side):
        picked = [np.flatnonzero(images.labels == c)[:16] for c in many]
        read = [[torch.from_numpy(images.read(int(i))).permute(2, 0, 1)[None].float() / 255 for i in c] for c in picked]
        return torch.stack([torch.cat([functional.interpolate(x, (side, side), mode="area") for x in c]) for c in read])

    return at


def nodes_of(backbone, images):
    """Nodes (images, h w, channels)."""
    return backbone.module(backbone._normalise(images)).flatten(2).mT


def loop(images, steps, rate):
    """Meta-train on one episode over and over; returns the problems (cost, s, d) before each step, and their class."""
    backbone = load_backbone(NETWORK)
    module = backbone.module.eval()
    method = METHODS["deepemd"](solver="exact")
    score = EMDScore(otfew.Exact(), CrossReference())
    optimiser = torch.optim.SGD(module.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    problems = []
    for _ in range(steps):
        nodes = nodes_of(backbone, images.flatten(0, 1)).view(5, 16, -1, nodes_channels(module))
        support, query = nodes[None, :, :1], nodes[:, 1:].flatten(0, 1)[None]
        similar, s, d = score._problem(support[:, :, 0], query)
        problems.append(tuple(x.detach().flatten(0, 2) for x in (1 - similar, s.expand(*similar.shape[:-1]), d)))
        logits = method(support, query)[0]
        optimiser.zero_grad()
        functional.cross_entropy(logits, torch.arange(5).repeat_interleave(15)).backward()
        optimiser.step()
    return problems


def nodes_channels(module):
    with torch.no_grad():
        return module(torch.zeros(1, 3, 84, 84)).shape[1]


def compare(summarise, title, solver, problems):
    """Solve each of a sequence of problems afresh, and from the one before."""
    sequence = list(itertools.pairwise(problems))
    before = [otfew.solve(*old, solver=solver) for old, _ in sequence]
    ways = {
        "afresh": lambda k: otfew.solve(*sequence[k][1], solver=solver),
        "warm": lambda k: otfew.solve(*sequence[k][1], solver=solver, warm=before[k]),
    }
    seconds, counts, values = {name: [] for name in ways}, {}, {}
    for name, way in ways.items():
        found = [way(k) for k in range(len(sequence))]
        counts[name] = statistics.mean(float(result.n_iter.double().mean()) for result in found)
        values[name] = torch.stack([result.value for result in found])
    tolerance = 1e-9 if solver.kind == "exact" else 1e-6
    assert (values["warm"] - values["afresh"]).abs().max() <= tolerance
    for _ in range(TURNS):
        for name, way in ways.items():
            start = time.thread_time()
            for k in range(len(sequence)):
                way(k)
            seconds[name].append((time.thread_time() - start) / len(sequence))
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    summarise(f"{title}, {counts['afresh']:.1f} -> {counts['warm']:.1f} a problem", medians)


@pytest.fixture
def one_thread():
    given = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(given)


@pytest.mark.parametrize(("side", "rate"), [(84, 5e-4), (84, 5e-3), (84, 5e-2), (168, 5e-4), (168, 5e-3)])
def test_an_episode_before_and_after_a_step(side, rate, birds, summarise, one_thread, benchmark):
    """5-way 1-shot with 15 queries a class; 5e-4 is the rate of DeepEMD's code."""
    problems = loop(birds(side), 4, rate)
    n, m = problems[0][0].shape[-2:]
    chosen = problems if n < 50 else [tuple(x[::8] for x in problem) for problem in problems]
    where = f"{len(chosen[0][0])} x {n}x{m}, rate {rate:g}"
    compare(summarise, f"exact, {where}", otfew.Exact(threads=1), chosen)
    if rate == 5e-4:
        for reg in (0.05, 0.005):
            compare(summarise, f"sinkhorn reg {reg}, {where}", otfew.Sinkhorn(reg=reg), chosen)
    benchmark.pedantic(lambda: None)


def test_the_structured_fc_from_pass_to_pass(birds, summarise, one_thread, benchmark, monkeypatch):
    """5-way 5-shot: the same 25 images against the five classes, a pass of seven updates later."""
    backbone = load_backbone(NETWORK)
    with torch.no_grad():
        nodes = nodes_of(backbone, birds(84)[:, :5].flatten(0, 1))
    support = nodes.view(1, 5, 5, *nodes.shape[1:])
    layer = METHODS["deepemd"](shot_head="sfc").shot_head
    problems, plain = [], otfew.solve

    def record(cost, s, d, solver):
        problems.append(tuple(torch.from_numpy(x.copy()) for x in (cost, s, d)))
        return plain(cost, s, d, solver=solver)

    monkeypatch.setattr(_sfc_descent, "solve", record)
    layer.fit(support, None, EMDScore(otfew.Exact(threads=1), CrossReference()), 12.5)
    orders = list(layer.batches(25))
    passes = []
    for first in range(0, len(orders), 7):
        parts = [torch.cat([problem[k][0] for problem in problems[first : first + 7]]) for k in range(3)]
        order = np.argsort(np.concatenate(orders[first : first + 7]))
        passes.append(tuple(x[order].flatten(0, 1) for x in parts))
    n, m = passes[0][0].shape[-2:]
    for name, chosen in (("first", passes[:10]), ("last", passes[-10:])):
        compare(summarise, f"structured FC, {name} ten passes, 125 x {n}x{m}", otfew.Exact(threads=1), chosen)
    benchmark.pedantic(lambda: None)
