from itertools import pairwise

import pytest
import torch

from otfew.backbones import ARCHITECTURES
from otfew.backbones.conv4 import Conv4
from otfew.backbones.resnet12 import ResNet12


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_resnet12_has_the_published_size():
    # By hand: per block, three 3x3 kernels, a 1x1 shortcut and four batch normalisations of two vectors each.
    widths = [3, 64, 160, 320, 640]
    by_hand = sum(9 * i * o + 18 * o * o + i * o + 8 * o for i, o in pairwise(widths))
    assert parameters(ResNet12()) == by_hand
    assert by_hand == pytest.approx(12.42e6, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "channels", "side", "last_pool", "nodes"),
    [
        ("resnet12", 640, 84, True, 5),
        ("resnet12-half", 320, 84, True, 5),
        ("resnet12-quarter", 160, 64, True, 4),
        ("resnet12-quarter", 160, 32, True, 2),
        ("resnet12-quarter", 160, 32, False, 4),
        ("conv4", 64, 84, True, 5),
        ("conv4", 64, 32, False, 4),
        ("lenet5-wide", 64, 28, True, 7),
        ("lenet5-wide", 64, 28, False, 14),
    ],
)
def test_shapes(name, channels, side, last_pool, nodes):
    module = ARCHITECTURES[name](last_pool=last_pool).eval()
    with torch.inference_mode():
        assert module(torch.rand(1, 3, side, side)).shape == (1, channels, nodes, nodes)


def test_last_pool_only_changes_the_resolution():
    torch.manual_seed(0)
    pooled = ResNet12(width=0.1).eval()
    dense = ResNet12(width=0.1, last_pool=False).eval()
    dense.load_state_dict(pooled.state_dict())
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        expected = torch.nn.functional.max_pool2d(dense(images), 2)
        torch.testing.assert_close(pooled(images), expected)


def test_resnet12_block_against_its_formula():
    torch.manual_seed(0)
    block = ResNet12(width=0.1).blocks[1].eval()
    maps = torch.randn(2, 6, 8, 8)

    def normal(x, bn):
        shape = (1, -1, 1, 1)
        unit = (x - bn.running_mean.view(shape)) / (bn.running_var.view(shape) + bn.eps).sqrt()
        return unit * bn.weight.view(shape) + bn.bias.view(shape)

    def leaky(x):
        return torch.where(x > 0, x, 0.1 * x)

    convolutions = [m for m in block.layers if isinstance(m, torch.nn.Conv2d)]
    normalisations = [m for m in block.layers if isinstance(m, torch.nn.BatchNorm2d)]
    for bn in (*normalisations, block.shortcut[1]):
        torch.nn.init.uniform_(bn.running_mean)
        torch.nn.init.uniform_(bn.running_var, 0.5, 2)
        torch.nn.init.uniform_(bn.weight)
        torch.nn.init.uniform_(bn.bias)
    with torch.inference_mode():
        x = maps
        for index in range(3):
            x = normal(torch.nn.functional.conv2d(x, convolutions[index].weight, padding=1), normalisations[index])
            x = leaky(x) if index < 2 else x
        shortcut = torch.einsum("oi,nihw->nohw", block.shortcut[0].weight[:, :, 0, 0], maps)
        summed = leaky(x + normal(shortcut, block.shortcut[1]))
        expected = summed.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
        torch.testing.assert_close(block(maps), expected, rtol=1e-4, atol=1e-4)


def test_conv4_maps_are_not_negative():
    with torch.inference_mode():
        assert float(Conv4(8).eval()(torch.rand(2, 3, 32, 32)).min()) >= 0


def test_an_image_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    module = ResNet12(width=0.1).eval()
    images = torch.rand(5, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(module(images)[3:4], module(images[3:4]))


def test_a_width_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="width"):
        ResNet12(width=0)
