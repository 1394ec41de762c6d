"""LeNet-5 (LeCun et al. 1998) for colour images, with ReLU and max-pooling."""

from __future__ import annotations

from torch import Tensor, nn


class LeNet5(nn.Module):
    """Three 5x5 convolutions of 6, 16 and 120 channels, with pooling by 2 after the first two.

    Every map of the second layer feeds the third, as in most versions since; the layer of 84 units belongs to the head.
    """

    def __init__(self) -> None:
        super().__init__()
        self.channels = 120
        self.stages = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(16, self.channels, 5), nn.ReLU(inplace=True)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (images, 3, height, width) of at least 32 pixels to non-negative maps, 1 x 1 at 32 pixels."""
        maps: Tensor = self.stages(images)
        return maps
