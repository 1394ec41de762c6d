"""One memory format for all features: channels last, whatever the caller's images and weights lie in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otfew import nodes
from otfew.backbones import ARCHITECTURES, efficientnet_lite0
from otfew.backbones.base import Backbone, Card, digest, normalise
from otfew.data.base import ImageSet
from otfew.data.preparation import Preparation
from otfew.features.extract import batch_size, extract

NAMES = ["resnet12-quarter", "conv4", "wrn16_2", "lenet5-wide", "resnet32", "efficientnet-lite0"]
LAST = torch.channels_last


def network(name):
    if name == efficientnet_lite0.NAME:
        if not efficientnet_lite0.installed():
            pytest.skip("needs the pretrained extra")
        return efficientnet_lite0.load().module
    torch.manual_seed(0)
    return ARCHITECTURES[name]()


def wrapped(module):
    card = Card("x", "x")
    return Backbone(module, card, digest(module, card))


@pytest.mark.parametrize("name", NAMES)
def test_the_layout_of_images_and_weights_changes_no_bit(name):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, last = wrapped(network(name)), wrapped(network(name).to(memory_format=LAST))
    assert first.digest == last.digest
    assert all(p.is_contiguous(memory_format=LAST) for p in first.module.parameters() if p.ndim == 4)
    found = first.maps(images)
    for backbone in (first, last):
        assert torch.equal(backbone.maps(images.contiguous(memory_format=LAST)), found)
        assert torch.equal(backbone.maps(images), found)
    # The numbers are those of the plain layout, but for rounding.
    with torch.inference_mode():
        plain = network(name).eval()(normalise(images, first.card.mean, first.card.std))
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=2e-5 * float(plain.abs().max()))


def test_extracted_features_are_those_of_the_same_images_in_any_layout(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    images = ImageSet("toy", "test", "", ("a",), np.zeros(6, np.int64), tuple("abcdef"), lambda i: pixels[i], "1", 1)
    preparation, fcn = Preparation(32), nodes.parse("fcn")
    assert batch_size(fcn, preparation) >= 6
    backbone = wrapped(ARCHITECTURES["resnet12-quarter"]())
    maps = backbone.maps(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())
    found = extract(images, backbone, fcn, preparation, tmp_path)
    assert torch.equal(found.nodes, fcn.nodes(maps[:, None]))


class Volumes(torch.nn.Module):
    """Its weights have five dimensions, which no memory format of images fits."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 2, 3)

    def forward(self, images):
        return self.layer(images[:, None])[:, :, 0]


def test_other_weights_are_left_alone():
    assert wrapped(Volumes()).maps(torch.rand(2, 3, 8, 8)).shape == (2, 2, 6, 6)
