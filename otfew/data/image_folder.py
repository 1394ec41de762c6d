"""Any folder of class folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

from otfew.data.base import SPLITS, DataOptions, Dataset, ImageSet, Split
from otfew.data.files import image_set, images_in, portable, subfolders
from otfew.data.image import SUFFIXES
from otfew.errors import UserError

LEAST_CLASSES = 5
"""A drawn split leaves at least so many classes to each part, enough for the usual 5-way episodes."""


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split of a user's own images.

    Where ``root`` has folders train, val or test that hold class folders, those are the splits. Otherwise its folders
    are the classes, and the split is drawn: see ``draw_split``.

    Args:
        root: The folder.
        split: Which part.
        options: ``split_seed``.

    Raises:
        UserError: No class folder with images is there, or the split has none.
    """
    given = {name: classes for name in SPLITS if any((classes := _class_folders(root / name)).values())}
    if given:
        return _given(root, split, given)
    folders = _class_folders(root)
    if not any(folders.values()):
        raise UserError(
            f"{root} has no class folders with images in them; put the images of each class in a folder of its own "
            f"(CLASS/NAME.jpg; {', '.join(sorted(suffix[1:] for suffix in SUFFIXES))})."
        )
    return _drawn(root, split, options.split_seed, folders)


def draw_split(classes: list[str], seed: int) -> dict[Split, tuple[str, ...]]:
    """Draw class-disjoint parts: 20 % of the classes for test, 20 % for val, at least 5 each, the rest for train.

    Classes are ranked by the sha256 of seed and name, so the draw is the same on every machine and does not depend on
    the order of ``classes``. Fewer than 15 classes cannot be divided so: all of them go to test.

    Args:
        classes: Class names.
        seed: Any integer.

    Returns:
        Split -> its classes, sorted.
    """
    ranked = sorted(classes, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest())
    if len(ranked) < len(SPLITS) * LEAST_CLASSES:
        return {"train": (), "val": (), "test": tuple(sorted(ranked))}
    part = max(LEAST_CLASSES, round(len(ranked) / 5))
    return {
        "train": tuple(sorted(ranked[2 * part :])),
        "val": tuple(sorted(ranked[part : 2 * part])),
        "test": tuple(sorted(ranked[:part])),
    }


def _drawn(root: Path, split: Split, seed: int, folders: dict[str, list[Path]]) -> ImageSet:
    names = [name for name, paths in folders.items() if paths]
    chosen = draw_split(names, seed)
    if not chosen[split]:
        raise UserError(
            f"{root} has {len(names)} classes, too few to draw a {split} split ({len(SPLITS) * LEAST_CLASSES} are "
            "needed), so all are in test; or make folders train, val and test yourself."
        )
    if chosen["train"]:
        variant, note = f"seed{seed}", f"class split drawn from {len(names)} classes with seed {seed}"
    else:
        variant, note = "", f"all {len(names)} classes are in test: too few to draw a class split"
    return _image_set(root, split, folders, chosen[split], variant, (note,))


def _given(root: Path, split: Split, given: dict[Split, dict[str, list[Path]]]) -> ImageSet:
    if split not in given:
        raise UserError(f"{root} has {', '.join(given)} but no folder {split} with class folders in it.")
    folders = given[split]
    shared = {other: folders.keys() & classes.keys() for other, classes in given.items() if other != split}
    notes = tuple(f"{split} and {other} share {len(names)} class names" for other, names in shared.items() if names)
    return _image_set(root, split, folders, tuple(name for name, paths in folders.items() if paths), "", notes)


def _image_set(
    root: Path,
    split: Split,
    folders: dict[str, list[Path]],
    classes: tuple[str, ...],
    variant: str,
    notes: tuple[str, ...],
) -> ImageSet:
    entries = [(name, path.relative_to(root)) for name in classes for path in folders[name]]
    if empty := [name for name, paths in folders.items() if not paths]:
        notes += (f"{len(empty)} folders without images are left out, such as {empty[0]}",)
    return image_set("image-folder", split, root, entries, classes, variant=variant, notes=notes)


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """Folder name -> the images below it; empty where there is no such folder."""
    return {portable(child.name): images_in(child) for child in subfolders(folder)} if folder.is_dir() else {}


DATASET = Dataset("image-folder", "any folder of class folders, or of train, val and test folders of them", 84, load)
