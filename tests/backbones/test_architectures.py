from itertools import pairwise

import pytest
import torch

from otfew.backbones import ARCHITECTURES
from otfew.backbones.conv4 import Conv4
from otfew.backbones.resnet12 import ResNet12
from otfew.backbones.resnet_cifar import ResNetCIFAR
from otfew.backbones.wide_resnet import WideResNet


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


@pytest.mark.parametrize(
    ("name", "classes", "published"),
    [
        # With a linear head. Zagoruyko and Komodakis (2016), tables 3 and 4: 36.5 M; their WRN-16-2: 0.69 M.
        ("wrn28_10", 10, 36_479_194),
        ("wrn16_2", 10, 691_674),
        # He et al. (2016), table 6: 0.46 M.
        ("resnet32", 10, 464_154),
    ],
)
def test_published_sizes(name, classes, published):
    module = ARCHITECTURES[name]()
    assert parameters(module) + (module.channels + 1) * classes == published


def test_lenet5_has_the_published_size():
    """61,706 for grey images, with its layers of 84 and 10 units."""
    more_colours = 2 * 6 * 25
    assert parameters(ARCHITECTURES["lenet5"]()) - more_colours + 121 * 84 + 85 * 10 == 61_706


@pytest.mark.parametrize(
    ("name", "channels", "side", "nodes"),
    [
        ("wrn28_10", 640, 16, 4),
        ("wrn16_2", 128, 32, 8),
        ("wrn16_2", 128, 84, 21),
        ("resnet32", 64, 32, 8),
        ("lenet5", 120, 32, 1),
        ("lenet5", 120, 40, 3),
    ],
)
def test_maps_of_staged_networks(name, channels, side, nodes):
    """Not negative, some positive, and what the stages give in a row."""
    torch.manual_seed(0)
    module = ARCHITECTURES[name]().eval()
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        maps = module(images)
        assert maps.shape == (2, channels, nodes, nodes)
        assert module.channels == channels
        assert float(maps.min()) == 0
        assert float(maps.max()) > 0
        for stage in module.stages:
            images = stage(images)
    assert torch.equal(maps, images)


def lively(module):
    """Give every batch normalisation statistics and weights of its own."""
    for bn in module.modules():
        if isinstance(bn, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(bn.running_mean)
            torch.nn.init.uniform_(bn.running_var, 0.5, 2)
            torch.nn.init.uniform_(bn.weight)
            torch.nn.init.uniform_(bn.bias)
    return module.eval()


def normalised(x, bn):
    shape = (1, -1, 1, 1)
    unit = (x - bn.running_mean.view(shape)) / (bn.running_var.view(shape) + bn.eps).sqrt()
    return unit * bn.weight.view(shape) + bn.bias.view(shape)


def test_wide_blocks_against_their_formula():
    """The first of a group changes channels and resolution, the second adds to its input as it is."""
    torch.manual_seed(0)
    first, second = lively(WideResNet(16, 1)).stages[1]
    maps = torch.randn(2, 16, 8, 8)
    conv = torch.nn.functional.conv2d
    with torch.inference_mode():
        active = normalised(maps, first.before[0]).relu()
        inner = normalised(conv(active, first.layers[0].weight, stride=2, padding=1), first.layers[1]).relu()
        shortcut = torch.einsum("oi,nihw->nohw", first.shortcut.weight[:, :, 0, 0], active[:, :, ::2, ::2])
        halved = conv(inner, first.layers[4].weight, padding=1) + shortcut
        torch.testing.assert_close(first(maps.clone()), halved, rtol=1e-4, atol=1e-4)
        active = normalised(halved, second.before[0]).relu()
        inner = normalised(conv(active, second.layers[0].weight, padding=1), second.layers[1]).relu()
        expected = conv(inner, second.layers[4].weight, padding=1) + halved
        assert second.shortcut is None
        torch.testing.assert_close(second(halved.clone()), expected, rtol=1e-4, atol=1e-4)


def test_cifar_blocks_shortcut_has_no_parameters():
    torch.manual_seed(0)
    block = lively(ResNetCIFAR(8)).stages[1][0]
    maps = torch.randn(2, 16, 8, 8)
    conv = torch.nn.functional.conv2d
    with torch.inference_mode():
        inner = normalised(conv(maps, block.layers[0].weight, stride=2, padding=1), block.layers[1]).relu()
        expected = normalised(conv(inner, block.layers[3].weight, padding=1), block.layers[4])
        expected[:, 8:24] += maps[:, :, ::2, ::2]
        torch.testing.assert_close(block(maps), expected.relu(), rtol=1e-4, atol=1e-4)


def test_dropout_is_for_training_only():
    torch.manual_seed(0)
    module = WideResNet(10, 1, dropout=0.5)
    images = torch.randn(2, 3, 8, 8)
    assert not torch.equal(module(images), module(images))
    module.eval()
    assert torch.equal(module(images), module(images))
    rates = {m.p for m in ARCHITECTURES["wrn28_10"](depth=10, width=1).modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.5}


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (WideResNet, {"depth": 18}),
        (WideResNet, {"depth": 4}),
        (WideResNet, {"width": 0}),
        (WideResNet, {"dropout": 1.0}),
        (ResNetCIFAR, {"depth": 33}),
    ],
)
def test_networks_that_do_not_exist_are_refused(build, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        build(**options)
