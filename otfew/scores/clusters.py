"""Clusterings of nodes for the ablation of weights: kept from episode to episode, counted, and in units that fit."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.scores.node_weights import Clustering, Labels

SAMPLE = 100
"""Images on which distances are measured and clusters counted."""


class Remembered(Clustering):
    """A clustering that keeps what it has found, since an image has the same clusters in every episode.

    Args:
        inner: What clusters.
    """

    def __init__(self, inner: Clustering) -> None:
        self.inner = inner
        self._found: dict[bytes, Labels] = {}

    def __repr__(self) -> str:
        """Look like the inner clustering: that is what results depend on."""
        return repr(self.inner)

    def labels(self, nodes: npt.NDArray[np.float64]) -> Labels:
        """Cluster one image's nodes, or remember."""
        key = hashlib.blake2b(nodes.tobytes(), digest_size=16).digest()
        if key not in self._found:
            self._found[key] = self.inner.labels(nodes)
        return self._found[key]


def pick(nodes: Tensor, count: int = SAMPLE) -> Tensor:
    """Take at most ``count`` images, evenly spaced, of (images, n, channels)."""
    return nodes[torch.linspace(0, len(nodes) - 1, min(count, len(nodes))).long()].double()


def median_distance(images: Tensor) -> float:
    """Median over (images, n, channels) of the distances between two nodes of an image; 0 for single nodes."""
    n = images.shape[1]
    if n < 2:
        return 0.0
    rows, columns = torch.triu_indices(n, n, 1)
    return float(torch.cdist(images, images)[:, rows, columns].median())


def mean_count(clustering: Clustering, images: Tensor) -> float:
    """Average number of clusters in (images, n, channels)."""
    return float(np.mean([len(np.unique(clustering.labels(image))) for image in images.numpy()]))
