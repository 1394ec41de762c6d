"""The options of retrieve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from otfew.choices import Crop, Part, RetrievalScore
from otfew.experiments.common.options import WithBackbone, WithOneSet, WithRun

SCORES: tuple[RetrievalScore, ...] = ("deepemd", "chamfer", "cr-pooled", "product-coupling", "pooled-cosine")


@dataclass
class Config(WithRun, WithBackbone, WithOneSet):
    """Retrieve images of the same class: global vectors rank, and DeepEMD and controls on local nodes rank again.

    The run is kept in --output: the same command goes on where it was interrupted. Of a set of shapes (shapes,
    modelnet10, modelnet40, shrec13, shrec14, views) the vectors of a shape's views are joined by their maximum, and are
    the nodes that rank again.
    """

    features: Path | None = None
    """Your own features (.safetensors or .npz) instead of a data set and a backbone; their mean node is the global
    vector."""
    split: Part | None = None  # type: ignore[assignment]  # the default depends on the data set
    """train, val, test, first-half or second-half of all classes by name, or all. Default: second-half for cub,
    else test."""
    nodes: tuple[str, ...] = ()
    """Kinds of local nodes. Default: fcn:3,2,1,nomap grid:3,2 sampling:25."""
    scores: tuple[RetrievalScore, ...] = SCORES
    """What compares nodes; also deepemd-equal, without weights, with its controls chamfer-equal and
    product-coupling-equal."""
    rerank: int | None = None
    """How many of the global ranking are ranked again. Default: 100; more than there are means all."""
    all_pairs: bool = False
    """Score every image against every other."""
    resolution: int | None = None
    """Side of whole images in pixels. Default: that of the backbone's training."""
    patch_resolution: int | None = None
    """Side of each patch of grid and sampling nodes in pixels. Default: --resolution."""
    crop: Crop | None = None
    """none or center (resize to 92/84 of the side, cut out the middle), of whole images. Default: center for
    photographs."""
    solver: str = "exact"
    """Transport solver."""
    query_modality: Literal["", "sketch"] = ""
    """Of shapes: their set's sketches are the queries."""
    query_backbone: str | None = None
    """What sketches go through. Default: the checkpoint NAME-queries beside --backbone, else --backbone itself."""
    views: int | None = None
    """Of shapes: images of each, evenly spaced. Default: all, 12 or, of SHREC's, 20."""
    output: Path | None = None
    """Folder of the run. Default: runs/retrieve-DATASET-HASH."""
