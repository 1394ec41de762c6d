"""Data sets: labelled images in class-disjoint splits, found, checked and decoded on demand.

Their names cost no import: a data set's file is imported when it is asked for, numpy with it.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otfew.data.roots import VARIABLE, default_root
from otfew.errors import UserError
from otfew.registry import Registry, exported
from otfew.transport.importing import is_plugin

if TYPE_CHECKING:
    from otfew.data.base import SPLITS, DataOptions, Dataset, Image, ImageSet, Split
    from otfew.data.decoding.image import read_image

__all__ = [
    "DATASETS",
    "SPLITS",
    "DataOptions",
    "Dataset",
    "Image",
    "ImageSet",
    "Split",
    "default_root",
    "find",
    "load",
    "read_image",
]

DATASETS: Registry[Dataset] = Registry(
    {
        "glyphs": "otfew.data.glyphs:DATASET",
        "cub": "otfew.data.cub:DATASET",
        "cifar-fs": "otfew.data.cifar_fs:DATASET",
        "fc100": "otfew.data.fc100:DATASET",
        "omniglot": "otfew.data.omniglot:DATASET",
        "omniglot-rotated": "otfew.data.omniglot_rotated:DATASET",
        "miniimagenet": "otfew.data.miniimagenet:DATASET",
        "tieredimagenet": "otfew.data.tieredimagenet:DATASET",
        "mnist": "otfew.data.mnist:DATASET",
        "fashion-mnist": "otfew.data.fashion_mnist:DATASET",
        "cifar10": "otfew.data.cifar10:DATASET",
        "image-folder": "otfew.data.image_folder:DATASET",
    }
)
"""Name on the command line -> data set. A new one is one file and one line."""

_PLACES = {
    **{name: f"otfew.data.base:{name}" for name in ("SPLITS", "DataOptions", "Dataset", "Image", "ImageSet", "Split")},
    "read_image": "otfew.data.decoding.image:read_image",
}
"""Name -> what is imported when it is asked for."""


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    return exported(__name__, _PLACES, name)


def __dir__() -> list[str]:
    """List what there is to ask for."""
    return sorted({*globals(), *_PLACES})


def find(name: str) -> Dataset:
    """Find a data set by its name, or a file that lists one.

    Args:
        name: A key of ``DATASETS``, the path of a .csv file with the columns image and label, see
            ``otfew.data.image_list``, or ``package.module:Name`` of one of the user's own, see ``otfew.data.plugged``.

    Returns:
        The data set; ``Dataset.name`` is what reports and cards call it, a file by its name without the folder.

    Raises:
        UserError: Nothing is called so.
    """
    if name in DATASETS:
        return DATASETS[name]
    # Before the colon of one's own: paths of Windows hold one too.
    if name.lower().endswith(".csv"):
        from otfew.data.csv_file import dataset

        return dataset(Path(name))
    if is_plugin(name):
        from otfew.data import plugged

        return plugged.dataset(name)
    others = ["a .csv file of images and labels", "package.module:Name of your own"]
    raise UserError(_unknown("data set", name, [*DATASETS, *others]))


def load(name: str, split: str, root: Path | None = None, options: DataOptions | None = None) -> ImageSet:
    """Load one split of a data set.

    Args:
        name: As ``find`` takes it.
        split: "train", "val" or "test".
        root: Data root; None means ``default_root()``, and for a .csv file the folder that it is in.
        options: Choices that some data sets offer; None takes the defaults.

    Returns:
        Labels and names in memory, images decoded on demand.

    Raises:
        UserError: Unknown name or split, no such root, or the data are missing, empty or damaged.
    """
    from otfew.data.base import SPLITS, DataOptions

    dataset = find(name)
    known: dict[str, Split] = {part: part for part in SPLITS}
    if split not in known:
        raise UserError(_unknown("split", split, list(known)))
    place = Path(root).expanduser() if root is not None else dataset.home or default_root()
    if dataset.needs_root and not place.is_dir() and (root is not None or dataset.home is None):
        _refuse_or_make(place, given=root is not None)
    from otfew.caches import receipts

    receipts.hold(place)
    try:
        found = dataset.load(place, known[split], options or DataOptions())
        receipts.hold(place)  # where it was fetched just now
        return found
    except OSError as error:
        raise UserError(f"cannot read {error.filename or place}: {error.strerror or error}.") from error


def _refuse_or_make(place: Path, *, given: bool) -> None:
    """Make the cache folder where nobody chose a root; a root that somebody chose must exist."""
    if given or os.environ.get(VARIABLE):
        where = "`data_root`" if given else f"${VARIABLE}"
        raise UserError(f"the data root {place} is not a folder; correct {where} or make that folder.")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the data folder {place} ({error.strerror}); give `data_root`.") from error


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown {what} {name!r}{hint}; there are {', '.join(known)}."
