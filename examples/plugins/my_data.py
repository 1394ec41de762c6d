"""A data set of one's own: ``otfew compare --dataset my_data:STRIPES``. Here it is drawn, elsewhere it is read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from otfew.data import DataOptions, Dataset, Image, ImageSet, Split

SIDE = 32
IMAGES = 20
CLASSES = {"train": range(12), "val": range(12, 18), "test": range(18, 26)}
"""A class is an angle, a distance and a colour of stripes; no class is in two splits."""


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split: labels and names at once, images when they are asked for.

    Args:
        root: The data root, ``--data-root``; nothing is read from it here.
        split: "train", "val" or "test".
        options: What the command line offers to some data sets.
    """
    numbers = CLASSES[split]
    names = tuple(f"stripes-{c:02d}/{i:02d}" for c in numbers for i in range(IMAGES))
    return ImageSet(
        dataset="stripes",
        split=split,
        variant="",
        classes=tuple(f"stripes-{c:02d}" for c in numbers),
        labels=np.repeat(np.arange(len(numbers)), IMAGES).astype(np.int64),
        names=names,
        read=lambda i: draw(names[i]),
        # Of data on disk: something that changes with the files, such as their sizes and times.
        fingerprint=hashlib.sha256(f"stripes 1 {split}".encode()).hexdigest(),
        published_classes=len(numbers),
    )


def draw(name: str) -> Image:
    """Draw an image, (side, side, 3) uint8: a function of its name alone, so that it is the same everywhere."""
    kind, _, number = name.partition("/")
    rng_class, rng_image = (np.random.default_rng([*text.encode()]) for text in (kind, f"{kind} {number}"))
    angle, distance = rng_class.uniform(0, np.pi), rng_class.uniform(3, 9)
    colour = rng_class.integers(110, 200, 3)
    angle += rng_image.normal(0, 0.35)
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / distance + rng_image.uniform(0, 2 * np.pi))
    noisy = (0.5 + 0.5 * waves[..., None]) * colour + rng_image.normal(0, 70, (SIDE, SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


STRIPES = Dataset("stripes", "stripes of a colour, an angle and a distance", SIDE, load, needs_root=False)
