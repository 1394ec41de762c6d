"""Closed sets of names that arguments take.

Each is declared here alone, where it costs nothing to import: commands show them in their help before any work begins.
"""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "val", "test"]
"""Class-disjoint splits of a data set."""

Part = Literal["train", "val", "test", "first-half", "second-half", "all"]
"""What is evaluated: a split, the first or second half of all classes by name, or all of them."""

CubSplit = Literal["feat", "closerlook"]
"""Split lists of CUB: Ye et al. 2020, as DeepEMD used it, or Chen et al. 2019."""

Crop = Literal["none", "center"]
"""The whole image, or its middle; see ``otfew.data.preparation.Preparation``."""

ClassPrior = Literal["uniform", "true", "estimated"]
"""What a transductive method is told of the classes' shares in the queries: that they are equal, each episode's own
(an oracle), or nothing (it estimates them)."""

RetrievalScore = Literal[
    "deepemd", "deepemd-equal", "chamfer", "cr-pooled", "product-coupling", "pooled-cosine", "chamfer-equal",
    "product-coupling-equal",
]  # fmt: skip
"""What ranks images again node by node; see ``otfew.retrieval.reranking``."""

CacheKind = Literal["features", "kernels", "pictures", "downloads", "zoo"]
"""What otfew keeps on disk to be quicker; see ``otfew.caches``."""
