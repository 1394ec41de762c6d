"""The wide residual network of FEAT's code (Ye et al. 2020): biased convolutions, and shortcuts that skip the ReLU."""

from __future__ import annotations

from torch import Tensor, nn

STEM = 16
WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions, each after batch normalisation and ReLU; the second one strides.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        stride: Of the second convolution and of the shortcut, a 1x1 convolution of the block's input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, stride=stride, padding=1),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (images, inputs, h, w) to (images, outputs, h / stride, w / stride)."""
        summed: Tensor = self.layers(maps) + (maps if self.shortcut is None else self.shortcut(maps))
        return summed


class WideResNetFEAT(nn.Module):
    """A wide residual network without head; its maps leave a ReLU.

    Unlike ``WideResNet``, every convolution has a bias, a block's second convolution strides instead of its first, and
    the shortcut starts from the block's input.

    Args:
        depth: Of the network, 6 n + 4 for n blocks a group.
        width: Multiplies the 16, 32 and 64 channels of the groups.
    """

    def __init__(self, depth: int = 28, width: int = 10) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 6 n + 4 for a whole n of at least 1, not {depth}")
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width}")
        channels = [STEM, *(base * width for base in WIDTHS)]
        self.channels = channels[-1]
        self.stem = nn.Conv2d(3, STEM, 3, padding=1)
        self.groups = nn.Sequential(
            *(
                nn.Sequential(
                    *(
                        Block(channels[g] if b == 0 else channels[g + 1], channels[g + 1], 2 if g and not b else 1)
                        for b in range((depth - 4) // 6)
                    )
                )
                for g in range(len(WIDTHS))
            )
        )
        self.last = nn.Sequential(nn.BatchNorm2d(self.channels), nn.ReLU(inplace=True))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (images, 3, height, width) to non-negative maps (images, channels, height / 4, width / 4)."""
        maps: Tensor = self.last(self.groups(self.stem(images)))
        return maps
