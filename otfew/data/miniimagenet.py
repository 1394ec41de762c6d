"""miniImageNet: 100 classes of ImageNet in the split of Ravi and Larochelle 2017."""

from __future__ import annotations

from pathlib import Path

from otfew.data.base import DataOptions, Dataset, ImageSet, Split
from otfew.data.imagenet import load_imagenet_subset


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split; see ``otfew.data.imagenet.load_imagenet_subset``. It cannot be downloaded by program."""
    return load_imagenet_subset("miniimagenet", root, split)


DATASET = Dataset("miniimagenet", "miniImageNet, 64/16/20 classes of ImageNet (Ravi and Larochelle 2017)", 84, load)
