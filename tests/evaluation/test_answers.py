"""Every query's answer: against a plain loop, in a small file, and of several runs as one."""

from __future__ import annotations

import dataclasses
import io

import cv2
import numpy as np
import pytest
import torch

import otfew
from otfew import catalogue
from otfew.data import DataOptions
from otfew.errors import UserError
from otfew.evaluation.answers import Answers, from_bytes, gather, to_bytes
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.reopening import reopen
from otfew.evaluation.run import Ready, evaluate
from otfew.evaluation.unknown_classes import UnknownClasses
from otfew.features.extract import FeatureSet
from otfew.runs.files import DamagedError
from otfew.statistics.intervals import estimate

LABELS = np.repeat(np.arange(9), 12)
NAMES = tuple(f"c{i}" for i in range(9))
IMAGES = tuple(f"c{c}/{i}.png" for i, c in enumerate(LABELS))
EPISODES = 53


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    rows = np.abs(rng.normal(size=(9, 1, 6))[LABELS] + 0.9 * rng.normal(size=(108, 4, 6)))
    return FeatureSet(torch.from_numpy(rows.astype(np.float32)), LABELS, NAMES)


def sampler(kind):
    balance = "dirichlet:0.3" if kind == "uneven" else "balanced"
    plain = Sampler(Protocol("toy", "", "test", way=3, shot=2, query=3, query_balance=balance), LABELS, NAMES)
    return UnknownClasses(plain, LABELS, NAMES, 2) if kind == "unknown" else plain


@pytest.mark.parametrize("kind", ["plain", "uneven", "unknown"])
def test_answers_equal_a_plain_loop(features, kind):
    drawn = sampler(kind)
    methods = {name: catalogue.build(name) for name in ("cosine-centroid", "knn")}
    scores = evaluate([Ready(name, m, features) for name, m in methods.items()], drawn, EPISODES)
    found = gather(scores, drawn(0, EPISODES), IMAGES, LABELS, NAMES, with_logits=True)
    assert (found.logits is not None) == (kind == "unknown")
    for e in (0, 1, 50, EPISODES - 1):
        one = drawn(e, e + 1)
        asked = [*one.query.ravel(), *(one.unknown.ravel() if kind == "unknown" else [])]
        assert found.query[e].tolist() == asked
        assert found.truth[e].tolist() == LABELS[asked].tolist()
        assert found.known[e].tolist() == [LABELS[i] in one.classes for i in asked]
        assert found.support[e].tolist() == one.support[0].tolist()
        for m, method in enumerate(methods.values()):
            logits = method(features.nodes[one.support], features.nodes[asked][None])[0]
            taken = [int(one.classes[0][row.argmax()]) for row in logits]
            assert found.answered[m, e].tolist() == taken
    right = (found.answered == found.truth) & found.known
    for m, own in enumerate(scores.values()):
        np.testing.assert_allclose(right[m].sum(1) / 9, own.accuracy)


def made(**changes):
    rng = np.random.default_rng(1)
    given = {
        "methods": ("a", 'b "é", c'),
        "class_names": NAMES,
        "images": IMAGES,
        "labels": LABELS.astype(np.uint8),
        "classes": np.stack([rng.permutation(9)[:3] for _ in range(4)]).astype(np.uint8),
        "support": rng.integers(0, 108, (4, 3, 2)).astype(np.uint8),
        "query": rng.integers(0, 108, (4, 9)).astype(np.uint8),
        "predicted": rng.integers(0, 3, (2, 4, 9)).astype(np.uint8),
    }
    return Answers(**{**given, **changes})


@pytest.mark.parametrize("logits", [None, np.arange(216, dtype=np.float32).reshape(2, 4, 9, 3)])
def test_a_file_gives_back_what_was_written(logits):
    answers = made(logits=logits)
    data = to_bytes(answers)
    assert data == to_bytes(made(logits=logits))
    back = from_bytes(data)
    for field in dataclasses.fields(Answers):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(answers, field.name))
    assert back.methods == answers.methods
    assert back.predicted.dtype == np.uint8


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": LABELS[1:]},
        {"labels": LABELS + 1},
        {"labels": LABELS.astype(float)},
        {"predicted": np.full((2, 4, 9), 3)},
        {"predicted": np.zeros((1, 4, 9), int)},
        {"query": np.full((4, 9), 108)},
        {"support": np.full((4, 3, 2), -1)},
        {"support": np.zeros((4, 3), int)},
        {"classes": np.zeros((4, 2), int)},
        {"logits": np.zeros((2, 4, 9), np.float32)},
    ],
)
def test_what_does_not_belong_together_is_damage(changes):
    with pytest.raises(DamagedError):
        made(**changes)


def test_a_file_that_is_none_is_damage():
    whole = to_bytes(made())
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(3))
    pickled = io.BytesIO()
    np.savez(pickled, **{name: np.array([{}], dtype=object) for name in ("methods", "labels")}, allow_pickle=True)
    for data in (b"", b"PK", whole[:-100], buffer.getvalue(), pickled.getvalue()):
        with pytest.raises(DamagedError):
            from_bytes(data)


