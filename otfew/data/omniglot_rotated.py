"""Omniglot with rotated classes, as Vinyals et al. 2016 and most others have it: each turn of a character is a class.

1,200 characters to train and validate on become 4,800 classes, and the 423 others 1,692.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from otfew.data import omniglot
from otfew.data.base import DataOptions, Dataset, Image, ImageSet, Split
from otfew.data.files import partial_notes

NAME = "omniglot-rotated"
DEGREES = (0, 90, 180, 270)
"""Counter-clockwise."""
NOTE = (
    "each character turned by 0, 90, 180 and 270 degrees is four classes, of the same drawings: intervals over classes "
    "leave out all four at once"
)


@dataclass(frozen=True)
class TurnedReader:
    """Decodes an image and turns it; pickles, so that worker processes can hold it.

    Attributes:
        read: Decodes drawing i as it is.
        drawings: (images,) which drawing each image is.
        quarters: (images,) by how many quarters it is turned, counter-clockwise.
    """

    read: Callable[[int], Image]
    drawings: npt.NDArray[np.int64]
    quarters: npt.NDArray[np.int64]

    def __call__(self, index: int) -> Image:
        """Read image ``index``: (height, width, 3) uint8 RGB."""
        return np.ascontiguousarray(np.rot90(self.read(int(self.drawings[index])), int(self.quarters[index])))


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split: the drawings of ``otfew.data.omniglot``, each four times.

    A character keeps its class's name where it is upright; turned, it has "@90", "@180" or "@270" behind it, and so do
    its drawings.

    Args:
        root: Folder with ``omniglot-py`` in it, or that folder.
        split: Part of the class list of Vinyals et al. 2016; all turns of a character are in the same part.
        options: ``download``.

    Raises:
        UserError: The data are missing, or no character of the split is there.
    """
    return rotated(omniglot.load(root, split, options))


def rotated(drawn: ImageSet) -> ImageSet:
    """Make four classes of each class of a split, turned by quarters; the turns of a class follow each other."""
    turns = len(DEGREES)
    # By class, then turn, then drawing, as the labels of other data sets ascend.
    label = (drawn.labels[None] * turns + np.arange(turns)[:, None]).ravel()
    order = np.argsort(label, kind="stable")
    quarters, drawings = np.divmod(order, len(drawn))
    classes = tuple(_turned(name, degrees) for name in drawn.classes for degrees in DEGREES)
    return replace(
        drawn,
        dataset=NAME,
        classes=classes,
        labels=label[order],
        names=tuple(_turned(drawn.names[i], DEGREES[q]) for i, q in zip(drawings, quarters, strict=True)),
        read=TurnedReader(drawn.read, drawings, quarters),
        fingerprint=hashlib.sha256(f"{NAME}\n{drawn.fingerprint}".encode()).hexdigest(),
        published_classes=turns * drawn.published_classes,
        notes=(*partial_notes(len(classes), turns * drawn.published_classes, len(order), len(order)), NOTE),
        units=tuple(name for name in drawn.classes for _ in DEGREES),
    )


def _turned(name: str, degrees: int) -> str:
    """Name what is turned; what stands upright keeps its name."""
    return f"{name}@{degrees}" if degrees else name


DATASET = Dataset(
    "omniglot-rotated",
    "Omniglot with rotated classes: 1,623 characters, four turns of each",
    28,
    load,
    drawn=True,
)
