"""Options of the commands for one's own photos, each declared once: which classifier it is, and on what it runs.

Imports nothing heavy, so that ``--help`` is there at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(kw_only=True)
class WithClassifier:
    """A classifier of labelled photos: fitted on a folder, or loaded."""

    labelled: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="LABELLED|MODEL")]
    """Folder of class folders, a .csv file of image,label, or a file (.otfew) that classify --save or the page of serve
    has written."""
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
