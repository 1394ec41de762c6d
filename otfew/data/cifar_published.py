"""CIFAR-10 and CIFAR-100 as ordinary classification problems: their publisher's parts, rows in their publisher's order.

Published long-tailed subsets are draws of row numbers, so here, unlike in few-shot splits, the order is kept.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from otfew.data import cifar, cifar10
from otfew.data.base import DataOptions, ImageSet
from otfew.data.files import partial_notes

Part = Literal["train", "test"]
SORTED = "rows sorted by class, not in the publisher's order: published seeds draw other images"
PUBLISHED = {"train": 50_000, "test": 10_000}


def load_cifar10(root: Path, part: Part, options: DataOptions) -> ImageSet:
    """Load one part of CIFAR-10.

    Args:
        root: Folder with ``cifar-10-batches-py`` in it, or that folder.
        part: "train" joins the five batches.
        options: ``download``.

    Raises:
        UserError: The data are missing or damaged.
    """
    base = cifar10.find(root, options)
    files = cifar10.TRAIN if part == "train" else cifar10.TEST
    copied = cifar10.is_copy(base, files)
    classes = cifar.read_names(base / "batches.meta", "label_names", cifar10.ARCHIVE.url)
    paths = [base / name for name in files]
    return _assembled("cifar10", part, paths, "labels", classes, cifar10.ARCHIVE.url, (cifar10.COPY,) if copied else ())


def load_cifar100(root: Path, part: Part, options: DataOptions) -> ImageSet:
    """Load one part of CIFAR-100, with all its 100 classes.

    Args:
        root: Folder with ``cifar-100-python`` in it, or that folder.
        part: Which.
        options: ``download``.

    Raises:
        UserError: The data are missing or damaged.
    """
    base = cifar.find(root, options)
    classes = cifar.read_names(base / "meta", "fine_label_names", cifar.ARCHIVE.url)
    return _assembled("cifar100", part, [base / part], "fine_labels", classes, cifar.ARCHIVE.url, ())


def _assembled(
    dataset: str, part: Part, paths: list[Path], key: str, classes: list[str], url: str, notes: tuple[str, ...]
) -> ImageSet:
    """Join the files of one part."""
    read = [cifar.read_part(path, key, len(classes), url) for path in paths]
    rows = np.concatenate([found[0] for found in read])
    labels = np.array([label for found in read for label in found[1]], dtype=np.int64)
    stems = [PurePosixPath(file).stem for found in read for file in found[2]]
    names = tuple(f"{part}/{classes[label]}/{stem}" for label, stem in zip(labels.tolist(), stems, strict=True))
    digest = hashlib.sha256("\n".join(names).encode())
    digest.update(rows.tobytes())
    return ImageSet(
        dataset=dataset,
        split=part,
        variant="",
        classes=tuple(classes),
        labels=labels,
        names=names,
        read=cifar.RowReader(rows),
        fingerprint=digest.hexdigest(),
        published_classes=len(classes),
        notes=(
            *partial_notes(len(np.unique(labels)), len(classes), len(rows), PUBLISHED[part]),
            *((SORTED,) if part == "train" and _sorted(labels) else ()),
            *notes,
        ),
    )


def _sorted(labels: npt.NDArray[np.int64]) -> bool:
    """Tell whether rows come class by class, as in no file of the publisher."""
    return bool((np.diff(labels) >= 0).all())
