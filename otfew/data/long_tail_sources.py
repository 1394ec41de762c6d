"""Where long-tailed sets come from: training and test images of the same classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from otfew.caches import receipts
from otfew.data import cifar_published
from otfew.data.base import DataOptions, ImageSet
from otfew.data.class_folders import ClassFolders, class_folders, split_folders
from otfew.data.files import image_set
from otfew.data.roots import default_root
from otfew.errors import UserError

TEST_SHARE = 0.2
"""Of each class's images, where a folder has no test part."""

Parts = tuple[ImageSet, ImageSet]
"""Training and test images."""


def load(name: str, root: Path | None = None, download: bool | None = None, depth: int = 1) -> Parts:
    """Load the training and the test images of a data set.

    Args:
        name: A key of ``SOURCES``.
        root: Data root; None means ``otfew.data.default_root()``.
        download: Fetch what is missing where the publisher allows it; None asks about what is large.
        depth: Levels down to the class folders of ``image-folder``, see ``otfew.data.class_folders``.

    Raises:
        UserError: Unknown name, or the data are missing or damaged.
    """
    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r} for a long tail: choose from {', '.join(SOURCES)}.")
    place = default_root() if root is None else root.expanduser()
    if not place.is_dir():
        raise UserError(f"the data root {place} is not a folder; correct `data_root` or $OTFEW_DATA.")
    receipts.hold(place)
    try:
        found = SOURCES[name](place, DataOptions(download=download, depth=depth))
        receipts.hold(place)  # where it was fetched just now
        return found
    except OSError as error:
        raise UserError(f"cannot read {error.filename or place}: {error.strerror or error}.") from error


def from_folder(root: Path, options: DataOptions) -> Parts:
    """Load class folders: below ``train`` and ``test``, which must have the same classes, or a test part is drawn.

    A drawn test part takes a fifth of each class, at least one image, ranked by the sha256 of class and file name: the
    same on every machine.

    Args:
        root: The folder.
        options: ``depth``.

    Raises:
        UserError: No class folders, other classes below test than below train, a class with a single image, or as
            ``otfew.data.class_folders.class_folders``.
    """
    if {"train", "test"} <= set(split_folders(root, options.depth)):
        return _given(root, *(class_folders(root / part, options.depth) for part in ("train", "test")))
    found = class_folders(root, options.depth)
    folders = found.images
    if not folders:
        raise UserError(
            f"{root} has no class folders with images in them; put the images of each class in a folder of its own, or "
            "in one below train and one below test."
        )
    parts: dict[str, list[tuple[str, Path]]] = {"train": [], "test": []}
    for name, paths in folders.items():
        if len(paths) < 2:
            raise UserError(f"{root / name} has a single image, too few for training and test: add some or remove it.")
        ranked = sorted(paths, key=lambda path: _rank(name, path.relative_to(root)))
        cut = max(1, round(TEST_SHARE * len(ranked)))
        parts["test"] += [(name, path.relative_to(root)) for path in ranked[:cut]]
        parts["train"] += [(name, path.relative_to(root)) for path in ranked[cut:]]
    notes = (f"test images drawn: {TEST_SHARE:.0%} of each class", *found.notes)
    train, test = (image_set("image-folder", part, root, parts[part], list(folders), notes=notes) for part in parts)
    return train, test


def _given(root: Path, train: ClassFolders, test: ClassFolders) -> Parts:
    if other := sorted(train.images.keys() ^ test.images.keys()):
        raise UserError(f"{root / 'train'} and {root / 'test'} must have the same classes, but {other[0]!r} is in one.")
    first, second = (
        image_set(
            "image-folder",
            part,
            root,
            [(name, path.relative_to(root)) for name, paths in found.images.items() for path in paths],
            [*train.images],
            notes=found.notes,
        )
        for part, found in (("train", train), ("test", test))
    )
    return first, second


def _rank(name: str, path: Path) -> str:
    """A draw that depends on these bytes only; a file's name may hold such as are no UTF-8."""
    return hashlib.sha256(f"{name}\0".encode() + os.fsencode(path.as_posix())).hexdigest()


def _cifar10(root: Path, options: DataOptions) -> Parts:
    load_part = cifar_published.load_cifar10
    return load_part(root, "train", options), load_part(root, "test", options)


def _cifar100(root: Path, options: DataOptions) -> Parts:
    load_part = cifar_published.load_cifar100
    return load_part(root, "train", options), load_part(root, "test", options)


SOURCES: dict[str, Callable[[Path, DataOptions], Parts]] = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "image-folder": from_folder,
}
"""Name on the command line -> loader."""
