"""Wide residual networks (Zagoruyko and Komodakis 2016), as S2M2 and the transductive few-shot papers use them."""

from __future__ import annotations

from torch import Tensor, nn

STEM = 16
WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions, each after batch normalisation and ReLU, beside a shortcut.

    Where the number of channels changes, the shortcut is a 1x1 convolution and starts, like the other branch, after the
    first normalisation and ReLU.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        stride: Of the first convolution.
        dropout: Rate between the two convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (images, inputs, h, w) to (images, outputs, h / stride, w / stride)."""
        active = self.before(maps)
        summed: Tensor = self.layers(active) + (maps if self.shortcut is None else self.shortcut(active))
        return summed


class WideResNet(nn.Module):
    """A wide residual network without head; its maps leave a ReLU, so they are never negative.

    ``stages`` are four modules in a row: the first convolution with the first group of blocks, the second group, the
    third, and the last normalisation and ReLU. Manifold mixup mixes the images, or the maps after one of the first
    three (see ``otfew.training.mixup``).

    Args:
        depth: Of the network, 6 n + 4 for n blocks a group.
        width: Multiplies the 16, 32 and 64 channels of the groups.
        dropout: Rate within each block, in training only; 0.5 in S2M2's code for WRN-28-10, 0.9 in its script for
            CIFAR-FS.
    """

    def __init__(self, depth: int = 28, width: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 6 n + 4 for a whole n of at least 1, not {depth}")
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {dropout}")
        channels = [STEM, *(base * width for base in WIDTHS)]
        self.channels = channels[-1]
        groups = [
            nn.Sequential(
                *(
                    Block(channels[g] if b == 0 else channels[g + 1], channels[g + 1], 2 if g and not b else 1, dropout)
                    for b in range((depth - 4) // 6)
                )
            )
            for g in range(len(WIDTHS))
        ]
        self.stages = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, STEM, 3, padding=1, bias=False), groups[0]),
            *groups[1:],
            nn.Sequential(nn.BatchNorm2d(self.channels), nn.ReLU(inplace=True)),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (images, 3, height, width) to non-negative maps (images, channels, height / 4, width / 4)."""
        maps: Tensor = self.stages(images)
        return maps
