"""Streams that runs depend on, word for word: what they gave when first published, they give for ever."""

from __future__ import annotations

from itertools import islice

import numpy as np

from otfew.methods.structured_fc import StructuredFC
from otfew.random.dice import Dice
from otfew.random.draws import uniforms
from otfew.random.keys import digest, hashed, key128
from otfew.random.shuffle import Deck, draw
from otfew.random.words import permutation, stream


def test_seeds_of_trainings():
    assert [hashed(1, 2), hashed(12), hashed(-1, 0), hashed()] == [
        551024661979798764, 738501207997950133, 5442822294731116765, 724655455495936113
    ]  # fmt: skip


def test_uniforms_of_patches():
    assert list(islice(uniforms(7, "a.png"), 3)) == [0.49682260652602717, 0.670178747157321, 0.22423124377849302]


def test_words_and_draws_of_episodes():
    words = stream(5, 3, batch=4)
    assert list(islice(words, 6)) == [
        7860161912301924386, 13502681165904815173, 10597666759356642022, 9769873203024554615, 4784980336422341729,
        3260800381037131949,
    ]  # fmt: skip
    assert draw(words, 100, 8) == [53, 67, 88, 95, 50, 0, 21, 24]


def test_how_many_words_are_fetched_at_a_time_changes_nothing():
    assert list(islice(stream(5, 3, 1), 9)) == list(islice(stream(5, 3, 7), 9))


def test_streams_of_a_key_do_not_overlap():
    """The index fills the upper half of a counter of 256 bits: stream 1 begins 2**130 words behind stream 0."""
    far = np.random.Philox(key=5).advance(1 << 128)
    assert list(islice(stream(5, 1, 4), 8)) == far.random_raw(8).tolist()


def test_a_deck_goes_on_where_it_stopped():
    one, two = stream(9, 0, 4), stream(9, 0, 4)
    deck = Deck(10)
    assert [*deck.draw(one, 4), *deck.draw(one, 6)] == draw(two, 10, 10)


def test_the_order_of_equal_scores_in_retrieval():
    assert permutation(12, 7).tolist() == [8, 4, 1, 6, 3, 2, 11, 7, 5, 9, 10, 0]
    assert permutation(12, 7).dtype == np.int64


def test_mini_batches_of_the_structured_fc():
    batches = [batch.tolist() for batch in StructuredFC(seed=3, epochs=2, batch_size=4).batches(6)]
    assert batches == [[1, 5, 0, 4], [2, 3], [2, 0, 1, 4], [3, 5]]


def test_one_key_for_all_that_use_philox():
    """The first 16 bytes of a hash, as the two 64-bit words that numpy takes of an integer."""
    pair = np.frombuffer(digest("otfew")[:16], dtype="<u8").astype(np.uint64)
    expected = np.random.Philox(key=pair).random_raw(4)
    assert (np.random.Philox(key=key128("otfew")).random_raw(4) == expected).all()
    assert Dice(["otfew"], 4).below(1000, 4).tolist() == [(expected % 1000).tolist()]
