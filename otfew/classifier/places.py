"""Images by name: folders, patterns and files become a list of image files in a fixed order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from otfew.data.class_folders import class_folders, split_folders
from otfew.data.files import hidden, images_in, is_image, portable
from otfew.data.image_list import read_list
from otfew.errors import UserError


def find_photos(*places: str | os.PathLike[str]) -> list[Path]:
    """List the image files that names stand for.

    Args:
        *places: Folders, with all visible images at any depth below them; patterns with ``*``, ``?``, ``[...]`` or
            ``**``, with the visible images, and folders of them, that fit; or files, which count whatever their names
            end in. ``~`` is the home folder.

    Returns:
        The files of each place sorted by path, the places in their order; a file that several name counts once.

    Raises:
        UserError: A place that names no image, or is nothing that can be a path.
    """
    found: dict[str, Path] = {}
    for place in places:
        listed = files_of(place)
        if listed is None:
            raise UserError(f"{_told(place)} is not there: give a folder, a pattern such as *.jpg, or image files.")
        for path in listed:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def labelled_photos(folder: str | os.PathLike[str], depth: int = 1) -> tuple[list[Path], list[str], list[str]]:
    """List the images of a folder that holds a folder of images for each class, which names it, or of a CSV file.

    Of a file with a column of splits, the images of the split train are labelled ones.

    Args:
        folder: Its path, or that of a .csv file, see ``otfew.data.image_list``; ``~`` is the home folder.
        depth: Levels down to the class folders, see ``otfew.data.class_folders``.

    Returns:
        Files, a label for each, and sentences on what is left out.

    Raises:
        UserError: No such folder, or no images in it; as ``otfew.data.image_list.read_list``.
    """
    if not isinstance(folder, str | os.PathLike) or folder == "":
        raise UserError(f"the folder is {folder!r}: give its path.")
    folder = Path(os.path.expanduser(folder))
    if is_list(folder):
        return _listed(folder)
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder: give one that holds a folder of images for each class.")
    if splits := split_folders(folder, depth):
        raise UserError(f"the classes are in folders in {folder}, {', '.join(splits)}: give {folder / splits[0]}.")
    found = class_folders(folder, depth)
    if not found.images:
        if lying := images_in(folder) if depth == 1 else []:
            raise UserError(
                f"{folder} holds {len(lying):,} images, such as {portable(lying[0].name)}, and no folders of "
                "them: put the images of each class into a folder in it, whose name is the label."
            )
        raise UserError(f"{folder} holds no images: put a folder of images for each class into it.")
    files = [(name, path) for name, paths in found.images.items() for path in paths]
    notes = [f"{folder}: {note}." for note in (*found.notes, *_alike(found.images))]
    return [path for _, path in files], [name for name, _ in files], notes


def _alike(labels: Iterable[str]) -> list[str]:
    """Point out labels that may be one: a slip in a name makes a class of its own."""
    spelt: dict[str, list[str]] = {}
    for label in sorted(labels):
        spelt.setdefault(" ".join(re.split(r"[-_\s]+", label.casefold())).strip(), []).append(label)
    return [
        f"{' and '.join(map(repr, names))} are different classes; if that is a slip, give them one name"
        for names in spelt.values()
        if len(names) > 1
    ]


def is_list(path: Path) -> bool:
    """Whether a path is a CSV file, which lists images."""
    return path.suffix.lower() == ".csv" and not path.is_dir()


def _listed(path: Path) -> tuple[list[Path], list[str], list[str]]:
    """Read the labelled photos of a CSV file, by class and path."""
    found = read_list(path, path.parent)
    rows = [row for row in found.rows if row.split in {"train", None}]
    if not rows:
        raise UserError(f"{_told(path)} has a column split, but no row of train: those would be the labelled images.")
    notes = [*found.notes, *_alike({row.label for row in rows})]
    if left := len(found.rows) - len(rows):
        notes.append(f"{left:,} of {len(found.rows):,} images are left out, whose split is not train")
    rows.sort(key=lambda row: (row.label, row.image.as_posix()))
    return [path.parent / row.image for row in rows], [row.label for row in rows], [f"{path}: {one}." for one in notes]


def files_of(place: str | os.PathLike[str]) -> list[Path] | None:
    """List the image files that one name stands for, as ``find_photos``; None where nothing is there.

    Raises:
        UserError: A folder without images, or a pattern that no image fits.
    """
    name = os.path.expanduser(os.fsdecode(place)) if isinstance(place, str | os.PathLike) else ""
    if not name or "\0" in name:
        raise UserError(f"{place!r} is no path: give a folder, a pattern such as *.jpg, or image files.")
    if os.path.isdir(name):
        images = images_in(Path(name))
        if not images:
            raise UserError(f"{_told(place)} holds no images: give a folder, or a pattern, that leads to some.")
        return images
    if os.path.exists(name):
        return [Path(name)]
    if not glob.has_magic(name):
        return None
    fitting = [Path(path) for path in sorted(glob.glob(name, recursive=True))]
    shown = [path for path in fitting if not hidden(path.name)]
    images = [image for path in shown for image in (images_in(path) if path.is_dir() else [path] * is_image(path))]
    if not images:
        raise UserError(f"no image fits the pattern {_told(place)}: mind its folder and the ending of the files.")
    return list(dict.fromkeys(images))


def _told(place: str | os.PathLike[str]) -> str:
    return portable(os.fsdecode(place))
