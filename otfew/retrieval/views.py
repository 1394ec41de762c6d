"""Shapes known by several views: what finds them, and how well.

Shapes: G shapes with V views of C channels; Q queries, which are the shapes themselves or items of another modality,
sketches say, with one vector each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from otfew.retrieval.metrics import METRICS, embedding_scores, ranking_metrics, retrieval_metrics
from otfew.retrieval.reranking import NodeSets, Score, score_candidates
from otfew.retrieval.run import BLOCK, Shortlist, reordered
from otfew.scores.pairwise import NORM_EPS

MAXIMUM, MEAN, NEAREST = "maximum over views", "mean over views", "nearest view"
"""Rankings without nodes: of shapes' vectors made of their views', and by the view that is most like the query."""

VIEWS = "views"
"""Kind of nodes: a shape's views, each one node."""

Measured = dict[str, npt.NDArray[np.float64]]
"""Name in ``otfew.retrieval.metrics.METRICS`` -> (Q,), NaN where nothing is to be found."""


def among_shapes(
    views: Tensor,
    labels: Tensor,
    scores: Mapping[str, Score],
    rerank: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Measured]:
    """Let every shape ask for all others.

    By the cosine of the elementwise maximum of their views (MVCNN, Su et al. 2015), by that of their mean, and the
    first ``rerank`` of the former again by scores of two sets of views, as nodes: a plan then says which view of the
    one is which of the other, however either was turned.

    Args:
        views: (G, V, C) float32.
        labels: (G,) int64.
        scores: Name -> score, see ``otfew.retrieval.reranking``.
        rerank: From 1 to G - 1.
        progress: Called with queries done and queries in all.

    Returns:
        Ranking -> how good it is; scores under "NAME [views]".
    """
    count = len(labels)
    relevant = torch.bincount(labels)[labels] - 1
    rankers = {MAXIMUM: Shortlist(views.amax(1)), MEAN: Shortlist(views.mean(1))}
    sets = NodeSets.of(views) if scores else None
    parts: dict[str, list[dict[str, Tensor]]] = {}

    def measure(name: str, ranking: Tensor, start: int) -> None:
        stop = start + len(ranking)
        hits = labels[ranking] == labels[start:stop, None]
        parts.setdefault(name, []).append(ranking_metrics(hits, relevant[start:stop]))

    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        rankings = {name: ranker(start, stop, count - 1) for name, ranker in rankers.items()}
        for name, ranking in rankings.items():
            measure(name, ranking, start)
        if sets is not None:
            candidates, rest = rankings[MAXIMUM][:, :rerank], rankings[MAXIMUM][:, rerank:]
            found, _ = score_candidates(sets, torch.arange(start, stop), candidates, scores)
            for name, values in found.items():
                measure(f"{name} [{VIEWS}]", torch.cat([reordered(candidates, values), rest], 1), start)
        progress(stop, count)
    return {
        name: {metric: torch.cat([part[metric] for part in found]).numpy() for metric in METRICS}
        for name, found in parts.items()
    }


def across_modalities(queries: Tensor, query_labels: Tensor, views: Tensor, labels: Tensor) -> dict[str, Measured]:
    """Let items of another modality ask for shapes: by cosine to their maximum, their mean, and their nearest view.

    Args:
        queries: (Q, C) float32.
        query_labels: (Q,) int64.
        views: (G, V, C).
        labels: (G,) int64.

    Returns:
        Ranking -> how good it is.
    """
    directions, asked = normalize(views, dim=2, eps=NORM_EPS), normalize(queries, dim=1, eps=NORM_EPS)

    def nearest(start: int, stop: int) -> Tensor:
        cosines = asked[start:stop] @ directions.flatten(0, 1).mT
        return cosines.view(stop - start, *views.shape[:2]).amax(2)

    rankings = {
        MAXIMUM: embedding_scores(queries, views.amax(1), "cosine"),
        MEAN: embedding_scores(queries, views.mean(1), "cosine"),
        NEAREST: nearest,
    }
    return {
        name: {
            metric: values.numpy()
            for metric, values in retrieval_metrics(scores, query_labels, labels, exclude_self=False).items()
        }
        for name, scores in rankings.items()
    }
