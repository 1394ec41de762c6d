"""Speed of re-ranking from cached nodes: costs, weights and exact transport of many pairs."""

from __future__ import annotations

import pytest
import torch

from otfew.retrieval.reranking import NodeSets, score_candidates, scores_named
from otfew.scores.emd import emd_similarity

QUERIES, CANDIDATES = 64, 100


def gallery(n, channels, images=1000):
    """Nodes with class structure, and random candidates."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(images, 1, channels, generator=generator)
    nodes = (torch.randn(images, n, channels, generator=generator) + 0.5 * shared).relu()
    candidates = torch.stack([torch.randperm(images, generator=generator)[:CANDIDATES] for _ in range(QUERIES)])
    return nodes, candidates


@pytest.mark.parametrize(("n", "channels"), [(14, 640), (14, 1280), (25, 1280)])
def test_scores(n, channels, race):
    """6,400 pairs: a median of 107 ms is 60,000 pairs a second."""
    nodes, candidates = gallery(n, channels)
    sets, query = NodeSets.of(nodes), torch.arange(QUERIES)

    def run(*names):
        scores = scores_named(list(names))

        def score():
            with torch.inference_mode():
                return score_candidates(sets, query, candidates, scores)

        return score

    contenders = {name: run(name) for name in ("deepemd", "chamfer", "cr-pooled", "product-coupling", "pooled-cosine")}
    race(f"{QUERIES} x {CANDIDATES} pairs of {n} nodes of {channels} channels", contenders, rounds=5)


def test_beside_the_few_shot_score(race):
    """The same pairs through the method's own arithmetic, which centres and normalises every node of every pair."""
    nodes, candidates = gallery(14, 640)
    sets, query = NodeSets.of(nodes), torch.arange(QUERIES)

    def reranked():
        with torch.inference_mode():
            return score_candidates(sets, query, candidates, scores_named(["deepemd"]))

    def few_shot():
        with torch.inference_mode():
            rows = zip(query.tolist(), candidates, strict=True)
            return [emd_similarity(nodes[row][None], nodes[i][None, None]) for i, row in rows]

    race("6,400 pairs of 14 nodes of 640 channels", {"re-ranking": reranked, "emd_similarity": few_shot}, rounds=3)
