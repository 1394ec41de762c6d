"""Small made files with the key names of published codebases: networks written out here, layer by layer.

What a codebase calls its tensors is a fact of its files; the networks are our own words for their published
architectures, and the oracle of what our import computes.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from otfew.backbones.resnet import ResNet
from otfew.backbones.resnet12 import ResNet12
from otfew.backbones.wide_resnet import WideResNet
from otfew.backbones.wide_resnet_feat import WideResNetFEAT


def settle(module):
    """Give every batch normalisation statistics of its own, so that a mix-up of two layers shows."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            layer.num_batches_tracked.fill_(7)
    return module.eval()


def conv(inputs, outputs, side=3, stride=1, bias=False):
    return nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=bias)


class TwelveBlock(nn.Module):
    """conv1 to conv3 with bn1 to bn3 beside downsample, as DeepEMD and FEAT name them."""

    def __init__(self, inputs, outputs):
        super().__init__()
        for n, i in enumerate((inputs, outputs, outputs), start=1):
            setattr(self, f"conv{n}", conv(i, outputs))
            setattr(self, f"bn{n}", nn.BatchNorm2d(outputs))
        self.downsample = nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = functional.leaky_relu(self.bn1(self.conv1(x)), 0.1)
        out = functional.leaky_relu(self.bn2(self.conv2(out)), 0.1)
        out = self.bn3(self.conv3(out)) + self.downsample(x)
        return functional.max_pool2d(functional.leaky_relu(out, 0.1), 2)


class Twelve(nn.Module):
    """DeepEMD's and FEAT's ResNet-12: layer1 to layer4 of one block."""

    def __init__(self, widths=(8, 20, 40, 80)):
        super().__init__()
        widths = (3, *widths)
        for n in range(4):
            setattr(self, f"layer{n + 1}", nn.Sequential(TwelveBlock(widths[n], widths[n + 1])))

    def forward(self, x):
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class WideBlock(nn.Module):
    """bn1, conv1, bn2, conv2 and convShortcut, as S2M2 names them."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride=stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        self.convShortcut = None if inputs == outputs else conv(inputs, outputs, 1, stride)

    def forward(self, x):
        active = functional.relu(self.bn1(x))
        out = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class Wide(nn.Module):
    """WRN-28: conv1, block1.layer.0 to block3.layer.3, bn1."""

    def __init__(self, width=2):
        super().__init__()
        widths = (16, 16 * width, 32 * width, 64 * width)
        self.conv1, self.bn1 = conv(3, 16), nn.BatchNorm2d(widths[-1])
        for g in range(3):
            blocks = [WideBlock(widths[g + (b > 0)], widths[g + 1], 2 if g and not b else 1) for b in range(4)]
            setattr(self, f"block{g + 1}", nn.ModuleDict({"layer": nn.Sequential(*blocks)}))
        self.linear = nn.ModuleDict({"L": nn.Linear(widths[-1], 64)})

    def forward(self, x):
        out = self.conv1(x)
        for block in (self.block1, self.block2, self.block3):
            out = block["layer"](out)
        return functional.relu(self.bn1(out))


class FEATWideBlock(nn.Module):
    """FEAT's wide block: biased convolutions, the second strides, the shortcut takes the block's input."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, bias=True)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs, stride=stride, bias=True)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else [conv(inputs, outputs, 1, stride, bias=True)]))

    def forward(self, x):
        out = self.conv1(functional.relu(self.bn1(x)))
        return self.conv2(functional.relu(self.bn2(out))) + self.shortcut(x)


