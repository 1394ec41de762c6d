"""LST and PT-MAP against the published procedure, one episode at a time, in loops over classes and queries.

Its oracle is written from the papers (Chobola et al. 2021; Hu et al. 2020) and from what the released code does: QR of
the transposed points before they are scaled, Sinkhorn that ends on its columns and stops where row sums do not move.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from otfew.methods import METHODS
from otfew.methods.presets import PUBLISHED

WAY, QUERY, CHANNELS = 5, 15, 160


def transform(points, n_support, *, beta, delta=1.0, gamma=1.0, joint=True):
    """Power, QR, partial scaling, centring, partial scaling of points (n, channels), support first."""
    points = (points + 1e-6) ** beta
    _, r = np.linalg.qr(points.T)
    rows = [row / np.linalg.norm(row) ** delta for row in r.T]
    if joint:
        rows = np.array(rows) - np.mean(rows, 0)
    else:
        support, query = np.array(rows[:n_support]), np.array(rows[n_support:])
        rows = np.concatenate([support - support.mean(0), query - query.mean(0)])
    return np.array([row / np.linalg.norm(row) ** gamma for row in rows])


def assign(cost, per_class, lam, tol):
    """Sinkhorn's plan (queries, way) with row sums 1 and column sums ``per_class`` (way,)."""
    plan = np.exp(-lam * cost)
    plan /= plan.sum()
    before = np.zeros(len(plan))
    for _ in range(100_000):
        sums = plan.sum(1)
        if np.abs(before - sums).max() <= tol:
            break
        before = sums
        plan = plan * (1 / sums)[:, None]
        plan = plan * (per_class / plan.sum(0))[None]
    return plan


def map_probabilities(support, query, per_class, *, alpha, n_steps, lam, tol):
    """MAP on transformed support (way lists of points) and query (queries, r): the last assignment."""
    centres = [np.mean(shots, 0) for shots in support]
    for step in range(n_steps + 1):
        cost = np.array([[((q - c) ** 2).sum() for c in centres] for q in query])
        plan = assign(cost, per_class, lam, tol)
        if step == n_steps:
            return plan
        for j, shots in enumerate(support):
            total = sum(shots) + sum(plan[i, j] * q for i, q in enumerate(query))
            mean = total / (len(shots) + plan[:, j].sum())
            centres[j] = centres[j] + alpha * (mean - centres[j])
    raise AssertionError


def classify(support, query, *, alpha, n_steps, lam, tol=1e-6, per_class=None, **options):
    """Assign the queries of one episode: support is a list of (shots, channels), query (queries, channels)."""
    n_support = sum(map(len, support))
    points = transform(np.concatenate([*support, query]), n_support, **options)
    ends = np.cumsum([0, *map(len, support)])
    split = [list(points[a:b]) for a, b in itertools.pairwise(ends)]
    if per_class is None:
        per_class = np.full(len(support), len(query) / len(support))
    return map_probabilities(split, points[n_support:], per_class, alpha=alpha, n_steps=n_steps, lam=lam, tol=tol)


@pytest.fixture
def episodes():
    """Three episodes of relu(0.3 mu + noise): support (3, way, shot, 1, channels), query (3, way * 15, 1, channels)."""

    def draw(shot):
        rng = np.random.default_rng(shot)
        means = rng.standard_normal((3, WAY, 1, CHANNELS))
        images = np.maximum(0.3 * means + rng.standard_normal((3, WAY, shot + QUERY, CHANNELS)), 0)
        support, query = images[:, :, :shot], images[:, :, shot:].reshape(3, WAY * QUERY, CHANNELS)
        return torch.from_numpy(support)[..., None, :], torch.from_numpy(query)[..., None, :]

    return draw


def published(name, options):
    """Options of the plain loop."""
    if name == "lst":
        return {**options, "joint": True}
    return {**options, "delta": 1.0, "gamma": 1.0, "joint": False}


def probabilities(support, query, tol, options, per_class=None):
    """The plain loop on a batch, each query's assignments."""
    plans = [
        classify(list(s[:, :, 0].numpy()), q[:, 0].numpy(), tol=tol, per_class=per_class, **options)
        for s, q in zip(support, query, strict=True)
    ]
    return torch.from_numpy(np.stack(plans))


CASES = [(name, dataset, shot) for name in ("lst", "pt-map") for dataset in ("cifar-fs", "cub") for shot in (1, 5)]


@pytest.mark.parametrize(("name", "dataset", "shot"), CASES)
def test_assignments_are_those_of_the_published_procedure(name, dataset, shot, episodes):
    options = PUBLISHED[name][dataset, shot]
    assert options["n_steps"] == (20 if shot == 5 else 30 if name == "pt-map" or dataset == "cub" else 20)
    support, query = episodes(shot)
    expected = probabilities(support, query, 1e-12, published(name, options))
    # Neither trivial nor hopeless.
    right = (expected.argmax(-1) == torch.arange(WAY).repeat_interleave(QUERY)).double().mean()
    assert 0.5 < right < 0.99
    found = METHODS[name](**options)(support, query).softmax(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    single = METHODS[name](**options)(support.float(), query.float()).softmax(-1)
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-4)
    assert torch.equal(single.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("name", ["lst", "pt-map"])
def test_the_published_stopping_rule_changes_no_decision(name, episodes):
    support, query = episodes(5)
    options = PUBLISHED[name]["cub", 5]
    expected = probabilities(support, query, 1e-6, published(name, options))
    found = METHODS[name](**options)(support, query).softmax(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))


def test_uneven_shots_and_a_given_prior(episodes):
    support, query = episodes(4)
    query = query[:, 7:]
    prior = torch.tensor([8.0, 15, 15, 15, 15]).expand(3, -1)
    mask = torch.ones(3, WAY, 4, dtype=torch.bool)
    mask[:, 1, 1:], mask[:, 2, 0] = False, False
    options = PUBLISHED["lst"]["cub", 5]
    spoiled = support.masked_fill(~mask[..., None, None], torch.nan)
    found = METHODS["lst"](**options)(spoiled, query, support_mask=mask, class_prior=prior).softmax(-1)
    for e in range(3):
        shots = [support[e, c, mask[e, c], 0].numpy() for c in range(WAY)]
        expected = classify(
            shots, query[e, :, 0].numpy(), tol=1e-12, per_class=prior[e].numpy(), **published("lst", options)
        )
        torch.testing.assert_close(found[e], torch.from_numpy(expected), rtol=0, atol=2e-6)
