"""Intervals over two crossed sources: closed forms, and coverage in simulated crossed random effects."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from otfew.statistics.crossed import Spread, crossed, summed

CLASSES, NETWORKS, TRIES = 20, 3, 3000


def test_one_source_is_students_t() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 12)
    known = stats.ttest_1samp(values, 0)
    spread = Spread(float(values.std(ddof=1)) / math.sqrt(12), 11)
    half, p = crossed(float(values.mean()), [spread])
    assert p == pytest.approx(known.pvalue)
    assert values.mean() + half == pytest.approx(known.confidence_interval(0.95).high)
    assert Spread.of_interval(half, 11).standard_error == pytest.approx(spread.standard_error)


def test_two_independent_sources_are_welchs_t() -> None:
    """The sum of two means' variances with Satterthwaite's degrees is Welch's test."""
    rng = np.random.default_rng(1)
    one, two = rng.normal(0.2, 1, 15), rng.normal(0, 2, 6)
    found = summed([Spread(float(x.std(ddof=1)) / math.sqrt(len(x)), len(x) - 1) for x in (one, two)])
    known = stats.ttest_ind(one, two, equal_var=False)
    assert found.degrees == pytest.approx(known.df)
    assert found.p_value(float(one.mean() - two.mean())) == pytest.approx(known.pvalue)


def test_it_is_never_narrower_than_one_source_alone() -> None:
    classes, networks = Spread(0.4, 19), Spread(0.4, 2)
    half, p = crossed(1.3, [classes, networks])
    assert summed([classes, networks]).half_width < networks.half_width
    assert half == networks.half_width
    assert p == networks.p_value(1.3)
    # A source that does nothing changes nothing; a normal one has infinitely many degrees of freedom.
    assert crossed(1.0, [classes, Spread(0.0, 2)]) == pytest.approx((classes.half_width, classes.p_value(1.0)))
    assert summed([Spread(0.3), Spread(0.4)]) == Spread(pytest.approx(0.5), math.inf)  # type: ignore[arg-type]
    assert Spread(1.0).half_width == pytest.approx(1.959964, abs=1e-6)
    assert [Spread(0.0, 2).p_value(x) for x in (0.0, 1.0)] == [1, 0]
    with pytest.raises(ValueError, match="no source"):
        summed([])


@pytest.mark.parametrize(
    ("classes", "networks", "both", "most"),
    [
        (1.0, 0.0, 0.05, 0.965),
        (0.0, 1.0, 0.05, 0.965),
        (1.0, 0.39, 0.05, 0.975),
        (1.0, 0.8, 0.5, 0.97),
        (1.0, 0.39, 1.0, 0.98),
        (0.0, 0.0, 1.0, 1.0),
    ],
)
def test_it_covers_crossed_random_effects(classes: float, networks: float, both: float, most: float) -> None:
    """In 95 % whichever source dominates; each interval alone fails where the other source matters."""
    rng = np.random.default_rng(2)
    cells = (
        classes * rng.normal(size=(TRIES, CLASSES, 1))
        + networks * rng.normal(size=(TRIES, 1, NETWORKS))
        + both * rng.normal(size=(TRIES, CLASSES, NETWORKS))
    )
    means = cells.mean((1, 2))
    errors = [
        cells.mean(2).std(1, ddof=1) / math.sqrt(CLASSES),
        cells.mean(1).std(1, ddof=1) / math.sqrt(NETWORKS),
    ]
    inside = [
        abs(mean) <= crossed(mean, [Spread(a, CLASSES - 1), Spread(b, NETWORKS - 1)])[0]
        for mean, a, b in zip(means.tolist(), errors[0].tolist(), errors[1].tolist(), strict=True)
    ]
    # Three standard errors of 3,000 tries are 1.2 per cent.
    assert 0.938 <= np.mean(inside) <= most
    if networks >= 0.39 * classes and networks:
        assert np.mean(np.abs(means) <= stats.t.ppf(0.975, CLASSES - 1) * errors[0]) < 0.9