class FEATWide(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        widths = (16, 16 * width, 32 * width, 64 * width)
        self.conv1, self.bn1 = conv(3, 16, bias=True), nn.BatchNorm2d(widths[-1])
        for g in range(3):
            blocks = [FEATWideBlock(widths[g + (b > 0)], widths[g + 1], 2 if g and not b else 1) for b in range(4)]
            setattr(self, f"layer{g + 1}", nn.Sequential(*blocks))

    def forward(self, x):
        return functional.relu(self.bn1(self.layer3(self.layer2(self.layer1(self.conv1(x))))))


class FEATConv(nn.Module):
    """encoder.0.0 (with a bias) and encoder.0.1 to encoder.3.1."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            *(
                nn.Sequential(conv(3 if b == 0 else 64, 64, bias=True), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))
                for b in range(4)
            )
        )

    def forward(self, x):
        return self.encoder(x)


class CloserLookConv(nn.Module):
    """trunk.0.C and trunk.0.BN, and the same again as trunk.0.trunk.0 and .1; a bias; pools in the first four."""

    def __init__(self, depth=4, channels=3):
        super().__init__()
        blocks = []
        for b in range(depth):
            block = nn.Module()
            block.C, block.BN = conv(channels if b == 0 else 64, 64, bias=True), nn.BatchNorm2d(64)
            block.trunk = nn.Sequential(block.C, block.BN, nn.ReLU(), nn.MaxPool2d(2) if b < 4 else nn.Identity())
            blocks.append(block)
        self.trunk = nn.ModuleList(blocks)
        self.channels = channels

    def forward(self, x):
        x = x[:, : self.channels]
        for block in self.trunk:
            x = block.trunk(x)
        return x


class CloserLookBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.C1, self.BN1 = conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.C2, self.BN2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.changes = inputs != outputs
        if self.changes:
            self.shortcut, self.BNshortcut = conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)

    def forward(self, x):
        out = self.BN2(self.C2(functional.relu(self.BN1(self.C1(x)))))
        return functional.relu(out + (self.BNshortcut(self.shortcut(x)) if self.changes else x))


class CloserLookResNet(nn.Module):
    """One trunk: stem at 0 and 1, blocks from 4."""

    def __init__(self, depths, widths=(64, 8, 16, 24)):
        super().__init__()
        widths = (64, *widths)
        layers = [conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        for g, depth in enumerate(depths):
            layers += [
                CloserLookBlock(widths[g + (b > 0)], widths[g + 1], 2 if g and not b else 1) for b in range(depth)
            ]
        self.trunk = nn.Sequential(*layers)

    def forward(self, x):
        return self.trunk(x)


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.downsample = None if same else nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + (x if self.downsample is None else self.downsample(x)))


class EasyResNet(nn.Module):
    """conv1 (3x3, or 7x7 with a pooling as in torchvision), bn1, layer1 to layer4, fc."""

    def __init__(self, depths, widths=(64, 8, 16, 24), large=False):
        super().__init__()
        self.large = large
        self.conv1, self.bn1 = conv(3, 64, 7, 2) if large else conv(3, 64), nn.BatchNorm2d(64)
        inputs = 64
        for g, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for b in range(depth):
                blocks.append(BasicBlock(inputs, width, 2 if g and not b else 1))
                inputs = width
            setattr(self, f"layer{g + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x):
        out = functional.relu(self.bn1(self.conv1(x)))
        out = functional.max_pool2d(out, 3, 2, 1) if self.large else out
        return self.layer4(self.layer3(self.layer2(self.layer1(out))))


def _under(module, prefix):
    return OrderedDict((f"{prefix}{name}", tensor) for name, tensor in module.state_dict().items())


def _feat(module):
    return {"params": {**_under(module, "encoder."), "slf_attn.w_qs.weight": torch.ones(4, 4)}}


FILES = {
    # file name -> (its network, what is saved of it, architecture and codebase that it is known as)
    "deepemd_max_acc.pth": (Twelve, lambda m: {"params": _under(m, "encoder.")}, "resnet12", "deepemd"),
    "deepemd_parallel.pth": (Twelve, lambda m: {"params": _under(m, "module.encoder.")}, "resnet12", "deepemd"),
    "deepemd_pretrain.pth": (Twelve, lambda m: {"params": m.state_dict()}, "resnet12", "deepemd"),
    "feat-1-shot.pth": (Twelve, _feat, "resnet12", "feat"),
    "feat-wrn.pth": (FEATWide, _feat, "wrn28_10-feat", "feat"),
    "feat-conv.pth": (FEATConv, _feat, "conv4", "feat"),
    "s2m2_470.tar": (Wide, lambda m: {"epoch": 470, "state": _under(m, "module.")}, "wrn28_10", "s2m2"),
    "lst_best.tar": (
        Wide,
        lambda m: {"epoch": 1, "state": m.state_dict(), "rotate": {"0.weight": torch.ones(4, 640)}},
        "wrn28_10",
        "s2m2",
    ),
    "closerlook_conv4.tar": (
        CloserLookConv,
        lambda m: {"epoch": 3, "state": {**_under(m, "feature."), "classifier.weight": torch.ones(2, 64)}},
        "conv4",
        "closerlook",
    ),
    "closerlook_conv4s.tar": (
        lambda: CloserLookConv(channels=1),
        lambda m: {"epoch": 3, "state": _under(m, "feature.")},
        "conv4",
        "closerlook",
    ),
    "closerlook_conv6.tar": (
        lambda: CloserLookConv(depth=6),
        lambda m: {"epoch": 3, "state": _under(m, "feature.")},
        "conv6",
        "closerlook",
    ),
    "closerlook_resnet10.tar": (
        lambda: CloserLookResNet((1, 1, 1, 1)),
        lambda m: {"epoch": 3, "state": _under(m, "feature.")},
        "resnet10",
        "closerlook",
    ),
    "closerlook_resnet18.tar": (
        lambda: CloserLookResNet((2, 2, 2, 2)),
        lambda m: {"epoch": 3, "state": _under(m, "feature.")},
        "resnet18",
        "closerlook",
    ),
    "easyfsl_resnet12.pt": (
        lambda: EasyResNet((1, 1, 2, 1), (64, 20, 40, 80)),
        lambda m: m.state_dict(),
        "resnet12-easyfsl",
        "easyfsl",
    ),
    "easyfsl_resnet18.pth": (
        lambda: EasyResNet((2, 2, 2, 2)),
        lambda m: _under(m, "backbone."),
        "resnet18-small",
        "feat",
    ),
    "easyfsl_resnet34.pth": (
        lambda: EasyResNet((3, 4, 6, 3)),
        lambda m: m.state_dict(),
        "resnet34-small",
        "easyfsl",
    ),
    "resnet18-imagenet.pth": (
        lambda: EasyResNet((2, 2, 2, 2), large=True),
        lambda m: m.state_dict(),
        "resnet18",
        "torchvision",
    ),
}


NARROW = {
    "resnet12": partial(ResNet12, width=0.125),
    "wrn28_10": partial(WideResNet, depth=28, width=2),
    "wrn28_10-feat": partial(WideResNetFEAT, depth=28, width=2),
    "resnet12-easyfsl": partial(ResNet, depths=(1, 1, 2, 1), widths=(64, 20, 40, 80), stem="small"),
    **{
        f"resnet{depth}{end}": partial(ResNet, depths=depths, widths=(64, 8, 16, 24), stem=stem)
        for depth, depths in ((10, (1, 1, 1, 1)), (18, (2, 2, 2, 2)), (34, (3, 4, 6, 3)))
        for end, stem in (("", "imagenet"), ("-small", "small"))
    },
}
"""Networks of the published depths and of few channels, in place of the full ones."""


def make(name, folder):
    """Save the made file of a name; returns the network and the path."""
    torch.manual_seed(len(name))
    build, saved, _, _ = FILES[name]
    module = settle(build())
    path = folder / name
    torch.save(saved(module), path)
    return module, path
