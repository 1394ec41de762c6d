"""Shapes in several views: rankings against a plain search, and what re-ranking leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otfew.retrieval.metrics import METRICS
from otfew.retrieval.reranking import scores_named
from otfew.retrieval.views import MAXIMUM, MEAN, NEAREST, across_modalities, among_shapes


def drawn(shapes=23, views=3, channels=7, classes=4):
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, classes, shapes))
    means = torch.from_numpy(rng.normal(size=(classes, channels)))
    vectors = means[labels][:, None] + torch.from_numpy(rng.normal(size=(shapes, views, channels)))
    return vectors.float(), labels


def average_precision(similarity, relevant):
    order = np.argsort(-similarity, kind="stable")
    hits = relevant[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("name", [MAXIMUM, MEAN])
def test_shapes_ask_for_all_others(name):
    views, labels = drawn()
    found = among_shapes(views, labels, {}, len(labels) - 1)
    joined = (views.amax(1) if name == MAXIMUM else views.mean(1)).double().numpy()
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        expected = average_precision(
            np.array([cosine(joined[i], joined[j]) for j in others]), (labels[others] == labels[i]).numpy()
        )
        assert found[name]["map"][i] == pytest.approx(expected)


def test_other_modalities_ask_by_the_nearest_view():
    views, labels = drawn()
    queries, asked = drawn(shapes=9, views=1)
    found = across_modalities(queries[:, 0], asked, views, labels)
    assert list(found) == [MAXIMUM, MEAN, NEAREST]
    assert all(set(each) == set(METRICS) for each in found.values())
    for i in range(len(asked)):
        similarity = [max(cosine(queries[i, 0].numpy(), view) for view in shape.numpy()) for shape in views]
        expected = average_precision(np.array(similarity), (labels == asked[i]).numpy())
        assert found[NEAREST]["map"][i] == pytest.approx(expected)


def test_transport_finds_a_shape_whose_views_are_the_same_in_another_order():
    views, _ = drawn(shapes=12, views=5)
    turned = torch.cat([views, views[:, torch.tensor([2, 3, 4, 0, 1])]])
    labels = torch.arange(12).repeat(2)
    found = among_shapes(turned, labels, scores_named(["deepemd-equal", "chamfer-equal"]), 23)
    for name in ("deepemd-equal [views]", "chamfer-equal [views]"):
        assert (found[name]["nn"] == 1).all()


def test_what_lies_beyond_the_first_keeps_its_order():
    """Re-ranking a single candidate changes nothing."""
    views, labels = drawn()
    found = among_shapes(views, labels, scores_named(["chamfer"]), 1)
    for metric in METRICS:
        np.testing.assert_array_equal(found["chamfer [views]"][metric], found[MAXIMUM][metric])
