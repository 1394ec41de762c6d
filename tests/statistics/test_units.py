"""Classes that belong together leave a jackknife together: by hand, and by what it is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from otfew.statistics import intervals
from otfew.statistics.units import as_units

NAMES = ("a", "a@90", "b", "b@90", "c", "c@90")
UNITS = ("a", "a", "b", "b", "c", "c")


def test_classes_of_one_name_are_one_unit():
    classes = np.array([[0, 3], [5, 1]])
    drawn, names = as_units(classes, NAMES, UNITS)
    assert names == ("a", "b", "c")
    assert drawn.tolist() == [[0, 1], [2, 0]]
    same, all_names = as_units(classes, NAMES)
    assert same is classes
    assert all_names == NAMES
    with pytest.raises(ValueError, match="each of the 6 classes, not of 2"):
        as_units(classes, NAMES, ("a", "b"))


def test_the_jackknife_leaves_out_a_unit_at_once(monkeypatch):
    """Six episodes of two classes; without a: 0, 6 and 3; without b: 9, 3 and 0; without c: 1, 2 and 3."""
    monkeypatch.setattr(intervals, "LEAST_EPISODES", 1)
    # Units: bc, bc, bc (both turns of b and c), ac, ac, ab; one of a and its own turn counts once.
    classes = np.array([[2, 4], [3, 5], [2, 5], [0, 4], [1, 5], [0, 1]])
    values = np.array([0.0, 6.0, 3.0, 9.0, 3.0, 1.0])
    found = intervals.class_jackknife(values, *as_units(classes, NAMES, UNITS))
    # Without a: the first three, mean 3. Without b: the last three, 13 / 3. Without c: the last, 1.
    theta = [3.0, 13 / 3, 1.0]
    mean = sum(theta) / 3
    error = math.sqrt(2 / 3 * sum((t - mean) ** 2 for t in theta))
    assert found.standard_error == pytest.approx(error, rel=1e-12)
    assert found.degrees == 2
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 2) * error, rel=1e-12)


def test_turns_that_behave_alike_do_not_narrow_an_interval():
    """Four copies of each class tell no more than one: by units the interval is that of the characters."""
    rng = np.random.default_rng(0)
    effects = rng.normal(0, 1, 12)
    drawn = np.array([rng.permutation(12)[:2] for _ in range(4000)])
    values = effects[drawn].sum(1)
    turned = 4 * drawn + rng.integers(0, 4, drawn.shape)
    names = tuple(f"{c}@{q}" for c in range(12) for q in range(4))
    by_unit = intervals.class_jackknife(values, *as_units(turned, names, tuple(n.partition("@")[0] for n in names)))
    by_class = intervals.class_jackknife(values, *as_units(turned, names))
    plain = intervals.class_jackknife(values, drawn, tuple(map(str, range(12))))
    assert by_unit == plain
    assert by_class.half_width < 0.75 * by_unit.half_width
