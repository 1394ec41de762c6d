"""CIFAR-FS, 64/16/20 classes of CIFAR-100 (Bertinetto et al. 2019)."""

from __future__ import annotations

from pathlib import Path

from otfew.data.base import DataOptions, Dataset, ImageSet, Split
from otfew.data.cifar import load_cifar100


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split from the publisher's CIFAR-100 files; see ``otfew.data.cifar.load_cifar100``."""
    return load_cifar100("cifar-fs", root, split, options)


DATASET = Dataset("cifar-fs", "CIFAR-FS, 64/16/20 classes of CIFAR-100 (Bertinetto et al. 2019)", 32, load)
