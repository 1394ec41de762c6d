"""Where the rules of statistics begin and end: levels that are met, the least number of episodes, no spread at all."""

import math
import warnings

import numpy as np
import pytest

from otfew.reporting.cells import short_difference
from otfew.statistics.intervals import (
    LEAST_EPISODES,
    Estimate,
    Jackknife,
    class_jackknife,
    episode_half_width,
    verdict,
)
from otfew.statistics.seeds import differences


def test_a_p_at_the_level_is_not_below_it():
    found = Estimate(0.05, 0.01, Jackknife(0.01, 0.02, 19))
    assert verdict(found, 0.05) == "no difference shown"
    assert verdict(found, math.nextafter(0.05, 0)) == "better"
    runs = {"base": {1: 0.5, 2: 0.6, 3: 0.55}, "other": {1: 0.52, 2: 0.63, 3: 0.58}}
    p = differences(runs, "base")["other"].adjusted_p
    assert differences(runs, "base", level=p)["other"].verdict == "no difference shown"
    assert differences(runs, "base", level=math.nextafter(p, 1))["other"].verdict == "better"


@pytest.mark.parametrize("without", [LEAST_EPISODES - 1, LEAST_EPISODES])
def test_thirty_episodes_without_a_class_are_enough_and_fewer_are_not(without):
    assert LEAST_EPISODES == 30
    classes = np.array([[1]] * without + [[0]] * 71)
    found = class_jackknife(np.random.default_rng(0).random(len(classes)), classes, ["common", "rare"])
    if without == LEAST_EPISODES:
        assert found.half_width > 0
        assert not found.reason
    else:
        assert found.half_width is None
        assert found.reason == f"only 29 of {len(classes)} episodes lack class 'common'; 30 needed"


def test_one_episode_has_no_interval_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(episode_half_width(np.array([0.5])))


def test_where_nothing_varies_no_share_of_it_is_noise():
    classes = np.repeat(np.arange(5), 40)[:, None]
    found = class_jackknife(np.full(200, 0.25), classes, [f"class {i}" for i in range(5)])
    assert found.half_width == 0
    assert found.noise_share is None


@pytest.mark.parametrize(
    ("said", "star"), [("better", "*"), ("worse", "*"), ("no difference shown", ""), ("not assessed", "")]
)
def test_a_star_stands_behind_what_counts_alone(said, star):
    found = {"mean": 0.0123, "class_ci": 0.005, "verdict": said}
    assert short_difference(found) == f"+1.23 ± 0.50{star}"
