"""A user's own images as a CSV file lists them: ``image,label[,split][,domain]``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from otfew.data.base import SPLITS, DataOptions, Dataset, ImageSet, Split
from otfew.data.files import image_set, portable
from otfew.data.image_folder import LEAST_CLASSES, draw_split
from otfew.data.image_list import ImageList, Row, read_list
from otfew.errors import UserError


def dataset(path: Path) -> Dataset:
    """Make a data set of a file; nothing is read before a split is loaded.

    Args:
        path: Of the file, see ``otfew.data.image_list.read_list``. Paths of images are relative to its folder, unless a
            root is given.

    Returns:
        The data set, called as the file is, without its folder: the same on every machine.
    """
    path = Path(os.path.expanduser(path))
    name = portable(path.name)
    return Dataset(name, f"images that {name} lists", 84, partial(load, path), home=path.parent)


def load(path: Path, root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split of the images that a file lists.

    Where the file has a column of splits, these are the splits. Otherwise a class split is drawn, as of a folder of
    class folders (``otfew.data.image_folder.draw_split``): of fewer than 15 classes all are in test, and with
    ``all_classes`` all of any number are in each split. The notes say which.

    Args:
        path: The file; where it is not there, ``root / path``.
        root: Folder that the paths of images are relative to.
        split: Which part.
        options: ``split_seed`` and ``all_classes``.

    Raises:
        UserError: The split has no row, or as ``read_list``.
    """
    listed = read_list(path if path.exists() else root / path, root)
    name = portable(path.name)
    if listed.split:
        return _given(name, root, split, listed)
    names = sorted({row.label for row in listed.rows})
    if options.all_classes:
        note = f"all {len(names)} classes of the list"
        return _image_set(name, root, split, listed, listed.rows, names, "all", (note,))
    chosen = draw_split(names, options.split_seed)
    if not chosen[split]:
        raise UserError(
            f"{name} has no column split, and its {len(names)} classes are too few to draw a {split} split "
            f"({len(SPLITS) * LEAST_CLASSES} are needed), so all are in test; or add the column."
        )
    if chosen["train"]:
        variant = f"seed{options.split_seed}"
        note = f"class split drawn from {len(names)} classes with seed {options.split_seed}"
    else:
        variant, note = "", f"all {len(names)} classes are in test: too few to draw a class split"
    return _image_set(name, root, split, listed, listed.rows, chosen[split], variant, (note,))


def _given(name: str, root: Path, split: Split, listed: ImageList) -> ImageSet:
    rows = [row for row in listed.rows if row.split == split]
    there = [part for part in SPLITS if any(row.split == part for row in listed.rows)]
    if not rows:
        raise UserError(f"{name} has images of {' and '.join(there)} but none whose split is {split}: add some.")
    own = {row.label for row in rows}
    notes = tuple(
        f"{split} and {part} share {len(shared)} class names"
        for part in there
        if part != split and (shared := own & {row.label for row in listed.rows if row.split == part})
    )
    return _image_set(name, root, split, listed, rows, sorted(own), "", notes)


def _image_set(
    name: str,
    root: Path,
    split: Split,
    listed: ImageList,
    rows: Sequence[Row],
    classes: Sequence[str],
    variant: str,
    notes: tuple[str, ...],
) -> ImageSet:
    found = image_set(
        name,
        split,
        root,
        [(row.label, row.image) for row in rows],
        classes,
        variant=variant,
        notes=notes + listed.notes,
    )
    if not listed.domain:
        return found
    domain_of = {portable(row.image.as_posix()): row.domain for row in rows}
    return replace(found, domains=tuple(domain_of[image] for image in found.names))
