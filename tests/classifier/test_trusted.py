"""The classifier with method="auto", refusals and sets, end to end on pictures that a pooled mean tells apart."""

import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone

import otfew
from otfew.backbones.base import Backbone, Card
from otfew.classifier import FewShotClassifier, fitting, several
from otfew.classifier.duplicates import PROBES
from otfew.classifier.feature_store import FeatureStore
from otfew.classifier.selection import Choice
from otfew.errors import UserError

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (110, 110, 110)}
OTHER = (230, 230, 40)


class Counting(torch.nn.Module):
    """Pools, and counts what goes through it."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d(2)

    def forward(self, images):
        Counting.calls += len(images)
        return self.pool(images)


def network(resolution=8):
    card = Card("pool", "pool", resolution=resolution, mean=(0, 0, 0), std=(1, 1, 1))
    return Backbone(Counting(), card, f"pool{resolution}")


def picture(colour, seed, noise=70):
    rng = np.random.default_rng(seed)
    tint = np.array(COLOURS.get(colour, colour)) + rng.normal(0, noise / 2, 3)
    return np.clip(tint + rng.integers(-noise, noise + 1, (12, 10, 3)), 0, 255).astype(np.uint8)


def deck(each=8, names=tuple(COLOURS), start=0):
    labels = [name for name in names for _ in range(each)]
    return [picture(label, start + i) for i, label in enumerate(labels)], labels


def forget(monkeypatch):
    """Empty the process's memory of nodes, as in another process."""
    store = FeatureStore()
    for module in (several, fitting):
        monkeypatch.setattr(module, "STORE", store)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    forget(monkeypatch)


@pytest.fixture(scope="module")
def fitted():
    return FewShotClassifier(network(), reject=0.1).fit(*deck())


def test_auto_is_the_default_and_says_what_it_chose(fitted):
    assert FewShotClassifier().method == "auto"
    new, truth = deck(5, start=500)
    assert fitted.score(new, truth) > 0.6
    told = str(fitted.selection_)
    assert str(fitted.selection_.candidate) in told
    assert "prior" in told
    assert len(fitted.selection_.judged) > 5
    assert fitted.method_.name == fitted.selection_.candidate.method
    assert fitted.selection_.describe()["candidates"][0]["cost"] >= 1
    lines = fitted.report_.lines()
    assert lines[0].startswith("32 photos of 4 classes (8 to 8 each); held out one a class, 8 times")
    assert "the method chosen anew each time" in lines[0]
    assert any(line.startswith("method: ") for line in lines)


def test_probabilities_are_softmax_over_the_temperature(fitted):
    new, _ = deck(3, start=700)
    scores = fitted.decision_function(new) / fitted.calibration_.temperature
    expect = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(fitted.predict_proba(new), expect)


def test_refused_photos_are_unknown(fitted):
    new = [*deck(3, start=800)[0], picture(OTHER, 1), picture(OTHER, 2)]
    answers = fitted.predict(new)
    scores = fitted.decision_function(new)
    sure = scores.max(1) - scores.mean(1)
    refused = sure < fitted.calibration_.threshold
    assert (answers == otfew.UNKNOWN).tolist() == refused.tolist()
    assert answers[~refused].tolist() == fitted.classes_[fitted.predict_proba(new).argmax(1)][~refused].tolist()
    plain = clone(fitted).set_params(reject=None).fit(*deck())
    assert otfew.UNKNOWN not in plain.predict(new).tolist()
    assert fitted.report_.detection.classes == 4


def test_too_few_photos_for_a_rate_are_refused_and_leave_an_earlier_fit():
    images, labels = deck(2)
    classifier = FewShotClassifier(network(), method="cosine-centroid").fit(images, labels)
    before = classifier.decision_function(images)
    for method in ("cosine-centroid", "auto"):
        with pytest.raises(UserError, match=r"`reject` 0\.05 needs 19 labelled photos"):
            classifier.set_params(reject=0.05, method=method).fit(*deck(3))
        np.testing.assert_array_equal(classifier.decision_function(images), before)


def test_unknown_labels_of_ones_own():
    images, labels = deck(6)
    labels = ["unknown" if label == "grey" else label for label in labels]
    with pytest.raises(UserError, match="`unknown_label`"):
        FewShotClassifier(network(), method="knn", reject=0.2).fit(images, labels)
    classifier = FewShotClassifier(network(), method="knn", reject=0.2, unknown_label="none").fit(images, labels)
    assert set(classifier.predict(deck(6, start=900)[0])) <= {*labels, "none"}
    numbers = np.unique(labels, return_inverse=True)[1]
    classifier = FewShotClassifier(network(), method="knn", reject=0.3, unknown_label=-1).fit(images, numbers)
    assert classifier.predict([picture((255, 255, 255), 3)]).dtype.kind == "i"


def test_transductive_methods_are_not_calibrated_and_refuse_nothing():
    images, labels = deck(4)
    classifier = FewShotClassifier(network(), method="tim").fit(images, labels)
    assert classifier.calibration_.temperature == 1
    assert "sees all new photos at once" in classifier.report_.lines()[0]
    with pytest.raises(UserError, match="`reject`"):
        classifier.set_params(reject=0.2).fit(images, labels)


def test_one_shot_is_the_prior_alone():
    classifier = FewShotClassifier(network()).fit(*deck(1))
    assert "by prior alone" in str(classifier.selection_)
    assert classifier.report_.accuracy is None
    assert classifier.predict_proba(deck(1)[0]).shape == (4, 4)
    with pytest.raises(UserError, match="there are 0"):
        classifier.set_params(reject=0.5).fit(*deck(1))


