"""Networks that otfew trains, by name; a checkpoint's card names one of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from otfew.backbones.conv4 import Conv4
from otfew.backbones.resnet12 import ResNet12
from otfew.backbones.resnet_cifar import ResNetCIFAR

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "conv4": Conv4,
    "resnet12": ResNet12,
    "resnet12-half": partial(ResNet12, width=0.5),
    "resnet12-quarter": partial(ResNet12, width=0.25),
    "resnet32": partial(ResNetCIFAR, depth=32),
}
"""Name -> factory of a module from images (images, 3, height, width) to maps (images, channels, h, w)."""
