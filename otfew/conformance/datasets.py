"""Laws of data sets: labelled images in class-disjoint splits, the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from otfew import data
from otfew.conformance.chance import seeded, twice
from otfew.conformance.findings import Finding, Law, broken, judge, not_asked, noted
from otfew.data import SPLITS, DataOptions, Dataset, ImageSet
from otfew.data.plugged import unsound
from otfew.errors import UserError

LOOKS = 24
"""Images of a split that are read."""
ENOUGH = 16
"""Images of a class for an episode of one shot and fifteen queries."""


@dataclass
class Subject:
    """A data set.

    Attributes:
        spec: As it was given.
        dataset: What it means.
        root: Data root; None for the default.
        options: What some data sets offer.
    """

    spec: str
    dataset: Dataset
    root: Path | None = None
    options: DataOptions = field(default_factory=DataOptions)

    def load(self, split: str) -> ImageSet:
        """Load a split anew."""
        return data.load(self.spec, split, self.root, self.options)

    @cached_property
    def found(self) -> Mapping[str, ImageSet | UserError]:
        """Load every split, or say why there is none."""
        return {split: self._loaded(split) for split in SPLITS}

    def _loaded(self, split: str) -> ImageSet | UserError:
        try:
            with seeded(0):
                return self.load(split)
        except UserError as error:
            return error

    @property
    def splits(self) -> dict[str, ImageSet]:
        """Those that are there."""
        return {split: found for split, found in self.found.items() if isinstance(found, ImageSet)}


def check(spec: str, root: Path | None = None) -> tuple[Finding, ...]:
    """Try all laws on a data set.

    Args:
        spec: As ``otfew.data.find`` takes it.
        root: Data root; None for the default.

    Raises:
        UserError: There is no such data set.
    """
    return judge(Subject(spec, data.find(spec), root), LAWS)


def _record(subject: Subject) -> None:
    dataset = subject.dataset
    if not isinstance(dataset.summary, str) or not dataset.summary:
        broken("`summary` is empty: write one line about the data.")
    if not isinstance(dataset.resolution, int) or dataset.resolution < 1:
        broken(f"`resolution` is {dataset.resolution!r}: give the side in pixels at which images are evaluated.")


def _loads(subject: Subject) -> None:
    if subject.splits:
        return
    first = next(error for error in subject.found.values() if isinstance(error, UserError))
    broken(f"no split can be loaded: {first}")


def _sound(subject: Subject) -> None:
    for split, images in subject.splits.items():
        if problem := unsound(images):
            broken(f"split {split!r} {problem}.")
        if not len(images):
            broken(f"split {split!r} has no images.")


def _disjoint(subject: Subject) -> None:
    parts = list(subject.splits.items())
    for k, (split, images) in enumerate(parts):
        for other, others in parts[k + 1 :]:
            if shared := sorted(set(images.classes) & set(others.classes)):
                broken(
                    f"{split} and {other} share {len(shared)} classes, such as {shared[0]!r}: no class may be in two."
                )


def _images(subject: Subject) -> None:
    for split, images in subject.splits.items():
        for i in _some(images):
            image = images.read(i)
            where = f"image {images.names[i]!r} of {split}"
            if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                broken(f"{where} is {got}: return (height, width, 3) of uint8, red first.")
            if 0 in image.shape:
                broken(f"{where} is empty.")


def _same(subject: Subject) -> None:
    for split, images in subject.splits.items():
        with seeded(99):
            again = subject.load(split)
        if again.digest != images.digest or again.classes != images.classes:
            broken(f"{split} loaded a second time has other names, labels or classes: sort them, and draw from a seed.")
        if again.fingerprint != images.fingerprint:
            broken(f"the fingerprint of {split} changes though the files do not: caches would never be found again.")
        for i in _some(images)[:6]:
            first, second = twice(partial(images.read, i))
            if not np.array_equal(first, second) or not np.array_equal(first, again.read(i)):
                broken(f"image {images.names[i]!r} of {split} is another each time: make it a function of its name.")


def _out_of_order(subject: Subject) -> None:
    for split, images in subject.splits.items():
        chosen = _some(images)[:6]
        forward = [images.read(i) for i in chosen]
        for i, image in reversed(list(zip(chosen, forward, strict=True))):
            if not np.array_equal(images.read(i), image):
                broken(
                    f"image {images.names[i]!r} of {split} depends on what was read before: threads read in any order."
                )


def _told_apart(subject: Subject) -> None:
    seen: dict[str, str] = {}
    for split, images in subject.splits.items():
        if not images.fingerprint:
            broken(f"the fingerprint of {split} is empty: hash what changes with the files.")
        if images.fingerprint in seen and images.digest != seen[images.fingerprint]:
            broken("two splits have one fingerprint, though their images differ.")
        seen[images.fingerprint] = images.digest


def _enough(subject: Subject) -> None:
    missing = [split for split in SPLITS if split not in subject.splits]
    if missing:
        noted(f"there is no {' and no '.join(missing)}: pretrain and metatrain want train and val.")
    for split, images in subject.splits.items():
        fewest = int(np.bincount(images.labels).min())
        if len(images.classes) < 5 or fewest < ENOUGH:
            noted(f"{split}: {len(images.classes)} classes, at least {fewest} images each: 5 and {ENOUGH} are usual.")


def _no_root(subject: Subject) -> None:
    if not subject.dataset.needs_root:
        not_asked("needs_root is False")
    try:
        subject.dataset.load(Path("there is no such folder"), "test", subject.options)
    except UserError:
        return
    except OSError as error:
        kind = type(error).__name__
        noted(f"in an empty data root it raises {kind}: raise otfew.errors.UserError, and say what to put where.")
    noted("in an empty data root it finds its data all the same: state 'needs_root=False'.")


def _some(images: ImageSet) -> list[int]:
    """Choose images over the whole of a split, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, len(images) - 1, LOOKS).tolist()})


LAWS: tuple[Law[Subject], ...] = (
    Law("its record says what it must", _record),
    Law("a split can be loaded", _loads, first=True),
    Law("labels, names and classes fit", _sound, first=True),
    Law("no class is in two splits", _disjoint),
    Law("images are (height, width, 3) of uint8", _images, first=True),
    Law("the same images each time", _same),
    Law("images can be read in any order", _out_of_order),
    Law("fingerprints tell splits apart", _told_apart),
    Law("enough splits, classes and images", _enough),
    Law("missing data are said to be missing", _no_root),
)
