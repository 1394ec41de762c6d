"""Images against short lists of images, node by node: costs, weights and scores of many pairs at once.

A pair is posed from cached nodes with one matrix product. Everything else about an image (lengths of its nodes, their
means, products among themselves) is computed once. Shapes: G images, n nodes, C channels; B pairs; Q queries with K
candidates each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from otfew.scores.chamfer import best_matches
from otfew.scores.cr_pooled import cosine_of_pooled
from otfew.scores.emd import mean_similarity
from otfew.scores.pairwise import NORM_EPS, centre, normalised_weights
from otfew.scores.product_coupling import coupled
from otfew.transport import Solver
from otfew.transport.sending import send

GATHER_BYTES = 1 << 20
"""About how many bytes of candidates' nodes are gathered for one matrix product: what the cache holds."""
PAIR_ELEMENTS = 1 << 19
"""About how many node similarities are scored together: 2 MB in float32, so that they stay in the cache."""
FLAT = 1e-6
"""A node whose spread over channels is less than this share of its length has no direction: its cosines are zero."""


@dataclass(frozen=True)
class NodeSets:
    """The nodes of a gallery, with what pairs of its images need.

    Attributes:
        nodes: (G, n, C) float32; may be mapped from disk, and stays where it is.
        lengths: (G, n) norms of the nodes about their means over channels.
        inverse: (G, n) their reciprocals, 0 for nodes without direction.
        means: (G, n) means of the nodes over channels.
        products: (G, n, n) products of an image's centred nodes with each other.
        pooled: (G,) norms of the mean node.
    """

    nodes: Tensor
    lengths: Tensor
    inverse: Tensor
    means: Tensor
    products: Tensor
    pooled: Tensor

    @staticmethod
    def of(nodes: Tensor, device: torch.device | str = "cpu") -> NodeSets:
        """Measure nodes (G, n, C), some images at a time; all but the nodes goes to the device.

        Raises:
            ValueError: Not (images, nodes, channels).
        """
        if nodes.ndim != 3 or 0 in nodes.shape:
            raise ValueError(f"nodes must be (images, nodes, channels) and not empty, got {tuple(nodes.shape)}")
        step = max(1, GATHER_BYTES // (4 * nodes[0].numel()))
        parts = [_measured(send(part, torch.device(device))) for part in torch.split(nodes, step)]
        return NodeSets(nodes, *(torch.cat(column) for column in zip(*parts, strict=True)))

    @property
    def device(self) -> torch.device:
        """Where pairs are scored."""
        return self.lengths.device


@dataclass(frozen=True)
class Pairs:
    """Pairs of images posed as DeepEMD poses them.

    Attributes:
        sets: The gallery that both images of a pair are from.
        query: (B,) image numbers.
        candidate: (B,) image numbers.
        similarity: (B, n, n) cosines of channel-centred nodes; rows are the query's nodes, columns the candidate's.
        s: (B, n) cross-reference weights of the query's nodes, total 1.
        d: (B, n) the same of the candidate's.
        pooled: (B,) product of the two mean nodes.
    """

    sets: NodeSets
    query: Tensor
    candidate: Tensor
    similarity: Tensor
    s: Tensor
    d: Tensor
    pooled: Tensor


Score = Callable[[Pairs], Tensor]
"""Similarities (B,) of pairs; larger is more similar."""


def pose(sets: NodeSets, query: Tensor, candidates: Tensor) -> Pairs:
    """Pose every query with each of its candidates: similarities as in ``otfew.scores.pairwise``, weights alike.

    Only the query's nodes are centred before the product: what is centred has no part along a candidate's mean, so the
    candidate's own mean falls out. The weights are row and column means of the products of the raw nodes,
    u_i . v_j = |u'_i| |v'_j| cos(u'_i, v'_j) + C mean(u_i) mean(v_j), with u' and v' centred.

    Args:
        sets: The gallery.
        query: (Q,) int64 image numbers.
        candidates: (Q, K) int64 image numbers.
    """
    n, channels = sets.nodes.shape[1:]
    at_home = sets.nodes.device
    flat = sets.nodes.view(len(sets.nodes), -1)
    step = max(1, GATHER_BYTES // (4 * n * channels))
    units = centre(send(flat.index_select(0, query.to(at_home)).view(-1, n, channels), sets.device))
    units = units * sets.inverse[query][..., None]
    dots = units.new_empty((*candidates.shape, n, n))
    for unit, row, out in zip(units, candidates.to(at_home), dots, strict=True):
        for part, place in zip(torch.split(row, step), torch.split(out, step), strict=True):
            gathered = send(flat.index_select(0, part), sets.device).view(-1, channels)
            place.copy_((unit @ gathered.mT).view(n, len(part), n).transpose(0, 1))
    dots = dots.flatten(0, 1)
    pair_query, pair_candidate = query.repeat_interleave(candidates.shape[1]), candidates.flatten()
    by_query, by_candidate = sets.means[pair_query], sets.means[pair_candidate]
    lengths = sets.lengths[pair_query]
    s = lengths * dots.mean(2) + channels * by_query * by_candidate.mean(1, keepdim=True)
    d = (lengths[:, :, None] * dots).mean(1) + channels * by_candidate * by_query.mean(1, keepdim=True)
    pooled = s.mean(1)
    similarity = dots * sets.inverse[pair_candidate][:, None]
    return Pairs(sets, pair_query, pair_candidate, similarity, normalised_weights(s), normalised_weights(d), pooled)


def deepemd(pairs: Pairs, solver: str | Solver = "exact") -> Tensor:
    """Mean similarity under the cheapest transport, cross-reference weights (Zhang et al. 2022, section 5.8)."""
    return mean_similarity(pairs.similarity, pairs.s, pairs.d, solver)


def deepemd_equal(pairs: Pairs, solver: str | Solver = "exact") -> Tensor:
    """Mean similarity under the cheapest transport where every node counts the same ("EMD equal")."""
    return mean_similarity(pairs.similarity, solver=solver)


def chamfer(pairs: Pairs) -> Tensor:
    """Average best matches of both sides' nodes, cross-reference weights: no plan, so no marginals to keep."""
    return best_matches(pairs.similarity, pairs.s, pairs.d)


def product_coupling(pairs: Pairs) -> Tensor:
    """Mean similarity under the product of the cross-reference weights: the same marginals, no matching."""
    return coupled(pairs.similarity, pairs.s, pairs.d)


def cr_pooled(pairs: Pairs) -> Tensor:
    """Cosine of the centred nodes pooled with cross-reference weights."""
    images = (pairs.query, pairs.candidate)
    lengths, products = ((of[images[0]], of[images[1]]) for of in (pairs.sets.lengths, pairs.sets.products))
    return cosine_of_pooled(pairs.similarity, pairs.s, pairs.d, lengths, products)


def chamfer_equal(pairs: Pairs) -> Tensor:
    """Average best matches of both sides' nodes, where every node counts the same."""
    return (pairs.similarity.amax(-1).mean(-1) + pairs.similarity.amax(-2).mean(-1)) / 2


def product_coupling_equal(pairs: Pairs) -> Tensor:
    """Mean of all similarities: the product of equal weights."""
    return pairs.similarity.mean((-2, -1))


def pooled_cosine(pairs: Pairs) -> Tensor:
    """Cosine of the mean nodes, not centred: what global vectors made of these nodes say."""
    norms = pairs.sets.pooled
    return pairs.pooled / (norms[pairs.query] * norms[pairs.candidate])


TRANSPORT: Mapping[str, Callable[..., Tensor]] = {"deepemd": deepemd, "deepemd-equal": deepemd_equal}
"""Name -> score that takes a solver."""
CONTROLS: Mapping[str, Score] = {
    "chamfer": chamfer,
    "cr-pooled": cr_pooled,
    "product-coupling": product_coupling,
    "pooled-cosine": pooled_cosine,
    "chamfer-equal": chamfer_equal,
    "product-coupling-equal": product_coupling_equal,
}
"""Name -> score without transport, on the same nodes."""
CONTRASTS: Mapping[str, tuple[str, ...]] = {
    "deepemd": ("chamfer", "product-coupling"),
    "deepemd-equal": ("chamfer-equal", "product-coupling-equal"),
}
"""Score by transport -> those with the same weights that it is compared with to learn what transport adds."""


def scores_named(names: list[str], solver: str | Solver = "exact") -> dict[str, Score]:
    """Look scores up.

    Raises:
        ValueError: There is no such score.
    """
    known = [*TRANSPORT, *CONTROLS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown score {unknown[0]!r}; there are: {', '.join(known)}")
    return {name: CONTROLS[name] if name in CONTROLS else partial(TRANSPORT[name], solver=solver) for name in names}


def score_candidates(
    sets: NodeSets, query: Tensor, candidates: Tensor, scores: Mapping[str, Score]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Score every query against its own candidates, in batches of pairs whose memory does not depend on Q and K.

    Args:
        sets: The gallery.
        query: (Q,) int64 image numbers.
        candidates: (Q, K) int64 image numbers.
        scores: By name.

    Returns:
        Name -> (Q, K) float64 on the CPU; and name -> seconds, with those that all scores share (costs and weights)
        under "".
    """
    n = sets.nodes.shape[1]
    most = max(1, PAIR_ELEMENTS // (n * n))
    found = {name: torch.empty(candidates.shape, dtype=torch.float64) for name in scores}
    seconds = dict.fromkeys(["", *scores], 0.0)
    rows = max(1, most // candidates.shape[1])
    for first in range(0, len(query), rows):
        some = slice(first, first + rows)
        width = max(1, most // len(query[some]))
        for left in range(0, candidates.shape[1], width):
            part = candidates[some, left : left + width]
            started = time.perf_counter()
            pairs = pose(sets, send(query[some], sets.device), send(part, sets.device))
            if sets.device.type != "cpu":
                # Copying a number also waits for an accelerator, so that the clock sees the work.
                float(pairs.pooled[0])
            now = time.perf_counter()
            seconds[""] += now - started
            for name, score in scores.items():
                found[name][some, left : left + width] = score(pairs).view(part.shape).cpu()
                then, now = now, time.perf_counter()
                seconds[name] += now - then
    return found, seconds


def _measured(nodes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Lengths, their reciprocals, means, products and the pooled norm of images' nodes (B, n, C)."""
    means, centred = nodes.mean(2), centre(nodes)
    lengths = torch.linalg.vector_norm(centred, dim=2)
    directed = lengths > FLAT * torch.linalg.vector_norm(nodes, dim=2)
    inverse = torch.where(directed, lengths.clamp_min(NORM_EPS).reciprocal(), 0)
    pooled = torch.linalg.vector_norm(nodes.mean(1), dim=1).clamp_min(NORM_EPS)
    return lengths, inverse, means, centred @ centred.mT, pooled
