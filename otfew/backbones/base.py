"""A backbone: a network from images to feature maps, with the card that says what it has seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Card:
    """What a checkpoint is and what it was trained on; stored as JSON beside the weights.

    Attributes:
        name: Name in reports.
        architecture: Key of ``otfew.backbones.ARCHITECTURES``, or a ``package.module:factory``.
        options: Keyword arguments of the architecture.
        resolution: Side in pixels of the training images.
        mean: Per-channel mean subtracted from RGB in [0, 1].
        std: Per-channel standard deviation divided by.
        external: True for weights that nobody trained with otfew (ImageNet weights of a package).
        training_data: Data set in words, with split and variant.
        dataset: Data set's name in ``otfew.data.DATASETS``, "" where external.
        training_classes: Class names seen in training; the evaluator refuses test classes among them.
        protocol: How it was trained (epochs, rates, seed, selection, command), free-form but JSON.
        sha256: Of the weights file; checked on loading.
    """

    name: str
    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    resolution: int = 84
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    external: bool = False
    training_data: str = ""
    dataset: str = ""
    training_classes: tuple[str, ...] = ()
    protocol: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the card as a JSON-ready dictionary."""
        return asdict(self)


class Backbone:
    """A feature extractor in evaluation mode.

    Args:
        module: Maps normalised images (images, 3, height, width) to maps (images, channels, h, w).
        card: What it is and has seen.
        digest: Sha256 of architecture and weights: the cache key of its features.
    """

    def __init__(self, module: nn.Module, card: Card, digest: str) -> None:
        self.module = module.eval()
        self.card = card
        self.digest = digest

    @property
    def name(self) -> str:
        """Name in reports."""
        return self.card.name

    def to(self, device: torch.device | str) -> Backbone:
        """Move the weights to a device; returns itself."""
        self.module.to(device)
        return self

    @torch.inference_mode()
    def maps(self, images: Tensor) -> Tensor:
        """Compute feature maps.

        Args:
            images: (images, 3, height, width) uint8, or float in [0, 1].

        Returns:
            (images, channels, h, w) float32 on the module's device.
        """
        parameter = next(self.module.parameters(), None)
        device = images.device if parameter is None else parameter.device
        scaled = images.to(device).float() / 255 if images.dtype == torch.uint8 else images.to(device).float()
        mean = torch.tensor(self.card.mean, device=device).view(1, -1, 1, 1)
        std = torch.tensor(self.card.std, device=device).view(1, -1, 1, 1)
        maps: Tensor = self.module((scaled - mean) / std)
        return maps.float()
