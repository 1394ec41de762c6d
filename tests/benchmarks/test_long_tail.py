"""The second stage on cached features of 12,000 training images: weights, and a classifier with the whole search."""

from __future__ import annotations

import pytest
import torch

from otfew.methods.ot_reweighting import OTReweighting
from otfew.training.long_tail.head import Features, train_head
from otfew.training.long_tail.losses import Objective
from otfew.training.long_tail.settings import HeadRecipe

CLASSES, CHANNELS = 100, 64


@pytest.fixture(scope="module")
def features():
    """As of CIFAR-100-LT at factor 50 (12,354 images): non-negative vectors about class means."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, CHANNELS, generator=generator)
    counts = (490 * (1 / 50) ** (torch.arange(CLASSES) / (CLASSES - 1))).long()

    def around(labels):
        return (centres[labels] + torch.randn(len(labels), CHANNELS, generator=generator)).relu(), labels

    balanced = torch.arange(CLASSES).repeat_interleave(10)
    train = around(torch.repeat_interleave(torch.arange(CLASSES), counts))
    return Features(*train, *around(balanced), *around(balanced), counts)


def solve(features, **options):
    return OTReweighting(**options).fit(features.train, features.train_labels, features.meta, features.meta_labels)


def test_weights(features, race):
    contenders = {
        "closed form, prototypes": {},
        "closed form, whole meta set": {"meta": "whole"},
        "product entropy, prototypes": {"entropy": "product"},
    }
    race(
        "OT weights of 12,354 samples",
        {name: lambda o=options: solve(features, **o) for name, options in contenders.items()},
        rounds=3,
    )


def test_second_stage(features, benchmark):
    """Weights, then 3 learning rates x 30 epochs of a classifier with the meta set in every step."""
    start = {"weight": torch.zeros(CLASSES, CHANNELS), "bias": torch.zeros(CLASSES)}

    def run():
        objective = Objective(weights=solve(features).mean_one(), meta=10.0)
        return train_head(features, start, objective, HeadRecipe(), 0)

    benchmark.pedantic(run, rounds=1)
