"""Node weights against plain loops, and what Table 2 of the DeepEMD paper says about their ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import cluster
from torch.testing import assert_close

import otfew
from otfew.errors import UserError
from otfew.methods import METHODS
from otfew.scores.node_weights import NODE_WEIGHTS, CrossReference, KMeans, MeanShift, Uniform, resolve_weights
from otfew.scores.pairwise import cr_weights, similarities

DeepEMD = METHODS["deepemd"]
ALL = [Uniform(), CrossReference(), KMeans(3), KMeans(1), KMeans(99), MeanShift(), MeanShift(4.0), MeanShift(0.0)]
CLUSTERINGS = [KMeans(3), KMeans(2, n_init=1), MeanShift(), MeanShift(4.0)]


def draw(seed=0, channels=16, dtype=torch.float64):
    """Support (2, 3, 6, C) and query (2, 4, 7, C): nodes in clumps, as clusterings want them."""
    generator = torch.Generator().manual_seed(seed)

    def nodes(*shape):
        clumps = 2 * torch.randn(*shape[:2], 3, channels, generator=generator, dtype=torch.float64)
        own = torch.arange(shape[2]) % 3
        noise = torch.randn(*shape, channels, generator=generator, dtype=torch.float64)
        return (clumps[:, :, own] + 0.5 * noise + 1).relu().to(dtype)

    return nodes(2, 3, 6), nodes(2, 4, 7)


def clusters_by_hand(weights, nodes):
    """Means and shares of the clusters of one image, by scikit-learn and a loop, in the order of their first nodes."""
    if isinstance(weights, KMeans):
        found = cluster.KMeans(weights.n_clusters, n_init=weights.n_init, random_state=weights.seed).fit(nodes)
    else:
        found = cluster.MeanShift(bandwidth=weights.bandwidth).fit(nodes)
    labels = found.labels_.tolist()
    kept = list(dict.fromkeys(labels))
    means = [np.mean([node for node, label in zip(nodes, labels, strict=True) if label == c], axis=0) for c in kept]
    return np.array(means), np.array([labels.count(c) / len(labels) for c in kept])


@pytest.mark.parametrize("weights", ALL, ids=str)
def test_weights_have_the_shape_of_pairs_and_total_one(weights):
    support, query = draw()
    s, d = weights(support, query)
    assert s.shape == (2, 4, 3, 7)
    assert d.shape == (2, 4, 3, 6)
    for side in (s, d):
        assert side.dtype == support.dtype
        assert (side >= 0).all()
        assert_close(side.sum(-1), torch.ones_like(side[..., 0]))


def test_uniform_and_cross_reference_are_what_they_say():
    support, query = draw()
    s, d = NODE_WEIGHTS["uniform"](support, query)
    assert_close(s, torch.full_like(s, 1 / 7))
    assert_close(d, torch.full_like(d, 1 / 6))
    assert_close(NODE_WEIGHTS["cross_reference"](support, query), cr_weights(support, query), rtol=0, atol=0)


@pytest.mark.parametrize("weights", CLUSTERINGS, ids=str)
def test_clusters_are_scikit_learns_means_and_sizes(weights):
    support, query = draw()
    found = weights.weigh(support, query)
    for e in range(2):
        for q in range(4):
            for c in range(3):
                for side, nodes, w in ((query[e, q], found.query[e, q], found.s[e, q, c]),
                                       (support[e, c], found.support_map[e, c], found.d[e, q, c])):  # fmt: skip
                    means, shares = clusters_by_hand(weights, side.numpy())
                    held = w > 0
                    assert_close(nodes[held], torch.from_numpy(means))
                    assert_close(w[held], torch.from_numpy(shares))


@pytest.mark.parametrize("weights", CLUSTERINGS, ids=str)
def test_deepemd_on_clusters_is_transport_between_their_means(weights):
    support, query = draw()
    logits = DeepEMD(weights=weights)(support[:, :, None], query)
    for e in range(2):
        for q in range(4):
            for c in range(3):
                u, s = clusters_by_hand(weights, query[e, q].numpy())
                v, d = clusters_by_hand(weights, support[e, c].numpy())
                sim = similarities(torch.from_numpy(v)[None, None], torch.from_numpy(u)[None, None])[0, 0, 0].numpy()
                expected = 12.5 * (1 - otfew.solve(1 - sim, s, d, solver="scipy").value)
                assert float(logits[e, q, c]) == pytest.approx(float(expected), abs=1e-7)


def test_as_many_clusters_as_nodes_is_uniform_and_one_is_the_cosine_of_global_vectors():
    """The ends of Table 2: K = 25 equals "EMD equal", and K = 1, like an infinite bandwidth, has no transport."""
    support, query = draw()
    shots = support[:, :, None]
    uniform = DeepEMD(weights="uniform")(shots, query)
    for weights in (KMeans(7), MeanShift(0.0), MeanShift(1e-6)):
        assert_close(DeepEMD(weights=weights)(shots, query), uniform)
    cosine = similarities(support.mean(2, keepdim=True), query.mean(2, keepdim=True))[..., 0, 0]
    for weights in (KMeans(1), MeanShift(float("inf")), MeanShift(1e6)):
        assert_close(DeepEMD(weights=weights)(shots, query), 12.5 * cosine)


def test_weights_of_deepemd_are_cross_reference_unless_said_otherwise():
    support, query = draw()
    default = DeepEMD()(support[:, :, None], query)
    assert_close(DeepEMD(weights="cross_reference")(support[:, :, None], query), default, rtol=0, atol=0)
    assert (DeepEMD(weights="uniform")(support[:, :, None], query) - default).abs().max() > 1e-3


@pytest.mark.parametrize("weights", ALL, ids=str)
def test_answers_are_repeatable_and_do_not_depend_on_batch_mates(weights):
    support, query = draw()
    s, d = weights(support, query)
    again = weights(support.clone(), query.clone())
    assert_close((s, d), again, rtol=0, atol=0)
    one = weights(support[1:, [2]], query[1:, [3]])
    assert_close(one[0][0, 0, 0], s[1, 3, 2], rtol=0, atol=1e-14)
    assert_close(one[1][0, 0, 0], d[1, 3, 2], rtol=0, atol=1e-14)


def test_each_image_is_clustered_once(monkeypatch):
    calls = []
    labels = KMeans.labels
    monkeypatch.setattr(KMeans, "labels", lambda self, nodes: calls.append(1) or labels(self, nodes))
    KMeans(3)(*draw())
    assert len(calls) == 2 * 3 + 2 * 4


def test_equal_nodes_and_empty_batches_are_no_problem():
    same = torch.ones(1, 2, 5, 4)
    for weights in ALL:
        weighted = weights.weigh(same, same)
        assert weighted.s.isfinite().all()
        assert_close(weighted.query[weighted.s[:, :, 0] > 0], torch.ones_like(same[weighted.s[:, :, 0] > 0]))
        none = weights(same[:0], same[:0])
        assert none[0].shape == (0, 2, 2, 5)


@pytest.mark.parametrize("weights", ["uniform", KMeans(3), MeanShift(4.0)], ids=str)
def test_gradients_flow_through_cluster_means(weights):
    support, query = draw(channels=5)
    support, query = (support[:1, :2, None] + 0.1).requires_grad_(), (query[:1, :2] + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(DeepEMD(weights=weights, weight_gradient=True), (support, query), fast_mode=True)


def test_float32_gives_float32():
    weighted = KMeans(3).weigh(*draw(dtype=torch.float32))
    assert {x.dtype for x in weighted} == {torch.float32}


def test_bad_options_are_one_sentence():
    for options, said in (
        ({"n_clusters": 0}, "`n_clusters` must be a whole number of at least 1, not 0"),
        ({"n_clusters": 2.5}, "`n_clusters` must be a whole number of at least 1, not 2.5"),
        ({"n_init": -1}, "`n_init` must be a whole number of at least 1, not -1"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0 below 4294967296, not -1"),
    ):
        with pytest.raises(UserError, match=rf"^KMeans: {said}\.$"):
            KMeans(**options)
    for bandwidth in (-1.0, float("nan"), "wide"):
        with pytest.raises(UserError, match=r"^MeanShift: `bandwidth` must be a number of at least 0, not "):
            MeanShift(bandwidth)
    assert MeanShift(float("inf")).bandwidth == float("inf")
    with pytest.raises(UserError, match=r"deepemd: unknown `weights` 'kmean'; there are: uniform, cross_reference"):
        DeepEMD(weights="kmean")
    with pytest.raises(UserError, match="unknown `weights` 3"):
        resolve_weights(3)


@pytest.mark.parametrize("weights", ALL, ids=str)
def test_shapes_that_do_not_fit_are_value_errors(weights):
    support, query = draw()
    with pytest.raises(ValueError, match="must be"):
        weights(support[0], query)
    with pytest.raises(ValueError, match="differ in episodes or channels"):
        weights(support, query[..., 1:])
