"""Intervals and corrections against closed forms, plain loops and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from otfew.statistics.intervals import (
    Estimate,
    Jackknife,
    class_jackknife,
    episode_half_width,
    estimate,
    holm,
    p_value,
    verdict,
)


def names(n):
    return [f"class {i}" for i in range(n)]


def test_episode_interval_is_the_usual_one():
    values = np.random.default_rng(0).random(500)
    mean = sum(values) / 500
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 499)
    assert episode_half_width(values) == pytest.approx(1.96 * deviation / math.sqrt(500))


def test_jackknife_of_class_means_is_their_standard_error():
    # With one class an episode, equally often, the leave-one-out means are those of the class means, whose jackknife
    # is the standard error of a mean.
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(8), 50)
    values = rng.normal(size=8)[classes] + 0.1 * rng.normal(size=400)
    means = values.reshape(8, 50).mean(1)
    found = class_jackknife(values, classes[:, None], names(8))
    error = means.std(ddof=1) / math.sqrt(8)
    assert found.standard_error == pytest.approx(error)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 7) * error)
    assert found.degrees == 7


@pytest.mark.parametrize(("n_classes", "way"), [(22, 5), (22, 18)])
def test_noise_share_is_one_where_classes_are_alike(n_classes, way):
    # Without class effects all of the jackknife's variance is noise: the expected noise equals its average.
    rng = np.random.default_rng(3)
    variances, noises = [], []
    for _ in range(60):
        classes = np.array([rng.permutation(n_classes)[:way] for _ in range(600)])
        values = rng.normal(size=600)
        found = class_jackknife(values, classes, names(n_classes))
        remaining = np.array([600 - (classes == c).any(1).sum() for c in range(n_classes)])
        variances.append(found.standard_error**2)
        noises.append((n_classes - 1) / n_classes * values.var(ddof=1) * (1 / remaining - 1 / 600).sum())
        assert found.noise_share == pytest.approx(min(1, noises[-1] / variances[-1]))
    assert np.mean(variances) == pytest.approx(np.mean(noises), rel=0.15)


def test_noise_share_is_small_where_classes_differ():
    rng = np.random.default_rng(4)
    classes = np.array([rng.permutation(20)[:5] for _ in range(4000)])
    effects = rng.normal(size=20)
    values = effects[classes].mean(1) + 0.1 * rng.normal(size=4000)
    assert class_jackknife(values, classes, names(20)).noise_share < 0.1


def test_jackknife_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    classes = np.array([rng.permutation(9)[:3] for _ in range(300)])
    values = rng.random(300)
    thetas = []
    for c in range(9):
        kept = [v for v, row in zip(values, classes, strict=True) if c not in row]
        thetas.append(sum(kept) / len(kept))
    centre = sum(thetas) / 9
    error = math.sqrt(8 / 9 * sum((t - centre) ** 2 for t in thetas))
    assert class_jackknife(values, classes, names(9)).standard_error == pytest.approx(error)


def test_jackknife_covers_the_mean_over_classes():
    # Pairs of classes with additive difficulties: the truth over all classes is 0; new classes every time.
    rng = np.random.default_rng(2)
    pairs = np.array(list(itertools.combinations(range(15), 2)))
    covered = narrow = 0
    for _ in range(300):
        values = rng.normal(size=15)[pairs].sum(1) + 0.2 * rng.normal(size=len(pairs))
        found = estimate(values, pairs, names(15))
        covered += abs(found.mean) <= found.jackknife.half_width
        narrow += abs(found.mean) <= found.episode_half_width
    assert 0.92 <= covered / 300 <= 1
    # What the other interval misses is why there are two.
    assert narrow / 300 < 0.8


def test_no_interval_over_classes_where_too_few_episodes_lack_one():
    classes = np.tile(np.arange(5), (100, 1))
    found = class_jackknife(np.random.default_rng(0).random(100), classes, names(5))
    assert found.half_width is None
    assert found.standard_error is None
    assert "0 of 100" in found.reason
    assert "class 0" in found.reason


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_holm_rejects_what_the_step_down_rule_rejects(p_values):
    adjusted = holm(p_values)
    known = sorted(p for p in p_values if p is not None)
    for level in (0.01, 0.05, 0.3):
        rejected = 0
        for i, p in enumerate(known):
            if p * (len(known) - i) >= level:
                break
            rejected += 1
        assert sum(a is not None and a < level for a in adjusted) == rejected
    assert [a is None for a in adjusted] == [p is None for p in p_values]


def make(mean, episode, error, degrees=19):
    width = None if error is None else stats.t.ppf(0.975, degrees) * error
    return Estimate(mean, episode, Jackknife(error, width, degrees))


def test_p_value_is_student_s():
    assert p_value(make(0.02, 0.01, 0.01)) == pytest.approx(2 * stats.t.cdf(-2, 19))
    assert p_value(make(0.02, 0.01, None)) is None
    assert p_value(make(0.0, 0.0, 0.0)) == 1
    assert p_value(make(0.1, 0.0, 0.0)) == 0


def test_a_p_value_agrees_with_its_interval():
    at_edge = make(float(stats.t.ppf(0.975, 19)) * 0.01, 0.001, 0.01)
    assert p_value(at_edge) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (make(0.05, 0.01, 0.01), 0.001, "better"),
        (make(-0.05, 0.01, 0.01), 0.001, "worse"),
        (make(0.05, 0.01, 0.01), 0.2, "no difference shown"),
        (make(0.05, 0.06, 0.001), 0.001, "no difference shown"),
        (make(0.05, 0.01, None), None, "not assessed"),
    ],
)
def test_verdicts_rest_on_the_wider_interval(difference, p, words):
    assert verdict(difference, p) == words
