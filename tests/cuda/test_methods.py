"""Every method and baseline on a device: the CPU's predictions, or its logits."""

from __future__ import annotations

import pytest
import torch

from otfew import catalogue
from otfew.baselines import BASELINES
from otfew.methods import METHODS

from .places import on_each

CHANNELS = 64
NAMES = sorted({**METHODS, **BASELINES})
FEW = ("deepemd", "protonet")
"""On the pretended device: enough to see that these tests are right; tests/devices runs all of them there."""
CLOSE = 1e-4
"""Of logits, relative to the largest."""


@pytest.fixture
def episodes():
    """Support (3, 5, 2, 9, 64), query (3, 10, 9, 64): classes that are well apart, so that a rounding turns none."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    centres = normal(3, 5, 1, 1, CHANNELS)
    support = (centres + 0.7 * normal(3, 5, 2, 9, CHANNELS) + 0.3).relu()
    query = (centres.repeat(1, 1, 2, 1, 1).flatten(1, 2) + 0.7 * normal(3, 10, 9, CHANNELS) + 0.3).relu()
    return support, query


def build(name, **options):
    if catalogue.find(name).needs_base_mean:
        options["base_mean"] = torch.linspace(0.1, 0.4, CHANNELS)
    return catalogue.build(name, **options)


def agree(found, expected):
    """Predictions or logits; both, but for those whose search ends at a tolerance of their own.

    Such a search leaves logarithms of shares open where shares are small: what holds a share of 1e-11 in its place are
    marginals that are right to 1e-8.
    """
    difference = (found - expected).abs().max() / expected.abs().max()
    assert torch.equal(found.argmax(-1), expected.argmax(-1)) or difference < CLOSE, float(difference)
    shares = (found.softmax(-1) - expected.softmax(-1)).abs().max()
    assert difference < 1e-2 or shares < 1e-7, (float(difference), float(shares))


def those(every, few):
    return pytest.mark.parametrize(("place", "name"), on_each(every, few), indirect=["place"])


@those(NAMES, FEW)
def test_logits(name, place, episodes):
    method = build(name)
    with torch.inference_mode(not method.frozen and not method.learned and place.real):
        found = method(*place.away(episodes))
    assert found.device == place.device
    agree(place.home(found), method(*episodes).detach())


@those(NAMES, ["protonet"])
def test_with_absent_shots(name, place, episodes):
    mask = torch.tensor([[True, True], [True, False], [False, True], [True, True], [True, False]]).expand(3, 5, 2)
    method = build(name)
    found = method(*place.away(episodes), support_mask=place.away(mask.contiguous()))
    agree(place.home(found), method(*episodes, support_mask=mask).detach())


@those(["deepemd", "protonet", "frn", "matchingnet", "lst"], ["deepemd"])
def test_gradients_of_the_nodes(name, place, episodes):
    def gradients(nodes):
        method = build(name)
        logits = method(*nodes)
        return torch.autograd.grad(logits.log_softmax(-1)[..., 0].sum(), nodes)

    leaves = tuple(x.double().requires_grad_() for x in episodes)
    for x, y in zip(place.home(gradients(place.away(leaves))), gradients(leaves), strict=True):
        torch.testing.assert_close(x, y, rtol=CLOSE, atol=CLOSE * float(y.abs().max()))


OPTIONS = ({"solver": "sinkhorn"}, {"shot_head": "sfc"}, {"shot_head": "merge"}, {"shot_head": "nn"})


@pytest.mark.parametrize(("place", "options"), on_each(OPTIONS, OPTIONS[2:3]), indirect=["place"], ids=str)
def test_options_of_deepemd(options, place, episodes):
    method = build("deepemd", **options)
    found = method(*place.away(episodes))
    agree(place.home(found), method(*episodes).detach())
