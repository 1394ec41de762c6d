"""Tokens of transformers as nodes: patches lie as in the image, what stands before them is kept apart."""

from __future__ import annotations

import types

import pytest
import torch
from torch import nn

from otfew import backbones
from otfew.backbones.tokens import apart
from otfew.errors import UserError


class Patches(nn.Module):
    """A transformer without layers: each patch's mean colour, behind some tokens of its own."""

    def __init__(self, patch=4, prefix=1):
        super().__init__()
        self.side = patch
        self.num_prefix_tokens = prefix
        self.first = nn.Parameter(torch.full((1, prefix, 3), 9.0))

    def forward(self, images):
        maps = nn.functional.avg_pool2d(images, self.side)
        return torch.cat([self.first.expand(len(images), -1, -1), maps.flatten(2).transpose(1, 2)], 1)


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (8, 16)])
def test_patches_lie_as_in_the_image(prefix, height, width):
    network, images = Patches(prefix=prefix), torch.rand(2, 3, height, width)
    network.patch_embed = types.SimpleNamespace(patch_size=(4, 4))
    first, maps = apart(network(images), images, network, "mine")
    assert first.shape == (2, prefix, 3)
    torch.testing.assert_close(maps, nn.functional.avg_pool2d(images, 4))


def test_a_patchs_size_tells_how_many_tokens_stand_before():
    network, images = Patches(prefix=5), torch.rand(1, 3, 12, 8)
    del network.num_prefix_tokens
    network.patch_embed = types.SimpleNamespace(patch_size=4)
    first, maps = apart(network(images), images, network, "mine")
    assert (first.shape[1], maps.shape[2:]) == (5, (3, 2))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_any_module_that_says_how_many(prefix):
    backbone = backbones.of_module(Patches(prefix=prefix))
    images = torch.rand(2, 3, 16, 16)
    mean, std = torch.tensor(backbone.card.mean), torch.tensor(backbone.card.std)
    expected = (nn.functional.avg_pool2d(images, 4) - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(backbone.maps(images), expected)


@pytest.mark.parametrize(
    ("change", "size", "said"),
    [
        ({"num_prefix_tokens": None}, (16, 16), "set its attribute num_prefix_tokens"),
        ({"num_prefix_tokens": 2}, (16, 16), "leaves no grid of 4 x 4"),
        ({}, (16, 8), "give square images"),
        ({"patch_embed": types.SimpleNamespace(patch_size=(5, 5))}, (16, 16), "leaves no grid of 3 x 3"),
        (
            {"patch_embed": types.SimpleNamespace(patch_size=(2, 2)), "num_prefix_tokens": None},
            (16, 16),
            "leaves no grid",
        ),
        (
            {"patch_embed": types.SimpleNamespace(patch_size=(32, 32)), "num_prefix_tokens": None},
            (16, 16),
            "nothing tells",
        ),
    ],
)
def test_tokens_of_which_nothing_tells_how_they_lie(change, size, said):
    network = Patches()
    for name, value in change.items():
        setattr(network, name, value)
    images = torch.rand(1, 3, *size)
    with pytest.raises(UserError, match="backbone 'mine' returns") as caught:
        apart(network(images), images, network, "mine")
    assert said in str(caught.value)
