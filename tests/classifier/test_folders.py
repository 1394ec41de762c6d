"""Folders on which ``method="auto"`` is judged: what is drawn, and that the study does what the classifier does."""

import json

import numpy as np
import pytest

import otfew
from otfew import FewShotClassifier
from otfew.classifier import folder_pool, prior
from otfew.classifier.folder_plan import SOURCES, UNKNOWN_CLASSES, Source, folders
from otfew.classifier.folder_pool import open_pool, read_pool
from otfew.classifier.folder_study import MOST_SETS, judge, unpacked
from otfew.data.base import ImageSet
from otfew.errors import UserError

LITTLE = Source("made-up", "test", None, classes=7, new=4, most=6, shapes=((5, 5), (4, 4), (4, 1)))


def images(classes=9, each=12):
    """Noise about colours of which neighbours are alike."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(classes), each)
    tints = np.linspace(60, 190, classes)[labels, None] + rng.integers(-12, 13, (len(labels), 3))
    pixels = np.clip(tints[:, None, None] + rng.integers(-60, 61, (len(labels), 16, 16, 3)), 0, 255).astype(np.uint8)
    return ImageSet(
        dataset="made-up", split="test", variant="", classes=tuple(f"c{i}" for i in range(classes)), labels=labels,
        names=tuple(f"made-up/{i}" for i in range(len(labels))), read=lambda i: pixels[i],
        fingerprint="made-up", published_classes=classes,
    )  # fmt: skip


@pytest.fixture
def pool(pools, monkeypatch, tmp_path):
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path))
    monkeypatch.setattr(folder_pool, "load", lambda *_: images())
    return open_pool(LITTLE, read_pool(LITTLE, None), pools.network(2, resolution=16))


def plan():
    pools = {k: np.repeat(np.arange(source.classes), source.each) for k, source in enumerate(SOURCES)}
    return list(folders(pools)), pools


def test_folders_are_what_the_plan_says():
    drawn, pools = plan()
    assert [folder.number for folder in drawn] == list(range(40))
    for folder in drawn:
        source, labels = SOURCES[folder.source], pools[folder.source]
        way, photos = source.shapes[folder.number % 10]
        assert len(folder.classes) == way
        counts = np.bincount(labels[list(folder.labelled)], minlength=source.classes)[list(folder.classes)]
        if folder.number % 2:  # uneven
            assert counts.min() >= 1
            assert counts.max() <= min(2 * photos - 1, source.most)
        else:
            assert (counts == min(photos, source.most)).all()
        assert (np.bincount(labels[list(folder.new)])[list(folder.classes)] == source.new).all()
        assert set(labels[list(folder.unknown)]).isdisjoint(folder.classes)
        assert len(folder.unknown) == source.new * min(UNKNOWN_CLASSES, source.classes - way)
        assert not set(folder.labelled) & set(folder.new)
    assert {len(folder.classes) for folder in drawn} >= {5, 20}
    assert {max(np.bincount(pools[f.source][list(f.labelled)])) for f in drawn} >= {1, 20}


def test_a_folder_depends_on_no_other_source():
    drawn, pools = plan()
    assert list(folders({2: pools[2]})) == drawn[20:30]


def test_no_class_of_a_folder_is_behind_the_prior():
    behind = {text.split(":")[0] for text in prior.load().sources}
    assert behind == {"cub (val)", "cifar-fs (train)"}
    assert {source.split for source in SOURCES} == {"test"}


def test_a_pool_that_is_too_small_is_refused(monkeypatch):
    monkeypatch.setattr(folder_pool, "load", lambda *_: images(classes=6))
    with pytest.raises(UserError, match="made-up has 60 photos for folders of 7 classes of 10"):
        read_pool(LITTLE, None)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_study_does_what_the_classifier_does(pool, pools, number):
    folder = list(folders({0: pool.labels}, [LITTLE]))[number]
    found = json.loads(json.dumps(judge(pool, folder, prior.load())))

    def shown(places):
        return [pool.images.read(i) for i in places], [pool.classes[c] for c in pool.labels[list(places)]]

    classifier = FewShotClassifier(pools.network(2, resolution=16)).fit(*shown(folder.labelled))
    assert found["choice"] == json.loads(json.dumps(classifier.selection_.describe()))
    new, labels = shown(folder.new)
    unknown, _ = shown(folder.unknown)
    chosen = str(classifier.selection_.candidate)
    assert [bit == "1" for bit in found["right"][chosen]] == (classifier.predict(new) == labels).tolist()
    shares = classifier.predict_proba(new)
    np.testing.assert_allclose(unpacked(found["confidence"]["after"]["largest"]), shares.max(1), rtol=1e-4)
    truth = np.searchsorted(classifier.classes_, labels)
    assert unpacked(found["truth"]).tolist() == truth.tolist()
    loss = -np.log(shares[np.arange(len(truth)), truth])
    np.testing.assert_allclose(unpacked(found["confidence"]["after"]["log_loss"]), loss, rtol=1e-3, atol=1e-5)
    for rate in (0.05, 0.1, 0.2):
        told = found["refusal"][f"{rate:g}"]
        strict = FewShotClassifier(pools.network(2, resolution=16), reject=rate)
        try:
            strict.fit(*shown(folder.labelled))
        except UserError:
            assert told is None
            continue
        for name, photos in (("known", new), ("unknown", unknown)):
            refused = (strict.predict(photos) == otfew.UNKNOWN).tolist()
            assert [bit == "1" for bit in told[name]] == refused

    centroid = FewShotClassifier(pools.network(2, resolution=16), method="cosine-centroid").fit(*shown(folder.labelled))
    kept = found["sets"]["cosine-centroid"]
    for alpha in (0.1, 0.2):
        try:
            sets = centroid.predict_set(new, alpha)
        except UserError:
            assert kept is None or f"{alpha:g}" not in kept["hits"]
            continue
        which = unpacked(kept["photos"]).astype(int)
        assert len(which) == min(MOST_SETS, len(new))
        assert unpacked(kept["sizes"][f"{alpha:g}"]).tolist() == [len(sets[i]) for i in which]
        assert kept["hits"][f"{alpha:g}"] == "".join("01"[labels[i] in sets[i]] for i in which)
