"""Products of pairs of photos, computed once, give what each question gives by itself."""

import numpy as np
import pytest
import torch

import otfew
from otfew import catalogue
from otfew.classifier import pair_products
from otfew.classifier.candidates import TURNABLE
from otfew.classifier.holdouts import Answers, Photos, Question, ask, nested, rounds, single

LABELS = np.array([0, 1, 2, 0, 1, 2, 2, 1, 0, 2, 0, 0])
UNITS = np.array([0, 1, 2, 3, 4, 5, 5, 7, 8, 9, 10, 10])  # two pairs of copies


def photos(nodes=6, channels=40, seed=0):
    """Three classes of five, three and four photos that differ enough for plans to differ."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.rand(3, 1, channels, generator=generator)
    noise = torch.randn(len(LABELS), nodes, channels, generator=generator)
    return Photos((noise + kinds[LABELS]).relu(), LABELS, 3, UNITS)


def questions(labels=LABELS, units=UNITS):
    """All that the choice asks."""
    outer = rounds(labels, units, passes=1)
    inner = [q for out in outer for q in nested(labels, out, [other for other in outer if other is not out])]
    return [*single(labels, rounds(labels, units)), *inner]


def wanted(asked):
    found = {}
    for question in asked:
        found.setdefault(question.known, set()).update(question.asked)
    return {known: sorted(own) for known, own in found.items()}


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 3.0}, {"solver": otfew.Sinkhorn(reg=0.05)}],
    ids=["plain", "temperature", "entropic"],
)
def test_answers_are_those_of_each_question_by_itself(options):
    own, method = photos(), catalogue.build("deepemd", **options)
    assert pair_products.pay(method, own.nodes, own.way, wanted(questions()))
    answers = Answers(method, own)
    answers.prepare(questions())
    for question in questions():
        plain = ask(method, own, question.known, question.asked)
        np.testing.assert_allclose(answers(question), plain, rtol=1e-5, atol=1e-5)
        # Or the test would not see one question's answer in the place of another's.
        assert np.ptp(plain) > 0.1


def test_empty_nodes_count_as_they_do_in_the_method():
    own, method = photos(), catalogue.build("deepemd")
    own.nodes[2:4] = 0
    own.nodes[5, 1:] = 3.0  # nothing is left of it when it is centred
    answers = Answers(method, own)
    answers.prepare(questions())
    for question in questions():
        np.testing.assert_allclose(answers(question), ask(method, own, question.known, question.asked), atol=2e-5)


def test_what_has_other_weights_or_another_head_is_asked_one_by_one():
    own, asked = photos(), wanted(questions())
    for options in ({"weights": "uniform"}, {"shot_head": "nn"}):
        assert not pair_products.pay(catalogue.build("deepemd", **options), own.nodes, own.way, asked)

    class Other(catalogue.find("deepemd")):
        def __call__(self, support, query, **others):
            return 2 * super().__call__(support, query, **others)

    assert not pair_products.pay(Other(), own.nodes, own.way, asked)
    assert not pair_products.pay(catalogue.build("cosine-centroid"), own.nodes, own.way, asked)


def test_few_questions_are_asked_one_by_one():
    own = photos()
    question = Question(tuple(range(1, len(LABELS))), (0,))
    assert not pair_products.pay(catalogue.build("deepemd"), own.nodes, own.way, wanted([question]))


def test_parts_may_run_in_any_order():
    own, method = photos(), catalogue.build("deepemd")
    one, other = Answers(method, own), Answers(method, own)
    one.prepare(questions())
    for part in reversed(other.parts(questions())):
        part()
    other.settle()
    for question in questions():
        assert (one(question) == other(question)).all()


@pytest.mark.parametrize("name", sorted(TURNABLE))
def test_a_turn_to_fewer_channels_changes_no_answer(name):
    own, method = photos(channels=64).pooled(), catalogue.build(name)
    turned = own.turned()
    assert turned.nodes.shape == (len(LABELS), 1, len(LABELS))
    question = questions()[0]
    plain = ask(method, own, question.known, question.asked)
    np.testing.assert_allclose(ask(method, turned, question.known, question.asked), plain, atol=1e-4)
    assert np.ptp(plain) > 0.01


def test_nothing_is_turned_where_photos_are_as_many_as_channels():
    own = photos(channels=8).pooled()
    assert own.turned() is own
