"""Albums whose truth is known: folders as a user has them, of labelled and of new photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from otfew.classifier.places import find_photos
from otfew.data import DataOptions, load
from otfew.data.base import ImageSet
from otfew.errors import UserError
from otfew.experiments.transcript.config import Config
from otfew.random.keys import digest

OTHER = "other-"
"""How the name of a photo of no labelled class begins."""


@dataclass(frozen=True)
class Album:
    """Photos to learn and photos to ask about.

    Attributes:
        labelled: Folder of class folders.
        new: Folder.
        source: What they are, JSON-ready and without paths.
    """

    labelled: Path
    new: Path
    source: dict[str, object]

    def truths(self, files: Sequence[Path]) -> list[str | None]:
        """Name the class of each new photo; None where it has no label."""
        kinds = sorted((path.name for path in self.labelled.iterdir() if path.is_dir()), key=len, reverse=True)
        found: list[str | None] = []
        for file in files:
            kind = next((kind for kind in kinds if file.name.startswith(f"{kind}-")), None)
            if kind is None and not file.name.startswith(OTHER):
                raise UserError(f"{file.name} in `folder` names no class: call it CLASS-1.jpg, or other-1.jpg.")
            found.append(kind)
        return found


def album_of(config: Config, folder: Path) -> Album:
    """Find the album that is asked for, or make one of a data set.

    Args:
        config: The command line.
        folder: Empty; where one is made.

    Raises:
        UserError: Data are missing, or have fewer classes or images than are asked for.
    """
    if config.folder is not None:
        labelled, new = config.folder / "labelled", config.folder / "new"
        if not labelled.is_dir() or not new.is_dir():
            raise UserError(f"`folder` {config.folder} holds no folders labelled and new: give one that does.")
        source = {"folder": config.folder.name, "labelled": len(find_photos(labelled)), "new": len(find_photos(new))}
        return Album(labelled, new, source)
    images = load(config.dataset, config.split, config.data_root, DataOptions())
    order = sorted(range(len(images.classes)), key=lambda c: digest(images.classes[c]))
    wanted = config.kinds + config.unknown_kinds
    if len(order) < wanted:
        raise UserError(f"{images.dataset} ({images.split}) has {len(order)} classes, and {wanted} are asked for.")
    known, unknown = order[: config.kinds], order[config.kinds : wanted]
    for c in known:
        own = _members(images, c, config.labelled + config.new)
        kind = _plain(images.classes[c])
        for k, i in enumerate(own[: config.labelled]):
            _write(images, i, folder / "labelled" / kind / f"{k + 1}.png")
        for k, i in enumerate(own[config.labelled :]):
            _write(images, i, folder / "new" / f"{kind}-{k + 1}.png")
    for c in unknown:
        for k, i in enumerate(_members(images, c, config.unknown_new)):
            _write(images, i, folder / "new" / f"{OTHER}{_plain(images.classes[c])}-{k + 1}.png")
    source = {
        "dataset": images.dataset,
        "split": images.split,
        "sha256": images.digest,
        "kinds": [_plain(images.classes[c]) for c in known],
        "unknown_kinds": [_plain(images.classes[c]) for c in unknown],
        "labelled": config.labelled,
        "new": config.new,
        "unknown_new": config.unknown_new,
        "rule": "classes, and images of each, in the order of the hashes of their names",
    }
    return Album(folder / "labelled", folder / "new", source)


def _members(images: ImageSet, c: int, count: int) -> list[int]:
    """Take the first images of a class by the hashes of their names."""
    own = sorted(np.flatnonzero(images.labels == c).tolist(), key=lambda i: digest(images.names[i]))
    if len(own) < count:
        raise UserError(f"{images.classes[c]} has {len(own)} images, and {count} are asked for: ask for fewer.")
    return own[:count]


def _plain(name: str) -> str:
    """Name a class as a folder; a separator would make two of it."""
    return name.replace("/", " ").replace("\\", " ")


def _write(images: ImageSet, i: int, path: Path) -> None:
    """Write an image without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".png", np.ascontiguousarray(images.read(i)[:, :, ::-1]))
    path.write_bytes(data.tobytes())
