"""A backbone: a network from images to feature maps, with the card that says what it has seen."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor, nn

from otfew.backbones.cards import Card
from otfew.backbones.layout import channels_first, declared
from otfew.devices import send
from otfew.errors import UserError

__all__ = ["Backbone", "Card", "Normalisation", "digest", "normalise"]


class Backbone:
    """A feature extractor in evaluation mode.

    Images and weights of convolutions lie in memory with their channels last, whatever the caller's layout: that is up
    to 1.8 times as fast on CPUs, and the last bits of features, which differ between layouts, have one value only.

    Args:
        module: Maps normalised images (images, 3, height, width) to maps (images, channels, h, w).
        card: What it is and has seen.
        digest: Sha256 of architecture and weights: the cache key of its features.
        notes: Sentences about how it was loaded, such as which tensors of a file were not used.
    """

    def __init__(self, module: nn.Module, card: Card, digest: str, notes: tuple[str, ...] = ()) -> None:
        self.module = module.eval()
        for parameter in module.parameters():
            # Not Module.to, which fails at the first weights of a 3D convolution.
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.card = card
        self.digest = digest
        self.notes = notes
        self._normalise = Normalisation(card.mean, card.std)

    @property
    def name(self) -> str:
        """Name in reports."""
        return self.card.name

    def with_card(self, card: Card) -> Backbone:
        """Return the same network with a card that says more; features do not depend on what is said.

        Args:
            card: Of the same normalisation.
        """
        return Backbone(self.module, card, self.digest, self.notes)

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for a module without any."""
        parameter = next(self.module.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def to(self, device: torch.device | str) -> Backbone:
        """Move the weights to a device.

        Args:
            device: As torch names it.

        Returns:
            Itself.
        """
        self.module.to(device)
        self._normalise.to(device)
        return self

    @torch.inference_mode()
    def maps(self, images: Tensor) -> Tensor:
        """Compute feature maps.

        Args:
            images: (images, 3, height, width) uint8, or float in [0, 1].

        Returns:
            (images, channels, h, w) float32 on the module's device.

        Raises:
            UserError: The module returns something else.
        """
        parameter = next(self.module.parameters(), None)
        device = images.device if parameter is None else parameter.device
        # Whoever moves the module by itself leaves the mean behind.
        normalised: Tensor = self._normalise.to(device)(send(images, device))
        maps = self._forward(normalised.contiguous(memory_format=torch.channels_last))
        if not isinstance(maps, Tensor) or maps.ndim != 4 or len(maps) != len(images):
            got = f"shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
            raise UserError(f"backbone {self.name!r} must return maps (images, channels, h, w), not {got}.")
        return channels_first(maps, normalised, declared(self.module), self.name, unless_told="NCHW").float()

    def _forward(self, images: Tensor) -> Tensor:
        """Call the module with normalised images, channels last in memory."""
        maps: Tensor = self.module(images)
        return maps


class Normalisation(nn.Module):
    """``normalise`` with a mean and a deviation that lie on the device, where they are copied once.

    Args:
        mean: Of each channel, in [0, 1].
        std: Of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # Not persistent: a checkpoint's card holds them.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (images, 3, height, width), uint8, or float in [0, 1]."""
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        return (scaled - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract the mean and divide by the standard deviation, channel by channel.

    Args:
        images: (images, 3, height, width) uint8, or float in [0, 1].
        mean: Of each channel, in [0, 1].
        std: Of each channel.

    Returns:
        Float32, of the same shape and device.
    """
    normalised: Tensor = Normalisation(mean, std).to(images.device)(images)
    return normalised


def digest(module: nn.Module, card: Card) -> str:
    """Hash what features depend on: the layers, the normalisation, and every parameter and buffer.

    Code inside a ``forward`` is not part of it, beyond the names and options of the layers it uses.
    """
    total = hashlib.sha256()
    settings = [card.architecture, card.options, card.mean, card.std, repr(module)]
    total.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
