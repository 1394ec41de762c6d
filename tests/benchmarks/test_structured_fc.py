"""Speed of the structured FC as published, by hand beside autograd, and of the other heads, 5-way 5-shot."""

from __future__ import annotations

import pytest
import torch

import otfew
from otfew.methods import METHODS
from otfew.methods.structured_fc import StructuredFC
from otfew.scores.emd import EMDScore
from otfew.scores.node_weights import CrossReference


def draw(episodes):
    """Support and query of 25 nodes of 640 channels, with class structure."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    centres = 0.5 * normal(episodes, 5, 1, 1, 640)
    support = (centres + normal(episodes, 5, 5, 25, 640)).relu()
    query = (centres + normal(episodes, 5, 15, 25, 640)).relu().flatten(1, 2)
    return support, query


@pytest.mark.parametrize("episodes", [1, 8])
def test_700_updates(episodes, race):
    """Passes over 25 images in mini-batches of 4, 100 of them."""
    support, _ = draw(episodes)
    score, layer = EMDScore(otfew.Exact(), CrossReference()), StructuredFC()
    labels = torch.arange(5).repeat_interleave(5).expand(episodes, -1)
    contenders = {
        "by hand": lambda: layer.fit(support, None, score, 12.5),
        "autograd": lambda: layer.fit_by_autograd(support.flatten(1, 2), labels, support.mean(2), score, 12.5),
    }
    race(f"structured FC, 5-way 5-shot, 25x640, {episodes} at once", contenders, rounds=3)


def test_heads(race):
    """Per episode with 75 queries."""
    support, query = draw(1)

    def run(head):
        method = METHODS["deepemd"](shot_head=head)

        def score():
            with torch.inference_mode():
                return method(support, query)

        return score

    heads = ("mean", "prototype", "nn", "fusion", "merge", "sfc")
    race("deepemd 5-way 5-shot, 25x640, by head", {head: run(head) for head in heads}, rounds=5)
