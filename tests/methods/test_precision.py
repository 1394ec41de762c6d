"""Every method in half precision and under autocast answers as in float32."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.baselines import BASELINES
from otfew.methods import METHODS, MergeHead, StructuredFC
from otfew.scores import node_weights, pairwise
from otfew.scores.node_weights import NODE_WEIGHTS

HALF = [torch.float16, torch.bfloat16]
CHANNELS = 16
NAMES = sorted({**METHODS, **BASELINES})


def surroundings(dtype):
    return contextlib.nullcontext(), torch.autocast("cpu", dtype=dtype)


def build(name, **options):
    if catalogue.find(name).needs_base_mean:
        options["base_mean"] = torch.linspace(0.1, 0.4, CHANNELS)
    return catalogue.build(name, **options)


@pytest.fixture
def episode():
    generator = torch.Generator().manual_seed(0)
    support = torch.rand(2, 3, 2, 4, CHANNELS, generator=generator)
    return support, torch.rand(2, 6, 4, CHANNELS, generator=generator)


CASES = [(name, {}) for name in NAMES] + [("deepemd", {"shot_head": StructuredFC(epochs=3)})]
CASES += [("deepemd", {"shot_head": head}) for head in ("nn", "fusion", "merge", "prototype")]
CASES += [("deepemd", {"solver": "sinkhorn"}), ("deepemd", {"shot_head": MergeHead("partial")})]


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_methods_compute_in_float32(name, options, dtype, episode):
    support, query = (x.to(dtype).requires_grad_() for x in episode)
    wide = [x.detach().float().requires_grad_() for x in (support, query)]
    method = build(name, **options)
    right = method(*wide)
    right.sum().backward() if right.requires_grad else None
    for around in surroundings(torch.bfloat16 if dtype == torch.float32 else dtype):
        with around:
            logits = method(support, query)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, right, rtol=1e-6, atol=1e-6)
        if right.requires_grad:
            gradients = torch.autograd.grad(logits.sum(), (support, query), allow_unused=True)
            for gradient, expected in zip(gradients, wide, strict=True):
                assert (gradient is None) == (expected.grad is None)
                if gradient is not None:
                    assert gradient.dtype == dtype
                    torch.testing.assert_close(gradient, expected.grad.to(dtype), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
@pytest.mark.parametrize("name", sorted(NODE_WEIGHTS))
def test_node_weights_and_similarities(name, dtype, episode):
    support, query = episode[0].mean(2).to(dtype), episode[1].to(dtype)
    wide = support.float(), query.float()
    functions = (node_weights.resolve_weights(name), pairwise.cr_weights, lambda v, u: (pairwise.similarities(v, u),))
    functions += (lambda v, u: (pairwise.centre(v), pairwise.centred_norms(u)),)
    for function in functions:
        for around in surroundings(torch.bfloat16):
            with around:
                found = function(support, query)
            for part, expected in zip(found, function(*wide), strict=True):
                torch.testing.assert_close(part, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_methods_refuse_masked_arrays(name, episode):
    masked = np.ma.masked_array(episode[0].numpy(), mask=episode[0].numpy() > 0.5)
    with pytest.raises(ValueError, match="support is a masked array"):
        build(name)(masked, episode[1])
