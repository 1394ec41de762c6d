"""Temperatures: against a search by another library, bounded, and without the photo that they are used on."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.metrics import log_loss

from otfew.statistics.temperature import (
    REACH,
    Expected,
    brier,
    cross_fit,
    fit,
    from_scale,
    grid,
    log_losses,
    softmax,
    unit_means,
)


def made(seed, rows=60, way=4, sharpness=3.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, way, rows)
    return rng.normal(size=(rows, way)) + sharpness * np.eye(way)[labels] * rng.random((rows, 1)), labels


def plain(logits, labels, units, expected):
    """Minimise the objective by scipy, over units one by one."""

    def objective(s):
        total = 0.0
        for unit in np.unique(units):
            rows = np.flatnonzero(units == unit)
            losses = [
                -math.log(np.exp(z / math.exp(s))[y] / np.exp(z / math.exp(s)).sum())
                for z, y in zip(logits[rows], labels[rows], strict=True)
            ]
            total += sum(losses) / len(losses)
        return total + (s - expected.log_mean) ** 2 / (2 * expected.spread**2)

    reach = REACH * expected.spread
    bounds = (expected.log_mean - reach, expected.log_mean + reach)
    return math.exp(minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("expected", [Expected(0.0, 0.3), Expected(-1.0, 1.0), Expected(1.0, 0.1)])
def test_the_fit_against_a_search_by_scipy(seed, expected):
    logits, labels = made(seed)
    units = np.arange(60) // 2
    fitted = cross_fit(logits, labels, units, expected)
    assert math.log(fitted.temperature) == pytest.approx(math.log(plain(logits, labels, units, expected)), abs=2e-4)
    for unit in (0, 7, 29):
        others = units != unit
        expect = plain(logits[others], labels[others], units[others], expected)
        assert np.log(fitted.each[units == unit]) == pytest.approx(math.log(expect), abs=2e-4)


def test_losses_against_scikit_learn():
    logits, labels = made(1)
    for temperature in (0.3, 1.0, 7.0):
        ours = log_losses(logits, labels, np.array([temperature]))[:, 0]
        assert ours.mean() == pytest.approx(log_loss(labels, softmax(logits, temperature), labels=range(4)))


def test_without_an_error_the_temperature_stays_near_what_is_expected():
    labels = np.arange(40) % 4
    logits = 5.0 * np.eye(4)[labels]
    expected = Expected(math.log(2.0), 0.3)
    fitted = cross_fit(logits, labels, np.arange(40), expected)
    assert grid(expected)[0] * 1.05 < fitted.temperature < 2.0
    few = cross_fit(logits[:4], labels[:4], np.arange(4), expected)
    assert fitted.temperature < few.temperature < 2.0


def test_wrong_answers_without_end_stay_within_bounds():
    labels = np.zeros(500, int)
    logits = np.tile([0.0, 50.0], (500, 1))
    expected = Expected(0.0, 0.5)
    assert cross_fit(logits, labels, np.arange(500), expected).temperature <= grid(expected)[-1] * (1 + 1e-12)


def test_a_photo_has_no_say_in_its_own_temperature():
    logits, labels = made(2)
    units = np.arange(60) // 3
    expected = Expected(0.0, 0.5)
    before = cross_fit(logits, labels, units, expected)
    tampered = logits.copy()
    tampered[units == 4] = [100.0, -100.0, 0.0, 0.0]
    after = cross_fit(tampered, labels, units, expected)
    np.testing.assert_allclose(after.each[units == 4], before.each[units == 4], rtol=1e-10)
    assert (after.each[units != 4] != before.each[units != 4]).all()


def test_copies_count_once():
    logits, labels = made(3, rows=10)
    rows = np.r_[np.arange(10), np.zeros(20, int)]
    units = np.r_[np.arange(10), np.zeros(20, int)]
    expected = Expected(0.0, 0.5)
    once, often = (
        cross_fit(logits, labels, np.arange(10), expected),
        cross_fit(logits[rows], labels[rows], units, expected),
    )
    assert often.temperature == pytest.approx(once.temperature, rel=1e-9)


def test_names_of_classes_change_nothing():
    logits, labels = made(4)
    order = np.array([2, 0, 3, 1])
    expected = Expected(0.0, 0.5)
    renamed = cross_fit(logits[:, order], np.argsort(order)[labels], np.arange(60), expected)
    assert renamed.temperature == pytest.approx(
        cross_fit(logits, labels, np.arange(60), expected).temperature, rel=1e-9
    )


def test_nothing_held_out_leaves_what_is_expected():
    fitted = cross_fit(np.zeros((0, 3)), np.zeros(0, int), np.zeros(0, int), Expected(math.log(0.7), 0.2))
    assert fitted.temperature == pytest.approx(0.7)
    assert fit(np.zeros(401), Expected(math.log(0.7), 0.2)) == pytest.approx(0.7)


@pytest.mark.parametrize("factor", [0.01, 1.0, 300.0])
def test_an_expectation_from_the_scale_follows_the_scale(factor):
    logits, _ = made(5)
    assert from_scale(factor * logits).log_mean == pytest.approx(from_scale(logits).log_mean + math.log(factor))
    assert math.isfinite(from_scale(np.zeros((3, 2))).log_mean)


def test_brier_against_a_loop():
    logits, labels = made(6)
    shares = softmax(logits, 1.3)
    expect = [sum((p - (c == y)) ** 2 for c, p in enumerate(row)) for row, y in zip(shares, labels, strict=True)]
    np.testing.assert_allclose(brier(shares, labels), expect)


def test_means_of_units():
    values, names = unit_means(np.array([1.0, 3.0, 5.0]), np.array([7, 2, 7]))
    assert (values.tolist(), names.tolist()) == ([3.0, 3.0], [2, 7])


def test_losses_are_those_of_scipys_logsumexp_at_any_scale():
    rng = np.random.default_rng(3)
    logits, labels = rng.standard_normal((40, 7)) * 10.0 ** rng.integers(-3, 4, (40, 1)), rng.integers(0, 7, 40)
    temperatures = np.geomspace(1e-3, 1e3, 31)
    ours = log_losses(logits, labels, temperatures)
    scaled = logits[:, None] / temperatures[:, None]
    theirs = logsumexp(scaled, axis=2) - np.take_along_axis(scaled, labels[:, None, None], 2)[..., 0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-9)
    each = rng.uniform(0.5, 2, (40, 1))
    np.testing.assert_allclose(log_losses(logits, labels, each)[:, 0], [
        log_losses(logits[i : i + 1], labels[i : i + 1], each[i])[0, 0] for i in range(40)
    ])  # fmt: skip
    assert log_losses(np.zeros((0, 7)), np.zeros(0, np.int64), temperatures).shape == (0, 31)
    assert log_losses(np.array([[0.0, -np.inf]]), np.array([0]), np.ones(1)) == 0
    assert log_losses(np.array([[0.0, -np.inf]]), np.array([1]), np.ones(1)) == np.inf
