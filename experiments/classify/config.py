"""The options of classify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from otfew.experiments.common.photo_options import WithClassifier


@dataclass(kw_only=True)
class Config(WithClassifier):
    """Classify your own photos after a few labelled ones of each kind; nothing is trained.

    LABELLED is a folder with a folder of photos for each class; NEW is a folder, a pattern or a photo. First what is
    known of the labelled photos is said, then the answers are written, one row a photo. The same command goes on where
    it was interrupted.
    """

    new: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NEW")]
    """Photos to classify: folders, patterns such as "new/*.jpg", or files."""
    to: Path = Path("predictions.csv")
    """Where the answers go: a .csv or a .json file."""
    report: Path | None = None
    """Also write a page (.html) with the answers, what they rest on, and the least sure photos explained."""
    save: Path | None = None
    """Keep the classifier in a file (.otfew), to be given in place of LABELLED; a network of your own goes with it."""
    strict: bool = False
    """End with exit code 2 where a photo could not be used."""
