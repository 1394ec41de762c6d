"""S2M2: rotations, then manifold mixup (Mangla et al. 2020), for features that transductive methods like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from otfew.devices import send
from otfew.errors import UserError
from otfew.random.keys import hashed
from otfew.training.ledger import Outcome
from otfew.training.loop import Forward, Part
from otfew.training.mixup import Mixing, draw_mixing, mixed_maps
from otfew.training.pretrain import TURNS, Classification, Task, turned
from otfew.training.settings import PretrainSettings

SCALE = 2.0
"""Of the cosines, as in the released code for at most 200 classes."""
LAST_MIXED_STAGE = 3
"""Images, or the maps after one of the first three stages, are mixed."""


class S2M2Classifier(nn.Module):
    """A backbone in stages with a cosine head for classes and a linear one for turns.

    logit_c = 2 g_c cos(w_c, x), with g_c learned, on the globally averaged map x.

    Args:
        backbone: With ``stages``, an nn.Sequential.
        channels: Of its maps.
        classes: Of the first head.
    """

    def __init__(self, backbone: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = weight_norm(nn.Linear(channels, classes, bias=False))
        self.turn_head = nn.Linear(channels, TURNS)

    def forward(self, images: Tensor, mixing: Mixing | None = None) -> tuple[Tensor, Tensor]:
        """Map images (images, 3, height, width), perhaps mixed on the way, to logits (images, classes), (images, 4)."""
        network: Any = self.backbone
        maps = network(images) if mixing is None else mixed_maps(network.stages, images, mixing)
        vectors = maps.mean((2, 3))
        return SCALE * self.head(functional.normalize(vectors, dim=1)), self.turn_head(vectors)


class S2M2(Classification):
    """The recipe's two stages, as in the released code.

    First, images in all four turns: half the cross-entropy over classes plus half of that over turns. In the last
    ``mixup_epochs`` epochs, a batch is mixed in pairs by manifold mixup, and a quarter of its images, in all four
    turns, adds the first stage's loss. The code trains WRN-28-10 by Adam at 1e-3 with batches of 16, 400 and 100
    epochs on CIFAR-FS; here the optimizer, its schedule over both stages, and the epochs are the settings'.

    Args:
        build: Makes the backbone, which must have ``stages``; must draw its weights from torch's generator only.
        task: What to train on.
        settings: How to train; ``batch_size`` counts images before they are turned.
        parts: Of a step.

    Raises:
        UserError: Too few images for a batch, parts of fewer than four, or a backbone without stages.
    """

    def __init__(self, build: Callable[[], nn.Module], task: Task, settings: PretrainSettings, parts: int = 1) -> None:
        super().__init__(build, task, settings, parts)
        stages: Any = getattr(self.network, "stages", None)
        if not isinstance(stages, nn.Sequential) or len(stages) < LAST_MIXED_STAGE:
            raise UserError("`recipe` s2m2 mixes maps between stages: take a `backbone` such as wrn28_10 or wrn16_2.")
        if settings.batch_size // parts < TURNS:
            raise UserError(
                f"`recipe` s2m2 turns a quarter of each part of a batch: raise `batch_size` to {TURNS * parts}."
            )

    def heads(self, channels: int) -> nn.Module:
        """Put the recipe's heads on the backbone."""
        return S2M2Classifier(self.network, channels, self.task.classes)

    def outcome(self, forward: Forward, part: Part, device: torch.device) -> Outcome:
        """Compute a part's loss, see ``otfew.training.loop.Objective``."""
        images, labels, _ = self.batch(part, device)
        if part.epoch < self.settings.epochs - self.settings.mixup_epochs:
            return self._turned(forward, images, labels)
        key = (self.settings.seed, part.epoch, part.step, part.index)
        mixing = draw_mixing(len(images), self.settings.mixup_alpha, LAST_MIXED_STAGE, *key, 3).to(device)
        logits, _ = forward(images, mixing)
        few = torch.randperm(len(images), generator=torch.Generator().manual_seed(hashed(*key, 4)))
        few = send(few[: len(images) // TURNS], device)
        loss = mixing.cross_entropy(logits, labels) + self._turned(forward, images[few], labels[few]).loss
        correct = mixing.correct(logits.detach(), labels)
        return Outcome(loss, correct.round(), len(labels))

    def _turned(self, forward: Forward, images: Tensor, labels: Tensor) -> Outcome:
        """Classify images in all four turns, and tell the turns."""
        turns = torch.arange(TURNS).repeat_interleave(len(images))
        batch = turned(images.repeat(TURNS, 1, 1, 1), turns).contiguous(memory_format=torch.channels_last)
        logits, turn_logits = forward(batch)
        labels, turns = labels.repeat(TURNS), send(turns, labels.device)
        loss = (functional.cross_entropy(logits, labels) + functional.cross_entropy(turn_logits, turns)) / 2
        return Outcome(loss, (logits.detach().argmax(1) == labels).sum(), len(labels))