def test_numbers_are_kept_in_the_smallest_type(features):
    drawn = sampler("plain")
    scores = evaluate([Ready("knn", catalogue.build("knn"), features)], drawn, 2)
    many = tuple(map(str, range(70_000)))
    found = gather(scores, drawn(0, 2), many, np.zeros(70_000, np.int64), NAMES)
    types = [getattr(found, name).dtype for name in ("predicted", "classes", "labels", "query")]
    assert types == [np.uint8, np.uint8, np.uint8, np.uint32]
    assert found.logits is None
    # 600 episodes of 75 queries: a byte an answer, before compression.
    assert found.predicted.nbytes == 2 * 9


@pytest.fixture(scope="module")
def own(tmp_path_factory, features):
    path = tmp_path_factory.mktemp("own") / "own.npz"
    np.savez(path, nodes=features.nodes.numpy(), labels=LABELS)
    return path


METHODS = ["cosine-centroid", "deepemd", "cr-pooled"]


def test_seeds_are_pooled_as_one_run_of_all_episodes(own):
    given = {"methods": METHODS, "features": own, "episodes": 60, "query": 4}
    joined = otfew.compare_over(seeds=[1, 2, 5], **{**given, "features": [own]})
    alone = [otfew.compare(seed=seed, **given) for seed in (1, 2, 5)]
    for name in METHODS:
        found = joined.results["pooled"]["all"]["methods"][name]
        values = np.concatenate([run.episodes[name] for run in alone])
        classes = np.concatenate([run.classes for run in alone])
        base = np.concatenate([run.episodes["cosine-centroid"] for run in alone])
        wanted = estimate(values, classes, NAMES)
        assert found["accuracy"]["mean"] == pytest.approx(values.mean(), abs=1e-8)
        assert found["accuracy"]["episode_ci"] == pytest.approx(1.96 * values.std(ddof=1) / 180**0.5, abs=1e-8)
        assert found["accuracy"]["class_ci"] == pytest.approx(wanted.jackknife.half_width, abs=1e-8)
        if name != "cosine-centroid":
            assert found["difference"]["mean"] == pytest.approx((values - base).mean(), abs=1e-8)
    protocol = joined.results["pooled"]["all"]["protocol"]
    assert (protocol["seeds"], protocol["episodes"]) == ([1, 2, 5], 180)
    assert "seed" not in protocol
    assert any("180 episodes of 5-way 1-shot with 4 queries a class, seeds 1, 2 and 5" in x for x in joined.lines)


@pytest.mark.parametrize("more", [{"fixed_classes": True, "shot": 3}, {"unknown_classes": 2}])
def test_other_kinds_of_episodes_are_pooled_too(own, more):
    given = {"methods": ["cosine-centroid", "knn"], "episodes": 60, "query": 4, **more}
    joined = otfew.compare_over(seeds=[1, 2], features=[own], **given)
    alone = [otfew.compare(seed=seed, features=own, **given) for seed in (1, 2)]
    found = joined.results["pooled"]["all"]["methods"]["knn"]
    each = [run.results["methods"]["knn"] for run in alone]
    assert found["accuracy"]["mean"] == pytest.approx(np.mean([m["accuracy"]["mean"] for m in each]), abs=1e-8)
    if "unknown_classes" in more:
        areas = [m["unknown"]["auroc"]["mean"] for m in each]
        assert found["unknown"]["auroc"]["mean"] == pytest.approx(np.mean(areas), abs=1e-8)
    else:
        assert found["accuracy"]["photo_ci"] > 0
    assert ("± photos" in str(joined)) == ("fixed_classes" in more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of class folders for image-folder."""
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for c in range(24):
        (root / f"kind{c:02}").mkdir()
        for i in range(3):
            cv2.imwrite(str(root / f"kind{c:02}" / f"{i}.png"), rng.integers(0, 255, (12, 12, 3), dtype=np.uint8))
    return root


def protocol_of(root, **options):
    from otfew.data import load

    images = load("image-folder", "test", root, DataOptions(**options))
    data = {"dataset": "image-folder", "variant": images.variant, "split": "test", "names_sha256": images.digest}
    data |= {"images": len(images), "classes": len(images.classes)}
    return {"data": data, **({"fixed_classes": True} if options.get("all_classes") else {})}


@pytest.mark.parametrize("options", [{}, {"split_seed": 3}, {"all_classes": True}])
def test_images_are_found_again_by_the_protocol(folder, options):
    protocol = protocol_of(folder, **options)
    found = reopen(protocol, folder)
    assert found.digest == protocol["data"]["names_sha256"]


def test_other_images_are_not_shown(folder, tmp_path):
    protocol = protocol_of(folder)
    for c in range(24):
        (tmp_path / f"kind{c:02}").mkdir()
        cv2.imwrite(str(tmp_path / f"kind{c:02}" / "other.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(
        UserError,
        match=r"in `data_root` are others than those of the run .*the folder and the options that the run had",
    ):
        reopen(protocol, tmp_path)
    with pytest.raises(UserError, match="was of 'features', which has no images"):
        reopen({"data": {"dataset": "features", "split": "file", "variant": ""}})
