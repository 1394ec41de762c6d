"""How good a backbone is while it trains: the same few-shot episodes of the validation classes every time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from otfew.data.base import ImageSet
from otfew.episodes import Episodes, Protocol, Sampler

SHOT = 1
MAX_QUERY = 15


@dataclass(frozen=True)
class Validation:
    """Fixed episodes over decoded images.

    Attributes:
        pixels: (images, 3, height, width) uint8.
        protocol: What the episodes are a function of.
        episodes: Drawn once.
    """

    pixels: Tensor
    protocol: Protocol
    episodes: Episodes

    def accuracy(self, maps: Callable[[Tensor], Tensor], batch_size: int = 256) -> tuple[float, float]:
        """Classify by the largest cosine to a support image's global vector.

        Args:
            maps: From uint8 images (images, 3, height, width) to maps (images, channels, h, w).
            batch_size: Images at a time.

        Returns:
            Mean accuracy in percent and the half-width of its 95 % interval over episodes.
        """
        parts = [self.pixels[start : start + batch_size] for start in range(0, len(self.pixels), batch_size)]
        vectors = torch.cat([maps(part).float().mean((2, 3)).cpu() for part in parts])
        return episode_accuracy(vectors, self.episodes)


def prepare(images: ImageSet, pixels: Tensor, count: int, seed: int = 1) -> Validation:
    """Draw the episodes: 5-way 1-shot with 15 queries, or as many ways and queries as the images allow.

    Args:
        images: The validation split.
        pixels: Its images, decoded.
        count: Of episodes.
        seed: Of the episodes; the same for every run, so that runs can be compared.

    Raises:
        UserError: Fewer than two classes, or a class with fewer than two images.
    """
    fewest = int(np.bincount(images.labels, minlength=len(images.classes)).min())
    protocol = Protocol(
        dataset=images.dataset,
        variant=images.variant,
        split=images.split,
        seed=seed,
        way=max(2, min(5, len(images.classes))),
        shot=SHOT,
        query=max(1, min(MAX_QUERY, fewest - SHOT)),
    )
    return Validation(pixels, protocol, Sampler(protocol, images.labels, images.classes)(0, count))


def episode_accuracy(vectors: Tensor, episodes: Episodes) -> tuple[float, float]:
    """Score global vectors (images, channels) on 1-shot episodes; mean and 95 % half-width, in percent."""
    unit = functional.normalize(vectors, dim=-1)
    support = unit[torch.from_numpy(episodes.support)].mean(2)
    query = unit[torch.from_numpy(episodes.query)]
    # (episodes, true class, query, class)
    scores = torch.einsum("ewqc,evc->ewqv", query, functional.normalize(support, dim=-1))
    truth = torch.arange(scores.shape[1]).view(1, -1, 1)
    each = 100 * (scores.argmax(-1) == truth).double().mean((1, 2))
    spread = float(each.std(unbiased=True)) if len(each) > 1 else math.nan
    return float(each.mean()), 1.96 * spread / math.sqrt(len(each))
