"""Time of 10,000 transductive episodes: 5-way 5-shot with 15 queries a class, 640 channels, relu(0.6 mu + noise)."""

from __future__ import annotations

import time

import pytest
import torch

from otfew.methods import METHODS

EPISODES, AT_ONCE, WAY, SHOT, QUERY, CHANNELS = 10_000, 500, 5, 5, 15, 640


def draw(generator, strength):
    """Draw support (500, 5, 5, 1, 640) and query (500, 75, 1, 640)."""
    means = torch.randn(AT_ONCE, WAY, 1, CHANNELS, generator=generator)
    images = torch.randn(AT_ONCE, WAY, SHOT + QUERY, CHANNELS, generator=generator).add_(strength * means).relu_()
    return images[:, :, :SHOT, None], images[:, :, SHOT:].reshape(AT_ONCE, WAY * QUERY, 1, CHANNELS)


@pytest.mark.parametrize("strength", [0.6, 0.2])
def test_ten_thousand_episodes(benchmark, summarise, strength):
    """At 0.6 classes are so far apart that Sinkhorn needs Newton's steps; at 0.2 accuracies are like real ones.

    The clock runs for the methods, not while episodes are drawn; all of them would take 2.6 GB.
    """
    generator = torch.Generator().manual_seed(0)
    methods = {name: METHODS[name]() for name in ("lst", "pt-map")}
    seconds = dict.fromkeys(methods, 0.0)
    right = dict.fromkeys(methods, 0)
    labels = torch.arange(WAY).repeat_interleave(QUERY)
    support, query = draw(generator, strength)
    for method in methods.values():
        method(support[:1], query[:1])
    for _ in range(EPISODES // AT_ONCE):
        support, query = draw(generator, strength)
        for name, method in methods.items():
            started = time.perf_counter()
            logits = method(support, query)
            seconds[name] += time.perf_counter() - started
            right[name] += int((logits.argmax(-1) == labels).sum())
    accuracies = {name: 100 * count / (EPISODES * WAY * QUERY) for name, count in right.items()}
    shown = {f"{name} ({accuracies[name]:.1f} % right)": value for name, value in seconds.items()}
    summarise(
        f"all of 10,000 episodes of 5-way 5-shot with 75 queries, 640 channels, relu({strength} mu + noise)", shown
    )
    benchmark.pedantic(lambda: methods["lst"](support, query), rounds=3)
