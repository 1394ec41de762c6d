"""Long-tailed images in memory: their random crops, the network that they train, and its features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew.backbones.base import Normalisation
from otfew.devices import send

PADDING = 4
"""Pixels that random crops may shift a 32-pixel image by; an eighth of the side elsewhere."""


@dataclass(frozen=True)
class Images:
    """Decoded images of one setting.

    Attributes:
        train: (images, 3, side, side) uint8, with ``train_labels``.
        meta: Balanced meta set.
        validation: Balanced, disjoint from both.
        counts: (classes,) training images.
        mean: Of each channel.
        std: Of each channel.
        flip: Mirror half of the training images.
        curve: Disjoint from all others and from the test images, and nothing is chosen by them; None for no curve.
        curve_labels: Theirs; some classes may be missing.
    """

    train: Tensor
    train_labels: Tensor
    meta: Tensor
    meta_labels: Tensor
    validation: Tensor
    validation_labels: Tensor
    counts: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True
    curve: Tensor | None = None
    curve_labels: Tensor | None = None


class Network(nn.Module):
    """A backbone with a classifier on its globally averaged map.

    Args:
        backbone: From images to maps.
        head: From vectors to logits.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map images (images, 3, height, width) to logits (images, classes)."""
        logits: Tensor = self.head(self.backbone(images).mean((2, 3)))
        return logits


def shifted(images: Tensor, flip: bool, key: int) -> Tensor:
    """Pad by reflection, crop at random to the same size, and mirror half of the images.

    Args:
        images: (images, channels, height, width) floating point, on any device.
        flip: Mirror.
        key: The outcome is a function of images and key; draws are made on the CPU.
    """
    count, _, height, width = images.shape
    padding = max(1, height * PADDING // 32)
    generator = torch.Generator().manual_seed(key)
    rows, columns = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    down = rows + torch.arange(height)
    right = columns + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        right = torch.where(mirrored, right.flip(1), right)
    padded = functional.pad(images, (padding,) * 4, mode="reflect").permute(0, 2, 3, 1)
    place, down, right = (send(each, images.device) for each in (torch.arange(count)[:, None, None], down, right))
    return padded[place, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def extract(
    backbone: nn.Module,
    pixels: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device | str = "cpu",
    batch_size: int = 500,
) -> Tensor:
    """Compute globally averaged maps, in the mode that the backbone is in.

    Args:
        backbone: From normalised images to maps.
        pixels: (images, 3, height, width) uint8, or float in [0, 1].
        mean: Of each channel.
        std: Of each channel.
        device: Of the backbone.
        batch_size: Images at a time.

    Returns:
        (images, channels) float32 on the CPU.
    """
    parts = []
    normalise = Normalisation(mean, std).to(device)
    for part in torch.split(pixels, batch_size):
        images = normalise(send(part, device)).contiguous(memory_format=torch.channels_last)
        parts.append(backbone(images).float().mean((2, 3)))
    return torch.cat(parts).cpu()
