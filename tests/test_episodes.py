"""Episodes: pure functions of their protocol, without replacement, without favourites."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from otfew.episodes import Protocol, Sampler, below, draw
from otfew.errors import UserError

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
    with pytest.raises(UserError, match=f"--{field}.*{value}"):
        replace(PROTOCOL, **{field: value})


def test_more_ways_than_classes_are_refused():
    with pytest.raises(UserError, match=r"--way 7.*6"):
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
