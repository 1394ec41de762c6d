"""Mixup (Zhang et al. 2018) and manifold mixup (Verma et al. 2019): images or hidden maps mixed in pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew.devices import send
from otfew.random.keys import hashed


@dataclass  # not frozen: Lightning Fabric, in mixed precision, copies what a module is given field by field
class Mixing:
    """How a batch is mixed.

    Attributes:
        stage: After which stage of the network, from 1; 0 mixes the images.
        share: Of an image's own values, in [0, 1]; its partner's is 1 - share.
        permutation: (images,) int64, each image's partner.
    """

    stage: int
    share: float
    permutation: Tensor

    def to(self, device: torch.device) -> Mixing:
        """Send the permutation to a device, once for all that is done with it."""
        return replace(self, permutation=send(self.permutation, device))

    def mix(self, values: Tensor) -> Tensor:
        """Mix images or maps (images, ...) with those of their partners."""
        return torch.lerp(values[self.permutation.to(values.device)], values, self.share)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weigh the mean cross-entropies to both labels.

        Args:
            logits: (images, classes) of the mixed batch.
            labels: (images,) int64 of the batch before it was mixed.

        Returns:
            share * CE(logits, own label) + (1 - share) * CE(logits, partner's label).
        """
        own = functional.cross_entropy(logits, labels)
        partner = functional.cross_entropy(logits, labels[self.permutation.to(labels.device)])
        return self.share * own + (1 - self.share) * partner

    def correct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count right answers: an own label counts for share, a partner's for 1 - share."""
        answers = logits.argmax(1)
        partners = labels[self.permutation.to(labels.device)]
        return self.share * (answers == labels).sum() + (1 - self.share) * (answers == partners).sum()


def draw_mixing(images: int, alpha: float, last_stage: int, *key: int) -> Mixing:
    """Draw how to mix a batch; the outcome is a function of the arguments.

    Args:
        images: In the batch.
        alpha: The share is from Beta(alpha, alpha); 2 in S2M2, 1 is uniform.
        last_stage: The stage is uniform over 0 to this one; 0 is plain mixup, 3 is S2M2's choice for wide residual
            networks.
        *key: Seed, epoch and batch, say.

    Raises:
        ValueError: alpha not above zero, or a negative stage.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, not {alpha}")
    if last_stage < 0:
        raise ValueError(f"last_stage must be at least 0, not {last_stage}")
    generator = np.random.Generator(np.random.PCG64(hashed(*key)))
    share = float(generator.beta(alpha, alpha))
    stage = int(generator.integers(last_stage + 1))
    return Mixing(stage, share, torch.from_numpy(generator.permutation(images)))


def mixed_maps(stages: nn.Sequential, images: Tensor, mixing: Mixing) -> Tensor:
    """Run a network stage by stage and mix after the one that ``mixing`` names.

    Args:
        stages: A backbone's ``stages``, such as ``WideResNet``'s.
        images: (images, 3, height, width).
        mixing: Where and how.

    Returns:
        The last stage's maps.

    Raises:
        ValueError: There is no such stage.
    """
    if mixing.stage > len(stages):
        raise ValueError(f"can't mix after stage {mixing.stage}: there are {len(stages)}")
    maps = mixing.mix(images) if mixing.stage == 0 else images
    for number, stage in enumerate(stages, 1):
        maps = stage(maps)
        if number == mixing.stage:
            maps = mixing.mix(maps)
    return maps
