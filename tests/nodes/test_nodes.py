"""Nodes: locations in row-major order, and one sentence for a wrong specification."""

import numpy as np
import pytest
import torch

from otfew import nodes
from otfew.data.preparation import Preparation, default_crop
from otfew.errors import UserError


def test_fcn_nodes_are_the_locations_in_row_major_order():
    maps = torch.randn(3, 1, 5, 2, 4)
    found = nodes.parse("fcn").nodes(maps)
    assert found.shape == (3, 8, 5)
    for i in range(3):
        for y in range(2):
            for x in range(4):
                assert torch.equal(found[i, 4 * y + x], maps[i, 0, :, y, x])


def test_fcn_view_is_the_prepared_image():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    preparation = Preparation(32, "center")
    views = nodes.parse("fcn").views(image, preparation, "any")
    np.testing.assert_array_equal(views, preparation(image)[None])


@pytest.mark.parametrize("spec", ["nonsense", "", "fcn:x", "nonsense:2,3"])
def test_unknown_or_malformed_nodes_are_refused(spec):
    with pytest.raises(UserError) as caught:
        nodes.parse(spec)
    assert "fcn" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_center_crop_is_the_middle_of_a_92_84_enlargement():
    ramp = np.tile(np.arange(92, dtype=np.uint8)[None, :, None], (92, 1, 3))
    cropped = Preparation(84, "center")(ramp)
    np.testing.assert_array_equal(cropped, ramp[4:88, 4:88])


def test_no_crop_keeps_the_whole_image():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Preparation(32)(image), image)
    halved = Preparation(16)(image).astype(float)
    blocks = image.reshape(16, 2, 16, 2, 3).astype(float).mean((1, 3))
    assert np.abs(halved - blocks).max() <= 0.5 + 1e-9


def test_photographs_are_cropped_by_default():
    assert (default_crop(84), default_crop(32)) == ("center", "none")


@pytest.mark.parametrize(("resolution", "crop"), [(0, "none"), (84, "middle")])
def test_wrong_preparation_is_refused(resolution, crop):
    with pytest.raises(UserError):
        Preparation(resolution, crop)
