"""LeNet-5 with 32 and 64 channels, as tutorials and the published batch-wise OT code have it."""

from __future__ import annotations

from torch import Tensor, nn


class LeNet5Wide(nn.Module):
    """Two 5x5 convolutions that keep the side, of 32 and 64 channels, each with ReLU and max-pooling by 2.

    Args:
        last_pool: False leaves out the last pooling.
    """

    def __init__(self, last_pool: bool = True) -> None:
        super().__init__()
        self.channels = 64
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(32, self.channels, 5, padding=2), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, *([nn.MaxPool2d(2)] if last_pool else []))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (images, 3, height, width) to non-negative maps (images, 64, height // 4, width // 4)."""
        maps: Tensor = self.layers(images)
        return maps
