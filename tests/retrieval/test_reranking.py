"""Scores of pairs from cached nodes: those of the methods and controls, and of a plain loop with other solvers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

import otfew
from otfew.retrieval import reranking
from otfew.retrieval.reranking import CONTRASTS, CONTROLS, TRANSPORT, NodeSets, score_candidates, scores_named
from otfew.scores.chamfer import chamfer_similarities
from otfew.scores.cr_pooled import cosine_of_pooled, cr_pooled_cosines
from otfew.scores.emd import emd_similarity
from otfew.scores.node_weights import Uniform
from otfew.scores.product_coupling import product_coupling_similarities

ALL = [*TRANSPORT, *CONTROLS]


def draw(images=9, n=5, channels=12, seed=0):
    """Nodes as a network's after ReLU: some channels zero, a common part in each image."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(images, 1, channels, generator=generator)
    return (torch.randn(images, n, channels, generator=generator) + 0.7 * shared).relu()


def everyone(images):
    """Each image against all others."""
    query = torch.arange(images)
    return query, torch.stack([torch.cat([query[:i], query[i + 1 :]]) for i in range(images)])


def scored(nodes, *, names=ALL, solver="exact"):
    query, candidates = everyone(len(nodes))
    found, _ = score_candidates(NodeSets.of(nodes), query, candidates, scores_named(names, solver))
    return found, candidates


def by_loop(u, v):
    """Cosines of channel-centred nodes and cross-reference weights, written out node by node in float64."""
    u, v = u.double().numpy(), v.double().numpy()
    similarity = np.array([[np.corrcoef(x, y)[0, 1] for y in v] for x in u])
    s = np.array([max(x @ v.mean(0), 0) + 1e-3 for x in u])
    d = np.array([max(y @ u.mean(0), 0) + 1e-3 for y in v])
    return similarity, s / s.sum(), d / d.sum()


def test_deepemd_is_that_of_a_plain_loop_with_pot_and_opencv():
    ot = pytest.importorskip("ot")
    nodes = draw()
    found, candidates = scored(nodes)
    for i, row in enumerate(candidates.tolist()):
        for k, j in enumerate(row):
            similarity, s, d = by_loop(nodes[i], nodes[j])
            expected = 1 - ot.emd2(s, d, 1 - similarity)
            assert float(found["deepemd"][i, k]) == pytest.approx(expected, abs=2e-6)
            weights = [x.astype(np.float32)[:, None] for x in (s, d)]
            distance = cv2.EMD(*weights, cv2.DIST_USER, (1 - similarity).astype(np.float32))[0]
            assert float(found["deepemd"][i, k]) == pytest.approx(1 - distance, abs=1e-5)
            equal = 1 - ot.emd2(np.full(5, 0.2), np.full(5, 0.2), 1 - similarity)
            assert float(found["deepemd-equal"][i, k]) == pytest.approx(equal, abs=2e-6)


@pytest.mark.parametrize("n", [1, 5])
def test_scores_are_those_of_methods_and_baselines(n):
    nodes = draw(n=n)
    found, candidates = scored(nodes)
    query, support = nodes[:, None], nodes[candidates]
    expected = {
        "deepemd": emd_similarity(support, query),
        "deepemd-equal": emd_similarity(support, query, weights="uniform"),
        "chamfer": chamfer_similarities(support, query),
        "cr-pooled": cr_pooled_cosines(support, query),
        "product-coupling": product_coupling_similarities(support, query),
        "chamfer-equal": chamfer_similarities(support, query, Uniform()),
        "product-coupling-equal": product_coupling_similarities(support, query, Uniform()),
        "pooled-cosine": torch.nn.functional.cosine_similarity(query.mean(2), support.mean(2), dim=-1)[:, None],
    }
    assert set(expected) == set(found)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values[:, 0].double(), atol=3e-6, rtol=0, msg=name)


def test_both_images_of_a_pair_may_be_the_query():
    found, candidates = scored(draw())
    for values in found.values():
        square = torch.zeros(9, 9, dtype=torch.float64).scatter_(1, candidates, values)
        torch.testing.assert_close(square, square.mT, atol=2e-6, rtol=0)


def test_transport_lies_between_its_controls():
    found, _ = scored(draw(seed=3))
    for score, (above, below) in CONTRASTS.items():
        assert (found[below] <= found[score] + 1e-6).all()
        assert (found[score] <= found[above] + 1e-6).all()
        assert (found[score] - found[below]).max() > 1e-3
        assert (found[above] - found[score]).max() > 1e-3


def test_an_offset_or_a_scale_of_the_features_leaves_cosines_alone():
    nodes = draw()
    plain, _ = scored(nodes, names=["deepemd-equal"])
    moved, _ = scored(3 * nodes + 20, names=["deepemd-equal"])
    torch.testing.assert_close(moved["deepemd-equal"], plain["deepemd-equal"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.3, 1000.1])
def test_a_node_without_direction_is_like_nothing(value):
    """Its cosines are zero; rounding in its mean must not blow up to a direction."""
    nodes = draw(images=3, n=2)
    nodes[0] = value
    pairs = reranking.pose(NodeSets.of(nodes), torch.tensor([0, 1]), torch.tensor([[1], [0]]))
    assert (pairs.similarity == 0).all()
    found, _ = scored(nodes)
    assert all(values.isfinite().all() for values in found.values())
    assert found["deepemd"][0].abs().max() < 1e-6


def test_norms_that_rounding_makes_negative_are_no_norms():
    """Nodes that cancel when pooled have a square of about zero, on either side of it."""
    weights, lengths = torch.tensor([[0.5, 0.5]]), torch.ones(1, 2)
    products = torch.tensor([[[1.0, -1.0 - 1e-6], [-1.0 - 1e-6, 1.0]]])
    similarity = torch.tensor([[[0.5, -0.5], [-0.5, 0.5]]])
    found = cosine_of_pooled(similarity, weights, weights, (lengths, lengths), (products, products))
    assert float(found) == 0


def test_batches_change_nothing(monkeypatch):
    nodes = draw(images=20)
    whole, _ = scored(nodes)
    for elements, size in ((1, 1), (25 * 7, 60), (25 * 45, 700)):
        monkeypatch.setattr(reranking, "PAIR_ELEMENTS", elements)
        monkeypatch.setattr(reranking, "GATHER_BYTES", size)
        parts, _ = scored(nodes)
        for name, values in whole.items():
            torch.testing.assert_close(parts[name], values, atol=1e-6, rtol=0, msg=name)


def test_any_dense_solver_scores():
    exact, _ = scored(draw())
    entropic, _ = scored(draw(), names=["deepemd"], solver=otfew.Sinkhorn(reg=0.01))
    torch.testing.assert_close(entropic["deepemd"], exact["deepemd"], atol=0.02, rtol=0)
    assert (entropic["deepemd"] <= exact["deepemd"] + 1e-6).all()


def test_seconds_are_told_apart():
    query, candidates = everyone(9)
    _, seconds = score_candidates(NodeSets.of(draw()), query, candidates, scores_named(["deepemd", "chamfer"]))
    assert list(seconds) == ["", "deepemd", "chamfer"]
    assert min(seconds.values()) > 0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="unknown score 'emd'; there are: deepemd"):
        scores_named(["emd"])
    with pytest.raises(ValueError, match=r"nodes must be \(images, nodes, channels\)"):
        NodeSets.of(torch.ones(3, 4))
