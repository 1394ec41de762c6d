"""The options of transcript."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from otfew.choices import Part


@dataclass
class Config:
    """Run classify on photos whose classes are known, and write down what it says beside the truth.

    From a data set: some classes with a few labelled photos each, new photos of them, and new photos of classes that
    have no label; which they are follows from the hashes of their names. Or from a folder with folders "labelled" and
    "new", where the name of a new photo begins with that of its class or, if it has none, with "other-".
    """

    dataset: str = "cub"
    """Data set; compare --list prints them."""
    folder: Path | None = None
    """A folder with labelled and new in place of a data set, such as examples/photos."""
    split: Part = "test"
    """Part of the data set's classes."""
    kinds: int = 12
    """Classes that are labelled."""
    labelled: int = 8
    """Labelled photos of each."""
    new: int = 5
    """New photos of each."""
    unknown_kinds: int = 2
    """Classes without a label."""
    unknown_new: int = 6
    """New photos of each of these."""
    unknown: float = 0.05
    """Share of photos of known classes that may be refused."""
    method: str = "auto"
    """As in classify."""
    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""
    output: Path = Path("transcript.json")
    """Where the record goes."""
    report: Path | None = None
    """Also keep the page that classify --report writes."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
