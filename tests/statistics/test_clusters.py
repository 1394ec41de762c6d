"""Intervals of means of photos that share folders, classes and sources."""

import numpy as np
import pytest
from scipy import stats

from otfew.statistics.clusters import clustered


def test_one_source_of_folders_that_share_nothing_has_the_usual_interval_of_their_means():
    rng = np.random.default_rng(0)
    means = rng.normal(size=9)
    values = np.repeat(means, 4)
    ids = np.repeat(np.arange(9), 4)
    found = clustered(values, np.ones(36), ids, ids, np.zeros(36, int))
    half = stats.t.ppf(0.975, 8) * means.std(ddof=1) / 3
    assert found.mean == pytest.approx(means.mean())
    assert found.within == pytest.approx((means.mean() - half, means.mean() + half))
    assert found.across is None
    assert found.low == found.within[0]


def test_across_sources_it_is_the_interval_of_their_means():
    rng = np.random.default_rng(1)
    sources = np.repeat(np.arange(4), 10)
    values = np.array([0.0, 1.0, 2.0, 5.0])[sources] + rng.normal(size=40)
    found = clustered(values, np.ones(40), np.arange(40), np.arange(40), sources)
    means = values.reshape(4, 10).mean(1)
    half = stats.t.ppf(0.975, 3) * means.std(ddof=1) / 2
    assert found.across == pytest.approx((means.mean() - half, means.mean() + half))
    # Within sources, what they differ by does not count: a pooled variance of ten a source.
    spread = stats.t.ppf(0.975, 36) * np.sqrt(values.reshape(4, 10).var(1, ddof=1).mean() / 40)
    assert found.within == pytest.approx((values.mean() - spread, values.mean() + spread), rel=1e-9)
    assert found.low == min(found.within[0], found.across[0])


def test_what_returns_in_every_folder_widens_the_interval():
    rng = np.random.default_rng(2)
    folders, classes = np.repeat(np.arange(12), 8), np.tile(np.arange(8), 12)
    values = rng.normal(size=8)[classes] + 0.01 * rng.normal(size=96)
    found = clustered(values, np.ones(96), folders, classes, np.zeros(96, int))
    means = values.reshape(12, 8).mean(0)
    half = stats.t.ppf(0.975, 7) * means.std(ddof=1) / np.sqrt(8)
    assert found.within[1] - found.mean == pytest.approx(half, rel=0.02)
    alone = clustered(values, np.ones(96), folders, folders, np.zeros(96, int))
    assert alone.within[1] - alone.mean < 0.1 * half


def test_coverage_on_folders_and_classes_that_are_drawn():
    """Of a known mean, 95 % of the intervals hold it, about."""
    inside = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        classes = np.stack([rng.permutation(20)[:8] for _ in range(20)]).ravel()
        folders = np.repeat(np.arange(20), 8)
        values = rng.normal(size=20)[classes] + rng.normal(size=20)[folders] + rng.normal(size=160)
        low, high = clustered(values, np.ones(160), folders, classes, np.zeros(160, int)).within
        inside += low <= 0 <= high
    assert 0.91 <= inside / 300 <= 0.99


def test_weights_count_by_their_shares():
    values, weights = np.array([0.0, 1.0, 4.0]), np.array([1.0, 2.0, 1.0])
    ids = np.arange(3)
    one = clustered(values, weights, ids, ids, np.zeros(3, int))
    assert one.mean == pytest.approx(1.5)
    assert one == clustered(values, 7 * weights, ids, ids, np.zeros(3, int))


def test_too_few():
    ids = np.zeros(4, int)
    with pytest.raises(ValueError, match="no values"):
        clustered(np.zeros(0), np.zeros(0), ids[:0], ids[:0], ids[:0])
    with pytest.raises(ValueError, match="1 folders and 4 classes are too few for 1 sources"):
        clustered(np.zeros(4), np.ones(4), ids, np.arange(4), ids)
