"""Two-step retrieval: rankings by a plain loop, ties, blocks, and what is not retrieval."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otfew.errors import UserError
from otfew.features.extract import FeatureSet
from otfew.retrieval import reranking
from otfew.retrieval import run as retrieval
from otfew.retrieval.reranking import NodeSets, score_candidates, scores_named
from otfew.retrieval.run import GLOBAL, METRICS, Reranker, Shortlist, reordered, retrieve
from otfew.runs.blocks import opened, sealed
from otfew.runs.directory import RunDirectory

SCORES = scores_named(["deepemd", "chamfer", "pooled-cosine"])


def features(images=40, classes=4, n=4, channels=8, noise=1.5, seed=0, digest="a"):
    rng = np.random.default_rng(seed)
    labels = np.arange(images) * classes // images
    nodes = rng.normal(size=(classes, 1, channels))[labels] + noise * rng.normal(size=(images, n, channels))
    names = tuple(f"class {c}" for c in range(classes))
    tensor = torch.from_numpy(np.abs(nodes).astype(np.float32))
    return FeatureSet(tensor, labels.astype(np.int64), names, "made", source={"features_sha256": digest})


def run(given, rerank, scores=SCORES, **options):
    return retrieve(given, [Reranker("made", given, scores)], rerank, **options)


def by_loop(given, score, rerank):
    """Rank, re-rank and measure one query after the other with Python's sort."""
    nodes = given.nodes.double().numpy()
    means = nodes.mean(1)
    sets = NodeSets.of(given.nodes)
    expected = {metric: [] for metric in METRICS}
    for i, label in enumerate(given.labels):
        others = [j for j in range(len(nodes)) if j != i]
        cosine = {j: means[i] @ means[j] / np.linalg.norm(means[i]) / np.linalg.norm(means[j]) for j in others}
        ranking = sorted(others, key=lambda j: -cosine[j])
        if score:
            head = ranking[:rerank]
            values, _ = score_candidates(sets, torch.tensor([i]), torch.tensor([head]), {score: SCORES[score]})
            by_score = dict(zip(head, values[score][0].tolist(), strict=True))
            ranking = sorted(head, key=lambda j: -by_score[j]) + ranking[rerank:]
        right = [given.labels[j] == label for j in ranking]
        total = sum(right)
        top = right[:total]
        expected["p_at_1"].append(float(right[0]))
        expected["r_precision"].append(sum(top) / total)
        expected["map_at_r"].append(sum(sum(top[: k + 1]) / (k + 1) for k in range(total) if top[k]) / total)
    return expected


@pytest.mark.parametrize("rerank", [1, 7, 39])
def test_metrics_are_those_of_a_plain_loop(rerank):
    given = features()
    ranked = run(given, rerank)
    assert list(ranked) == [GLOBAL, "deepemd [made]", "chamfer [made]", "pooled-cosine [made]"]
    for name, score in ((GLOBAL, ""), ("deepemd [made]", "deepemd"), ("chamfer [made]", "chamfer")):
        for metric, values in by_loop(given, score, rerank).items():
            np.testing.assert_allclose(ranked[name].metrics[metric], values, err_msg=f"{name} {metric}")
    assert ranked["deepemd [made]"].seconds > 0
    if rerank > 1:
        assert (ranked["deepemd [made]"].metrics["map_at_r"] != ranked[GLOBAL].metrics["map_at_r"]).any()


def test_the_first_alone_cannot_be_moved():
    ranked = run(features(), 1)
    np.testing.assert_array_equal(ranked["deepemd [made]"].head, ranked[GLOBAL].head)


def test_pooled_cosine_of_the_same_nodes_changes_nothing():
    ranked = run(features(), 39)
    np.testing.assert_array_equal(ranked["pooled-cosine [made]"].head, ranked[GLOBAL].head)


def test_nobody_retrieves_itself_or_anybody_twice():
    for found in run(features(), 39).values():
        for i, head in enumerate(found.head.tolist()):
            assert len(head) == retrieval.HEAD == len(set(head) - {i})


def test_ties_follow_a_shuffle_and_not_the_classes():
    """Equal images: in the order of the data set the first class would be found by everybody."""
    labels = np.repeat(np.arange(2), 50)
    order = Shortlist(torch.ones(100, 3))(0, 100, 99)
    assert torch.equal(order, Shortlist(torch.ones(100, 3))(0, 100, 99))
    right = (labels[order[:, :49]] == labels[:, None]).mean(1)
    for label in (0, 1):
        assert 0.3 < right[labels == label].mean() < 0.7
    for i, row in enumerate(order.tolist()):
        assert sorted([*row, i]) == list(range(100))


