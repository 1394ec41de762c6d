"""Images of an episode as a network sees them in training: augmented as wholes, or cut into random patches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from otfew.data.base import Image, ImageSet
from otfew.data.preparation import Preparation
from otfew.devices import send
from otfew.nodes import Extractor
from otfew.nodes.grid import Grid
from otfew.nodes.sampling import Sampling
from otfew.random.keys import hashed
from otfew.training.augmentation import Augment


class Views(Protocol):
    """From indices of images to their views."""

    def __call__(self, indices: Tensor, device: torch.device, *key: int) -> Tensor:
        """Return (images, views, 3, side, side) in [0, 1], a function of indices and key."""
        ...


class WholeImages:
    """One view an image: a random crop of all of it, perhaps mirrored.

    Args:
        pixels: (images, 3, height, width) uint8.
        augment: What happens to them.
    """

    def __init__(self, pixels: Tensor, augment: Augment) -> None:
        self._pixels, self._augment = pixels, augment

    def __call__(self, indices: Tensor, device: torch.device, *key: int) -> Tensor:
        """Augment a batch."""
        return self._augment(send(self._pixels[indices], device).float() / 255, *key)[:, None]


class Patches:
    """The random patches of grid or sampling nodes, drawn anew for each key, from images at their own resolution.

    Args:
        images: Decoded, (height, width, 3) uint8.
        names: Of the images.
        extractor: Of grid or sampling nodes.
        preparation: Whose resolution patches get.
    """

    def __init__(
        self, images: Sequence[Image], names: Sequence[str], extractor: Grid | Sampling, preparation: Preparation
    ) -> None:
        self._images, self._names = images, names
        self._extractor, self._preparation = extractor, preparation
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def __call__(self, indices: Tensor, device: torch.device, *key: int) -> Tensor:
        """Cut a batch into patches."""
        seed = hashed(*key)
        if isinstance(self._extractor, Grid):
            extractor: Extractor = replace(self._extractor, training=True, seed=seed)
        else:
            extractor = replace(self._extractor, seed=seed)

        def cut(index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
            return extractor.views(self._images[index], self._preparation, self._names[index])

        # Resizing releases the interpreter's lock.
        views = np.stack(list(self._pool.map(cut, indices.tolist())))
        return send(torch.from_numpy(views), device).permute(0, 1, 4, 2, 3).float() / 255


def read_all(images: ImageSet) -> list[Image]:
    """Decode all images of a split at their own resolution."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(images.read, range(len(images))))
