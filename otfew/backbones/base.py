"""A backbone: a network from images to feature maps, with the card that says what it has seen."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from otfew.backbones.layout import channels_first, declared
from otfew.errors import UserError

CHECKSUM = "card_sha256"
"""Field of a written card: sha256 of all its other fields."""

_LARGEST_SIDE = 10_000
_LEAST_STD = 1e-6

IMAGENET = "ImageNet-1k (external)"
"""``Card.training_data`` of weights trained on the 1,000 classes of ImageNet."""


@dataclass(frozen=True)
class Card:
    """What a checkpoint is and what it was trained on; stored as JSON beside the weights.

    Attributes:
        name: Name in reports.
        architecture: Key of ``otfew.backbones.ARCHITECTURES``, or the spec that the backbone was loaded from.
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
        classes_known: False where a card was read that carries no checksum of its own: then nothing vouches for its
            list of training classes, from which some may be missing. Never written.
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
    classes_known: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the card as a JSON-ready dictionary, with a checksum of its own where the training classes are known.

        What went on from a card without one (meta-training) gets none either.
        """
        record = asdict(self)
        del record["classes_known"]
        return {**record, CHECKSUM: _checksum(record)} if self.classes_known else record

    @classmethod
    def from_json(cls, data: Any) -> Card:
        """Read a card back.

        Raises:
            ValueError: Not a dictionary, an unknown or missing field, a value of the wrong kind, or another checksum.
        """
        if not isinstance(data, dict):
            raise ValueError("is not a JSON object")
        values = dict(data)
        checksum = values.pop(CHECKSUM, None)
        unknown = sorted(set(values) - ({f.name for f in fields(cls)} - {"classes_known"}))
        if unknown:
            raise ValueError(f"has the unknown field {unknown[0]!r}")
        if checksum is not None and checksum != _checksum(values):
            raise ValueError("was changed after it was written (its own checksum differs)")
        values["classes_known"] = checksum is not None
        for key in ("mean", "std", "training_classes"):
            if key in values:
                if not isinstance(values[key], list):
                    raise ValueError(f"field {key!r} is not a list")
                values[key] = tuple(values[key])
        try:
            card = cls(**values)
        except TypeError:
            raise ValueError("lacks 'name' or 'architecture'") from None
        card.check()
        return card

    def check(self) -> None:
        """Raise ``ValueError`` at the first value that can't be used."""
        for key in ("name", "architecture", "training_data", "dataset", "sha256"):
            if not isinstance(getattr(self, key), str):
                raise ValueError(f"field {key!r} is not a string")
        if not isinstance(self.options, dict) or not isinstance(self.protocol, dict):
            raise ValueError("field 'options' or 'protocol' is not an object")
        if not isinstance(self.external, bool):
            raise ValueError("field 'external' is not true or false")
        if not _is_number(self.resolution, 1, _LARGEST_SIDE) or not isinstance(self.resolution, int):
            raise ValueError(f"field 'resolution' is not an integer from 1 to {_LARGEST_SIDE}")
        if len(self.mean) != 3 or not all(_is_number(v, 0, 1) for v in self.mean):
            raise ValueError("field 'mean' is not three numbers from 0 to 1")
        if len(self.std) != 3 or not all(_is_number(v, _LEAST_STD, 1 / _LEAST_STD) for v in self.std):
            raise ValueError("field 'std' is not three positive, finite numbers")
        if not all(isinstance(name, str) for name in self.training_classes):
            raise ValueError("field 'training_classes' is not a list of names")
        learned = self.protocol.get("learned", {})
        options = list(learned.values()) if isinstance(learned, dict) else [None]
        if not all(
            isinstance(o, dict) and all(_is_number(v, -math.inf, math.inf) for v in o.values()) for o in options
        ):
            raise ValueError("field 'learned' of its protocol is not numbers by method and option")


def _is_number(value: object, least: float, most: float) -> bool:
    """Tell whether a value is a finite number in a range; True and False are none."""
    return (
        isinstance(value, float | int)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and least <= value <= most
    )


def _checksum(record: dict[str, Any]) -> str:
    """Hash a card's fields as they are written, however the file is laid out."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class Backbone:
    """A feature extractor in evaluation mode.

    Images and weights of convolutions lie in memory with their channels last, whatever the caller's layout: that is up
    to 1.8 times as fast on CPUs, and the last bits of features, which differ between layouts, have one value only.

    Args:
        module: Maps normalised images (images, 3, height, width) to maps (images, channels, h, w).
        card: What it is and has seen.
        digest: Sha256 of architecture and weights: the cache key of its features.
    """

    def __init__(self, module: nn.Module, card: Card, digest: str) -> None:
        self.module = module.eval()
        for parameter in module.parameters():
            # Not Module.to, which fails at the first weights of a 3D convolution.
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
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
        normalised = normalise(images.to(device), self.card.mean, self.card.std)
        maps: Tensor = self.module(normalised.contiguous(memory_format=torch.channels_last))
        if not isinstance(maps, Tensor) or maps.ndim != 4 or len(maps) != len(images):
            got = f"shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
            raise UserError(f"backbone {self.name!r} must return maps (images, channels, h, w), not {got}.")
        return channels_first(maps, normalised, declared(self.module), self.name, unless_told="NCHW").float()


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract the mean and divide by the standard deviation, channel by channel.

    Args:
        images: (images, 3, height, width) uint8, or float in [0, 1].
        mean: Of each channel, in [0, 1].
        std: Of each channel.

    Returns:
        Float32, of the same shape and device.
    """
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    shape = (1, -1, 1, 1)
    centre = torch.tensor(mean, device=images.device, dtype=torch.float32).view(shape)
    return (scaled - centre) / torch.tensor(std, device=images.device, dtype=torch.float32).view(shape)


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
