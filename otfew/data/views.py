"""Rendered views of shapes in folders (ModelNet, SHREC): several images make one object."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from otfew.data.base import SPLITS, Image, ImageSet
from otfew.data.decoding.image import read_image
from otfew.data.files import hidden, images_in, is_image, named_folders, portable
from otfew.errors import UserError

NAMED = 5
"""Objects that a note on what is left out names."""
READ_AHEAD = 32
"""Shapes whose views are kept decoded while they are asked for one by one."""

_NUMBERED = re.compile(r"^(?P<shape>.+?)[._-]+(?:shaded[._-]*|depth[._-]*)?(?:view|v)?(?P<view>\d+)$", re.IGNORECASE)
"""What renderers call a view: chair_0001.obj.shaded_v012, chair_0001_view3, chair_0001_012."""


@dataclass(frozen=True)
class ViewSet:
    """One split of shapes, each with the same number of views.

    Attributes:
        classes: Names, sorted.
        labels: (shapes,) int64, an index into ``classes``.
        names: (shapes,) such as "chair/chair_0001".
        paths: Of each shape's views, in their order around it.
        notes: Sentences that every report repeats.
    """

    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]
    paths: tuple[tuple[Path, ...], ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Count the shapes."""
        return len(self.names)

    @property
    def views(self) -> int:
        """Images of each shape."""
        return len(self.paths[0])

    @property
    def digest(self) -> str:
        """Sha256 over names, labels and numbers of views: which shapes these are, alike on every machine."""
        lines = (f"{name}\t{self.classes[y]}\t{self.views}\n" for name, y in zip(self.names, self.labels, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def read(self, index: int) -> list[Image]:
        """Decode the views of shape ``index``: each (height, width, 3) uint8 RGB."""
        return [read_image(path) for path in self.paths[index]]


def load_views(root: Path, split: str, views: int | None = None) -> ViewSet:
    """Find the shapes of one split.

    Splits are folders above the classes (``train/chair/...``) or below them (``chair/train/...``, as the renderings of
    ModelNet are published). A shape is a folder of images (``chair/chair_0001/3.png``), or the files of one class
    folder that differ in a trailing number only (``chair/chair_0001.obj.shaded_v003.png``).

    Args:
        root: Folder of the data.
        split: "train", "val" or "test".
        views: Images to take of each shape, evenly spaced; None takes all, of which every shape must have as many.

    Raises:
        UserError: No such folder or split, no shapes in it, a class whose shapes all have no views, or a shape with too
            few.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; there are {', '.join(SPLITS)}.")
    if views is not None and views < 1:
        raise UserError(f"the number of views must be at least 1, not {views}.")
    if not root.is_dir():
        raise UserError(f"the folder of views {root} is not there; correct the path.")
    above = named_folders(root / split) if (root / split).is_dir() else {}
    below = {name: folder / split for name, folder in named_folders(root).items() if (folder / split).is_dir()}
    every: list[tuple[str, str, list[Path]]] = []
    for name, folder in sorted((above or below).items()):
        every += [(name, f"{name}/{shape}", paths) for shape, paths in sorted(_shapes(folder).items())]
    shapes = [found for found in every if found[2]]
    bare = [name for _, name, paths in every if not paths]
    if not shapes:
        raise UserError(
            f"{root} holds no shapes of the split {split}: it needs {split}/CLASS/ or CLASS/{split}/ with a folder of "
            "views a shape, or files such as SHAPE_v001.png."
        )
    classes = sorted({name for name, _, _ in shapes})
    if gone := sorted({name for name, _, _ in every} - set(classes)):
        empty = next(name for name in bare if name.startswith(f"{gone[0]}/"))
        raise UserError(f"no shape of the class {gone[0]!r} has views in the split {split}: {empty} is empty.")
    wanted = len(shapes[0][2]) if views is None else views
    return ViewSet(
        classes=tuple(classes),
        labels=np.array([classes.index(name) for name, _, _ in shapes], dtype=np.int64),
        names=tuple(name for _, name, _ in shapes),
        paths=tuple(_spaced(name, paths, wanted, given=views is not None) for _, name, paths in shapes),
        notes=left_out(f"of {len(every):,} shapes have no views and", bare),
    )


def left_out(what: str, named: Sequence[str]) -> tuple[str, ...]:
    """Say in a note how many objects are left out, naming the first of them; nothing where there are none."""
    if not named:
        return ()
    more = f"; and {len(named) - NAMED:,} more" if len(named) > NAMED else ""
    return (f"{len(named):,} {what} are left out: {'; '.join(each.rstrip('.') for each in named[:NAMED])}{more}",)


def _shapes(folder: Path) -> dict[str, list[Path]]:
    """Shape -> its views in order, from folders or from numbered files; none where a folder holds none."""
    found = {name: sorted(images_in(child), key=_order) for name, child in named_folders(folder).items()}
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_image(path) and not hidden(path.name):
            parts = _NUMBERED.match(path.stem)
            if parts is None:
                raise UserError(f"{path} has no number of a view at the end of its name, such as SHAPE_v001.png.")
            found.setdefault(portable(parts["shape"]), []).append(path)
    return {name: sorted(paths, key=_order) for name, paths in found.items()}


def _order(path: Path) -> tuple[int, str]:
    """Views go round the shape by number, not by spelling: 2 before 10."""
    numbers = re.findall(r"\d+", path.stem)
    return (int(numbers[-1]) if numbers else 0, path.name)


def _spaced(name: str, paths: Sequence[Path], wanted: int, *, given: bool) -> tuple[Path, ...]:
    """Take so many views, evenly spaced."""
    if len(paths) < wanted or (not given and len(paths) != wanted):
        raise UserError(
            f"shape {name} has {len(paths)} views where {wanted} are needed: "
            + ("choose fewer." if given else "choose a number of views that all shapes have.")
        )
    return tuple(paths[i * len(paths) // wanted] for i in range(wanted))


def every_view(shapes: ViewSet, dataset: str, split: str) -> ImageSet:
    """Make each view of each shape an image of its own, such as features are extracted of and cached.

    Args:
        shapes: All with the same number of views.
        dataset: Name of the set.
        split: Its part.

    Returns:
        shapes * views images, those of one shape together and in their order around it.
    """
    count = shapes.views
    files = hashlib.sha256()
    for paths in shapes.paths:
        for path in paths:
            status = path.stat()
            files.update(f"{path.name}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    # Where views lie side by side in one file, decoding it gives them all.
    read = lru_cache(maxsize=READ_AHEAD)(shapes.read)
    return ImageSet(
        dataset=dataset,
        split=split,
        variant=f"{count} views",
        classes=shapes.classes,
        labels=np.repeat(shapes.labels, count),
        names=tuple(f"{name}/view-{view:02d}" for name in shapes.names for view in range(count)),
        read=lambda image: read(image // count)[image % count],
        fingerprint=f"{files.hexdigest()} {shapes.digest}",
        published_classes=len(shapes.classes),
        notes=shapes.notes,
    )
