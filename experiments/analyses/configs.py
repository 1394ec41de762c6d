"""Options of the analyses that are a file each; imports nothing heavy, so that ``--help`` is there at once."""

from __future__ import annotations

from dataclasses import dataclass

from otfew.experiments.common.options import Analysis, AnalysisOfOneSet


@dataclass
class AblateWeights(AnalysisOfOneSet):
    """Compare weights of the nodes on the same episodes (Table 2 of the DeepEMD paper).

    The run is kept in --output: the same command goes on where it was interrupted.
    """

    shot: int = 1
    """Labelled images of each class; their node sets are averaged location by location."""
    nodes: str = "fcn"
    """Kind of nodes for all rows."""
    clusters: tuple[int, ...] = (25, 10, 5, 2, 1)
    """K of k-means; values above the number of nodes are left out."""
    bandwidths: tuple[str, ...] = ("0", "0.5", "0.75", "1", "1.25", "inf", "auto")
    """Bandwidths of mean-shift: multiples of the median distance between two nodes of an image, inf, or auto for
    scikit-learn's estimate."""


@dataclass
class CrossDomain(Analysis):
    """Evaluate one backbone on several data sets (Table 5 of the DeepEMD paper: from miniImageNet to CUB).

    The run is kept in --output: the same command goes on where it was interrupted.
    """

    datasets: tuple[str, ...] = ("glyphs",)
    """Data sets to evaluate on; compare --list prints them. Without --backbone, ours for the first is taken."""
    shot: int = 1
    """Labelled images of each class."""
    methods: tuple[str, ...] = (
        "deepemd", "cr-pooled", "chamfer", "product-coupling", "cosine-centroid", "protonet", "matchingnet", "knn",
        "cosine-classifier", "linear-classifier",
    )  # fmt: skip
    """Methods."""
    nodes: str = "fcn"
    """Kind of nodes for all methods."""
    reference: str = ""
    """Method that the others are compared with. Default: cosine-centroid, else the first."""
    solver: str = "exact"
    """Transport solver."""


@dataclass
class Extractors(Analysis):
    """Compare kinds of nodes, each with the same methods, on the same episodes (Table 3 of the DeepEMD paper).

    The run is kept in --output: the same command goes on where it was interrupted.
    """

    dataset: str = "glyphs"
    """Data set; compare --list prints them."""
    shot: int = 1
    """Labelled images of each class."""
    nodes: tuple[str, ...] = ("fcn", "fcn:2,1", "grid:3", "grid:2,3", "sampling:9")
    """Kinds of nodes; the others are compared with the first."""
    methods: tuple[str, ...] = (
        "deepemd", "cr-pooled", "chamfer", "product-coupling", "cosine-nodes", "cosine-centroid", "fusion", "protonet",
    )  # fmt: skip
    """Methods, each of which runs on all kinds of nodes."""
    solver: str = "exact"
    """Transport solver."""


@dataclass
class Shots(AnalysisOfOneSet):
    """Compare DeepEMD's heads and baselines over numbers of shots (Figure 5 of the DeepEMD paper).

    The run is kept in --output: the same command goes on where it was interrupted.
    """

    shots: tuple[int, ...] = (1, 2, 3, 5, 10)
    """Labelled images of each class; those that the classes have too few images for are left out, and said."""
    nodes: str = "fcn"
    """Kind of nodes for all methods."""
    heads: tuple[str, ...] = ("mean", "sfc", "nn", "fusion", "merge", "prototype")
    """Heads of DeepEMD."""
    baselines: tuple[str, ...] = (
        "cosine-centroid", "cr-pooled", "chamfer", "product-coupling", "protonet", "matchingnet", "knn",
        "cosine-classifier",
    )  # fmt: skip
    """Methods beside them."""
    sfc_lr: float = 100.0
    """Step size of the head sfc."""
    sfc_epochs: int = 100
    """Passes of the head sfc over the support."""
