import math

import pytest
from scipy import stats

from otfew.statistics.seeds import differences, estimate


def test_estimate_is_the_t_interval():
    values = [0.50, 0.53, 0.49, 0.55]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=found.mean, scale=stats.sem(values))
    assert found.mean == pytest.approx(sum(values) / 4)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert estimate([0.5]).half_width is None
    with pytest.raises(ValueError, match="no seed"):
        estimate([])


def test_differences_are_paired_by_shared_seeds():
    base = {1: 0.50, 2: 0.60, 3: 0.55, 4: 0.48}
    better = {2: 0.64, 3: 0.58, 4: 0.53, 9: 0.1}
    same = {1: 0.49, 2: 0.62, 3: 0.54, 4: 0.49}
    found = differences({"base": base, "better": better, "same": same, "alone": {7: 0.5}, "once": {1: 0.9}}, "base")
    assert set(found) == {"better", "same", "alone", "once"}
    seeds = [2, 3, 4]
    p_better = stats.ttest_rel([better[s] for s in seeds], [base[s] for s in seeds]).pvalue
    p_same = stats.ttest_rel(list(same.values()), list(base.values())).pvalue
    assert found["better"].p == pytest.approx(p_better)
    assert found["same"].p == pytest.approx(p_same)
    # Holm over the two comparisons that have a p value.
    assert found["better"].adjusted_p == pytest.approx(2 * p_better)
    assert found["better"].verdict == "better"
    assert found["same"].verdict == "no difference shown"
    assert found["better"].estimate.seeds == 3
    assert found["alone"] is None
    assert found["once"].verdict == "not assessed"


def test_a_constant_difference_is_certain_and_none_is_none():
    found = differences({"a": {1: 0.5, 2: 0.5}, "b": {1: 0.25, 2: 0.25}, "c": {1: 0.5, 2: 0.5}}, "a")
    assert found["b"].p == 0
    assert found["b"].verdict == "worse"
    assert found["c"].p == 1
    assert not math.isnan(found["c"].estimate.half_width)
