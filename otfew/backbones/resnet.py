"""Residual networks of basic blocks (He et al. 2016): ResNet-10, -18 and -34, and a ResNet-12 of two-layer blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Stem = Literal["imagenet", "small"]
WIDTHS = (64, 128, 256, 512)
FIRST = 64
"""Channels after the stem."""


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where channels or resolution change.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        stride: Of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            None
            if stride == 1 and inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (images, inputs, h, w) to non-negative (images, outputs, h / stride, w / stride)."""
        return functional.relu(self.layers(maps) + (maps if self.shortcut is None else self.shortcut(maps)))


class ResNet(nn.Module):
    """Four groups of basic blocks behind a stem, without head; its maps leave a ReLU.

    Args:
        depths: Blocks of each group: (2, 2, 2, 2) in ResNet-18.
        widths: Channels of each group.
        stem: "imagenet" is a 7x7 convolution and a pooling, each of stride 2, as in torchvision and CloserLookFewShot;
            "small" a 3x3 convolution of stride 1, as in easyfsl and in FEAT's ResNet-18.
    """

    def __init__(
        self, depths: Sequence[int] = (2, 2, 2, 2), widths: Sequence[int] = WIDTHS, stem: Stem = "imagenet"
    ) -> None:
        super().__init__()
        if len(depths) != 4 or len(widths) != 4 or min(*depths, *widths) < 1:
            raise ValueError(f"depths and widths must be four positive numbers each, not {depths} and {widths}")
        if stem not in ("imagenet", "small"):
            raise ValueError(f"stem must be 'imagenet' or 'small', not {stem!r}")
        self.channels = widths[-1]
        large = stem == "imagenet"
        first = (3, FIRST, 7, 2, 3) if large else (3, FIRST, 3, 1, 1)
        self.stem = nn.Sequential(nn.Conv2d(*first, bias=False), nn.BatchNorm2d(FIRST), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        inputs = [FIRST, *widths]
        self.groups = nn.Sequential(
            *(
                nn.Sequential(
                    *(
                        Block(inputs[g] if b == 0 else inputs[g + 1], inputs[g + 1], 2 if g and not b else 1)
                        for b in range(depths[g])
                    )
                )
                for g in range(4)
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map images to maps (images, channels, h, w): a 32nd of the resolution, an 8th with the small stem."""
        maps: Tensor = self.groups(self.pool(self.stem(images)))
        return maps
