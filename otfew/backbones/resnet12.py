"""ResNet-12 as few-shot papers use it since Lee et al. (2019), with the widths and details of DeepEMD's code."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 160, 320, 640)
SLOPE = 0.1


class Block(nn.Module):
    """Three 3x3 convolutions beside a 1x1 shortcut, then max-pooling by 2.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        pool: False keeps the resolution.
    """

    def __init__(self, inputs: int, outputs: int, pool: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(3):
            layers.append(nn.Conv2d(inputs if index == 0 else outputs, outputs, 3, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(outputs))
            if index < 2:
                layers.append(nn.LeakyReLU(SLOPE, inplace=True))
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Map (images, inputs, h, w) to (images, outputs, h // 2, w // 2), or the same h, w without pooling."""
        pooled: Tensor = self.pool(functional.leaky_relu(self.layers(maps) + self.shortcut(maps), SLOPE))
        return pooled


class ResNet12(nn.Module):
    """Four residual blocks of 64, 160, 320 and 640 channels: 12.42 million parameters at full width.

    The maps leave a LeakyReLU, so they can be slightly negative. There is no DropBlock: DeepEMD's code sets its rate to
    zero.

    Args:
        width: Multiplies the channels of every block.
        last_pool: False leaves out the last pooling: 32x32 images keep 4x4 nodes instead of 2x2.
    """

    def __init__(self, width: float = 1.0, last_pool: bool = True) -> None:
        super().__init__()
        if not 0 < width <= 4:
            raise ValueError(f"width must lie in (0, 4], not {width}")
        channels = [3, *(max(1, round(base * width)) for base in WIDTHS)]
        self.channels = channels[-1]
        pairs = list(pairwise(channels))
        self.blocks = nn.Sequential(
            *(Block(i, o, pool=last_pool or n < len(pairs) - 1) for n, (i, o) in enumerate(pairs))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (images, 3, height, width) to maps (images, channels, height // 16, width // 16)."""
        maps: Tensor = self.blocks(images)
        return maps
