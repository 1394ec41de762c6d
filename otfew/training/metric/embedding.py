"""Networks of metric learning: a trunk, a head of fully connected layers, one pair of them for each modality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from otfew.errors import UserError

Pool = Literal["flatten", "mean"]
LENET_HEAD = (512, 256)
DEEP_HEAD = (4096, 2048, 512, 128)


def default_head(trunk: str) -> tuple[int, ...]:
    """Widths of the head, by the name of the trunk (Xu, Sun and Liu 2019, published code's README)."""
    return LENET_HEAD if trunk.startswith("lenet5") else DEEP_HEAD


def default_pool(trunk: str) -> Pool:
    """How maps become vectors: small trunks keep their cells apart, ResNets average them."""
    return "mean" if trunk.startswith(("resnet", "wrn")) else "flatten"


class Embedder(nn.Module):
    """From pictures, or from several views of each object, to one embedding.

    Views go through the trunk one by one and meet in their maximum, before the head (MVCNN, Su et al. 2015).

    Args:
        trunk: Maps (images, 3, height, width) to (images, channels, h, w).
        sample: A few images (images, 3, height, width), for the trunk's output size; the trunk's statistics are left
            alone.
        head: Widths of the fully connected layers, with ReLU between them; the last one is the embedding's. Without any
            the pooled map itself is the embedding.
        pool: "flatten" or "mean".

    Raises:
        UserError: The trunk leaves no cell of these images.
    """

    def __init__(self, trunk: nn.Module, sample: Tensor, head: Sequence[int], pool: Pool) -> None:
        super().__init__()
        self.trunk = trunk
        self.pool = pool
        was = trunk.training
        try:
            with torch.no_grad():
                inputs = self._vectors(trunk.eval()(sample)).shape[1]
        except RuntimeError:  # a convolution larger than what is left of the image
            inputs = 0
        trunk.train(was)
        if inputs == 0:
            raise UserError(f"images of {sample.shape[-1]} pixels are too small for this backbone: raise `resolution`.")
        layers: list[nn.Module] = []
        for width in head:
            layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
            inputs = width
        self.head = nn.Sequential(*layers[:-1])
        self.channels = inputs

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (images, 3, height, width) or views (objects, views, 3, height, width): (items, channels)."""
        if images.ndim == 5:
            vectors = self._vectors(self._maps(images.flatten(0, 1)))
            vectors = vectors.view(*images.shape[:2], -1).amax(1)
        else:
            vectors = self._vectors(self._maps(images))
        embeddings: Tensor = self.head(vectors)
        return embeddings

    def _maps(self, images: Tensor) -> Tensor:
        maps: Tensor = self.trunk(images.contiguous(memory_format=torch.channels_last))
        return maps

    def _vectors(self, maps: Tensor) -> Tensor:
        return maps.flatten(1) if self.pool == "flatten" else maps.mean((2, 3))


class Space(nn.Module):
    """One metric space that each modality enters through a network of its own.

    Args:
        build: Makes a trunk.
        samples: For each modality, a few images of it (images, 3, height, width).
        head: Widths of each head.
        pool: "flatten" or "mean".
    """

    def __init__(
        self, build: Callable[[], nn.Module], samples: Sequence[Tensor], head: Sequence[int], pool: Pool
    ) -> None:
        super().__init__()
        embedders = [Embedder(build(), sample, head, pool) for sample in samples]
        self.embedders = nn.ModuleList(embedders)
        self.channels = embedders[0].channels

    def forward(self, images: Tensor, modality: int = 0) -> Tensor:
        """Embed images of one modality; see ``Embedder``."""
        embeddings: Tensor = self.embedders[modality](images)
        return embeddings
