"""Caltech-UCSD Birds 200-2011 (Wah et al. 2011) in its publisher's layout, under one of two class splits."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

from otfew.data.base import DataOptions, Dataset, ImageSet, Split
from otfew.data.class_lists import class_lists
from otfew.data.download import Archive, install
from otfew.data.files import image_set
from otfew.data.roots import find_folder
from otfew.errors import UserError
from otfew.runs.regular_file import LIST_BYTES, read_regular

FOLDER = "CUB_200_2011"
ARCHIVE = Archive(
    url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
    creates=FOLDER,
    size=1_150_585_339,
)


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split; species or files that are not there are counted in a note.

    Args:
        root: Folder with ``CUB_200_2011`` in it, or that folder.
        split: Part of the class list ``options.cub_split``.
        options: ``cub_split`` and ``download``.

    Raises:
        UserError: The data are missing, a list is damaged, or no species of the split is there.
    """
    splits = get_args(get_type_hints(DataOptions)["cub_split"])
    if options.cub_split not in splits:
        raise UserError(f"CUB has no split {options.cub_split!r}; choose one of {', '.join(splits)}.")
    base = _folder(root, options)
    classes = _table(base / "classes.txt")
    class_of = _table(base / "image_class_labels.txt")
    entries = [
        (classes.get(class_of.get(image, ""), ""), Path(path)) for image, path in _table(base / "images.txt").items()
    ]
    return image_set(
        "cub",
        split,
        base / "images",
        entries,
        class_lists(f"cub-{options.cub_split}").classes[split],
        variant=options.cub_split,
    )


def _folder(root: Path, options: DataOptions) -> Path:
    """The publisher's folder, fetched if it is missing."""
    instead = (
        f"put the publisher's folder at {root / FOLDER} (images.txt, image_class_labels.txt, classes.txt, images/)"
    )
    if (base := find_folder(root, FOLDER, "images.txt")) is not None:
        return base
    if options.download is False or (root / FOLDER).exists():
        raise UserError(f"CUB is not complete under {root}: {instead}.")
    return install(ARCHIVE, root, instead=instead, download=options.download)


def _table(path: Path) -> dict[str, str]:
    """A file with "KEY VALUE" on each line."""
    try:
        data = read_regular(path, LIST_BYTES)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    try:
        rows = [line.split(maxsplit=1) for line in data.decode("utf-8").splitlines() if line.strip()]
        return {key: value.strip() for key, value in rows}
    except ValueError as error:
        raise UserError(f"{path} is damaged: each line must be a number, a space and a value.") from error


DATASET = Dataset("cub", "Caltech-UCSD Birds 200-2011: 200 species, split feat or closerlook", 84, load)
