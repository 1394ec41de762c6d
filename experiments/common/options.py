"""Options that several commands take, each declared once, as classes that a command's ``Config`` is made of.

Imports nothing but the standard library, tyro and the names of choices, so that ``--help`` is there at once. A command
whose default or meaning differs declares the field again under the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from otfew.choices import ClassPrior, Crop, CubSplit, Part


@dataclass
class WithRun:
    """Where a run is kept, and on what it is computed."""

    output: Path | None = None
    """Folder of the run. Default: runs/COMMAND-HASH."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    threads: int = 0
    """CPU threads; 0 takes all cores, or of several processes each its share."""


@dataclass
class WithEpisodes:
    """Which episodes methods are compared on, the number of shots apart."""

    way: int = 5
    """Classes in an episode."""
    query: int = 15
    """Images to classify of each class."""
    query_balance: str = "balanced"
    """balanced, or dirichlet:ALPHA: as many queries in all, divided among the classes at random (2 is usual)."""
    class_prior: ClassPrior = "uniform"
    """What transductive methods are told of the classes' shares in the queries: uniform, true (an oracle) or estimated
    (nothing)."""
    episodes: int = 600
    """How many episodes."""
    seed: int = 1
    """Seed of the episodes."""


@dataclass
class WithBackbone:
    """What images go through, and in which form."""

    backbone: str | None = None
    """Name, path of a .safetensors file, package.module:factory, timm:NAME, or weights from elsewhere: NAME@FILE, or
    the FILE alone (.pth, .pt, .tar). Default: ours for the data set, else efficientnet-lite0."""
    resolution: int | None = None
    """Side of the images in pixels. Default: that of the backbone's training."""
    crop: Crop | None = None
    """none or center (resize to 92/84 of the side, cut out the middle). Default: center for photographs."""
    allow_overlap: bool = False
    """Go on although the backbone has seen the evaluated classes, and say so."""
    trained_on: str | None = None
    """What a backbone that does not say so was trained on, so that classes it has seen are refused: miniimagenet,
    cub-closerlook:train+val, imagenet, ..., or a text file of class names. Default: unknown."""


@dataclass
class WithData:
    """Where images are found, and which of them are taken."""

    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder; of a CSV file its own."""
    split: Part = "test"
    """train, val or test; first-half or second-half of all classes by name; all."""
    cub_split: CubSplit = "feat"
    """Class split of CUB: feat or closerlook."""
    split_seed: int = 0
    """Seed of the class split of image-folder, and of a CSV file without splits."""
    depth: int = 1
    """Levels from the folder of image-folder down to its class folders: 2 for GROUP/CLASS/photo.jpg."""
    download: Annotated[bool | None, tyro.conf.DisallowNone] = None
    """Fetch what is missing where the publisher allows it. Default: ask about more than 100 MB at a terminal, and
    fetch no such thing elsewhere."""


@dataclass
class WithOneSet(WithData):
    """One data set, or features in its place."""

    dataset: str | None = None
    """Data set, or a CSV file of image,label[,split][,domain]; compare --list prints the names. Default: glyphs."""
    features: Path | None = None
    """Your own features (.safetensors, .npz, .plk or .pt) instead of a data set and a backbone."""


@dataclass
class Analysis(WithRun, WithEpisodes, WithBackbone, WithData):
    """What every analysis takes."""


@dataclass
class AnalysisOfOneSet(Analysis, WithOneSet):
    """What analyses of one data set take."""
