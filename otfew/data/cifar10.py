"""CIFAR-10 (Krizhevsky 2009) from its publisher's pickles, or a copy in their layout."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from otfew.data.base import DataOptions, Dataset, ImageSet, Split
from otfew.data.cifar import RowReader, read_names, read_part
from otfew.data.download import Archive, install
from otfew.data.files import partial_notes
from otfew.data.restricted_pickle import LARGEST
from otfew.data.roots import find_folder
from otfew.data.shared_classes import NOTE, part_of
from otfew.errors import UserError
from otfew.runs.regular_file import read_regular

FOLDER = "cifar-10-batches-py"
ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    creates=FOLDER,
    size=170_498_071,
)
TRAIN = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST = {"test_batch": "40351d587109b95175f43aff81a1287e"}
"""File name -> md5 of the publisher's file: other files may hold the images after lossy compression."""

COPY = "a copy of CIFAR-10, not the publisher's files (checksums differ): its images may be lossy, such as JPEG"
PUBLISHED = {"train": 50_000, "test": 10_000}


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split: the published test part, or the published training part without or with only its val images.

    An image is named PART/CLASS/FILE, and images are in the order of class and name, so that neither depends on the
    order of rows in the pickles.

    Args:
        root: Folder with ``cifar-10-batches-py`` in it, or that folder.
        split: "val" is a tenth of each class's training images, see ``otfew.data.shared_classes``.
        options: ``download``.

    Raises:
        UserError: The data are missing or damaged.
    """
    base = find(root, options)
    classes = read_names(base / "batches.meta", "label_names", ARCHIVE.url)
    part, files = ("test", TEST) if split == "test" else ("train", TRAIN)
    read = [read_part(base / name, "labels", len(classes), ARCHIVE.url) for name in files]
    rows = np.concatenate([found[0] for found in read])
    labels = np.array([label for found in read for label in found[1]], dtype=np.int64)
    if not len(rows):
        raise UserError(f"{base} holds no {part} image; fetch it again from {ARCHIVE.url}.")
    stems = [PurePosixPath(file).stem for found in read for file in found[2]]
    names = [f"{part}/{classes[label]}/{stem}" for label, stem in zip(labels.tolist(), stems, strict=True)]
    notes = partial_notes(len(classes), len(classes), len(rows), PUBLISHED[part])
    if is_copy(base, files):
        notes = (*notes, COPY)
    order = np.lexsort((np.array(names), labels))
    rows, labels, names = rows[order], labels[order], [names[i] for i in order]
    if split != "test":
        kept = part_of(split, names, labels)
        rows, labels, names = rows[kept], labels[kept], [names[i] for i in kept]
    present = np.unique(labels)
    digest = hashlib.sha256("\n".join(names).encode())
    digest.update(rows.tobytes())
    return ImageSet(
        dataset="cifar10",
        split=split,
        variant="",
        classes=tuple(classes[label] for label in present),
        labels=np.searchsorted(present, labels).astype(np.int64),
        names=tuple(names),
        read=RowReader(rows),
        fingerprint=digest.hexdigest(),
        published_classes=len(classes),
        notes=(*notes, NOTE),
    )


def is_copy(base: Path, files: Mapping[str, str]) -> bool:
    """Tell whether files are not those of the publisher, by their checksums.

    Args:
        base: Their folder.
        files: File name -> md5, as ``TRAIN``.

    Raises:
        UserError: One is no regular file, or is larger than any that is read.
        OSError: One cannot be read.
    """
    return any(
        hashlib.md5(read_regular(base / name, LARGEST), usedforsecurity=False).hexdigest() != md5
        for name, md5 in files.items()
    )


def find(root: Path, options: DataOptions) -> Path:
    """The publisher's folder, fetched if it is missing."""
    wanted = ("batches.meta", *TRAIN, *TEST)
    instead = f"put the publisher's folder at {root / FOLDER}, with {wanted[0]} and the six files of images in it"
    base = find_folder(root, FOLDER, wanted[0])
    if base is None and options.download is not False and not (root / FOLDER).exists():
        base = install(ARCHIVE, root, instead=instead, download=options.download)
    if base is None or not all((base / name).is_file() for name in wanted):
        raise UserError(f"CIFAR-10 is not complete under {root}: {instead}.")
    return base


DATASET = Dataset("cifar10", "CIFAR-10; all splits share the ten classes (Krizhevsky 2009)", 32, load)
