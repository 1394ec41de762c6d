"""Images that lie in files: finding them, and making an ``ImageSet`` of them."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from otfew.data.base import Image, ImageSet
from otfew.data.image import SUFFIXES, read_image
from otfew.errors import UserError


@dataclass(frozen=True)
class FileReader:
    """Decodes image i of a list of files; pickles, so that worker processes can hold it."""

    paths: tuple[Path, ...]

    def __call__(self, index: int) -> Image:
        """Read image ``index``: (height, width, 3) uint8 RGB."""
        return read_image(self.paths[index])


def subfolders(folder: Path) -> list[Path]:
    """Visible folders in ``folder``, sorted by name; links to folders count."""
    return sorted((path for path in folder.iterdir() if path.is_dir() and not _hidden(path.name)), key=_by_name)


def images_in(folder: Path) -> list[Path]:
    """All visible image files below ``folder``, sorted by their path.

    Links to folders are followed, but no folder is entered twice and none that holds ``folder``: loops of links end.
    """
    above = {os.path.realpath(path) for path in folder.absolute().parents}
    return sorted(_walk(folder, above), key=lambda path: path.relative_to(folder).as_posix())


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _hidden(entry.name):
                continue
            path = folder / entry.name
            if entry.is_dir():
                yield from _walk(path, seen)
            elif path.suffix.lower() in SUFFIXES:
                yield path


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _by_name(path: Path) -> str:
    return path.name


def image_set(
    dataset: str,
    split: str,
    base: Path,
    entries: Iterable[tuple[str, Path]],
    published: Sequence[str],
    *,
    variant: str = "",
    notes: tuple[str, ...] = (),
) -> ImageSet:
    """Make one split of (class, file) pairs, keeping the files that exist.

    Args:
        dataset: Name of the data set.
        split: "train", "val" or "test".
        base: Folder that image names are relative to.
        entries: Class name and path, relative to ``base``, of each image; classes not in ``published`` are left out.
        published: Classes of the split, in the order that the labels follow.
        variant: See ``ImageSet``.
        notes: Sentences for every report; one is added if classes or files are missing.

    Returns:
        The split; its classes are those of ``published`` that have at least one file.

    Raises:
        UserError: No file of these classes exists.
    """
    wanted = set(published)
    listed = [(name, path) for name, path in entries if name in wanted]
    found = [(name, path, status) for name, path in listed if (status := _status(base / path)) is not None]
    if not found:
        raise UserError(
            f"{base} holds no image of the {len(published)} {split} classes of {dataset} (such as {published[0]}); "
            "check --data-root and the folder names."
        )
    present = {name for name, _, _ in found}
    classes = tuple(name for name in published if name in present)
    label_of = {name: label for label, name in enumerate(classes)}
    found.sort(key=lambda item: (label_of[item[0]], item[1].as_posix()))
    names = tuple(portable(path.as_posix()) for _, path, _ in found)
    labels = np.array([label_of[name] for name, _, _ in found], dtype=np.int64)
    digest = hashlib.sha256()
    for (class_name, _, status), name in zip(found, names, strict=True):
        digest.update(f"{class_name}\t{name}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    return ImageSet(
        dataset=dataset,
        split=split,
        variant=variant,
        classes=classes,
        labels=labels,
        names=names,
        read=FileReader(tuple(base / path for _, path, _ in found)),
        fingerprint=digest.hexdigest(),
        published_classes=len(published),
        notes=partial_notes(len(classes), len(published), len(found), len(listed)) + notes,
    )


def portable(name: str) -> str:
    """One spelling of a file name on all systems: macOS may decompose accents, Linux may hold what is no UTF-8."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def partial_notes(classes: int, published_classes: int, images: int, published_images: int) -> tuple[str, ...]:
    """The sentence that announces a partial set, or nothing where all is there."""
    if classes == published_classes and images == published_images:
        return ()
    of = f" of {published_images:,}" if images < published_images else ""
    return (f"partial: {classes} of {published_classes} classes, {images:,}{of} images",)


def _status(path: Path) -> os.stat_result | None:
    """What the file system knows of a file, None if it isn't there."""
    try:
        return path.stat()
    except OSError:
        return None
