"""tieredImageNet: 608 classes of ImageNet in the split of Ren et al. 2018."""

from __future__ import annotations

from pathlib import Path

from otfew.data.base import DataOptions, Dataset, ImageSet, Split
from otfew.data.imagenet import load_imagenet_subset


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split; see ``otfew.data.imagenet.load_imagenet_subset``. It cannot be downloaded by program."""
    return load_imagenet_subset("tieredimagenet", root, split)


DATASET = Dataset("tieredimagenet", "tieredImageNet, 351/97/160 classes of ImageNet (Ren et al. 2018)", 84, load)
