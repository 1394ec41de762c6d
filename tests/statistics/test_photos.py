"""The jackknife over photos against a plain loop, and against what photos really do."""

import math

import numpy as np
import pytest

from otfew.statistics.photos import Roles, estimate, photo_jackknife


def made(seed, episodes=400, sizes=(5, 4, 6), shot=2, query=2, quality=None):
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(sizes)), sizes)
    quality = rng.random(len(classes)) if quality is None else quality
    support, asked, values = [], [], []
    for _ in range(episodes):
        drawn = [rng.permutation(np.flatnonzero(classes == c))[: shot + query] for c in range(len(sizes))]
        support.append(np.concatenate([own[:shot] for own in drawn]))
        asked.append(np.concatenate([own[shot:] for own in drawn]))
        lift = quality[support[-1]].mean()
        values.append(0.5 * quality[asked[-1]] + 0.5 * lift)
    return np.array(values), Roles(np.array(support), np.array(asked), classes)


@pytest.mark.parametrize("query", [1, 2])
def test_the_jackknife_against_a_plain_loop(query):
    values, roles = made(0, query=query)
    theta = []
    for photo in range(len(roles.classes)):
        kept = []
        for labelled, asked, row in zip(roles.support, roles.query, values, strict=True):
            if photo in labelled:
                continue
            kept.append(np.mean([v for v, i in zip(row, asked, strict=True) if i != photo]))
        theta.append(np.mean(kept))
    theta = np.array(theta)
    variance = sum(
        (np.sum(roles.classes == c) - 1)
        / np.sum(roles.classes == c)
        * np.sum((theta[roles.classes == c] - theta[roles.classes == c].mean()) ** 2)
        for c in range(3)
    )
    found = photo_jackknife(values, roles)
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    assert found.degrees == 12
    assert found.half_width == pytest.approx(2.178813 * math.sqrt(variance), rel=1e-6)


def test_it_is_about_what_other_photos_would_do():
    # The mean over all divisions of one draw of photos varies from draw to draw: by half each photo's own quality.
    rng = np.random.default_rng(1)
    sizes, found, means = (12, 12), [], []
    for seed in range(60):
        quality = rng.normal(size=24)
        values, roles = made(seed, 600, sizes, 3, 3, quality)
        means.append(values.mean())
        found.append(photo_jackknife(values, roles).standard_error)
    assert np.mean(np.square(found)) == pytest.approx(np.var(means, ddof=1), rel=0.5)
    assert np.var(means, ddof=1) == pytest.approx(1 / 24, rel=0.5)


def test_photos_that_are_alike_leave_noise_alone():
    values, roles = made(2, episodes=200, quality=np.ones(15))
    assert photo_jackknife(values, roles).standard_error == pytest.approx(0, abs=1e-9)
    noisy = values + np.random.default_rng(0).normal(size=values.shape)
    assert photo_jackknife(noisy, roles).noise_share > 0.4


def test_too_few_episodes_give_a_reason():
    values, roles = made(3, episodes=40)
    found = photo_jackknife(values, roles)
    assert found.half_width is None
    assert "episodes do without some photo; 30 needed" in found.reason


def test_copies_have_no_part():
    values, roles = made(4)
    more = Roles(roles.support, roles.query, np.append(roles.classes, -1))
    assert photo_jackknife(values, more).standard_error == photo_jackknife(values, roles).standard_error
    both = estimate(values, roles)
    assert (both.over, both.mean) == ("photos", pytest.approx(values.mean()))
