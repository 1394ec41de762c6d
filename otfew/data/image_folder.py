"""Any folder of class folders."""

from __future__ import annotations

from pathlib import Path

from otfew.data.base import SPLITS, DataOptions, Dataset, ImageSet, Split
from otfew.data.class_folders import ClassFolders, class_folders, split_folders
from otfew.data.decoding.image import SUFFIXES
from otfew.data.files import image_set
from otfew.errors import UserError
from otfew.random.keys import digest

LEAST_CLASSES = 5
"""A drawn split leaves at least so many classes to each part, enough for the usual 5-way episodes."""


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split of a user's own images.

    Where ``root`` has folders train, val or test that hold class folders, those are the splits. Otherwise its folders
    are the classes, and the split is drawn: see ``draw_split``.

    Classes and their images are found as ``otfew.data.class_folders`` says.

    Args:
        root: The folder.
        split: Which part.
        options: ``split_seed``, ``depth`` and ``all_classes``.

    Raises:
        UserError: No class folder with images is there, the split has none, or as ``class_folders``.
    """
    given: dict[Split, ClassFolders] = {
        name: class_folders(root / name, options.depth) for name in split_folders(root, options.depth)
    }
    if given:
        return _given(root, split, given)
    folders = class_folders(root, options.depth) if root.is_dir() else ClassFolders({}, ())
    if not folders.images:
        raise UserError(
            f"{root} has no class folders with images in them; put the images of each class in a folder of its own "
            f"(CLASS/NAME.jpg; {', '.join(sorted(suffix[1:] for suffix in SUFFIXES))})."
        )
    if options.all_classes:
        names = tuple(folders.images)
        return _image_set(root, split, folders, names, "all", (f"all {len(names)} classes of the folder",))
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
    ranked = sorted(classes, key=lambda name: digest(f"{seed}\0{name}"))
    if len(ranked) < len(SPLITS) * LEAST_CLASSES:
        return {"train": (), "val": (), "test": tuple(sorted(ranked))}
    part = max(LEAST_CLASSES, round(len(ranked) / 5))
    return {
        "train": tuple(sorted(ranked[2 * part :])),
        "val": tuple(sorted(ranked[part : 2 * part])),
        "test": tuple(sorted(ranked[:part])),
    }


def _drawn(root: Path, split: Split, seed: int, folders: ClassFolders) -> ImageSet:
    names = list(folders.images)
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


def _given(root: Path, split: Split, given: dict[Split, ClassFolders]) -> ImageSet:
    if split not in given:
        raise UserError(f"{root} has {', '.join(given)} but no folder {split} with class folders in it.")
    own = given[split]
    shared = {other: own.images.keys() & found.images.keys() for other, found in given.items() if other != split}
    notes = tuple(f"{split} and {other} share {len(names)} class names" for other, names in shared.items() if names)
    return _image_set(root, split, own, tuple(own.images), "", notes)


def _image_set(
    root: Path, split: Split, folders: ClassFolders, classes: tuple[str, ...], variant: str, notes: tuple[str, ...]
) -> ImageSet:
    entries = [(name, path.relative_to(root)) for name in classes for path in folders.images[name]]
    return image_set("image-folder", split, root, entries, classes, variant=variant, notes=notes + folders.notes)


DATASET = Dataset("image-folder", "any folder of class folders, or of train, val and test folders of them", 84, load)