def test_sets_hold_the_right_label_at_their_rate():
    classifier = FewShotClassifier(network(), method="cosine-centroid").fit(*deck(8))
    new, truth = deck(25, start=2000)
    sets = classifier.predict_set(new, alpha=0.2)
    held = np.mean([label in found.tolist() for label, found in zip(truth, sets, strict=True)])
    assert held > 0.7
    assert np.mean([len(found) for found in sets]) < 4
    with pytest.raises(UserError, match=r"`alpha` 0\.01 needs 99"):
        classifier.predict_set(new, alpha=0.01)
    with pytest.raises(UserError, match="'logistic' is none"):
        FewShotClassifier(network(), method="logistic").fit(*deck(4)).predict_set(new)


def test_new_photos_of_another_kind_do_not_resemble():
    classifier = FewShotClassifier(network(), method="cosine-centroid").fit(*deck(10))
    assert not classifier.resembles(deck(10, start=3000)[0]).differs
    assert classifier.resembles([np.zeros((9, 9, 3), np.uint8) + 5 * (i % 7) for i in range(30)]).differs
    assert classifier.resembles([]).p is None


def test_settings_narrow_the_candidates():
    images, labels = deck(3)
    found = FewShotClassifier(network(), nodes="grid:2", resolution=6).fit(images, labels).selection_
    assert {(j.candidate.view.nodes, j.candidate.view.resolution) for j in found.judged} == {("grid:2", 6)}
    with pytest.raises(UserError, match="options go with the name of a method"):
        FewShotClassifier(network(), options={"temperature": 2}).fit(images, labels)


def test_answers_are_a_function_of_the_photos_alone(fitted):
    again = FewShotClassifier(network(), reject=0.1).fit(*deck())
    assert again.report_ == fitted.report_
    restored = pickle.loads(pickle.dumps(again))
    new = deck(3, start=950)[0]
    np.testing.assert_array_equal(restored.predict_proba(new), again.predict_proba(new))
    assert restored.report_ == again.report_
    assert restored.selection_ == again.selection_
    assert Choice.from_record(json.loads(json.dumps(again.selection_.describe()))) == again.selection_


def test_each_view_is_extracted_once_and_kept(tmp_path, monkeypatch):
    images, labels = deck(3)
    classifier = FewShotClassifier(network(), cache=tmp_path)
    Counting.calls = 0
    first = classifier.fit(images, labels).predict_proba(images)
    # 12 photos: once whole, 13 crops; and the probes that near-duplicates are measured by, predictions.
    once = Counting.calls
    classifier.fit(images, labels)
    assert Counting.calls - once < once - 12 * 14
    forget(monkeypatch)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 24 + PROBES  # these photos beside their middles
    np.testing.assert_array_equal(
        FewShotClassifier(network(), cache=tmp_path).fit(images, labels).predict_proba(images), first
    )

    # Damage is noticed, said, and mended; another network's nodes are never taken.
    data = bytearray(files[0].read_bytes())
    data[-1] ^= 1
    files[0].write_bytes(data)
    files[1].write_bytes(b"nonsense")
    forget(monkeypatch)
    with pytest.warns(UserWarning, match="are damaged; extracting them again") as warned:
        mended = FewShotClassifier(network(), cache=tmp_path).fit(images, labels).predict_proba(images)
    assert len(warned) == 2
    np.testing.assert_array_equal(mended, first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FewShotClassifier(network(6), cache=tmp_path).fit(images, labels)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2 * (24 + PROBES)


def test_memory_is_bounded():
    store = FeatureStore(memory=100)
    for k in range(5):
        store.put(str(k), torch.zeros(1, 10), None)
    assert [k for k in "01234" if store.get(k, None, print) is not None] == ["3", "4"]


def test_a_photo_that_is_skipped_is_skipped_in_every_view():
    images, labels = deck(4)
    images[5] = np.zeros((2, 9, 3), np.uint8)  # too small for crops
    with pytest.raises(UserError, match="image 5"):
        FewShotClassifier(network()).fit(images, labels)
    with pytest.warns(UserWarning, match="1 of 16 images"):
        classifier = FewShotClassifier(network(), on_error="skip").fit(images, labels)
    assert [s.place for s in classifier.skipped_] == [5]
    assert classifier.report_.photos == 15


def test_what_was_chosen_is_kept_with_a_saved_classifier(fitted, tmp_path):
    loaded = FewShotClassifier.load(fitted.save(tmp_path / "own.otfew"), backbone=network())
    assert loaded.selection_ == fitted.selection_
    assert loaded.calibration_ == fitted.calibration_
    new = deck(3, start=970)[0]
    np.testing.assert_array_equal(loaded.predict_proba(new), fitted.predict_proba(new))
    assert loaded.predict(new).tolist() == fitted.predict(new).tolist()
    # Nothing is held out again: how the choice was judged is kept too.
    assert loaded.report_ == fitted.report_
    assert loaded.report_.accuracy.nested
    assert loaded.report_.choice == fitted.selection_


def test_photos_that_are_added_change_what_is_known(tmp_path):
    images, labels = deck(6)
    classifier = FewShotClassifier(network(), reject=0.2).fit(images, labels)
    before = classifier.report_
    classifier.add(*deck(2, start=400))
    assert classifier.report_.photos == before.photos + 8
    assert classifier.selection_ == before.choice
    assert classifier.calibration_ != before.calibration
    with pytest.raises(UserError, match="`reject`"):
        classifier.set_params(reject=0.001).add(*deck(1, start=450))
    assert classifier.report_.photos == before.photos + 8
