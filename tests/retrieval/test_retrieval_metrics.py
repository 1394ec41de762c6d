"""Retrieval metrics: against a plain loop, pytorch-metric-learning's calculator, scikit-learn, and laws."""

from __future__ import annotations

import math

import pytest
import torch

from otfew.retrieval.metrics import METRICS, embedding_scores, means, ranking_metrics, relevances, retrieval_metrics


def looped(scores, query_labels, gallery_labels, exclude_self):
    """The formulas once more, an item at a time."""
    rows = []
    for q, row in enumerate(scores.tolist()):
        items = [i for i in range(len(row)) if not (exclude_self and i == q)]
        items.sort(key=lambda i: -row[i])
        rel = [int(gallery_labels[i] == query_labels[q]) for i in items]
        total = sum(rel)
        if total == 0:
            rows.append(dict.fromkeys(METRICS, math.nan))
            continue
        precision = [sum(rel[: i + 1]) / (i + 1) for i in range(len(rel))]
        p32, r32 = sum(rel[:32]) / min(32, len(rel)), sum(rel[:32]) / total
        gain = rel[0] + sum(r / math.log2(i) for i, r in enumerate(rel, start=1) if i >= 2)
        ideal = 1 + sum(1 / math.log2(i) for i in range(2, total + 1))
        rows.append(
            {
                "map": sum(p for p, r in zip(precision, rel, strict=True) if r) / total,
                "r_precision": sum(rel[:total]) / total,
                "map_at_r": sum(p for p, r in zip(precision[:total], rel[:total], strict=True) if r) / total,
                "p_at_1": float(rel[0]),
                "nn": float(rel[0]),
                "ft": sum(rel[:total]) / total,
                "st": sum(rel[: 2 * total]) / total,
                "e": 2 * p32 * r32 / (p32 + r32) if sum(rel[:32]) else 0.0,
                "dcg": gain / ideal,
            }
        )
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in METRICS}


def material(queries=60, gallery=90, classes=5, channels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, channels, generator=generator)
    labels = [torch.randint(classes, (n,), generator=generator) for n in (queries, gallery)]
    return [(centres[y] + torch.randn(len(y), channels, generator=generator), y) for y in labels]


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize(("items", "classes"), [(90, 5), (20, 3), (90, 40)])
def test_equals_a_plain_loop(items, classes, exclude_self):
    (queries, query_labels), (gallery, gallery_labels) = material(gallery=items, classes=classes)
    if exclude_self:
        queries, query_labels = gallery, gallery_labels
    scores = -torch.cdist(queries.double(), gallery.double())
    found = retrieval_metrics(scores, query_labels, gallery_labels, exclude_self=exclude_self, block=7)
    for name, expected in looped(scores, query_labels, gallery_labels, exclude_self).items():
        torch.testing.assert_close(found[name], expected, equal_nan=True, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_equals_pytorch_metric_learning(exclude_self):
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    (queries, query_labels), (gallery, gallery_labels) = material()
    if exclude_self:
        queries, query_labels = gallery, gallery_labels
    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision", "mean_average_precision_at_r"),
        k=len(gallery) - exclude_self,
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
    )
    theirs = calculator.get_accuracy(queries, query_labels, gallery, gallery_labels, ref_includes_query=exclude_self)
    ours = means(
        retrieval_metrics(
            embedding_scores(queries, gallery), query_labels, gallery_labels, exclude_self=exclude_self, block=16
        )
    )
    pairs = {"p_at_1": "precision_at_1", "r_precision": "r_precision", "map": "mean_average_precision",
             "map_at_r": "mean_average_precision_at_r"}  # fmt: skip
    for mine, name in pairs.items():
        assert ours[mine] == pytest.approx(theirs[name], abs=1e-9), name


def test_map_equals_scikit_learn():
    from sklearn.metrics import average_precision_score

    (queries, query_labels), (gallery, gallery_labels) = material()
    scores = -torch.cdist(queries, gallery)
    found = retrieval_metrics(scores, query_labels, gallery_labels, exclude_self=False)["map"]
    for row, label, value in zip(scores, query_labels, found, strict=True):
        assert float(value) == pytest.approx(average_precision_score(gallery_labels == label, row))


