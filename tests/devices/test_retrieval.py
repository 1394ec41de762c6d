"""Rankings, their measures, and re-ranking by nodes on a device."""

import pytest
import torch

from otfew.retrieval.metrics import embedding_scores, means, ranking_metrics, relevances, retrieval_metrics
from otfew.retrieval.reranking import CONTROLS, TRANSPORT, NodeSets, score_candidates, scores_named

from .both import on_both


def embeddings(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 7
    centres = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    points = centres[labels] + torch.randn(40, 5, generator=generator, dtype=torch.float64)
    points[3] = 0
    points[9] = points[16]
    return points.to(dtype), labels


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
@pytest.mark.parametrize("exclude_self", [False, True], ids=["another gallery", "the queries themselves"])
def test_metrics_of_embeddings(pretended, similarity, exclude_self):
    def work(points, labels):
        scores = embedding_scores(points, points, similarity)
        found = retrieval_metrics(scores, labels, labels, exclude_self=exclude_self, block=16)
        return found, means(found)

    name = f"retrieval metrics, {similarity}, {'without itself' if exclude_self else 'all'}, 3 blocks"
    on_both(pretended, name, work, embeddings(), at_home=True, tolerance=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_metrics_of_a_matrix_with_labels_on_the_cpu(pretended, dtype):
    points, labels = embeddings(dtype)

    def work(scores):
        return retrieval_metrics(scores, labels, labels, exclude_self=True)

    scores = -torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    kind = str(dtype).rpartition(".")[2]
    on_both(pretended, f"retrieval metrics, matrix, {kind}", work, [scores], at_home=True, tolerance=1e-12)


def test_rankings_that_are_cut_off(pretended):
    points, labels = embeddings()

    def work(scores, labels):
        ((relevant, n_relevant),) = relevances(scores, labels, labels, exclude_self=True)
        return ranking_metrics(relevant[:, :6], n_relevant)

    on_both(pretended, "ranking metrics", work, [points @ points.T, labels], at_home=True, tolerance=1e-12)


def test_nothing_relevant_and_too_much(pretended):
    with pretended() as machine:
        relevant = machine.away(torch.tensor([[True, False], [False, False]]))
        found = ranking_metrics(relevant, machine.away(torch.tensor([3, 0])))
        assert found["map"].isnan().tolist() == [False, True]
        with pytest.raises(ValueError, match="more relevant items"):
            ranking_metrics(relevant, machine.away(torch.tensor([0, 0])))
        scores = machine.away(torch.tensor([[1.0, torch.nan], [1.0, 2.0]]))
        with pytest.raises(ValueError, match=r"scores\[0\] holds NaN"):
            retrieval_metrics(scores, torch.zeros(2), torch.zeros(2), exclude_self=False)
        with pytest.raises(ValueError, match=r"gallery\[1\] is not finite"):
            embedding_scores(scores[1:], torch.stack([scores[1], scores[0]]))


@pytest.mark.parametrize("nodes_there", [False, True], ids=["nodes on the CPU", "nodes there"])
@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
def test_reranking(pretended, solver, nodes_there):
    generator = torch.Generator().manual_seed(0)
    nodes = (torch.randn(9, 5, 12, generator=generator) + 0.7 * torch.randn(9, 1, 12, generator=generator)).relu()
    query = torch.arange(9)
    candidates = torch.stack([(query + k) % 9 for k in (1, 3, 4)], 1)

    def work(given, query, candidates):
        # Nodes mapped from disk stay on the CPU; all else is where they are scored.
        sets = NodeSets.of(given if nodes_there else nodes, query.device)
        return score_candidates(sets, query, candidates, scores_named([*TRANSPORT, *CONTROLS], solver))[0]

    where = "nodes there" if nodes_there else "nodes on the CPU"
    tolerance = 1e-5 if solver == "exact" else 1e-4
    name = f"re-ranking, {solver}, {where}"
    on_both(pretended, name, work, [nodes, query, candidates], at_home=True, tolerance=tolerance)
