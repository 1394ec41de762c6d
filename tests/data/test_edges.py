import cv2
import numpy as np
import torch

from otfew.data.edges import edge_maps


def test_a_square_becomes_its_outline():
    pixels = torch.zeros(2, 3, 28, 28, dtype=torch.uint8)
    pixels[0, :, 8:20, 8:20] = 200
    found = edge_maps(pixels)
    assert found.shape == pixels.shape
    assert found.dtype == torch.uint8
    assert set(found.unique().tolist()) == {0, 255}
    assert not found[1].any()
    assert not found[0, :, 10:18, 10:18].any()
    rows, columns = found[0, 0].nonzero(as_tuple=True)
    assert {rows.min().item(), columns.min().item()} <= {7, 8}
    assert {rows.max().item(), columns.max().item()} <= {19, 20}
    assert torch.equal(found[0, 0], found[0, 2])
    image = np.ascontiguousarray(pixels[0].permute(1, 2, 0).numpy())
    assert np.array_equal(found[0, 1].numpy(), cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 100, 200))
