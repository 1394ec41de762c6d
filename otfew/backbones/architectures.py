"""Networks that otfew trains, by name; a checkpoint's card names one of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from otfew.backbones.conv4 import Conv4
from otfew.backbones.lenet5 import LeNet5
from otfew.backbones.lenet5_wide import LeNet5Wide
from otfew.backbones.resnet import ResNet
from otfew.backbones.resnet12 import ResNet12
from otfew.backbones.resnet_cifar import ResNetCIFAR
from otfew.backbones.wide_resnet import WideResNet
from otfew.backbones.wide_resnet_feat import WideResNetFEAT

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "conv4": Conv4,
    "lenet5-wide": LeNet5Wide,
    "resnet12": ResNet12,
    "resnet12-half": partial(ResNet12, width=0.5),
    "resnet12-quarter": partial(ResNet12, width=0.25),
    "wrn28_10": partial(WideResNet, depth=28, width=10, dropout=0.5),
    "wrn16_2": partial(WideResNet, depth=16, width=2),
    "resnet32": partial(ResNetCIFAR, depth=32),
    "lenet5": LeNet5,
    "conv6": partial(Conv4, blocks=6),
    "resnet10": partial(ResNet, depths=(1, 1, 1, 1)),
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, depths=(3, 4, 6, 3)),
    "resnet10-small": partial(ResNet, depths=(1, 1, 1, 1), stem="small"),
    "resnet18-small": partial(ResNet, depths=(2, 2, 2, 2), stem="small"),
    "resnet34-small": partial(ResNet, depths=(3, 4, 6, 3), stem="small"),
    "resnet12-easyfsl": partial(ResNet, depths=(1, 1, 2, 1), widths=(64, 160, 320, 640), stem="small"),
    "wrn28_10-feat": partial(WideResNetFEAT, depth=28, width=10),
}
"""Name -> factory of a module from images (images, 3, height, width) to maps (images, channels, h, w)."""
