"""Images that lie in files: finding them, and making an ``ImageSet`` of them."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from otfew.data.base import Image, ImageSet
from otfew.data.decoding import heic
from otfew.data.decoding.image import SUFFIXES, read_image
from otfew.errors import UserError

_LEFT_BEHIND = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
        *("__macosx", "icon\r"),  # macOS, and archives packed there
        *("lost+found", "@eadir"),  # file systems, and network drives, which keep thumbnails of all photos
    }
)


@dataclass(frozen=True)
class FileReader:
    """Decodes image i of a list of files; pickles, so that worker processes can hold it."""

    paths: tuple[Path, ...]

    def __call__(self, index: int) -> Image:
        """Read image ``index``: (height, width, 3) uint8 RGB."""
        return read_image(self.paths[index])


def subfolders(folder: Path) -> list[Path]:
    """Visible folders in ``folder``, sorted by name; links to folders count.

    Raises:
        UserError: The folder cannot be listed.
    """
    return sorted((path for path in entries(folder) if os.path.isdir(path)), key=_by_name)


def named_folders(folder: Path) -> dict[str, Path]:
    """The visible folders in ``folder`` by the portable spelling of their names, in the order of ``subfolders``.

    Raises:
        UserError: Two of them have one name, or the folder cannot be listed.
    """
    found: dict[str, Path] = {}
    for child in subfolders(folder):
        name = portable(child.name)
        if name in found:
            raise UserError(
                f"the folders {found[name].name!a} and {child.name!a} in {portable(str(folder))} are spelt "
                f"differently but are one name, {name}; rename one of them or put their files together."
            )
        found[name] = child
    return found


def images_in(folder: Path) -> list[Path]:
    """All visible image files below ``folder``, sorted by their path: see ``files_in``."""
    return [path for path in files_in(folder) if is_image(path)]


def is_image(path: Path) -> bool:
    """Whether a file counts as an image, by its suffix."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (suffix in heic.SUFFIXES and heic.installed())


def files_in(folder: Path) -> list[Path]:
    """All visible files below ``folder``, sorted by their path.

    Links to folders are followed, but no folder is entered twice and none that holds ``folder``: loops of links end.

    Raises:
        UserError: A folder cannot be listed.
    """
    seen = {os.path.realpath(path) for path in folder.absolute().parents}
    found: list[Path] = []
    waiting = [folder]  # a list rather than recursion: folders nest deeper than calls may
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        folders: list[Path] = []
        for path in entries(current):
            (folders if os.path.isdir(path) else found).append(path)
        waiting += reversed(folders)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without what people do not see.

    Raises:
        UserError: The folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        raise UserError(f"cannot list the folder {portable(str(folder))}: {error.strerror or error}.") from error
    return [folder / name for name in names if not hidden(name)]


def hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: hidden by a dot, or left behind by a system."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


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
            "check `data_root` and the folder names."
        )
    present = {name for name, _, _ in found}
    classes = tuple(name for name in published if name in present)
    label_of = {name: label for label, name in enumerate(classes)}
    found.sort(key=lambda item: (label_of[item[0]], item[1].as_posix()))
    names = tuple(portable(path.as_posix()) for _, path, _ in found)
    _refuse_one_name(names, [path for _, path, _ in found], base)
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


def _refuse_one_name(names: Sequence[str], paths: Sequence[Path], base: Path) -> None:
    """Raise where two files are called alike in different spellings: results are kept by these names."""
    first: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        if first.setdefault(name, path) != path:
            raise UserError(
                f"the files {str(first[name])!a} and {str(path)!a} in {portable(str(base))} are spelt "
                f"differently but are one name, {name}; rename one of them."
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