def test_equal_scores_keep_the_order_of_the_candidates():
    candidates = torch.tensor([[5, 3, 8, 1], [2, 9, 4, 7]])
    scores = torch.tensor([[0.5, 0.7, 0.5, 0.7], [1.0, 1.0, 1.0, 1.0]])
    assert reordered(candidates, scores).tolist() == [[3, 1, 5, 8], [2, 9, 4, 7]]


def test_blocks_and_batches_change_nothing(monkeypatch):
    given = features(images=90, classes=5)
    whole = run(given, 20)
    monkeypatch.setattr(retrieval, "BLOCK", 7)
    monkeypatch.setattr(reranking, "PAIR_ELEMENTS", 16 * 11)
    monkeypatch.setattr(reranking, "GATHER_BYTES", 256)
    parts = run(given, 20)
    for name, found in whole.items():
        np.testing.assert_array_equal(parts[name].head, found.head)
        for metric in METRICS:
            np.testing.assert_array_equal(parts[name].metrics[metric], found.metrics[metric])


def test_finished_blocks_are_taken_unless_features_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", 16)
    said, worked = [], []
    score = {"deepemd": lambda pairs: worked.append(len(pairs.query)) or SCORES["deepemd"](pairs)}
    directory = RunDirectory(tmp_path / "run", {})
    first = run(features(), 5, score, directory=directory, note=said.append)
    assert worked
    worked.clear()
    again = run(features(), 5, score, directory=directory, note=said.append)
    assert (worked, said) == ([], [])
    for name in first:
        np.testing.assert_array_equal(again[name].head, first[name].head)
        assert again[name].seconds == first[name].seconds
    run(features(seed=1, digest="b"), 5, score, directory=directory, note=said.append)
    assert len(said) == 3
    assert "ran on other features" in said[0]
    assert worked


CHANGES = {
    "an image that is not there": lambda block: block["deepemd [made].head"].__setitem__((0, 0), 40),
    "more than all": lambda block: block["global.map_at_r"].__setitem__(0, 1.01),
    "an infinite share": lambda block: block["global.p_at_1"].__setitem__(0, np.inf),
    "an array less": lambda block: block.pop("global.head"),
    "a shorter head": lambda block: block.update({"global.head": block["global.head"][:, 1:]}),
    "endless": lambda block: block.update({"deepemd [made].seconds": np.array(np.inf)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_block_that_cannot_be_right_is_computed_again(tmp_path, change):
    directory = RunDirectory(tmp_path / "run", {})
    first = run(features(), 5, directory=directory)
    path = tmp_path / "run" / "blocks" / "000000.npz"
    arrays, code = opened(path.read_bytes())
    CHANGES[change](arrays)
    path.write_bytes(sealed(arrays, code))
    said = []
    again = run(features(), 5, directory=directory, note=said.append)
    assert len(said) == 1
    assert "can't be right" in said[0]
    for name, found in first.items():
        np.testing.assert_array_equal(again[name].head, found.head)
        for metric in METRICS:
            np.testing.assert_array_equal(again[name].metrics[metric], found.metrics[metric])


def test_a_block_of_other_code_is_computed_again(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path / "run", {})
    run(features(), 5, directory=directory)
    monkeypatch.setattr(retrieval, "code_digest", lambda *_: "f00d")
    said = []
    run(features(), 5, directory=directory, note=said.append)
    assert len(said) == 1
    assert "other code" in said[0]


def test_images_alone_in_their_class_are_no_queries():
    given = features(images=41, classes=4)
    labels = given.labels.copy()
    labels[-1] = 4
    lonely = FeatureSet(given.nodes, labels, (*given.classes, "lonely"))
    for found in run(lonely, 5).values():
        assert np.flatnonzero(np.isnan(found.metrics["map_at_r"])).tolist() == [40]


def test_progress_counts_every_query_once_a_kind_of_nodes():
    given, done = features(images=70), []
    rerankers = [Reranker("one", given, SCORES), Reranker("two", given, SCORES)]
    retrieve(given, rerankers, 5, progress=lambda count, name: done.append((name, count)))
    for name in ("one", "two"):
        assert sum(count for who, count in done if who == name) == 70


@pytest.mark.parametrize(
    ("labels", "said"),
    [([0, 0, 0], "all images are of one class (a)"), ([0, 1, 2], "every class has a single image")],
)
def test_nothing_to_retrieve_is_refused(labels, said):
    given = FeatureSet(torch.ones(3, 2, 4), np.array(labels), ("a", "b", "c"))
    with pytest.raises(UserError) as caught:
        run(given, 1)
    assert said in str(caught.value)


@pytest.mark.parametrize("rerank", [0, 40])
def test_rerank_out_of_range_is_refused(rerank):
    with pytest.raises(UserError, match="`rerank` must be from 1 to 39"):
        run(features(), rerank)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(UserError, match=r"bad \[made\] scored NaN for query 0"):
        run(features(), 3, {"bad": lambda pairs: pairs.pooled * torch.nan})
