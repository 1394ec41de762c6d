"""Data sets of a user's own, by ``package.module:Name``: nowhere registered, and checked as far as it costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from otfew import plugins
from otfew.data.base import DataOptions, Dataset, ImageSet, Split
from otfew.errors import UserError


def dataset(name: str) -> Dataset:
    """Import a data set.

    Args:
        name: ``package.module:Name`` of a ``Dataset``, or of a function or class that gives one when it is called
            without arguments.

    Returns:
        It, under that name, so that no report takes it for one of otfew's; a split that it loads is checked.

    Raises:
        UserError: The module cannot be imported, or nothing of the kind is there.
    """
    found = plugins.load(name, "data set")
    if callable(found) and not isinstance(found, Dataset):
        found = plugins.called(found, name, "data set")
    if not isinstance(found, Dataset):
        raise UserError(
            f"data set {name!r} is of type {type(found).__name__}: name an otfew.data.Dataset, or a function without "
            "arguments that returns one."
        )
    return replace(found, name=name, load=_Checked(found, name))


@dataclass(frozen=True)
class _Checked:
    """Loads a split of a user's data set, and looks at it."""

    inner: Dataset
    name: str

    def __call__(self, root: Path, split: Split, options: DataOptions) -> ImageSet:
        """Load a split; see ``otfew.data.base.Dataset.load``.

        Raises:
            UserError: The load fails, or what it returns is no sound split; ``OSError`` is passed on.
        """
        try:
            images = self.inner.load(root, split, options)
        except (UserError, OSError):
            raise
        except Exception as error:  # the user's code may raise anything
            raise UserError(f"data set {self.name!r}: loading {split!r} fails with {plugins.told(error)}.") from error
        if problem := unsound(images):
            raise UserError(f"data set {self.name!r}: split {split!r} {problem}.")
        return replace(images, dataset=self.name, split=split)


def unsound(images: Any) -> str:
    """Say what is wrong with a split, without reading an image: half a sentence, or "" where nothing is.

    Args:
        images: What a data set has loaded.
    """
    return next(_problems(images), "")


def _problems(images: Any) -> Iterator[str]:
    """Yield what is wrong with a split; only the first is sure, since what follows takes for granted that it is not."""
    if not isinstance(images, ImageSet):
        yield f"is of type {type(images).__name__}, not an otfew.data.ImageSet"
    labels = images.labels
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
        got = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else type(labels).__name__
        yield f"has labels of {got}: give a numpy array (images,) of int64"
    if len(labels) != len(images.names):
        yield f"has {len(labels)} labels but {len(images.names)} names: give one of each for every image"
    if len(set(images.names)) != len(images.names):
        yield "names two images alike: names tell images apart, on every machine"
    if len(set(images.classes)) != len(images.classes):
        yield "names two classes alike: names tell classes apart"
    counts = np.bincount(labels[(labels >= 0) & (labels < len(images.classes))], minlength=len(images.classes))
    if counts.sum() != len(labels):
        yield f"has labels outside its {len(images.classes)} classes: they are indices into `classes`"
    if len(labels) and (counts == 0).any():
        yield f"has no image of class {images.classes[int(counts.argmin())]!r}: leave such classes out"
    if not callable(images.read):
        yield "cannot read images: `read` is to take a number and return the image"
