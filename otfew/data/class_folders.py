"""The one rule by which a folder of class folders is read, whoever reads it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from otfew.data.base import SPLITS, Split
from otfew.data.decoding.image import SUFFIXES
from otfew.data.files import entries, files_in, is_image, named_folders, portable
from otfew.errors import UserError

_PHOTOS = frozenset({".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"})
"""Suffixes of what is a picture, but none that is read: HEIC only where pillow-heif is missing."""

_CONVERT = 'convert them to JPEG or PNG (pip install "otfew[heic]" reads HEIC)'


@dataclass(frozen=True)
class ClassFolders:
    """The classes of a folder.

    Attributes:
        images: Class name -> its images, sorted by path; the classes in the order of their folders' names.
        notes: Sentences on what is left out: empty folders, pictures in formats that are not read.
    """

    images: dict[str, list[Path]]
    notes: tuple[str, ...]


def class_folders(folder: Path, depth: int = 1) -> ClassFolders:
    """Find the images of each class: each visible folder in ``folder`` is one, with all images at any depth below it.

    With a larger ``depth``, the folders so many levels below ``folder`` are the classes, and those between group them:
    at depth 2, ``folder/fruit/apple`` is the class "fruit/apple". Images above that depth are left out, with a note.

    What starts with a dot counts neither as folder nor as file, nor does what systems leave behind (``__MACOSX``,
    ``Thumbs.db``, ``desktop.ini``). A folder without any file is left out, with a note.

    Args:
        folder: The folder that holds the class folders.
        depth: Levels from ``folder`` down to the class folders.

    Returns:
        Class names in their portable spelling, their images, and what is to be said.

    Raises:
        UserError: A class has files but no readable image, two folders have one name in different spellings, a link
            leads nowhere, the folder cannot be listed, or ``depth`` is no number of levels.
    """
    images: dict[str, list[Path]] = {}
    empty: list[str] = []
    unread: Counter[str] = Counter()
    folders, above = _at_depth(folder, depth)
    for name, child in folders.items():
        files = files_in(child)
        found = [path for path in files if is_image(path)]
        others = Counter(path.suffix.lower() for path in files if not is_image(path))
        if found:
            images[name] = found
            unread += Counter({suffix: count for suffix, count in others.items() if suffix in _PHOTOS})
        elif others:
            raise UserError(_without_images(child, others))
        else:
            empty.append(name)
    for path in (path for paths in images.values() for path in paths):
        if not path.exists():
            raise UserError(f"{portable(str(path))} is a link that leads nowhere; remove it, or put the image there.")
    notes: tuple[str, ...] = (f"{len(empty)} folders without images are left out, such as {empty[0]}",) if empty else ()
    if above:
        notes += (f"{len(above)} images that lie above the class folders are left out, such as {above[0]}",)
    if unread:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(unread.items()))
        notes += (f"pictures of formats that are not read are left out: {kinds}; {_CONVERT}",)
    return ClassFolders(images, notes)


def _at_depth(folder: Path, depth: int) -> tuple[dict[str, Path], list[str]]:
    """The class folders so many levels down, by name, and the images above them."""
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
        raise UserError(f"`depth` is {depth!r}: give the levels from the folder down to its class folders, 1 or more.")
    level, above = {"": folder}, []
    for below in range(depth):
        if below:
            above += [portable(str(p)) for f in level.values() for p in entries(f) if is_image(p) and not p.is_dir()]
        level = {
            f"{name}/{part}" if name else part: child
            for name, f in level.items()
            for part, child in named_folders(f).items()
        }
    return level, above


def split_folders(root: Path, depth: int = 1) -> tuple[Split, ...]:
    """Which of the folders train, val and test in ``root`` hold class folders with images in them, at that depth."""
    return tuple(
        name
        for name in SPLITS
        if (root / name).is_dir()
        and any(is_image(path) for child in _at_depth(root / name, depth)[0].values() for path in files_in(child))
    )


def _without_images(folder: Path, suffixes: Counter[str]) -> str:
    kinds = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in sorted(suffixes.items()))
    known = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
    what = _CONVERT if suffixes.keys() & _PHOTOS else f"put images there ({known})"
    name = portable(str(folder))
    return f"the class folder {name} has files ({kinds}) but no image that can be read; {what}, or move it elsewhere."
