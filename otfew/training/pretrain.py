"""Pre-training: softmax over the base classes on globally averaged maps, with rotations as a second task if wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew.backbones.base import Normalisation
from otfew.devices import send
from otfew.evaluation.placement import placed
from otfew.random.keys import hashed
from otfew.training.augmentation import Augment, Augmentation
from otfew.training.ledger import Outcome
from otfew.training.loop import Forward, Part, batches_of, divided
from otfew.training.settings import PretrainSettings

TURNS = 4


@dataclass(frozen=True)
class Task:
    """What to train on.

    Attributes:
        pixels: (images, 3, height, width) uint8.
        labels: (images,) int64.
        classes: How many there are.
        resolution: Side of the augmented images.
        mean: Of each channel.
        std: Of each channel.
        augmentation: Of training images.
    """

    pixels: Tensor
    labels: Tensor
    classes: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation


class Classifier(nn.Module):
    """A backbone with linear heads on its globally averaged map.

    Args:
        backbone: From images to maps.
        channels: Of the maps.
        classes: Of the head.
        turns: Of a second head; 0 leaves it out.
    """

    def __init__(self, backbone: nn.Module, channels: int, classes: int, turns: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(channels, classes)
        self.turn_head = nn.Linear(channels, turns) if turns else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map images (images, 3, height, width) to logits (images, classes) and, if wanted, (images, turns)."""
        vectors = self.backbone(images).mean((2, 3))
        return self.head(vectors), None if self.turn_head is None else self.turn_head(vectors)


class Classification:
    """Cross-entropy over the base classes: an objective of ``otfew.training.loop``.

    The order of images, their augmentation and their turns are functions of seed, epoch, step and part.

    Args:
        build: Makes the backbone; must draw its weights from torch's generator only.
        task: What to train on.
        settings: How to train.
        parts: Of a step.

    Raises:
        UserError: Too few images for a batch, or a batch that can't be divided.
    """

    def __init__(self, build: Callable[[], nn.Module], task: Task, settings: PretrainSettings, parts: int = 1) -> None:
        self.task, self.settings = task, settings
        divided("batch_size", settings.batch_size, parts)
        self.steps = batches_of(settings.batch_size, len(task.pixels))
        self.network = build()
        with torch.inference_mode():
            channels = self.network.eval()(torch.zeros(1, 3, task.resolution, task.resolution)).shape[1]
        self.module = self.heads(channels)
        self._augment = Augment(task.augmentation, task.resolution)
        self._normalise = Normalisation(task.mean, task.std)
        self._pixels, self._labels = task.pixels, task.labels
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def heads(self, channels: int) -> nn.Module:
        """Put heads on the backbone, whose maps have so many channels."""
        turns = TURNS if self.settings.rotation == "self-supervised" else 0
        return Classifier(self.network, channels, self.task.classes, turns)

    def learned(self) -> dict[str, float]:
        """Return nothing: heads are left behind."""
        return {}

    def train(self) -> None:
        """Let batch normalisation use batches."""
        self.module.train()

    def outcome(self, forward: Forward, part: Part, device: torch.device) -> Outcome:
        """Compute a part's loss, see ``otfew.training.loop.Objective``."""
        images, labels, turns = self.batch(part, device)
        logits, turn_logits = forward(images)
        loss = functional.cross_entropy(logits, labels)
        if turn_logits is not None:
            loss = loss + self.settings.rotation_weight * functional.cross_entropy(turn_logits, turns)
        return Outcome(loss, (logits.detach().argmax(1) == labels).sum(), len(labels))

    def batch(self, part: Part, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return a part's images, augmented and normalised, their labels, and by how many quarters each is turned."""
        seed, size = self.settings.seed, self.settings.batch_size
        if self._labels.device != device:
            self._pixels, self._labels = placed(self.task.pixels, device), send(self.task.labels, device)
        order = self._permutation(part.epoch)
        chosen = order[part.step * size : (part.step + 1) * size][part.of(size)]
        key = (seed, part.epoch, part.step, part.index)
        pixels = send(self._pixels[chosen], device)
        images = self._normalise.to(device)(self._augment(pixels.float() / 255, *key))
        turns = torch.zeros(len(chosen), dtype=torch.int64)
        if self.settings.rotation != "none":
            turns = torch.randint(TURNS, (len(chosen),), generator=torch.Generator().manual_seed(hashed(*key, 1)))
            images = turned(images, turns)
        images = images.contiguous(memory_format=torch.channels_last)
        return images, self._labels[chosen], send(turns, device)

    def _permutation(self, epoch: int) -> Tensor:
        """Shuffle the images of an epoch, once, and say it where they lie."""
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(hashed(self.settings.seed, epoch))
            order = torch.randperm(len(self.task.pixels), generator=generator)
            self._order = (epoch, send(order, self._pixels.device))
        return self._order[1]


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Turn images (images, 3, side, side), each by its number of quarters, counter-clockwise.

    Args:
        images: On any device.
        turns: (images,) int64 in 0..3, on the CPU.
    """
    result = images.clone()
    by_turn = torch.split(send(turns.argsort(), images.device), turns.bincount(minlength=TURNS).tolist())
    for quarters, chosen in enumerate(by_turn):
        if quarters:
            result[chosen] = images[chosen].rot90(quarters, (2, 3))
    return result
