"""Random crops, flips and colours, for whole batches at once (kornia)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otfew.errors import UserError
from otfew.random.generators import drawn
from otfew.random.keys import hashed
from otfew.training.resampling import augmented


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image.

    Attributes:
        min_scale: Least share of the area that a random crop keeps; 1 keeps all of it.
        flip: Mirror half of the images; off where mirroring makes another class (characters).
        colour: Strength of random brightness, contrast and saturation; 0 is off.
    """

    min_scale: float = 0.08
    flip: bool = True
    colour: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= 1:
            raise UserError(f"`min_scale` must lie in (0, 1], not {self.min_scale}.")
        if not 0 <= self.colour <= 1:
            raise UserError(f"`colour` must lie in [0, 1], not {self.colour}.")


def by_kornia(images: Tensor) -> bool:
    """Tell whether kornia does what it has drawn: on the CPU, where hundreds of operations a batch cost nothing."""
    return images.is_cpu


class Augment:
    """Augments batches; the outcome is a function of the images and the key, whatever was drawn before.

    Crops, flips and colours are drawn on the CPU, so that they are the same on every device; kornia does there what it
    has drawn, and other devices are told the same in fewer operations.

    Args:
        augmentation: What to do.
        resolution: Side of the result.
    """

    def __init__(self, augmentation: Augmentation, resolution: int) -> None:
        from kornia import augmentation as kornia

        size = (resolution, resolution)
        steps: list[Any] = [
            kornia.RandomResizedCrop(
                size, scale=(augmentation.min_scale, 1.0), ratio=(3 / 4, 4 / 3), cropping_mode="resample"
            )
        ]
        if augmentation.flip:
            steps.append(kornia.RandomHorizontalFlip(p=0.5))
        if augmentation.colour > 0:
            strength = augmentation.colour
            steps.append(kornia.ColorJitter(brightness=strength, contrast=strength, saturation=strength))
        self._steps = kornia.AugmentationSequential(*steps, data_keys=["input"])
        self._resolution = resolution

    @torch.no_grad()
    def __call__(self, images: Tensor, *key: int) -> Tensor:
        """Augment a batch.

        Args:
            images: (images, 3, height, width) float in [0, 1].
            *key: Seed, epoch and batch, say.

        Returns:
            (images, 3, resolution, resolution), on the same device.
        """
        with drawn(hashed(*key)):
            if by_kornia(images):
                result: Tensor = self._steps(images)
                return result
            parameters = self._steps.forward_parameters(images.shape)
        by_name: Any = {parameter.name.partition("_")[0]: parameter.data for parameter in parameters}
        return augmented(images, by_name, self._resolution)
