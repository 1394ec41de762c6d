"""Episodes: pure functions of their protocol, without replacement, without favourites."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.random.shuffle import below, draw

PROTOCOL = Protocol("toy", "", "test", seed=1, way=3, shot=1, query=2)
LABELS = np.arange(60) % 6
NAMES = tuple("abcdef")


def sampler(**changes):
    return Sampler(replace(PROTOCOL, **changes), LABELS, NAMES)


def test_first_episodes_are_pinned():
    # Figures that others publish under a protocol rest on these numbers: they must never change.
    episodes = sampler()(0, 2)
    assert episodes.classes.tolist() == GOLDEN["classes"]
    assert episodes.support.tolist() == GOLDEN["support"]
    assert episodes.query.tolist() == GOLDEN["query"]


def test_the_first_unbalanced_episodes_are_pinned():
    labels = np.arange(180) % 6
    episodes = Sampler(replace(PROTOCOL, query=4, query_balance="dirichlet:0.5"), labels, NAMES)(0, 3)
    assert episodes.counts.tolist() == UNBALANCED["counts"]
    assert episodes.query.reshape(3, -1).tolist() == UNBALANCED["query"]


@pytest.mark.parametrize("alpha", ["0.1", "2", "50"])
def test_an_unbalanced_episode_is_the_balanced_one_with_other_queries(alpha):
    labels = np.arange(360) % 6
    balanced = Sampler(replace(PROTOCOL, shot=2, query=5), labels, NAMES)(0, 60)
    unbalanced = Sampler(replace(PROTOCOL, shot=2, query=5, query_balance=f"dirichlet:{alpha}"), labels, NAMES)(0, 60)
    np.testing.assert_array_equal(unbalanced.classes, balanced.classes)
    np.testing.assert_array_equal(unbalanced.support, balanced.support)
    assert (balanced.counts == 5).all()
    assert not (unbalanced.counts == 5).all()
    for i in range(60):
        assert unbalanced.counts[i].sum() == 15
        assert len(set(unbalanced.support[i].ravel()) | set(unbalanced.query[i].ravel())) == 6 + 15
        answers = unbalanced.answers[i]
        np.testing.assert_array_equal(labels[unbalanced.query[i].ravel()], unbalanced.classes[i][answers])
        for c in range(3):
            rows = unbalanced.query[i].ravel()[answers == c]
            assert len(rows) == unbalanced.counts[i, c] == round(15 * unbalanced.proportions[i, c])
            assert rows[:5].tolist() == balanced.query[i, c, : len(rows)].tolist()
    np.testing.assert_array_equal(balanced.answers, np.tile(np.repeat(np.arange(3), 5), (60, 1)))


def test_unbalanced_episodes_need_none_of_their_predecessors():
    draw_some = Sampler(replace(PROTOCOL, query_balance="dirichlet:1"), LABELS, NAMES)
    whole, part = draw_some(0, 20), draw_some(13, 20)
    np.testing.assert_array_equal(part.counts, whole.counts[13:])
    np.testing.assert_array_equal(part.query, whole.query[13:])
    np.testing.assert_array_equal(whole[13:20].query, part.query)


def test_parameters_of_the_balance_are_told_apart_by_value():
    def counts(balance):
        return sampler(query_balance=balance)(0, 30).counts.tolist()

    assert counts("dirichlet:2") == counts("dirichlet:2.0")
    assert counts("dirichlet:2") != counts("dirichlet:2.1")
    assert replace(PROTOCOL, query_balance="dirichlet:02.0").query_balance == "dirichlet:2"


def test_a_class_that_might_run_out_of_images_is_named():
    # Ten images each: enough for 1 + 3, not for 1 + 3 x 4 of one class.
    sampler(query=4)
    with pytest.raises(UserError, match=r"'a'.*10 images, but an episode may need 13 .*`way` 3 x `query` 4"):
        sampler(query=4, query_balance="dirichlet:2")


def test_an_episode_needs_none_of_its_predecessors():
    whole = sampler()(0, 40)
    for start, stop in [(0, 7), (7, 40), (39, 40)]:
        part = sampler()(start, stop)
        np.testing.assert_array_equal(part.classes, whole.classes[start:stop])
        np.testing.assert_array_equal(part.support, whole.support[start:stop])
        np.testing.assert_array_equal(part.query, whole.query[start:stop])


@pytest.mark.parametrize(
    "change",
    [{"dataset": "x"}, {"variant": "x"}, {"split": "val"}, {"seed": 2}, {"seed": -1}],
)
def test_every_part_of_the_protocol_changes_the_episodes(change):
    assert not np.array_equal(sampler()(0, 20).support, sampler(**change)(0, 20).support)


def test_fields_cannot_run_into_each_other():
    assert Protocol("ab", "c", "test").key() != Protocol("a", "bc", "test").key()


def test_images_belong_to_their_class_and_never_repeat():
    episodes = sampler(way=5, shot=3, query=4)(0, 50)
    for classes, support, query in zip(episodes.classes, episodes.support, episodes.query, strict=True):
        images = np.concatenate([support, query], 1)
        assert len(set(classes.tolist())) == 5
        assert len(set(images.ravel().tolist())) == images.size
        np.testing.assert_array_equal(LABELS[images], np.broadcast_to(classes[:, None], images.shape))


def test_all_classes_and_images_are_drawn_alike():
    episodes = sampler()(0, 3000)
    assert stats.chisquare(np.bincount(episodes.classes.ravel(), minlength=6)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(episodes.query.ravel(), minlength=60)).pvalue > 1e-3
    first = np.bincount(episodes.classes[:, 0], minlength=6)
    assert stats.chisquare(first).pvalue > 1e-3


def test_words_that_would_favour_small_numbers_are_rejected():
    # 2**64 = 1 modulo 3: only the last word is one too many.
    assert below(iter([2**64 - 1, 5]), 3) == 2
    assert below(iter([2**64 - 2]), 3) == (2**64 - 2) % 3
    assert below(iter([2**64 - 1]), 4) == 3


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.integers(0, 2**32))
def test_draw_equals_a_shuffle_of_an_array(sizes, seed):
    population, count = sizes
    words = np.random.Philox(seed).random_raw(count + 1).tolist()
    array = list(range(population))
    for i, word in zip(range(count), words, strict=False):
        j = i + word % (population - i)
        array[i], array[j] = array[j], array[i]
    assert draw(iter(words), population, count) == array[:count]


def test_draw_reaches_every_order_equally_often():
    words = iter(np.random.Philox(0).random_raw(20000).tolist())
    seen = [tuple(draw(words, 4, 2)) for _ in range(6000)]
    counts = [seen.count(pair) for pair in itertools.permutations(range(4), 2)]
    assert sum(counts) == 6000
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("field", "value"), [("way", 1), ("way", 0), ("shot", 0), ("query", 0), ("shot", -3)])
def test_senseless_sizes_are_refused(field, value):
    with pytest.raises(UserError, match=f"`{field}`.*{value}"):
        replace(PROTOCOL, **{field: value})


def test_more_ways_than_classes_are_refused():
    with pytest.raises(UserError, match=r"`way` 7.*6"):
        sampler(way=7)


def test_a_class_with_too_few_images_is_named_with_counts():
    with pytest.raises(UserError, match=r"'b'.*2 images.*needs 3"):
        Sampler(PROTOCOL, [0, 0, 0, 1, 1, 2, 2, 2], ("a", "b", "c"))


def test_a_class_without_images_is_named():
    with pytest.raises(UserError, match=r"'d'.*0 images"):
        Sampler(PROTOCOL, [0, 0, 0, 1, 1, 1, 2, 2, 2], ("a", "b", "c", "d"))


GOLDEN = {
    "classes": [[4, 2, 5], [5, 4, 0]],
    "support": [[[40], [20], [11]], [[53], [58], [48]]],
    "query": [[[22, 34], [14, 56], [29, 53]], [[17, 47], [34, 40], [18, 42]]],
}
UNBALANCED = {
    "counts": [[5, 7, 0], [2, 9, 1], [10, 1, 1]],
    "query": [
        [26, 152, 116, 80, 92, 125, 113, 47, 143, 155, 137, 89],
        [70, 46, 103, 133, 145, 175, 157, 169, 85, 127, 67, 105],
        [32, 68, 146, 122, 86, 164, 98, 2, 176, 170, 83, 12],
    ],
}
