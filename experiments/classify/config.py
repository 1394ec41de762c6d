"""The options of classify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass
class Config:
    """Classify your own photos after a few labelled ones of each kind; nothing is trained.

    LABELLED is a folder with a folder of photos for each class; NEW is a folder, a pattern or a photo. First what is
    known of the labelled photos is said, then the answers are written, one row a photo. The same command goes on where
    it was interrupted.
    """

    labelled: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="LABELLED|MODEL")]
    """Folder of class folders, a .csv file of image,label, or a file that --save has written."""
    new: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NEW")]
    """Photos to classify: folders, patterns such as "new/*.jpg", or files."""
    to: Path = Path("predictions.csv")
    """Where the answers go: a .csv or a .json file."""
    report: Path | None = None
    """Also write a page (.html) with the answers, what they rest on, and the least sure photos explained."""
    unknown: float | None = None
    """Share of photos of known classes that may be refused, such as 0.05, so that others are told as unknown."""
    save: Path | None = None
    """Keep the classifier in a file (.otfew), to be given in place of LABELLED."""
    method: str = "auto"
    """Few-shot method; auto chooses method, resolution and crops: by a ranking from other data, unless held-out photos
    speak against it."""
    backbone: str | None = None
    """Name, path of a .safetensors file, package.module:factory. Default: what auto chooses of those installed, else
    efficientnet-lite0."""
    nodes: str = ""
    """Kind of nodes, such as grid:2,3. Default: what the method prefers, or what auto chooses."""
    resolution: int | None = None
    """Side of the images in pixels. Default: that of the backbone's training, or what auto chooses."""
    depth: int = 1
    """Levels from LABELLED down to the class folders: 2 for LABELLED/GROUP/CLASS/photo.jpg."""
    strict: bool = False
    """End with exit code 2 where a photo could not be used."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
