"""A split in memory: every image decoded once, as bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from otfew.data.base import ImageSet
from otfew.data.preparation import Preparation
from otfew.nodes import Extractor
from otfew.nodes.fcn import FCN


def decode(
    images: ImageSet,
    preparation: Preparation,
    on_image: Callable[[], None] | None = None,
    extractor: Extractor | None = None,
) -> Tensor:
    """Decode all images of a split and cut them into views.

    Args:
        images: Of which every one is read.
        preparation: Resolution and crop.
        on_image: Called after each image, for progress.
        extractor: Whose views to cut; by default one, the whole image.

    Returns:
        (images, views, 3, resolution, resolution) uint8.
    """
    extractor = extractor or FCN()
    side = preparation.resolution
    pixels = np.empty((len(images), extractor.n_views, 3, side, side), dtype=np.uint8)

    def fill(index: int) -> None:
        views = extractor.views(images.read(index), preparation, images.names[index])
        pixels[index] = views.transpose(0, 3, 1, 2)

    # Decoding and resizing release the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(len(images))):
            if on_image is not None:
                on_image()
    return torch.from_numpy(pixels)


def statistics(pixels: Tensor, block: int = 1024) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute each channel's mean and standard deviation, in [0, 1], rounded to four digits.

    Args:
        pixels: (images, 3, height, width) uint8.
        block: Images at a time.
    """
    total = torch.zeros(3, dtype=torch.float64)
    squares = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(pixels), block):
        scaled = pixels[start : start + block].transpose(0, 1).flatten(1).double() / 255
        total += scaled.sum(1)
        squares += scaled.square().sum(1)
    count = pixels.numel() / 3
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(1e-3)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in deviation.tolist())
