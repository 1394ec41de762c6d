"""Rounds of held-out photos: whole groups, one a class, and nothing of what stays out anywhere."""

import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.classifier.holdouts import Answers, Photos, Question, ask, nested, padded, rounds, single
from otfew.errors import UserError
from otfew.method import MethodBase

LABELS = np.repeat([0, 1, 2], [4, 3, 1])


def photos(labels, way=None, seed=0, units=None):
    generator = torch.Generator().manual_seed(seed)
    nodes = torch.rand(len(labels), 3, 5, generator=generator)
    units = np.arange(len(labels)) if units is None else np.asarray(units)
    return Photos(nodes, np.asarray(labels), way or int(max(labels)) + 1, units)


def test_each_photo_is_held_out_once_a_pass_and_a_class_of_one_never():
    found = rounds(LABELS, np.arange(8), passes=1)
    assert sorted(i for out in found for i in out) == list(range(7))
    for out in found:
        assert len(set(LABELS[out])) == len(out)
        assert set(np.delete(LABELS, out)) == {0, 1, 2}


def test_groups_are_held_out_whole_even_across_labels():
    units = np.array([0, 0, 1, 2, 3, 1, 4, 5])  # photos 2 and 5 are copies under two labels
    for out in rounds(LABELS, units):
        for unit in set(units[out]):
            assert set(np.flatnonzero(units == unit)) <= set(out)
        assert set(np.delete(LABELS, out)) == {0, 1, 2}


def test_rounds_are_bounded_and_passes_reach_other_photos():
    labels = np.repeat([0, 1], 30)
    found = rounds(labels, np.arange(60), most=8, passes=2)
    assert len(found) == 16
    assert len({i for out in found for i in out}) == 32


def test_names_of_classes_change_nothing():
    labels = np.array([0, 1, 2, 0, 1, 2, 2, 1, 0, 2])
    assert rounds(labels, np.arange(10)) == rounds(np.array([2, 0, 1])[labels], np.arange(10))


def test_passes_have_other_companions():
    labels = np.repeat(range(3), 4)
    first, second = (rounds(labels, np.arange(12), passes=p) for p in (1, 2))
    assert second[: len(first)] == first
    assert not {tuple(out) for out in second[len(first) :]} & {tuple(out) for out in first}


def test_nested_questions_contain_nothing_of_what_stays_out():
    units = np.array([0, 0, 1, 2, 3, 1, 4, 5])
    held = rounds(LABELS, units, passes=1)
    for outer in held:
        questions = nested(LABELS, outer, [out for out in held if out is not outer])
        for question in questions:
            assert not set(outer) & {*question.known, *question.asked}
            assert not set(question.known) & set(question.asked)
            assert set(LABELS[list(question.known)]) == set(np.delete(LABELS, outer))
            assert not set(units[list(question.asked)]) & set(units[list(question.known)])


@pytest.mark.parametrize("method", ["cosine-centroid", "knn", "logistic"])
def test_answers_are_those_of_a_plain_call(method):
    own = photos(LABELS)
    built = catalogue.build(method)
    answers = Answers(built, own)
    questions = single(LABELS, rounds(LABELS, own.units))
    answers.prepare(questions)
    for question in questions:
        known = [[i for i in question.known if LABELS[i] == c] for c in range(3)]
        shot = max(map(len, known))
        support, mask = torch.zeros(1, 3, shot, 3, 5), torch.zeros(1, 3, shot, dtype=torch.bool)
        for c, rows in enumerate(known):
            support[0, c, : len(rows)], mask[0, c, : len(rows)] = own.nodes[rows], True
        plain = built(support, own.nodes[list(question.asked)][None], support_mask=mask)[0]
        np.testing.assert_allclose(answers(question), plain.double().numpy(), rtol=1e-5, atol=1e-6)


def test_refits_are_shared():
    calls = []

    class Counting(MethodBase):
        name = "counting"

        def __call__(self, support, query, *, support_mask=None, class_prior=None):
            calls.append(query.shape[1])
            return torch.zeros(1, query.shape[1], support.shape[1])

    answers = Answers(Counting(), photos([0, 0, 1, 1]))
    answers.prepare([Question((0, 2), (1,)), Question((0, 2), (3,)), Question((1, 2), (0,))])
    answers(Question((0, 2), (3, 1)))
    assert sorted(calls) == [1, 2]


def test_padding_is_masked_and_left_out_where_there_is_none():
    own = photos([0, 0, 1])
    support, mask = padded(own.nodes, own.labels, 2, [0, 1, 2])
    assert mask.tolist() == [[[True, True], [True, False]]]
    assert not support[0, 1, 1].any()
    assert padded(own.nodes, own.labels, 2, [0, 2])[1] is None


def test_what_is_no_answer_is_refused():
    class Wrong(MethodBase):
        name = "wrong"

        def __call__(self, support, query, *, support_mask=None, class_prior=None):
            return torch.full((1, query.shape[1], support.shape[1]), torch.nan)

    with pytest.raises(UserError, match="'wrong' answered NaN"):
        ask(Wrong(), photos([0, 1, 1]), [0, 1], [2])
