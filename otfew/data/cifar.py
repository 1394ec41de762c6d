"""CIFAR-100 (Krizhevsky 2009) from its publisher's pickles, cut along a few-shot class list."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.data.base import DataOptions, Image, ImageSet, Split
from otfew.data.class_lists import class_lists
from otfew.data.download import Archive, install
from otfew.data.files import partial_notes
from otfew.data.restricted_pickle import load_pickle
from otfew.data.roots import find_folder
from otfew.errors import UserError

FOLDER = "cifar-100-python"
ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    creates=FOLDER,
    size=169_001_437,
)
IMAGES_PER_CLASS = 600
_SIDE = 32
_ROW = 3 * _SIDE * _SIDE
_LONGEST_NAME = 1000


@dataclass(frozen=True)
class RowReader:
    """Decodes image i of (images, 3072) uint8 rows: three planes of 32x32, as the publisher stores them."""

    rows: npt.NDArray[np.uint8]

    def __call__(self, index: int) -> Image:
        """Image ``index``: (32, 32, 3) uint8 RGB."""
        return np.ascontiguousarray(self.rows[index].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))


def load_cifar100(dataset: str, root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split: the publisher's train and test images of each class together, 600 a class.

    An image is named PART/CLASS/FILE after the publisher's part (train or test) and original file name, and images are
    in the order of class and name, so that neither depends on the order of rows in the pickles.

    Args:
        dataset: "cifar-fs" or "fc100": which class list.
        root: Folder with ``cifar-100-python`` in it, or that folder.
        split: Part of the class list.
        options: ``download``.

    Raises:
        UserError: The data are missing or damaged.
    """
    base = find(root, options)
    published = class_lists(dataset).classes[split]
    place = {name: label for label, name in enumerate(published)}
    all_classes = read_names(base / "meta", "fine_label_names", ARCHIVE.url)
    found: list[tuple[int, str, str]] = []
    parts: list[npt.NDArray[np.uint8]] = []
    for part in ("train", "test"):
        rows, labels, files = read_part(base / part, "fine_labels", len(all_classes), ARCHIVE.url)
        kept = [i for i, label in enumerate(labels) if all_classes[label] in place]
        parts.append(rows[kept])
        found += [(place[all_classes[labels[i]]], part, files[i]) for i in kept]
    if not found:
        raise UserError(
            f"{base} holds no image of the {split} classes of {dataset}; fetch it again from its publisher."
        )
    names = [f"{part}/{published[label]}/{PurePosixPath(file).stem}" for label, part, file in found]
    order = sorted(range(len(found)), key=lambda i: (found[i][0], names[i]))
    rows = np.concatenate(parts)[order]
    present = sorted({label for label, _, _ in found})
    labels_kept = np.searchsorted(present, [found[i][0] for i in order]).astype(np.int64)
    digest = hashlib.sha256("\n".join(names[i] for i in order).encode())
    digest.update(labels_kept.tobytes())
    digest.update(rows.tobytes())
    return ImageSet(
        dataset=dataset,
        split=split,
        variant="",
        classes=tuple(published[label] for label in present),
        labels=labels_kept,
        names=tuple(names[i] for i in order),
        read=RowReader(rows),
        fingerprint=digest.hexdigest(),
        published_classes=len(published),
        notes=partial_notes(len(present), len(published), len(rows), IMAGES_PER_CLASS * len(published)),
    )


def find(root: Path, options: DataOptions) -> Path:
    """The publisher's folder, fetched if it is missing."""
    instead = f"put the publisher's folder at {root / FOLDER}, with the files train, test and meta in it"
    base = find_folder(root, FOLDER, "meta")
    if base is None and options.download is not False and not (root / FOLDER).exists():
        base = install(ARCHIVE, root, instead=instead, download=options.download)
    if base is None or not all((base / name).is_file() for name in ("train", "test", "meta")):
        raise UserError(f"CIFAR-100 is not complete under {root}: {instead}.")
    return base


def read_part(path: Path, key: str, n_classes: int, url: str) -> tuple[npt.NDArray[np.uint8], list[int], list[str]]:
    """Rows, labels (under ``key``) and original file names of one of the publisher's files of images."""
    record = load_pickle(path)
    rows, labels, files = record.get("data"), record.get(key), record.get("filenames")
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != _ROW:
        raise damaged(path, f"data is not (images, {_ROW})", url)
    if not isinstance(labels, list) or not isinstance(files, list) or not len(labels) == len(files) == len(rows):
        raise damaged(path, f"{key}, filenames and data differ in length", url)
    if not all(isinstance(label, int) and 0 <= label < n_classes for label in labels):
        raise damaged(path, f"a label is not in 0..{n_classes - 1}", url)
    return rows, labels, _texts(path, files, url)


def read_names(path: Path, key: str, url: str) -> list[str]:
    """The class names (under ``key``) of the publisher's file of names, in the order of its labels."""
    names = load_pickle(path).get(key)
    if not isinstance(names, list):
        raise damaged(path, f"{key} is missing", url)
    return _texts(path, names, url)


def _texts(path: Path, values: list[Any], url: str) -> list[str]:
    """Names as text; whatever else the list holds is refused before anything is made of it."""
    if not all(isinstance(value, str | bytes) and len(value) <= _LONGEST_NAME for value in values):
        raise damaged(path, "a name is no short text", url)
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]


def damaged(path: Path, why: str, url: str) -> UserError:
    """Say that a file is not the publisher's."""
    return UserError(f"{path} is not the publisher's file ({why}); fetch it again from {url}.")
