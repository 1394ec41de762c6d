"""Episodes across domains: who is drawn from where, and what stays as it was."""

import numpy as np
import pytest

from otfew import data
from otfew.data.shifts import shifted
from otfew.errors import UserError
from otfew.evaluation.across_domains import QueriesBehind, TwoDomains
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.unknown_classes import UnknownClasses

CLASSES = "abcdef"


def two(balance="balanced", **sizes):
    labels = np.repeat(np.arange(6), 20), np.repeat(np.arange(6), 30)
    protocol = Protocol("d", "v", "test", way=3, shot=2, query=4, query_balance=balance)
    return TwoDomains(protocol, labels, CLASSES, ("photo", "night")), labels


@pytest.mark.parametrize("balance", ["balanced", "dirichlet:0.5"])
def test_support_and_queries_come_from_their_domains(balance):
    sampler, (here, there) = two(balance)
    whole = sampler(0, 40)
    assert (whole.counts.sum(1) == 12).all()
    assert (whole.counts == 4).all() == (balance == "balanced")
    for row in range(40):
        for k, c in enumerate(whole.classes[row]):
            assert (here[whole.support[row, k]] == c).all()
            assert len(set(whole.support[row, k].tolist())) == 2
        asked = whole.query[row].reshape(-1)
        assert (there[asked] == whole.classes[row][whole.answers[row]]).all()
        assert len(set(asked.tolist())) == 12
    part = sampler(7, 9)
    assert np.array_equal(part.query, whole.query[7:9])
    # Images of all classes have their turn.
    assert len(set(whole.support.reshape(-1).tolist())) > 80
    assert whole.query.max() >= 150


def test_balance_changes_neither_classes_nor_support():
    (even, _), (uneven, _) = two(), two("dirichlet:0.5")
    assert np.array_equal(even(0, 9).support, uneven(0, 9).support)


def test_a_view_has_the_ordinary_episodes():
    labels = np.repeat(np.arange(6), 20)
    sampler = Sampler(Protocol("d", "v", "test", way=3, shot=2, query=4), labels, CLASSES)
    plain, moved = sampler(0, 9), QueriesBehind(sampler, 120)(0, 9)
    assert np.array_equal(moved.support, plain.support)
    assert np.array_equal(moved.query, plain.query + 120)
    for row in range(9):
        assert not set(plain.support[row].reshape(-1).tolist()) & set((moved.query[row] - 120).reshape(-1).tolist())
    unknown = QueriesBehind(UnknownClasses(sampler, labels, CLASSES, 2), 120)
    assert unknown.unknown == 8
    assert unknown.keeps == "logits"
    assert unknown(0, 2).unknown.min() >= 120


def test_too_few_of_a_class_in_a_domain():
    protocol = Protocol("d", "", "test", way=3, shot=2, query=4)
    many, few = np.repeat(np.arange(6), 20), np.repeat(np.arange(6), 3)
    with pytest.raises(UserError, match=r"'a' has 3 images in domain 'night' of 'd', but an episode needs 4 there"):
        TwoDomains(protocol, (many, few), CLASSES, ("photo", "night"))
    with pytest.raises(UserError, match=r"has 1 images in domain 'photo' of 'd', but an episode needs 2 there"):
        TwoDomains(protocol, (np.arange(6), many), CLASSES, ("photo", "night"))
    uneven = Protocol("d", "", "test", way=3, shot=2, query=4, query_balance="dirichlet:1")
    with pytest.raises(UserError, match=r"may need 12 there \(`way` 3 x `query` 4, all of one class\)"):
        TwoDomains(uneven, (many, np.repeat(np.arange(6), 11)), CLASSES, ("photo", "night"))
    with pytest.raises(UserError, match="`way` 7 asks for more classes"):
        TwoDomains(Protocol("d", "", "test", way=7), (many, many), CLASSES, ("photo", "night"))


def test_the_golden_keys_are_as_ever():
    """Ordinary runs: what a view leaves alone."""
    protocol = Protocol("cub", "feat", "test")
    assert protocol.key() == Protocol("cub", "feat", "test", query_balance="dirichlet:2").key()
    glyphs = data.load("glyphs", "test")
    assert glyphs.view == ""
    assert shifted(glyphs, "blur:1").digest != glyphs.digest
