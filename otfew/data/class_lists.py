"""The published class lists, kept as data files with the publication that each comes from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from otfew.data.base import SPLITS, Split


@dataclass(frozen=True)
class ClassLists:
    """Which classes are for training, validation and test.

    Attributes:
        name: File name without its suffix.
        source: Publication.
        classes: Split -> class names, sorted as published.
    """

    name: str
    source: str
    classes: dict[Split, tuple[str, ...]]


@cache
def class_lists(name: str) -> ClassLists:
    """Read ``splits/NAME.json`` of this package.

    Raises:
        ValueError: A split has another number of classes than its file announces, or a class occurs twice.
    """
    record = json.loads(files("otfew.data").joinpath("splits", f"{name}.json").read_text(encoding="utf-8"))
    return parse_class_lists(name, record)


def parse_class_lists(name: str, record: dict[str, object]) -> ClassLists:
    """Check and convert the contents of a split file: source, counts, train, val, test.

    Raises:
        ValueError: A split has another number of classes than announced, or a class occurs twice.
    """
    source, counts = record["source"], record["counts"]
    if not isinstance(source, str) or not isinstance(counts, dict):
        raise ValueError(f"split file {name}: source or counts is missing")
    classes: dict[Split, tuple[str, ...]] = {}
    seen: set[str] = set()
    for split in SPLITS:
        listed = record[split]
        if not isinstance(listed, list) or len(listed) != counts[split]:
            raise ValueError(f"split file {name}: {split} does not have {counts[split]} classes")
        if len(set(listed)) != len(listed) or seen & set(listed):
            raise ValueError(f"split file {name}: a class of {split} occurs twice")
        seen |= set(listed)
        classes[split] = tuple(listed)
    return ClassLists(name, source, classes)
