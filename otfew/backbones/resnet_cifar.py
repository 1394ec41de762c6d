"""The thin residual networks of He et al. (2016) for 32x32 images, as papers on long-tailed CIFAR use them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (option A), then ReLU.

    Where the resolution halves, the shortcut takes every second row and column and pads the channels with zeros, alike
    on both sides.

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
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def forward(self, maps: Tensor) -> Tensor:
        """Map (images, inputs, h, w) to (images, outputs, h / stride, w / stride)."""
        kept = maps[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(kept, (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(self.layers(maps) + shortcut)


class ResNetCIFAR(nn.Module):
    """Three groups of blocks with 16, 32 and 64 channels; with 10 classes ResNet-32 has 0.46 million parameters.

    Args:
        depth: Of the network with its head, 6 n + 2 for n blocks a group.
    """

    def __init__(self, depth: int = 32) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6 n + 2 for a whole n of at least 1, not {depth}")
        self.channels = WIDTHS[-1]
        stem = [nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(inplace=True)]
        groups, inputs = [], WIDTHS[0]
        for outputs in WIDTHS:
            blocks = []
            for _ in range((depth - 2) // 6):
                blocks.append(Block(inputs, outputs, 1 if inputs == outputs else 2))
                inputs = outputs
            groups.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(nn.Sequential(*stem, groups[0]), *groups[1:])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (images, 3, height, width) to non-negative maps (images, 64, height / 4, width / 4)."""
        maps: Tensor = self.stages(images)
        return maps
