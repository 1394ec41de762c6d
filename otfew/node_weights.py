"""Weights of nodes under the name that users import: see ``otfew.scores.node_weights``."""

from otfew.scores.node_weights import (
    NODE_WEIGHTS,
    Clustering,
    CrossReference,
    KMeans,
    MeanShift,
    NodeWeights,
    Uniform,
    Weighted,
    resolve_weights,
)

__all__ = [
    "NODE_WEIGHTS",
    "Clustering",
    "CrossReference",
    "KMeans",
    "MeanShift",
    "NodeWeights",
    "Uniform",
    "Weighted",
    "resolve_weights",
]
