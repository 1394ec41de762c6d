"""How much each node counts: weights of the nodes of two node sets, all queries against all classes.

The weights that DeepEMD is compared with (Zhang et al. 2022, Table 2). Shapes: E episodes, Q queries, W classes (way),
M query nodes, N support nodes, C channels.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew import checks
from otfew.errors import UserError
from otfew.scores.pairwise import check_pair, cr_weights
from otfew.transport.precision import in_full_precision
from otfew.transport.sending import send

Labels = npt.NDArray[np.int64]


class Weighted(NamedTuple):
    """Two sides of node sets with their weights.

    Attributes:
        support_map: (E, W, N, C) the classes' nodes that the weights belong to.
        query: (E, Q, M, C) the queries' nodes that the weights belong to.
        s: (E, Q, W, M) weights of the query nodes, total 1.
        d: (E, Q, W, N) weights of the support nodes, total 1.
    """

    support_map: Tensor
    query: Tensor
    s: Tensor
    d: Tensor


class NodeWeights(ABC):
    """Weights with their options, called with the nodes of both sides."""

    def __call__(self, support_map: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the nodes of all queries against all classes.

        Args:
            support_map: (E, W, N, C) float, one node set a class.
            query: (E, Q, M, C), same dtype and device.

        Returns:
            s (E, Q, W, M), the query nodes' weights, and d (E, Q, W, N), the support nodes'; each sums to 1.

        Raises:
            UserError: Shapes that do not fit.
        """
        weighted = self.weigh(support_map, query)
        return weighted.s, weighted.d

    @abstractmethod
    def weigh(self, support_map: Tensor, query: Tensor) -> Weighted:
        """Weigh as in a call, and also return the nodes that the weights belong to: clusterings move them.

        Args:
            support_map: (E, W, N, C) float, one node set a class.
            query: (E, Q, M, C), same dtype and device.

        Returns:
            Nodes of both sides, (E, W, N, C) and (E, Q, M, C), and weights s (E, Q, W, M) and d (E, Q, W, N).

        Raises:
            UserError: Shapes that do not fit.
        """


@dataclass(frozen=True)
class Uniform(NodeWeights):
    """Every node counts the same ("EMD equal" of the paper)."""

    @in_full_precision
    def weigh(self, support_map: Tensor, query: Tensor) -> Weighted:
        """Weigh all nodes alike."""
        check_pair(support_map, query)
        s, d = (nodes.new_ones(nodes.shape[:-1]) / nodes.shape[-2] for nodes in (query, support_map))
        return Weighted(support_map, query, *_of_pairs(s, d))


@dataclass(frozen=True)
class CrossReference(NodeWeights):
    """DeepEMD's cross-reference weights (Zhang et al. 2020); differentiable.

    See ``otfew.scores.pairwise.cr_weights`` for the formula and what the released code adds to it.
    """

    @in_full_precision
    def weigh(self, support_map: Tensor, query: Tensor) -> Weighted:
        """Weigh nodes by their product with the other side's mean."""
        return Weighted(support_map, query, *cr_weights(support_map, query))


