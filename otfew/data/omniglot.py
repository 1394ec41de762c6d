"""Omniglot (Lake et al. 2015): 1,623 handwritten characters, 20 drawings each, in the split of Vinyals et al. 2016."""

from __future__ import annotations

from pathlib import Path

from otfew.data.base import DataOptions, Dataset, ImageSet, Split
from otfew.data.class_lists import class_lists
from otfew.data.download import Archive, install
from otfew.data.files import image_set, images_in
from otfew.data.roots import find_folder
from otfew.errors import UserError

FOLDER = "omniglot-py"
ARCHIVES = (
    Archive(
        url="https://github.com/brendenlake/omniglot/raw/master/python/images_background.zip",
        sha256="ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
        creates="images_background",
    ),
    Archive(
        url="https://github.com/brendenlake/omniglot/raw/master/python/images_evaluation.zip",
        sha256="1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
        creates="images_evaluation",
    ),
)
NOTE = "characters as drawn, black on white: rotated copies are not counted as further classes"


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split: drawings of 105x105, black on white, as RGB.

    Rotated copies of the characters are not added as classes; ``otfew.data.omniglot_rotated`` adds them.

    Args:
        root: Folder with ``omniglot-py`` in it, or that folder.
        split: Part of the class list of Vinyals et al. 2016.
        options: ``download``.

    Raises:
        UserError: The data are missing, or no character of the split is there.
    """
    base = _folder(root, options)
    published = class_lists("omniglot-vinyals").classes[split]
    # A listed class is "background/ALPHABET/characterNN", which lies in images_background.
    entries = [
        (name, path.relative_to(base))
        for name in published
        if (folder := base / f"images_{name}").is_dir()
        for path in images_in(folder)
    ]
    return image_set("omniglot", split, base, entries, published, variant="vinyals", notes=(NOTE,))


def _folder(root: Path, options: DataOptions) -> Path:
    """The folder that holds both of the publisher's folders, fetched if missing."""
    names = [archive.creates for archive in ARCHIVES]
    instead = f"put the publisher's folders {' and '.join(names)} in {root / FOLDER}"
    base = next((found for name in names if (found := find_folder(root, FOLDER, name)) is not None), root / FOLDER)
    missing = [archive for archive in ARCHIVES if not (base / archive.creates).is_dir()]
    if missing and options.download is False:
        raise UserError(f"Omniglot is not complete under {root}: {instead}.")
    for archive in missing:
        install(archive, base, instead=instead)
    return base


DATASET = Dataset(
    "omniglot", "Omniglot: 1,623 handwritten characters, split of Vinyals et al. 2016", 28, load, drawn=True
)
