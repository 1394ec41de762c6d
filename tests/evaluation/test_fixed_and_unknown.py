"""Episodes of classes that are these and no others, and episodes that ask about classes that nobody labelled."""

import json

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

import otfew
from otfew import catalogue
from otfew.backbones.loading import zoo
from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.fixed_classes import FixedClasses, copies_of
from otfew.evaluation.unknown_classes import UnknownClasses, open_figures
from otfew.features.file import load_feature_file
from otfew.statistics.temperature import softmax

METHODS = ["cosine-centroid", "knn", "tim"]


@pytest.fixture
def features(tmp_path):
    """A file of 8 classes with 10 images, of which one is a copy."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 10)
    nodes = np.abs(2 * rng.normal(size=(8, 1, 6))[labels] + rng.normal(size=(80, 2, 6))).astype(np.float32)
    nodes[1] = nodes[0]
    path = tmp_path / "own.npz"
    np.savez(path, nodes=nodes, labels=labels)
    return path


def protocol(**changes):
    return Protocol(**{"dataset": "d", "variant": "", "split": "test", "way": 5, "shot": 2, "query": 3, **changes})


def test_fixed_classes_are_in_each_episode():
    labels = np.repeat(np.arange(4), 6)
    copies = np.arange(24)
    copies[7] = 6
    sampler = FixedClasses(protocol(), labels, list("abcd"), copies)
    episodes = sampler(0, 60)
    assert (np.sort(episodes.classes, 1) == np.arange(4)).all()
    for e in range(60):
        for place, c in enumerate(episodes.classes[e]):
            own = [*episodes.support[e, place], *episodes.query[e, place]]
            assert len(set(own)) == 5
            assert set(labels[own]) == {c}
            assert 7 not in own
    assert sampler.settings == {"fixed_classes": True, "copies_left_out": 1}
    assert sampler.roles(sampler(0, 60)).classes[7] == -1


@pytest.mark.parametrize(
    ("shot", "query", "expected"), [(2, 3, (2, 3)), (2, 15, (2, 4)), (9, 9, (5, 1)), (1, 99, (1, 5))]
)
def test_episodes_shrink_to_the_poorest_class_and_say_so(shot, query, expected):
    labels = np.repeat(np.arange(3), [6, 9, 20])
    sampler = FixedClasses(protocol(shot=shot, query=query), labels, list("abc"), np.arange(35))
    assert (sampler.protocol.shot, sampler.protocol.query) == expected
    assert ("shrunk_from" in sampler.settings) == (expected != (shot, query))
    if "shrunk_from" in sampler.settings:
        assert sampler.settings["poorest_class"] == {"name": "a", "images": 6}


def test_what_cannot_be_fixed_is_refused():
    with pytest.raises(UserError, match="needs two of each class"):
        FixedClasses(protocol(), [0, 0, 1, 1], ["a", "b"], np.array([0, 0, 1, 2]))
    with pytest.raises(UserError, match="`query_balance`"):
        FixedClasses(protocol(query_balance="dirichlet:2"), [0, 0, 1, 1], ["a", "b"], np.arange(4))


def test_copies_are_found_to_the_bit():
    vectors = np.array([[1, 2], [3, 4], [1, 2], [1, 2 + 1e-6]], np.float32)
    assert copies_of(vectors).tolist() == [0, 1, 0, 2]


def test_unknown_classes_leave_the_others_as_they_are():
    labels = np.repeat(np.arange(8), 10)
    plain = Sampler(protocol(), labels, list("abcdefgh"))
    sampler = UnknownClasses(plain, labels, list("abcdefgh"), 2)
    known, both = plain(3, 40), sampler(3, 40)
    for name in ("classes", "support", "query", "counts"):
        np.testing.assert_array_equal(getattr(known, name), getattr(both, name))
    assert both.unknown.shape == (37, 2, 3)
    for e in range(37):
        first, second = labels[both.unknown[e]]
        assert len({*first}) == len({*second}) == 1
        assert not {first[0], second[0]} & set(both.classes[e])
        assert first[0] != second[0]
        assert len(set(both.unknown[e].ravel().tolist())) == 6
    np.testing.assert_array_equal(sampler(10, 20).unknown, both.unknown[7:17])
    np.testing.assert_array_equal(both[2:4].unknown, both.unknown[2:4])


@pytest.mark.parametrize("count", [0, -1, 4, True, 1.5])
def test_unknown_classes_that_are_not_there_are_refused(count):
    labels = np.repeat(np.arange(8), 10)
    with pytest.raises(UserError, match="`unknown_classes`"):
        UnknownClasses(Sampler(protocol(), labels, list("abcdefgh")), labels, list("abcdefgh"), count)


def test_open_figures_against_scikit_learn():
    rng = np.random.default_rng(3)
    answers = rng.integers(0, 4, (30, 12))
    logits = rng.normal(size=(30, 18, 4))
    logits[:, :12] += 3 * np.eye(4)[answers]
    found = open_figures(logits, answers)
    for e in (0, 7):
        shares = softmax(logits[e], found.temperatures[e % 2])
        truth = np.r_[np.ones(12), np.zeros(6)]
        assert found.auroc[e] == pytest.approx(roc_auc_score(truth, logits[e].max(1) - logits[e].mean(1)))
        assert found.log_loss[e] == pytest.approx(log_loss(answers[e], shares[:12], labels=range(4)))
        assert found.brier[e] == pytest.approx(((shares[:12] - np.eye(4)[answers[e]]) ** 2).sum(1).mean())
    # An episode has no part in its own temperature.
    tampered = logits.copy()
    tampered[::2] *= -5
    assert open_figures(tampered, answers).temperatures[0] == found.temperatures[0]
    assert open_figures(tampered, answers).temperatures[1] != found.temperatures[1]


def test_a_comparison_with_unknown_classes(features, tmp_path):
    given = {"methods": METHODS, "features": features, "episodes": 60, "query": 4, "shot": 2}
    plain = otfew.compare(**given)
    found = otfew.compare(**given, unknown_classes=3, output=tmp_path / "run")
    inductive = [name for name in METHODS if name != "tim"]
    for name in inductive:
        # What is asked about beside them changes nothing for queries that are answered one by one.
        np.testing.assert_array_equal(found.episodes[name], plain.episodes[name])
    for name in METHODS:
        record = found.results["methods"][name]["unknown"]
        assert 0.5 < record["auroc"]["mean"] <= 1
        assert 0 <= record["brier"]["mean"] <= 2
        assert record["auroc"]["episode_ci"] > 0
    assert "AUROC of unknown" in found.to_markdown()
    assert any("3 more classes in each episode have no labelled images" in line for line in found.lines)
    assert found.results["protocol"]["unknown_classes"] == 3
    # Kept blocks are gone on with, and the report can be read.
    again = otfew.compare(**given, unknown_classes=3, output=tmp_path / "run")
    assert again.results == found.results
    assert otfew.load(tmp_path / "run").results == found.results

    # By hand.
    material = load_feature_file(features)
    sampler = UnknownClasses(
        Sampler(Protocol(**_keys(found), seed=1, way=5, shot=2, query=4), material.labels, material.classes),
        material.labels, material.classes, 3,
    )  # fmt: skip
    episodes = sampler(0, 60)
    method = catalogue.build("knn")
    areas = []
    for e in range(60):
        query = torch.cat([material.nodes[episodes.query[e].ravel()], material.nodes[episodes.unknown[e].ravel()]])
        logits = method(material.nodes[episodes.support[e]][None], query[None])[0].double().numpy()
        sure = logits.max(1) - logits.mean(1)
        areas.append(roc_auc_score(np.r_[np.ones(20), np.zeros(12)], sure))
    assert found.results["methods"]["knn"]["unknown"]["auroc"]["mean"] == pytest.approx(np.mean(areas), abs=1e-6)


def _keys(found):
    data = found.results["protocol"]["data"]
    return {name: data[name] for name in ("dataset", "variant", "split")}


def test_a_comparison_of_fixed_classes(features, tmp_path):
    given = {"methods": ["cosine-centroid", "knn"], "features": features, "episodes": 120, "query": 15, "shot": 3}
    found = otfew.compare(**given, fixed_classes=True, output=tmp_path / "run")
    p = found.results["protocol"]
    assert (p["way"], p["shot"], p["query"], p["fixed_classes"], p["copies_left_out"]) == (8, 3, 6, True, 1)
    assert p["shrunk_from"] == {"shot": 3, "query": 15}
    assert p["poorest_class"] == {"name": "0", "images": 9}
    for record in found.results["methods"].values():
        assert record["accuracy"]["photo_ci"] > 0
        assert "class_ci" not in record["accuracy"]
    assert found.differences["knn"]["verdict"] in {"better", "worse", "no difference shown"}
    assert "± photos" in found.to_markdown()
    told = "\n".join(found.lines)
    assert "class 0 has 9 images, so that episodes have 3 labelled and 6 asked about" in told
    assert "over episodes and over photos (jackknife)" in told
    assert "1 images are copies of others" in told
    assert otfew.load(tmp_path / "run").results == found.results
    with pytest.raises(UserError, match="`unknown_classes` are none"):
        otfew.compare(**given, fixed_classes=True, unknown_classes=1)


def test_all_classes_of_a_folder_are_fixed(tmp_path):
    rng = np.random.default_rng(0)
    for c in range(16):
        (tmp_path / "data" / f"kind{c:02}").mkdir(parents=True)
        for i in range(3):
            noise = rng.integers(0, 60, (16, 16, 3)) + np.array([10 * c, 150 - 9 * c, (40 * c) % 150])
            cv2.imwrite(str(tmp_path / "data" / f"kind{c:02}" / f"{i}.png"), noise.astype(np.uint8))
    backbone = next(iter(zoo()))
    given = {"dataset": "image-folder", "data_root": tmp_path / "data", "backbone": backbone, "methods": "knn"}
    found = otfew.compare(**given, episodes=40, query=1, fixed_classes=True)
    assert found.results["protocol"]["way"] == 16
    assert found.results["protocol"]["data"]["notes"][0] == "all 16 classes of the folder"


def test_runs_without_these_options_keep_their_bytes(features):
    found = otfew.compare(methods=METHODS, features=features, episodes=6, query=2)
    text = json.dumps(found.results)
    for word in ("fixed", "unknown", "photo_ci", "copies"):
        assert word not in text
