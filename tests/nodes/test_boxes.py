"""Where nodes are in an image: found again by marking the image and asking which node has changed."""

import numpy as np
import pytest
import torch

from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.features.extract import embed
from otfew.nodes import parse
from otfew.nodes.boxes import map_boxes, node_boxes


class Pool(torch.nn.Module):
    """Maps of 6 x 6 cells."""

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 6)


class Network:
    """What ``embed`` asks of a backbone."""

    def maps(self, images):
        return Pool()(images.float())


SIZE = 168, 252


@pytest.mark.parametrize("crop", ["none", "center"])
@pytest.mark.parametrize("spec", ["fcn", "fcn:3,1", "fcn:3,2,1,nomap", "grid:2,3", "sampling:6"])
def test_a_node_changes_with_what_is_in_its_box(spec, crop):
    extractor, preparation = parse(spec), Preparation(84, crop)
    rng = np.random.default_rng(0)

    def nodes(image):
        views = torch.from_numpy(extractor.views(image, preparation, "name").astype(np.float32)[None] / 255)
        return embed(views, Network(), extractor)[0]

    black = np.zeros((*SIZE, 3), np.uint8)
    before = nodes(black)
    boxes = node_boxes(extractor, len(before), SIZE, preparation, "name")
    assert boxes.shape == (len(before), 4)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= np.array(SIZE)[::-1] + 1e-9).all()
    for _ in range(40):
        y, x = rng.integers(4, SIZE[0] - 4), rng.integers(4, SIZE[1] - 4)
        marked = black.copy()
        marked[y : y + 1, x : x + 1] = 255
        changed = (nodes(marked) - before).abs().sum(1) > 1e-9
        for k, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            inside = x0 + 4 < x < x1 - 5 and y0 + 4 < y < y1 - 5
            outside = x < x0 - 5 or x > x1 + 4 or y < y0 - 5 or y > y1 + 4
            if inside:
                assert changed[k]
            if outside:
                assert not changed[k]


def test_levels_come_before_the_map():
    boxes = node_boxes(parse("fcn:2,1"), 4 + 1 + 36, (60, 120), Preparation(84), "")
    np.testing.assert_allclose(boxes[0], [0, 0, 60, 30])
    np.testing.assert_allclose(boxes[4], [0, 0, 120, 60])
    np.testing.assert_allclose(boxes[5], [0, 0, 20, 10])
    np.testing.assert_allclose(boxes[-1], [100, 50, 120, 60])
    np.testing.assert_allclose(map_boxes(6, 6, (), 60)[7], [10, 10, 20, 20])


@pytest.mark.parametrize(("spec", "count"), [("fcn", 35), ("fcn:2", 4 + 5), ("fcn:2,nomap", 5), ("fcn:2", 3)])
def test_numbers_of_nodes_that_cannot_be(spec, count):
    with pytest.raises(UserError, match="unknown: choose fcn, grid or sampling"):
        node_boxes(parse(spec), count, (60, 60), Preparation(84), "")
