"""The rule that leaves the prior's first only beyond chance."""

import numpy as np
import pytest
from scipy import stats

from otfew.classifier.candidates import CROPS, MANY, Candidate, View, candidates, larger
from otfew.classifier.selection import LEVEL, Judged, better, choose
from otfew.statistics.temperature import Expected

NET = "efficientnet-lite0"


def candidate(method):
    return Candidate(method, View(NET, 224, "fcn"))


def judged(*methods):
    return [Judged(candidate(method), 1.0, None) for method in methods]


def test_one_rival_against_the_t_test():
    # With many units the signs' distribution is the normal one.
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.1, 0.2):
        losses = np.stack([rng.normal(1, 0.5, 96), rng.normal(1 - shift, 0.5, 96)])
        expect = stats.ttest_rel(losses[0], losses[1], alternative="greater").pvalue
        assert better(losses)[0] == pytest.approx(expect, abs=0.02)


def test_one_rival_against_all_signs():
    rng = np.random.default_rng(1)
    gains = rng.normal(0.3, 1, 10)
    signs = 1 - 2 * ((np.arange(1024)[:, None] >> np.arange(10)) & 1)
    # For one rival the statistic rises with the sum.
    expect = ((signs @ gains) >= gains.sum() - 1e-12).mean()
    assert better(np.stack([gains, np.zeros(10)]))[0] == pytest.approx(expect, abs=0.02)


def test_the_rate_of_any_false_move_is_held():
    rng = np.random.default_rng(2)
    moves, trials = 0, 300
    for _ in range(trials):
        common = rng.exponential(1, (1, 24))
        moves += (better(common + rng.normal(0, 0.5, (9, 24))) <= LEVEL).any()
    assert moves / trials <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / trials)


def test_rivals_that_are_alike_cost_less_than_bonferroni():
    rng = np.random.default_rng(3)
    gain = rng.normal(0.4, 1, 40)
    alone = better(np.stack([gain, np.zeros(40)]))[0]
    many = better(np.concatenate([[gain], 1e-9 * rng.normal(size=(10, 40))]))
    np.testing.assert_allclose(many, alone, atol=0.002)


def test_few_units_never_move_and_equals_have_no_gain():
    assert better(np.array([[9.0] * 5, [0.0] * 5])).tolist() == [1.0]
    assert better(np.ones((3, 20))).tolist() == [1.0, 1.0]
    assert better(np.array([[2.0] * 20, [1.0] * 20]))[0] < 0.001
    assert better(np.ones((1, 20))).shape == (0,)


def logits_of(rng, labels, sharpness):
    return sharpness * np.eye(3)[labels] + rng.normal(size=(len(labels), 3))


def test_it_stays_or_moves():
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], 12)
    order = judged("a", "b", "c")
    expected = {j.candidate: Expected(0.0, 0.5) for j in order}
    poor, alike, good = logits_of(rng, labels, 1.0), logits_of(rng, labels, 1.2), logits_of(rng, labels, 6.0)
    names = [j.candidate for j in order]

    stays = choose(order, dict(zip(names, [poor, alike, poor], strict=True)), labels, np.arange(36), expected)
    assert (stays.chosen, stays.moved, stays.units) == (0, False, 36)
    moves = choose(order, dict(zip(names, [poor, alike, good], strict=True)), labels, np.arange(36), expected)
    assert (moves.chosen, moves.moved, moves.candidate) == (2, True, names[2])
    row = moves.judged[2]
    assert row.p <= LEVEL
    assert row.gain == pytest.approx(36 * (moves.judged[0].loss - row.loss))
    assert row.accuracy == pytest.approx((good.argmax(1) == labels).mean())

    # Copies are one unit, and are not enough.
    few = choose(order, dict(zip(names, [poor, alike, good], strict=True)), labels, np.arange(36) % 5, expected)
    assert (few.chosen, few.units) == (0, 5)


def test_what_cannot_answer_is_listed_and_never_chosen():
    labels = np.repeat([0, 1], 8)
    order = [Judged(candidate("a"), 1.0, None, reason="it has no answer"), *judged("b")]
    found = choose(
        order, {order[1].candidate: np.eye(2)[labels]}, labels, np.arange(16), {order[1].candidate: Expected(0, 1)}
    )
    assert (found.chosen, found.judged[0].reason, found.moved) == (1, "it has no answer", False)


def test_nothing_held_out_leaves_the_prior():
    found = choose(judged("a", "b"), {candidate("a"): np.zeros((0, 2))}, np.zeros(0, int), np.zeros(0, int), {})
    assert (found.chosen, found.units) == (0, 0)


def test_candidates_are_methods_by_resolutions_by_crops_by_backbones():
    found = candidates([(NET, 224), ("other", 84)])
    assert {c.view.resolution for c in found if c.view.backbone == NET} == {224, larger(224)} == {224, 320}
    assert {c.view.nodes for c in found} == {"fcn", CROPS}
    assert {c.view.backbone for c in found} == {NET, "other"}
    assert len(set(found)) == len(found)
    # What the user has settled is no question.
    assert {(c.view.nodes, c.view.resolution) for c in candidates([(NET, 224)], nodes="grid:2", resolution=96)} == {
        ("grid:2", 96)
    }
    assert View(NET, 224, "grid:2,3").pixels == 13 * 224**2
    assert larger(8) == 8
    # Thousands of photos leave out what would not fit into memory.
    many = candidates([(NET, 224)], photos=MANY + 1)
    assert set(many) < set(candidates([(NET, 224)], photos=MANY))
    assert not {c for c in many if c.view.nodes == "fcn" and c.method == "deepemd"}
