"""What published codebases call the tensors of networks that are ours too, and how they prepare images.

Names and shapes are facts of the files. Each layout is a function from our names to theirs; which one a file is in is
told by names and shapes alone (``otfew.backbones.own_weights``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from torch import nn

from otfew.backbones.conv4 import Conv4
from otfew.backbones.resnet import ResNet

Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
FEAT_MEAN: Triple = (120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255)
FEAT_STD: Triple = (70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255)
DEEPEMD_MEAN: Triple = (125.3 / 255, 123.0 / 255, 113.9 / 255)
DEEPEMD_STD: Triple = (63.0 / 255, 62.1 / 255, 66.7 / 255)


@dataclass(frozen=True)
class Layout:
    """One codebase's names for one of our networks.

    Attributes:
        codebase: Its name, which may stand before ``@FILE``.
        architecture: Key of ``otfew.backbones.ARCHITECTURES``.
        rename: Our network -> (our tensor's name -> theirs).
        resolution: Of the images in its evaluation.
        mean: Of its normalisation.
        std: Of its normalisation.
        folds: Its convolutions have biases where ours have none; the following normalisation takes them in, which in
            evaluation is the same function.
        one_channel: Its first convolution may see one channel, the first; zeros for the others are the same function.
        marks: A file of this codebase where others name the tensors alike: it holds a name with this in it.
    """

    codebase: str
    architecture: str
    rename: Callable[[nn.Module], Mapping[str, str]]
    resolution: int = 84
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    folds: bool = False
    one_channel: bool = False
    marks: str = ""


def _by(*rules: tuple[str, str | Callable[[re.Match[str]], str]]) -> Callable[[nn.Module], dict[str, str]]:
    """Rename by the first pattern that a name begins with."""

    def rename(module: nn.Module) -> dict[str, str]:
        named = {}
        for name in module.state_dict():
            pattern, into = next(rule for rule in rules if re.match(rule[0], name))
            named[name] = re.sub(f"^{pattern}", into, name, count=1)
        return named

    return rename


def _ours(module: nn.Module) -> dict[str, str]:
    """Keep our own names."""
    return {name: name for name in module.state_dict()}


_RESNET12 = _by(
    (
        r"blocks\.(\d)\.layers\.(\d)\.",
        lambda m: f"layer{int(m[1]) + 1}.0.{'bn' if int(m[2]) % 3 else 'conv'}{int(m[2]) // 3 + 1}.",
    ),
    (r"blocks\.(\d)\.shortcut\.", lambda m: f"layer{int(m[1]) + 1}.0.downsample."),
)
_WRN_BLOCK = {
    "before.0": "bn1",
    "layers.0": "conv1",
    "layers.1": "bn2",
    "layers.4": "conv2",
    "shortcut": "convShortcut",
}
_WRN = _by(
    (r"stages\.0\.0\.", "conv1."),
    (r"stages\.3\.0\.", "bn1."),
    (
        r"stages\.0\.1\.(\d)\.(before\.0|layers\.\d|shortcut)\.",
        lambda m: f"block1.layer.{m[1]}.{_WRN_BLOCK[m[2]]}.",
    ),
    (
        r"stages\.(\d)\.(\d)\.(before\.0|layers\.\d|shortcut)\.",
        lambda m: f"block{int(m[1]) + 1}.layer.{m[2]}.{_WRN_BLOCK[m[3]]}.",
    ),
)
_FEAT_WRN_LAYERS = {
    "layers.0": "bn1",
    "layers.2": "conv1",
    "layers.3": "bn2",
    "layers.5": "conv2",
    "shortcut": "shortcut.0",
}
_FEAT_WRN = _by(
    (r"stem\.", "conv1."),
    (r"last\.0\.", "bn1."),
    (
        r"groups\.(\d)\.(\d)\.(layers\.\d|shortcut)\.",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.{_FEAT_WRN_LAYERS[m[3]]}.",
    ),
)
_BASIC = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2"}
_TORCHVISION = _by(
    (r"stem\.0\.", "conv1."),
    (r"stem\.1\.", "bn1."),
    (r"groups\.(\d)\.(\d)\.layers\.(\d)\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.{_BASIC[m[3]]}."),
    (r"groups\.(\d)\.(\d)\.shortcut\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample."),
)


def _closerlook_resnet(module: nn.Module) -> dict[str, str]:
    """CloserLookFewShot counts stem and blocks through: trunk.0 and .1 are the stem, blocks begin at trunk.4."""
    assert isinstance(module, ResNet)
    first = list(accumulate((len(group) for group in module.groups), initial=4))  # type: ignore[arg-type]
    layers = {"layers.0": "C1", "layers.1": "BN1", "layers.3": "C2", "layers.4": "BN2"}
    layers |= {"shortcut.0": "shortcut", "shortcut.1": "BNshortcut"}
    return _by(
        (r"stem\.([01])\.", lambda m: f"trunk.{m[1]}."),
        (
            r"groups\.(\d)\.(\d)\.(\w+\.\d)\.",
            lambda m: f"trunk.{first[int(m[1])] + int(m[2])}.{layers[m[3]]}.",
        ),
    )(module)


def _convnet(convolution: str, normalisation: str) -> Callable[[nn.Module], dict[str, str]]:
    """Name the convolutions and normalisations of a ConvNet by the number of their block."""

    def rename(module: nn.Module) -> dict[str, str]:
        assert isinstance(module, Conv4)
        places: dict[str, str] = {}
        block = -1
        for number, layer in enumerate(module.layers):
            block += isinstance(layer, nn.Conv2d)
            places[str(number)] = (convolution if isinstance(layer, nn.Conv2d) else normalisation).format(block)
        return _by((r"layers\.(\d+)", lambda m: places[m[1]]))(module)

    return rename


LAYOUTS = (
    Layout("feat", "resnet12", _RESNET12, 84, FEAT_MEAN, FEAT_STD, marks="slf_attn."),
    Layout("deepemd", "resnet12", _RESNET12, 84, DEEPEMD_MEAN, DEEPEMD_STD),
    Layout("feat", "resnet12", _RESNET12, 84, FEAT_MEAN, FEAT_STD),
    Layout("feat", "wrn28_10-feat", _FEAT_WRN),
    Layout("feat", "conv4", _convnet("encoder.{}.0", "encoder.{}.1"), folds=True),
    Layout("feat", "resnet18-small", _TORCHVISION),
    Layout("s2m2", "wrn28_10", _WRN, 80),
    Layout("closerlook", "conv4", _convnet("trunk.{}.C", "trunk.{}.BN"), folds=True, one_channel=True),
    Layout("closerlook", "conv6", _convnet("trunk.{}.C", "trunk.{}.BN"), folds=True),
    Layout("closerlook", "resnet10", _closerlook_resnet, 224),
    Layout("closerlook", "resnet18", _closerlook_resnet, 224),
    Layout("closerlook", "resnet34", _closerlook_resnet, 224),
    Layout("easyfsl", "resnet12-easyfsl", _TORCHVISION),
    Layout("easyfsl", "resnet10-small", _TORCHVISION),
    Layout("easyfsl", "resnet18-small", _TORCHVISION),
    Layout("easyfsl", "resnet34-small", _TORCHVISION),
    Layout("easyfsl", "resnet12", _RESNET12, 84),
    Layout("torchvision", "resnet18", _TORCHVISION, 224),
    Layout("torchvision", "resnet34", _TORCHVISION, 224),
)
"""Tried in this order; of two that name tensors alike, the first one gives the normalisation unless a codebase is
named."""

SAME_AS = {"lst": "s2m2", "pt-map": "s2m2"}
"""Codebases that took another's files as they are."""


def codebases() -> tuple[str, ...]:
    """Return the names that may stand before ``@FILE``."""
    return (*dict.fromkeys(layout.codebase for layout in LAYOUTS), *SAME_AS)


def own(architecture: str) -> Layout:
    """Return our own names of a network."""
    return Layout("otfew", architecture, _ours)
