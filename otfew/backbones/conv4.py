"""Conv-4: four plain convolution blocks (Vinyals et al. 2016; Snell et al. 2017); six in Conv-6 (Chen et al. 2019)."""

from __future__ import annotations

from torch import Tensor, nn


class Conv4(nn.Module):
    """Blocks of 3x3 convolution, batch normalisation and ReLU, the first four with max-pooling by 2.

    Args:
        channels: Of every block, the output included.
        last_pool: False leaves out the last pooling: 32x32 images keep 4x4 nodes instead of 2x2.
        blocks: Four, or six in Conv-6, whose last two do not pool.
    """

    def __init__(self, channels: int = 64, last_pool: bool = True, blocks: int = 4) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, not {channels}")
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, not {blocks}")
        self.channels = channels
        layers: list[nn.Module] = []
        for index in range(blocks):
            layers += [
                nn.Conv2d(3 if index == 0 else channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            if index < 3 or (index == 3 and last_pool):
                layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (images, 3, height, width) to non-negative maps (images, channels, height // 16, width // 16)."""
        maps: Tensor = self.layers(images)
        return maps
