"""What every data set hands over: one split of labelled images, decoded on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from otfew import choices

Split = choices.Split
"""Name of a split: "train", "val" or "test"."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")
"""The splits, class-disjoint: what is trained on, what options are chosen on, and what is reported."""

Image = npt.NDArray[np.uint8]
"""One decoded image: (height, width, 3), RGB, uint8."""


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set: labels in memory, images read one at a time.

    Attributes:
        dataset: Name as in ``otfew.data.DATASETS``.
        split: "train", "val" or "test": class-disjoint parts.
        variant: Which of several published split lists, crops or seeds this is; "" where there is one only.
        classes: Class names of this split that have images, in a fixed order.
        labels: (images,) int64, an index into ``classes``.
        names: (images,) identifiers, unique and the same on every machine (a relative path, or "test/17").
        read: Decodes image i: (height, width, 3) uint8 RGB at its original resolution.
        fingerprint: Changes whenever the files behind the images change; keys caches on this machine.
        published_classes: How many classes the published split has; more than ``len(classes)`` means partial.
        notes: Sentences that every report repeats ("partial: 22 of 50 classes, 1,294 images", "lossy JPEG copy").
        domains: (images,) where each image comes from ("photo", "sketch"), "" where that is not said; empty where the
            data set says nothing of it. No part of ``digest``: it tells images apart by no more than they are.
        view: Through which of ``otfew.data.shifts`` they are seen ("blur:2"); "" where they are as they are.
        units: (classes,) the unit that each class belongs to, where classes of one unit are not independent of each
            other (the turns of a character); empty where each class is one. Statistics over classes leave out a unit
            at once. No part of ``digest``.

    Raises:
        ValueError: Not as many units as classes.
    """

    dataset: str
    split: str
    variant: str
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]
    read: Callable[[int], Image]
    fingerprint: str
    published_classes: int
    notes: tuple[str, ...] = field(default=())
    domains: tuple[str, ...] = field(default=())
    view: str = ""
    units: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse units of other classes."""
        if self.units and len(self.units) != len(self.classes):
            raise ValueError(f"`units` must have one for each of {len(self.classes)} classes, not {len(self.units)}")

    def __len__(self) -> int:
        """Count the images."""
        return len(self.names)

    @property
    def digest(self) -> str:
        """Sha256 over the names and labels, and the view if there is one: which images these are, on every machine."""
        digest = hashlib.sha256(f"view\t{self.view}\n".encode() if self.view else b"")
        for name, label in zip(self.names, self.labels.tolist(), strict=True):
            digest.update(f"{name}\t{self.classes[label]}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class DataOptions:
    """Choices that some data sets offer; each loader reads what concerns it.

    Attributes:
        cub_split: Split list for CUB: "feat" (Ye et al. 2020, DeepEMD) or "closerlook" (Chen et al. 2019).
        split_seed: Seed of the class split that is drawn of ``image-folder`` and of a CSV file without splits.
        download: Fetch what is missing where the publisher allows it: True fetches, False does not, and None fetches
            what is small and asks about the rest, see ``otfew.data.consent``.
        depth: Levels from the folder of ``image-folder`` down to its class folders, see ``class_folders``.
        all_classes: Leave the classes of ``image-folder`` or a CSV file together: no split of them is drawn.
    """

    cub_split: choices.CubSplit = "feat"
    split_seed: int = 0
    download: bool | None = None
    depth: int = 1
    all_classes: bool = False


@dataclass(frozen=True)
class Dataset:
    """An entry of the table of data sets.

    Attributes:
        name: Its name.
        summary: One line about it.
        resolution: Side in pixels at which it is usually evaluated.
        load: (root, split, options) -> ImageSet; raises ``UserError`` naming what to put where.
        needs_root: False where the data are generated.
        drawn: True for characters: mirroring makes another class, and a small crop leaves nothing to recognise.
        home: Folder that the data lie in where no root is given; None takes ``otfew.data.default_root()``.
    """

    name: str
    summary: str
    resolution: int
    load: Callable[[Path, Split, DataOptions], ImageSet]
    needs_root: bool = True
    drawn: bool = False
    home: Path | None = None
