"""The options of serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass
class Config:
    """Show a page for your own photos, on this machine alone: drop some, see why, correct answers, save.

    LABELLED is a folder with a folder of photos for each class. Nothing leaves this machine, and the page reads none of
    its files but LABELLED: what is corrected is kept when you save it. Stop with Ctrl-C.
    """

    labelled: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="LABELLED|MODEL")]
    """Folder of class folders, a .csv file of image,label, or a file that the page or classify --save has written."""
    port: int = 8420
    """Of this machine; 0 takes any that is free."""
    open: bool = True
    """Open the page in the browser."""
    unknown: float | None = None
    """Share of photos of known classes that may be refused, such as 0.05, so that others are told as unknown."""
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
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
