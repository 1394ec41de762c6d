"""All classes of a data set, whatever its splits: together, or cut in two by their names.

Halves are how images are retrieved (the published CUB protocol).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from otfew import data
from otfew.data.base import SPLITS, DataOptions, Image, ImageSet
from otfew.data.shared_classes import NOTE
from otfew.errors import UserError

HALVES = ("first-half", "second-half")
"""Names of the two halves."""
ALL = "all"
JOINED = (*HALVES, ALL)
"""Parts beside train, val and test."""
_OF_SPLITS = ("partial:", "class split drawn", "all ", NOTE)
"""Beginnings of notes that are about split lists, which play no part here."""


@dataclass(frozen=True)
class _Reader:
    """Decodes image i of several image sets; pickles where they do."""

    parts: tuple[ImageSet, ...]
    places: tuple[tuple[int, int], ...]

    def __call__(self, index: int) -> Image:
        """Read image ``index``: (height, width, 3) uint8 RGB."""
        part, image = self.places[index]
        return self.parts[part].read(image)


def load_half(name: str, half: str, root: Path | None, options: DataOptions) -> ImageSet:
    """Load all classes of a data set, or half of them, whatever split lists say of them.

    For halves, the classes that are present, in order of their names (CUB's begin with their numbers), are cut in the
    middle; of an odd number the first half gets one fewer. Of a complete CUB these are the first and the last 100
    species, the usual training and test part of metric learning.

    Args:
        name: As ``otfew.data.find`` takes it.
        half: "first-half", "second-half" or "all".
        root: Data root; None means the default.
        options: Of the data set.

    Raises:
        UserError: Unknown names, no data, or a single class.
    """
    if half not in JOINED:
        raise UserError(f"unknown half {half!r}: choose {' or '.join(JOINED)}.")
    if half == ALL:
        options = replace(options, all_classes=True)
    found_parts = {split: _try(name, split, root, options) for split in SPLITS}
    parts = [part for part in found_parts.values() if isinstance(part, ImageSet)]
    if whole := [part for part in parts if part.variant == ALL]:
        parts = whole[:1]  # of a user's own images without splits: the same in each
    missing = {split: error for split, error in found_parts.items() if isinstance(error, UserError)}
    if not parts:
        raise missing[SPLITS[0]]
    present = sorted({label for part in parts for label in part.classes})
    if len(present) < 2 and half != ALL:
        raise UserError(f"{name!r} has a single class, {present[0]!r}, and no halves: give more classes.")
    first = len(present) // 2
    classes = {HALVES[0]: present[:first], HALVES[1]: present[first:], ALL: present}[half]
    number = {label: k for k, label in enumerate(classes)}
    found = sorted(
        (number[part.classes[label]], part.names[i], k, i)
        for k, part in enumerate(parts)
        for i, label in enumerate(part.labels.tolist())
        if part.classes[label] in number
    )
    # Classes that several splits share count once.
    shared = sum(len(part.classes) for part in parts) - len(present)
    published = sum(part.published_classes for part in parts) - shared
    what = "all" if half == ALL else f"the {half.replace('-', ' ')}, by name, of"
    notes = [f"{what} the {len(present)} classes that are there"]
    if len(present) < published:
        more = "" if half == ALL else "; the halves are not those of the whole set"
        notes.append(f"partial: {len(present)} of {published} classes are there{more}")
    notes += dict.fromkeys(note for part in parts for note in part.notes if not note.startswith(_OF_SPLITS))
    notes += [f"no {split} split was found to be joined" for split in missing]
    domains = any(part.domains for part in parts)
    units = {name: unit for part in parts if part.units for name, unit in zip(part.classes, part.units, strict=True)}
    return ImageSet(
        dataset=parts[0].dataset,
        split=half,
        variant="",
        classes=tuple(classes),
        labels=np.array([label for label, _, _, _ in found], np.int64),
        names=tuple(image for _, image, _, _ in found),
        read=_Reader(tuple(parts), tuple((k, i) for _, _, k, i in found)),
        fingerprint=hashlib.sha256("\n".join([half, *(part.fingerprint for part in parts)]).encode()).hexdigest(),
        published_classes={HALVES[0]: published // 2, HALVES[1]: published - published // 2, ALL: published}[half],
        notes=tuple(notes),
        domains=tuple(parts[k].domains[i] if parts[k].domains else "" for _, _, k, i in found) if domains else (),
        units=tuple(units.get(name, name) for name in classes) if units else (),
    )


def _try(name: str, split: str, root: Path | None, options: DataOptions) -> ImageSet | UserError:
    """Load a split, or say why it cannot be."""
    try:
        return data.load(name, split, root, options)
    except UserError as error:
        return error
