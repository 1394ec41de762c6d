"""Refusals: their rate among known photos, the sentence where too few stand behind it, and the answer itself."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import otfew
from otfew.classifier.rejection import (
    UNKNOWN,
    check_rate,
    label_of_unknown,
    needed,
    threshold,
    with_unknown,
)
from otfew.errors import UserError
from otfew.statistics.detection import auroc


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("count", [49, 60, 96])
def test_known_photos_are_refused_at_most_at_the_rate(rate, count):
    rng = np.random.default_rng(0)
    trials = 4000
    drawn = rng.random((trials, count + 1))
    refused = np.mean([row[-1] < threshold(row[:-1], rate) for row in drawn])
    exact = np.floor(rate * (count + 1) + 1e-9) / (count + 1)
    assert exact <= rate + 1e-9
    assert refused == pytest.approx(exact, abs=4 * np.sqrt(exact / trials))


@pytest.mark.parametrize(("rate", "count"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.3, 3), (0.5, 1)])
def test_too_few_photos_are_refused_with_their_number(rate, count):
    assert needed(rate) == count
    assert threshold(np.linspace(0.1, 0.9, count), rate) == pytest.approx(0.1)
    with pytest.raises(UserError, match=f"needs {count} labelled photos .* there are {count - 1}"):
        threshold(np.linspace(0.1, 0.9, count - 1), rate)


def test_the_rate_that_is_offered_instead_is_enough():
    with pytest.raises(UserError) as caught:
        threshold(np.linspace(0, 1, 13), 0.01)
    rate = float(str(caught.value).rstrip(".").split()[-1])
    threshold(np.linspace(0, 1, 13), rate)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, True, "0.05", float("nan"), [0.1]])
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(UserError, match="`reject` is"):
        check_rate(rate)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    known, unknown = rng.integers(0, 12, 40) / 12, rng.integers(0, 9, 25) / 12  # with ties
    expect = roc_auc_score(np.r_[np.ones(40), np.zeros(25)], np.r_[known, unknown])
    assert auroc(known, unknown) == pytest.approx(expect)


def test_unknown_prints_as_unknown_and_stays_itself():
    assert otfew.UNKNOWN is UNKNOWN
    assert (str(UNKNOWN), f"{UNKNOWN}", repr(UNKNOWN)) == ("unknown", "unknown", "otfew.UNKNOWN")
    assert UNKNOWN == "unknown"
    for same in (pickle.loads(pickle.dumps(UNKNOWN)), copy.deepcopy(UNKNOWN), copy.copy(UNKNOWN)):
        assert same is UNKNOWN


def test_a_class_of_that_name_needs_another_label():
    with pytest.raises(UserError, match="`unknown_label`"):
        label_of_unknown(None, np.array(["cat", "unknown"]))
    assert label_of_unknown("other", np.array(["cat", "unknown"])) == "other"
    with pytest.raises(UserError, match="`unknown_label`"):
        label_of_unknown(-1, np.array([-1, 3]))
    assert label_of_unknown(None, np.array([1, 2])) is UNKNOWN


def test_labels_keep_their_kind_where_they_can():
    refused = np.array([False, True])
    words = with_unknown(np.array(["a", "b"]), refused, "somewhere else")
    assert words.tolist() == ["a", "somewhere else"]
    numbers = with_unknown(np.array([3, 4]), refused, -1)
    assert (numbers.dtype.kind, numbers.tolist()) == ("i", [3, -1])
    mixed = with_unknown(np.array([3, 4]), refused, UNKNOWN)
    assert mixed.tolist() == [3, "unknown"]
    assert mixed[1] is UNKNOWN
