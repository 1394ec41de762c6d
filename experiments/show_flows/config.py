"""The options of show-flows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from otfew.choices import Crop
from otfew.experiments.common.options import WithBackbone, WithData, WithRun

Weights = Literal["cross_reference", "uniform"]


@dataclass
class Config(WithRun, WithBackbone, WithData):
    """Draw the transport plan between two images, or from one to labelled ones, or measure where the flow lands."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Two image files, or one with --labelled; with --dataset, names or numbers of its images."""
    labelled: Path | None = None
    """Folder of class folders: one image is compared with all of them, and shown beside the nearest photo of the
    nearest class and of the runner-up."""
    flows: int = 5
    """How many flows of each plan are drawn, the largest."""
    dataset: str = ""
    """Data set that the images are of; for --measure: glyphs."""
    nodes: str = "fcn"
    """Kind of nodes."""
    crop: Crop | None = None
    """none or center. Default: center for photographs of a data set, none for files."""
    weights: tuple[Weights, ...] = ("cross_reference", "uniform")
    """cross_reference, uniform, or both; the matrix and --labelled take the first."""
    solver: str = "exact"
    """Transport solver."""
    measure: bool = False
    """Measure, instead of drawing, where the flow lands."""
    pairs: int = 500
    """Pairs of images of either kind, with --measure."""
    seed: int = 1
    """Seed of the pairs."""
    output: Path | None = None
    """Folder of the pictures. Default: runs/show-flows-HASH."""