def test_a_common_offset_changes_nothing_and_gradients_are_let_go():
    (queries, query_labels), (gallery, gallery_labels) = material()
    found = [
        retrieval_metrics(embedding_scores(q, g), query_labels, gallery_labels, exclude_self=False)["map"]
        for q, g in ((queries, gallery), (queries + 1000, gallery + 1000), (queries.clone().requires_grad_(), gallery))
    ]
    # Adding 1000 itself rounds at 6e-5.
    torch.testing.assert_close(found[1], found[0], atol=0.01, rtol=0)
    assert torch.equal(found[2], found[0])


def test_cosine_ranks_by_the_angle():
    (queries, query_labels), (gallery, gallery_labels) = material()
    expected = torch.nn.functional.cosine_similarity(queries[:, None], gallery[None], dim=-1)
    found = retrieval_metrics(
        embedding_scores(3 * queries, gallery, "cosine"), query_labels, gallery_labels, exclude_self=False
    )
    for name, values in looped(expected, query_labels, gallery_labels, False).items():
        torch.testing.assert_close(found[name], values, msg=name)


def test_blocks_do_not_change_a_bit_and_functions_are_asked_for_rows():
    (queries, query_labels), (gallery, gallery_labels) = material()
    scores, asked = queries @ gallery.T, []

    def rows(start, stop):
        asked.append(stop - start)
        return scores[start:stop]

    whole = retrieval_metrics(scores, query_labels, gallery_labels, exclude_self=False, block=1000)
    parts = retrieval_metrics(rows, query_labels, gallery_labels, exclude_self=False, block=25)
    assert asked == [25, 25, 10]
    assert all(torch.equal(whole[name], parts[name]) for name in METRICS)


def test_float32_ranks_as_a_stable_sort_does():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-3, 4, (40, 500), generator=generator) * 0.5
    scores[:, ::7] = -0.0
    scores[:, 5], scores[:, 6] = math.inf, -math.inf
    scores[:, 8:60] = torch.randn(40, 52, generator=generator)
    labels = torch.arange(500)
    for query in range(40):
        ((relevant, _),) = relevances(scores[[query]].expand(500, -1), labels, labels, exclude_self=False, block=500)
        # Item i is relevant for query i alone: row i shows its rank.
        torch.testing.assert_close(
            relevant.int().argmax(1), scores[query].argsort(descending=True, stable=True).argsort()
        )


def test_self_is_excluded_by_its_place_even_among_duplicates():
    labels = torch.tensor([0, 0, 1, 1])
    found = retrieval_metrics(torch.ones(4, 4), labels, labels, exclude_self=True)
    # All scores are equal: the ranking is the order of the gallery without the query.
    assert found["p_at_1"].tolist() == [1, 1, 0, 0]


def test_relevances_feed_ranking_metrics_and_a_short_ranking_misses_the_rest():
    (queries, query_labels), (gallery, gallery_labels) = material()
    ((relevant, total),) = relevances(queries @ gallery.T, query_labels, gallery_labels, exclude_self=False)
    whole, cut = ranking_metrics(relevant, total), ranking_metrics(relevant[:, :40], total)
    assert torch.equal(whole["p_at_1"], cut["p_at_1"])
    assert torch.equal(whole["e"], cut["e"])
    padded = ranking_metrics(torch.cat([relevant[:, :40], torch.zeros(len(relevant), 50, dtype=torch.bool)], 1), total)
    for name in METRICS:
        torch.testing.assert_close(cut[name], padded[name], msg=name)


def test_perfect_rankings_score_one():
    relevant = torch.zeros(3, 50, dtype=torch.bool)
    for row, total in enumerate((1, 7, 20)):
        relevant[row, :total] = True
    found = ranking_metrics(relevant, torch.tensor([1, 7, 20]))
    for name in set(METRICS) - {"e"}:
        torch.testing.assert_close(found[name], torch.ones(3, dtype=torch.float64), msg=name)


def test_queries_without_a_relevant_item_are_left_out_of_the_mean():
    scores = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    found = retrieval_metrics(scores, torch.tensor([0, 9]), torch.tensor([0, 1]), exclude_self=False)
    assert all(math.isnan(found[name][1]) for name in METRICS)
    assert means(found)["map"] == 1
    with pytest.raises(ValueError, match="no query has a relevant item"):
        means(retrieval_metrics(scores, torch.tensor([8, 9]), torch.tensor([0, 1]), exclude_self=False))


