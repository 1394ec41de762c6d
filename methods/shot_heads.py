"""How a class of several support images is scored, without fitting anything (Zhang et al. 2020, 2022, figure 5).

A head maps support (E, W, shot, N, C), the same number of shots in every class, and query (E, Q, M, C) to scores
(E, Q, W).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from otfew.scores.emd import EMDScore

Head = Callable[[Tensor, Tensor], Tensor]


def each_shot(score: EMDScore, support: Tensor, query: Tensor) -> Tensor:
    """Score queries against every support image: (E, Q, W, shot)."""
    way, shot = support.shape[1:3]
    scores: Tensor = score(support.flatten(1, 2), query).unflatten(2, (way, shot))
    return scores


def nearest(score: EMDScore, support: Tensor, query: Tensor) -> Tensor:
    """Take the best score of the class's support images: the label is that of the nearest of all ("EMD+NN")."""
    return each_shot(score, support, query).amax(-1)


def fused(score: EMDScore, support: Tensor, query: Tensor, total: bool = False) -> Tensor:
    """Average the scores of the class's support images, or add them up ("EMD+Fusion").

    The paper says that scores are combined, not whether their mean or sum. Where classes have the same number of
    shots that changes nothing but the temperature; where not, the sum favours classes with more.
    """
    scores = each_shot(score, support, query)
    fusion: Tensor = scores.sum(-1) if total else scores.mean(-1)
    return fusion


def merged(score: EMDScore, support: Tensor, query: Tensor, partial: bool = False) -> Tensor:
    """Put the nodes of the class's support images into one set ("EMD+Merge").

    The paper's normalisation gives both sides the same total, so every node of the class takes part. The released
    code's gives every node the same share on average, so with ``partial`` the query's nodes are matched with as much
    of the class as they need.
    """
    nodes = support.flatten(2, 3)
    return score.partial(nodes, query) if partial else score(nodes, query)


def with_uneven_shots(head: Head, support: Tensor, support_mask: Tensor | None, query: Tensor) -> Tensor:
    """Apply a head to classes of different numbers of shots: those with equally many at a time.

    Args:
        head: Of even shots; a class's scores must not depend on other classes.
        support: (E, W, shot, N, C).
        support_mask: (E, W, shot) bool, or None for all.
        query: (E, Q, M, C).

    Returns:
        Scores (E, Q, W).
    """
    if support_mask is None:
        return head(support, query)
    episodes, way, _, *node = support.shape
    counts = support_mask.sum(-1)
    distinct = sorted(set(counts.flatten().tolist()))
    if len(distinct) == 1:
        return head(support[support_mask].view(episodes, way, distinct[0], *node), query)
    scores = query.new_zeros(episodes, way, query.shape[1])
    for count in distinct:
        episode, label = (counts == count).nonzero(as_tuple=True)
        shots = support[episode, label][support_mask[episode, label]].view(len(episode), 1, count, *node)
        scores = scores.index_put((episode, label), head(shots, query[episode])[..., 0])
    return scores.mT
