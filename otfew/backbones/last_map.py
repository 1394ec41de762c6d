"""The last map of EfficientNet, which its own ``forward`` averages."""

from __future__ import annotations

from torch import Tensor, nn


class LastMap(nn.Module):
    """The network without its classifier.

    Args:
        network: An ``efficientnet_lite_pytorch.EfficientNet``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map images to the map after the last convolution, normalisation and ReLU6: (images, 1280, h, w) >= 0."""
        maps: Tensor = self.network.extract_features(images)  # type: ignore[operator]
        return maps
