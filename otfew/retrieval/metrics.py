"""How good rankings are: mAP, R-precision, MAP@R, P@1 and the measures of shape retrieval, in bounded memory.

Shapes: Q queries, G gallery items, B queries of one block, K ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from otfew.retrieval.distance_rows import distance_rows, widened
from otfew.transport.costs import directions
from otfew.transport.sending import send

Scores = Tensor | Callable[[int, int], Tensor]
"""(Q, G), larger is more similar, or a function that makes rows start to stop (exclusive) of it."""

METRICS = ("map", "r_precision", "map_at_r", "p_at_1", "nn", "ft", "st", "e", "dcg")
"""The keys of every answer; nn and ft are p_at_1 and r_precision under their names in shape retrieval."""

E_RANK = 32
"""Rank at which the E measure looks."""

BLOCK_ELEMENTS = 1 << 22
"""Entries of one block of rows: about 100 MB with everything that ranking them needs."""


def retrieval_metrics(
    scores: Scores,
    query_labels: Tensor,
    gallery_labels: Tensor,
    *,
    exclude_self: bool,
    block: int | None = None,
) -> dict[str, Tensor]:
    """Rank the gallery for every query and measure the rankings (Musgrave et al. 2020; Shilane et al. 2004).

    See ``ranking_metrics`` for the formulas. Equal scores rank in the order of the gallery.

    Args:
        scores: (Q, G) similarities, larger is closer: pass minus a distance. Or a function from (start, stop) to these
            rows of it, so that no matrix of all of them is made; ``embedding_scores`` makes one.
        query_labels: (Q,) integers; an item is relevant where its label equals the query's.
        gallery_labels: (G,) integers.
        exclude_self: Query i is item i of the gallery, and is left out of its own ranking.
        block: Rows at a time; None chooses by ``BLOCK_ELEMENTS``.

    Returns:
        Name in ``METRICS`` -> (Q,) float64 on the CPU, NaN where nothing in the gallery is relevant.

    Raises:
        ValueError: Shapes that do not fit, an empty side, or a score that is NaN.
    """
    parts = [
        ranking_metrics(relevant, n_relevant)
        for relevant, n_relevant in relevances(
            scores, query_labels, gallery_labels, exclude_self=exclude_self, block=block
        )
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in METRICS}


def relevances(
    scores: Scores,
    query_labels: Tensor,
    gallery_labels: Tensor,
    *,
    exclude_self: bool,
    block: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rank the gallery, block by block of queries.

    Args:
        scores: (Q, G), or a function that makes its rows, as of ``retrieval_metrics``.
        query_labels: (Q,) integers.
        gallery_labels: (G,) integers.
        exclude_self: Query i is item i of the gallery, and is left out of its own ranking.
        block: Rows at a time; None chooses by ``BLOCK_ELEMENTS``.

    Yields:
        relevant (B, G) bool, or (B, G - 1) without the query itself, nearest first; and n_relevant (B,), how many are.

    Raises:
        ValueError: Shapes that do not fit, an empty side, a score that is NaN, or a block of no rows.
    """
    _check_labels(query_labels, gallery_labels, exclude_self)
    queries, gallery = len(query_labels), len(gallery_labels)
    step = max(1, BLOCK_ELEMENTS // gallery) if block is None else block
    if step < 1:
        raise ValueError(f"block must be at least 1, not {block}")
    for start in range(0, queries, step):
        stop = min(start + step, queries)
        rows = scores[start:stop] if isinstance(scores, Tensor) else scores(start, stop)
        if rows.shape != (stop - start, gallery):
            raise ValueError(
                f"scores of queries {start} to {stop} must be {(stop - start, gallery)}, not {tuple(rows.shape)}"
            )
        if bool(rows.isnan().any()):
            raise ValueError(f"scores[{start + int(rows.isnan().any(1).nonzero()[0])}] holds NaN")
        # Once for all blocks, which lie on one device.
        query_labels, gallery_labels = (send(x, rows.device) for x in (query_labels, gallery_labels))
        order = _order(rows, start if exclude_self else None)
        relevant = (gallery_labels == query_labels[start:stop, None]).gather(1, order)
        yield relevant, relevant.sum(1)


def ranking_metrics(relevant: Tensor, n_relevant: Tensor) -> dict[str, Tensor]:
    """Measure rankings that are there already, re-ranked ones say.

    With R relevant items in the gallery, rel(i) the relevance at rank i and P(i) = sum_{j <= i} rel(j) / i:

    - map: sum_i P(i) rel(i) / R;  map_at_r: the same over i <= R (Musgrave et al. 2020);
    - p_at_1, nn: rel(1);  r_precision, ft (first tier): sum_{i <= R} rel(i) / R;  st (second tier): sum_{i <= 2R} / R;
    - e: the F1 measure of the first 32 (Shilane et al. 2004);
    - dcg: rel(1) + sum_{i >= 2} rel(i) / log2(i), divided by 1 + sum_{2 <= i <= R} 1 / log2(i) (the same source).

    Args:
        relevant: (B, K) bool, nearest first. Relevant items beyond rank K count as never found.
        n_relevant: (B,) integers, R: relevant items in the whole gallery, without the query itself.

    Returns:
        Name in ``METRICS`` -> (B,) float64 on the CPU, NaN where R is 0.

    Raises:
        ValueError: Shapes that do not fit, no rank, or more relevant items in the ranking than in the gallery.
    """
    if relevant.ndim != 2 or n_relevant.shape != relevant.shape[:1] or relevant.shape[1] == 0:
        raise ValueError(
            "relevant must be (queries, ranks) with at least one rank and n_relevant (queries,); "
            f"got {tuple(relevant.shape)} and {tuple(n_relevant.shape)}"
        )
    hits, total = relevant.sum(1), n_relevant.double()
    # One look at what a device has found, one copy at the end.
    too_many, most = torch.stack([(hits > n_relevant).any().long(), n_relevant.max().long()]).tolist()
    if too_many:
        raise ValueError("a ranking holds more relevant items than n_relevant says there are")
    if relevant.is_cpu:
        # All follows from the ranks of the relevant items, few beside all ranks: the k-th of a row has P = k / rank.
        rows, places = relevant.nonzero(as_tuple=True)
        ranks, wanted = places + 1, n_relevant[rows]
        kth = torch.arange(1, len(rows) + 1) - (hits.cumsum(0) - hits)[rows]
    else:
        # How many there are the host would have to wait for; and sums over all ranks have an order.
        ranks, wanted = torch.arange(1, relevant.shape[1] + 1, device=relevant.device), n_relevant[:, None]
        kth = relevant.cumsum(1)
    precision = kth.double() / ranks
    # log2(1) = 0 and log2(2) = 1: the first two ranks count fully.
    gain = 1 / ranks.double().log2().clamp_min(1)

    def summed(values: Tensor) -> Tensor:
        """Sum over the relevant items of each row."""
        if relevant.is_cpu:
            return torch.zeros_like(total).index_add_(0, rows, values.double())
        return (values.double() * relevant).sum(1)

    first = relevant[:, 0].double()
    r_precision = summed(ranks <= wanted) / total
    found = {
        "map": summed(precision) / total,
        "r_precision": r_precision,
        "map_at_r": summed(precision * (ranks <= wanted)) / total,
        "p_at_1": first,
        "nn": first,
        "ft": r_precision,
        "st": summed(ranks <= 2 * wanted) / total,
        "e": 2 * summed(ranks <= E_RANK) / (min(E_RANK, relevant.shape[1]) + total),
        "dcg": summed(gain) / _ideal_gain(n_relevant, most),
    }
    columns = torch.stack([found[name] for name in METRICS]).where(n_relevant > 0, torch.nan).cpu()
    return dict(zip(METRICS, columns.unbind(), strict=True))


def means(metrics: dict[str, Tensor]) -> dict[str, float]:
    """Average over the queries for which the gallery holds something relevant.

    Args:
        metrics: Name -> (Q,) float64, as ``retrieval_metrics`` gives them.

    Returns:
        Name -> mean.

    Raises:
        ValueError: There is no such query.
    """
    if bool(metrics["map"].isnan().all()):
        raise ValueError("no query has a relevant item in the gallery")
    return {name: float(values.nanmean()) for name, values in metrics.items()}


def embedding_scores(
    queries: Tensor, gallery: Tensor, similarity: Literal["euclidean", "cosine"] = "euclidean"
) -> Callable[[int, int], Tensor]:
    """Make the scores of embeddings, block by block.

    Args:
        queries: (Q, channels) float.
        gallery: (G, channels) float.
        similarity: "euclidean" ranks by distance, "cosine" by the angle; a zero vector is orthogonal to all. Half
            precision is widened, and autocast changes nothing.

    Returns:
        What ``retrieval_metrics`` takes, a function from (start, stop) to (stop - start, G): minus the distances, of
        embeddings or of their directions, up to a factor that all share. Each is right to the last digits of its dtype,
        however far other embeddings are: float64 where an argument is, else float32.

    Raises:
        ValueError: Shapes that do not fit, or an embedding that is not finite.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            "queries and gallery must be (items, channels) with as many channels; "
            f"got {tuple(queries.shape)} and {tuple(gallery.shape)}"
        )
    sides = {"queries": queries, "gallery": gallery}
    sound = torch.stack([side.isfinite().all() for side in sides.values()]).tolist()
    for (name, side), fine in zip(sides.items(), sound, strict=True):
        if not fine:
            raise ValueError(f"{name}[{int((~side.isfinite()).any(1).nonzero()[0])}] is not finite")
    dtype = torch.float64 if torch.float64 in (queries.dtype, gallery.dtype) else torch.float32
    queries, gallery = widened(queries), widened(gallery)
    if similarity == "cosine":
        # Distances of directions order as angles do. The zero vectors of each side get a direction of their own.
        queries, gallery = _directions(queries, 0), _directions(gallery, 1)
    rows = distance_rows(queries, gallery, dtype)
    return lambda start, stop: -rows(start, stop)


def _directions(vectors: Tensor, side: int) -> Tensor:
    """Divide vectors (n, channels) by their norms; two more channels mark the zero vectors of either side."""
    marks = vectors.new_zeros(len(vectors), 2)
    marks[:, side] = (vectors == 0).all(1)
    return torch.cat([directions(vectors), marks], 1)


def _order(scores: Tensor, first: int | None) -> Tensor:
    """Indices of each row's scores in descending order, ties in ascending order of the index.

    Args:
        scores: (B, G).
        first: Row i leaves out index first + i; None leaves out none.
    """
    queries, gallery = scores.shape
    if scores.device.type != "cpu" or scores.dtype != torch.float32:
        order = scores.argsort(dim=1, descending=True, stable=True)
        if first is None:
            return order
        own = torch.arange(first, first + queries, device=order.device)[:, None]
        place = (order == own).long().argmax(1, keepdim=True)
        others = torch.arange(gallery - 1, device=order.device)
        return order.gather(1, others + (others >= place))
    # One integer holds the score, its bits turned so that integers order as floats do, and below it the index: numpy
    # sorts these ten times as fast as torch finds a stable order. Adding 0 makes -0 equal to 0.
    bits = (-scores.detach() + 0.0).contiguous().view(torch.int32).numpy().astype(np.int64)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    keys = (bits << 32) | np.arange(gallery)
    if first is not None:
        keys[np.arange(queries), np.arange(first, first + queries)] = np.iinfo(np.int64).max
    keys.sort(axis=1)
    keys &= 0xFFFFFFFF
    return torch.from_numpy(keys if first is None else keys[:, :-1])


def _ideal_gain(n_relevant: Tensor, most: int) -> Tensor:
    """1 + sum_{2 <= i <= R} 1 / log2(i), for each R of at most ``most``."""
    ranks = torch.arange(1, max(2, most) + 1, device=n_relevant.device, dtype=torch.float64)
    gains = 1 / ranks.log2().clamp_min(1)
    return gains.cumsum(0)[n_relevant.clamp_min(1) - 1]


def _check_labels(query_labels: Tensor, gallery_labels: Tensor, exclude_self: bool) -> None:
    for name, labels in (("query_labels", query_labels), ("gallery_labels", gallery_labels)):
        if not isinstance(labels, Tensor):
            raise ValueError(f"{name} must be a tensor, in the order of the scores, not {type(labels).__name__}")
    if query_labels.ndim != 1 or gallery_labels.ndim != 1 or not len(query_labels) or not len(gallery_labels):
        raise ValueError(
            "query_labels (queries,) and gallery_labels (items,) must not be empty; "
            f"got {tuple(query_labels.shape)} and {tuple(gallery_labels.shape)}"
        )
    if exclude_self and (len(gallery_labels) < 2 or not _equal(query_labels, gallery_labels)):
        raise ValueError("exclude_self needs the gallery to be the queries: two items or more, with equal labels")


def _equal(first: Tensor, second: Tensor) -> bool:
    """Compare labels, on their device if they share one."""
    return torch.equal(first, second) if first.device == second.device else torch.equal(first.cpu(), second.cpu())
