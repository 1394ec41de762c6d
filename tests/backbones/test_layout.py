"""Where the channels of a map are: by the network's word, by the shape, or not at all."""

import enum

import pytest
import torch
from torch import nn

from otfew.backbones.base import Backbone, Card
from otfew.backbones.foreign import of_module
from otfew.backbones.layout import channels_first, declared
from otfew.errors import UserError


class Format(str, enum.Enum):
    """As timm's enumeration."""

    NHWC = "NHWC"


class Patches(nn.Module):
    """A convolution without overlap, with its channels first or last."""

    def __init__(self, channels, stride, last, said=None):
        super().__init__()
        torch.manual_seed(0)
        self.cells = nn.Conv2d(3, channels, stride, stride)
        self.last = last
        if said is not None:
            self.output_fmt = said

    def forward(self, images):
        maps = self.cells(images)
        return maps.permute(0, 2, 3, 1) if self.last else maps


IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_channels_last_gives_the_nodes_of_channels_first():
    # 768 channels on 7 x 7 places are 49 nodes, never 5,376.
    images = torch.rand(1, 3, 28, 28)
    first, last = (of_module(Patches(768, 4, last)).maps(images) for last in (False, True))
    assert first.shape == (1, 768, 7, 7)
    assert torch.equal(first, last)


@pytest.mark.parametrize("channels", [1, 3, 5, 7, 64])
@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("last", [False, True])
def test_the_shape_decides_wherever_it_can(channels, stride, last):
    expected = Patches(channels, stride, False)(IMAGES)
    assert expected.shape[1] != expected.shape[2] or channels == 1
    torch.testing.assert_close(channels_first(Patches(channels, stride, last)(IMAGES), IMAGES, None, "x"), expected)


@pytest.mark.parametrize(("shape", "layout"), [((90, 6, 9), "NCHW"), ((6, 9, 90), "NHWC"), ((90, 7, 10), "NCHW")])
def test_maps_of_rectangular_images(shape, layout):
    images, maps = torch.zeros(2, 3, 96, 144), torch.rand(2, *shape)
    expected = maps if layout == "NCHW" else maps.permute(0, 3, 1, 2)
    assert torch.equal(channels_first(maps, images, None, "x"), expected)


@pytest.mark.parametrize("last", [False, True])
def test_as_many_channels_as_places_need_the_networks_word(last):
    said = "NHWC" if last else "NCHW"
    with pytest.raises(UserError, match=r"\(2, 8, 8, 8\).*set its attribute output_fmt to 'NCHW' or 'NHWC'"):
        of_module(Patches(8, 4, last)).maps(IMAGES)
    assert torch.equal(
        of_module(Patches(8, 4, last, said)).maps(IMAGES), of_module(Patches(8, 4, False, "NCHW")).maps(IMAGES)
    )


def test_places_that_are_no_square_need_the_networks_word():
    maps = torch.rand(2, 5, 3, 4)
    with pytest.raises(UserError, match="does not tell"):
        channels_first(maps, IMAGES, None, "x")
    assert channels_first(maps, IMAGES, "NCHW", "x").shape == (2, 5, 3, 4)
    assert channels_first(maps, IMAGES, "NHWC", "x").shape == (2, 4, 5, 3)


@pytest.mark.parametrize(("last", "said"), [(True, "NCHW"), (False, "NHWC")])
def test_a_word_that_the_shape_contradicts_is_refused(last, said):
    with pytest.raises(UserError, match=f"says output_fmt = '{said}', but"):
        of_module(Patches(5, 4, last, said)).maps(IMAGES)


@pytest.mark.parametrize(
    ("said", "layout"),
    [("NHWC", "NHWC"), ("nchw", "NCHW"), (Format.NHWC, "NHWC"), ("NLC", None), (None, None), (7, None)],
)
def test_declarations(said, layout):
    assert declared(Patches(5, 4, False, said)) == layout


def test_the_word_is_part_of_the_cache_key_only_where_it_changes_the_features():
    silent, first, last = (of_module(Patches(8, 4, False, said)).digest for said in (None, "NCHW", "NHWC"))
    assert silent == first
    assert first != last


def test_a_backbone_says_channels_first_by_its_contract():
    card = Card("mine", "mine", mean=(0, 0, 0), std=(1, 1, 1))
    assert Backbone(Patches(8, 4, False), card, "").maps(IMAGES).shape == (2, 8, 8, 8)
    torch.testing.assert_close(
        Backbone(Patches(5, 4, True), card, "").maps(IMAGES), Backbone(Patches(5, 4, False), card, "").maps(IMAGES)
    )
    with pytest.raises(UserError, match="'mine' must return maps"):
        Backbone(nn.Flatten(), card, "").maps(IMAGES)
