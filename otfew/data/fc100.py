"""FC100, 60/20/20 classes of CIFAR-100 along its superclasses (Oreshkin et al. 2018)."""

from __future__ import annotations

from pathlib import Path

from otfew.data.base import DataOptions, Dataset, ImageSet, Split
from otfew.data.cifar import load_cifar100


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split from the publisher's CIFAR-100 files; see ``otfew.data.cifar.load_cifar100``."""
    return load_cifar100("fc100", root, split, options)


DATASET = Dataset(
    "fc100", "FC100, 60/20/20 classes of CIFAR-100 along its superclasses (Oreshkin et al. 2018)", 32, load
)