class Clustering(NodeWeights):
    """Each image is clustered by itself; a cluster is one node, its mean, weighted by its share of the image's nodes.

    The mean stands in the place of the cluster's first node. The other nodes keep their places and get weight zero, so
    that images with different numbers of clusters form one batch. Means are differentiable in the nodes, memberships
    are constants. Scikit-learn clusters on the CPU: nodes elsewhere are copied there, memberships back.
    """

    @abstractmethod
    def labels(self, nodes: npt.NDArray[np.float64]) -> Labels:
        """Assign the nodes of one image to clusters.

        Args:
            nodes: (n, C) float64.

        Returns:
            (n,) int64, numbers of clusters in any order.
        """

    @in_full_precision
    def weigh(self, support_map: Tensor, query: Tensor) -> Weighted:
        """Cluster each image once, whatever the number of pairs that it is in."""
        check_pair(support_map, query)
        support_means, d = self._summary(support_map)
        query_means, s = self._summary(query)
        return Weighted(support_means, query_means, *_of_pairs(s, d))

    def _summary(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Means (..., n, C) in the places of the clusters' first nodes, and weights (..., n)."""
        n = nodes.shape[-2]
        images = nodes.detach().double().cpu().flatten(0, -3).numpy()
        each = np.zeros((len(images), n, n))
        for k, image in enumerate(images):
            each[k] = _memberships(self.labels(image))
        member = send(torch.from_numpy(each), nodes.device, nodes.dtype).view(*nodes.shape[:-1], n)
        size = member.sum(-1, keepdim=True)
        means = torch.where(size > 0, member @ nodes / size.clamp_min(1), nodes)
        return means, size[..., 0] / n


@dataclass(frozen=True)
class KMeans(Clustering):
    """Clusters of k-means (scikit-learn), one node each, weighted by size.

    The paper does not say which features are clustered; these are the raw nodes. With one cluster the score is the
    cosine of global vectors, with as many as nodes it is that of uniform weights.

    Args:
        n_clusters: K; an image of no more nodes keeps them all.
        n_init: Starts of k-means++, of which the best counts.
        seed: Of the starts; the same for every image, so that an image's clusters do not depend on the others.

    Raises:
        UserError: ``n_clusters`` or ``n_init`` below 1, or a seed that scikit-learn does not take.

    Examples:
        >>> nodes = torch.tensor([[[[0.0, 1.0], [0.0, 1.1], [5.0, 0.0]]]])
        >>> KMeans(n_clusters=2)(nodes, nodes)[0]
        tensor([[[[0.6667, 0.0000, 0.3333]]]])
    """

    n_clusters: int = 5
    n_init: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_clusters", "n_init"):
            checks.whole("KMeans", name, getattr(self, name))
        checks.whole("KMeans", "seed", self.seed, 0, 2**32)

    def labels(self, nodes: npt.NDArray[np.float64]) -> Labels:
        """Cluster one image's nodes."""
        n = len(nodes)
        if self.n_clusters == 1 or self.n_clusters >= n:
            return np.zeros(n, np.int64) if self.n_clusters == 1 else np.arange(n)
        from sklearn import cluster, exceptions

        with warnings.catch_warnings():
            # Fewer distinct nodes than clusters: all of them are found, and that is all there is.
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            found = cluster.KMeans(self.n_clusters, n_init=self.n_init, random_state=self.seed).fit(nodes)
        return np.asarray(found.labels_, np.int64)


@dataclass(frozen=True)
class MeanShift(Clustering):
    """Clusters of mean-shift (scikit-learn), one node each, weighted by size.

    Args:
        bandwidth: In units of the features; 0 joins only equal nodes, infinity makes one cluster, None takes
            scikit-learn's estimate from each image's nodes.

    Raises:
        UserError: A negative bandwidth or NaN.
    """

    bandwidth: float | None = None

    def __post_init__(self) -> None:
        # Infinity is a bandwidth: one cluster.
        if self.bandwidth is not None and self.bandwidth != math.inf:
            checks.number("MeanShift", "bandwidth", self.bandwidth, least=0)

    def labels(self, nodes: npt.NDArray[np.float64]) -> Labels:
        """Cluster one image's nodes."""
        from sklearn import cluster

        bandwidth = cluster.estimate_bandwidth(nodes) if self.bandwidth is None else self.bandwidth
        if math.isinf(bandwidth):
            return np.zeros(len(nodes), np.int64)
        if bandwidth <= 0:
            return np.asarray(np.unique(nodes, axis=0, return_inverse=True)[1], np.int64).reshape(-1)
        return np.asarray(cluster.MeanShift(bandwidth=bandwidth).fit(nodes).labels_, np.int64)


NODE_WEIGHTS: dict[str, NodeWeights] = {
    "uniform": Uniform(),
    "cross_reference": CrossReference(),
    "kmeans": KMeans(),
    "meanshift": MeanShift(),
}
"""Name -> weights with default options, called with (support_map, query)."""


def resolve_weights(weights: str | NodeWeights, owner: str = "resolve_weights") -> NodeWeights:
    """Turn a name into weights with default options.

    Args:
        weights: A name in ``NODE_WEIGHTS``, or weights.
        owner: Who takes them, for the message.

    Returns:
        The weights.

    Raises:
        UserError: Unknown name, or neither a name nor weights.
    """
    if isinstance(weights, NodeWeights):
        return weights
    if not isinstance(weights, str) or weights not in NODE_WEIGHTS:
        names = f"there are: {', '.join(NODE_WEIGHTS)}, and objects such as otfew.node_weights.KMeans()"
        raise UserError(f"{owner}: unknown `weights` {weights!r}; {names}.")
    return NODE_WEIGHTS[weights]


def _memberships(labels: Labels) -> npt.NDArray[np.float64]:
    """Say who belongs where: (n, n), row i marks the cluster whose first node is i, else it is zero."""
    first = np.unique(labels, return_index=True)[1]
    member = np.zeros((len(labels), len(labels)))
    member[first] = labels[first][:, None] == labels
    return member


def _of_pairs(s: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat the weights of images, s (E, Q, M) and d (E, W, N), for all pairs, without copying."""
    n_query, way = s.shape[1], d.shape[1]
    return s[:, :, None].expand(-1, -1, way, -1), d[:, None].expand(-1, n_query, -1, -1)
