"""Subsets of ImageNet, as folders of classes or as csv lists beside a folder of images."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath

from otfew.data.base import SPLITS, ImageSet, Split
from otfew.data.class_lists import class_lists
from otfew.data.files import image_set, images_in, subfolders
from otfew.data.roots import find_folder
from otfew.errors import UserError
from otfew.runs.regular_file import LIST_BYTES, read_regular


def load_imagenet_subset(dataset: str, root: Path, split: Split) -> ImageSet:
    """Load one split of "miniimagenet" or "tieredimagenet", in whichever of the usual layouts it lies.

    In DATASET/ (or in ``root`` itself): ``train.csv``, ``val.csv``, ``test.csv`` (or in ``split/``) with the columns
    filename and label, and the files in ``images/``; or one folder a class, named by its WordNet id, below
    ``train/``, ``val/``, ``test/``, or all together, directly or below ``images/``.

    Args:
        dataset: Name of the set and of its class list.
        root: Data root.
        split: Part of the published class list.

    Raises:
        UserError: Nothing is there, or a class of another split is listed under this one.
    """
    published = class_lists(dataset).classes[split]
    base = _base(dataset, root)
    entries = _listed(base, split)
    if entries is None:
        folder, checked = _class_root(base, split)
        entries = [
            (child.name, path.relative_to(base))
            for child in subfolders(folder)
            if checked or child.name in published
            for path in images_in(child)
        ]
    elsewhere = {name for other, names in class_lists(dataset).classes.items() if other != split for name in names}
    if strays := sorted({name for name, _ in entries} & elsewhere):
        raise UserError(
            f"{base} lists {len(strays)} classes under {split} that the published split of {dataset} has elsewhere "
            f"(such as {strays[0]}); sort them as in {class_lists(dataset).source}."
        )
    return image_set(dataset, split, base, entries, published)


def _base(dataset: str, root: Path) -> Path:
    """The folder of the set: found by any of the entries that a layout may have."""
    wnids = (name for names in class_lists(dataset).classes.values() for name in names)
    base = find_folder(root, dataset, "images", "split", *SPLITS, *(f"{split}.csv" for split in SPLITS), *wnids)
    if base is None:
        raise UserError(
            f"{dataset} is not under {root} and cannot be downloaded by program: make {root / dataset}/SPLIT/WNID/*.jpg"
            " (SPLIT is train, val or test), or put train.csv, val.csv, test.csv (filename,label) beside images/ there."
        )
    return base


def _class_root(base: Path, split: Split) -> tuple[Path, bool]:
    """The folder whose children are classes, and whether it is for this split alone."""
    for folder in (base / split, base / "images" / split):
        if folder.is_dir():
            return folder, True
    return (base / "images" if (base / "images").is_dir() else base), False


def _listed(base: Path, split: Split) -> list[tuple[str, Path]] | None:
    """Class and file of each row of the csv list, None if there is no list."""
    path = next((p for p in (base / f"{split}.csv", base / "split" / f"{split}.csv") if p.is_file()), None)
    if path is None:
        return None
    try:
        text = read_regular(path, LIST_BYTES).decode("utf-8-sig")
        rows = [(row["label"], row["filename"]) for row in csv.DictReader(io.StringIO(text, newline=""))]
    except (KeyError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a list with the columns filename and label.") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    for label, name in rows:
        if not label or not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{path} has a row {name!r},{label!r}; give a path below images/ and a label.")
    # Some copies keep the files of a class in a folder of their own.
    layouts = [
        [(label, Path("images", name)) for label, name in rows],
        [(label, Path("images", label, name)) for label, name in rows],
    ]
    return next((rows for rows in layouts if any((base / file).is_file() for _, file in rows)), layouts[0])