def test_bad_input():
    labels = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"scores\[1\] holds NaN"):
        retrieval_metrics(torch.tensor([[1.0, 0.0], [math.nan, 0.0]]), labels, labels, exclude_self=False)
    with pytest.raises(ValueError, match=r"must be \(2, 2\), not \(2, 3\)"):
        retrieval_metrics(torch.ones(2, 3), labels, labels, exclude_self=False)
    with pytest.raises(ValueError, match="exclude_self needs the gallery to be the queries"):
        retrieval_metrics(torch.ones(2, 2), labels, torch.tensor([0, 0]), exclude_self=True)
    with pytest.raises(ValueError, match="must not be empty"):
        retrieval_metrics(torch.ones(0, 2), labels[:0], labels, exclude_self=False)
    with pytest.raises(ValueError, match=r"gallery\[1\] is not finite"):
        embedding_scores(torch.ones(2, 3), torch.tensor([[1.0, 1, 1], [1, math.inf, 1]]))
    with pytest.raises(ValueError, match="more relevant items than n_relevant"):
        ranking_metrics(torch.ones(1, 3, dtype=torch.bool), torch.tensor([2]))


def clustered(dtype=torch.float64, channels=8):
    """200 embeddings in 20 classes that overlap; numbers that float16 holds."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 20
    centres = torch.randn(20, channels, generator=generator)
    return (centres[labels] + 0.5 * torch.randn(200, channels, generator=generator)).half().to(dtype), labels


def one_far(x):
    x[0] = 1e6
    return x


def two_groups_far_apart(x):
    x[::2] += 4096
    return x


def one_beyond_squares(x):
    x[3, 1] = 3e38
    return x


DISTORTED = {
    "one far": one_far,
    "one whose square float32 cannot hold": one_beyond_squares,
    "two groups": two_groups_far_apart,
    "collapsed classes": lambda x: x / 2**14 + torch.arange(200)[:, None] % 20 * torch.ones(x.shape[1]),
    "huge": lambda x: x * 2.0**120,
    "tiny": lambda x: x * 2.0**-120,
}


@pytest.mark.parametrize("channels", [8, 64])
@pytest.mark.parametrize("name", DISTORTED)
def test_distances_are_right_whatever_the_others_are(name, channels):
    """Against differences in float64: all entries to float32's last digits, so rankings differ in ties at most."""
    x, labels = clustered(channels=channels)
    x = DISTORTED[name](x).float()
    expected = (x.double()[:, None] - x.double()[None]).square().sum(-1).sqrt()
    found = -embedding_scores(x, x)(0, 200)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double() / found.max(), expected / expected.max(), rtol=3e-7, atol=0)
    ranked = [means(retrieval_metrics(s, labels, labels, exclude_self=True))["map"] for s in (-found, -expected)]
    assert ranked[0] == pytest.approx(ranked[1], abs=1e-3)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_float64_distances_keep_their_digits_at_any_scale(scale):
    x, _ = clustered()
    x[0] = 1e6
    scores = embedding_scores(scale * x, scale * x)(0, 200)
    assert scores.dtype == torch.float64
    expected = (x[:, None] - x[None]).square().sum(-1).sqrt()
    torch.testing.assert_close(scores / scores.min(), expected / expected.max(), rtol=1e-11, atol=0)


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_autocast_changes_nothing(dtype, similarity):
    x = clustered()[0].to(dtype)
    expected = embedding_scores(x.float(), x.float(), similarity)(0, 200)
    assert torch.equal(embedding_scores(x, x, similarity)(0, 200), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = embedding_scores(x.float(), x.float(), similarity)
        assert torch.equal(scores(0, 200), expected)


@pytest.mark.parametrize("scale", [1e-32, 1.0, 1e30])
def test_cosine_tells_small_angles_apart_at_any_scale_and_zero_vectors_are_orthogonal_to_all(scale):
    angles = torch.tensor([0.0, 3e-5, 1e-5, 2e-5, 2.0, -1.0], dtype=torch.float64)
    x = torch.cat([torch.stack([angles.cos(), angles.sin()], 1), torch.zeros(1, 2)]).float() * scale
    order = embedding_scores(x, x, "cosine")(0, len(x)).argsort(dim=1, descending=True, stable=True)
    assert order[0].tolist() == [0, 2, 3, 1, 5, 6, 4]
    assert order[6].tolist() == [0, 1, 2, 3, 4, 5, 6]
