import numpy as np
import pytest
from scipy import stats

from otfew.evaluation.shift_gain import CLEAN, Part, choose, effect, gain, pooled

VIEWS = ("blur:1", "blur:3", "dark:2")


@pytest.fixture
def accuracies():
    rng = np.random.default_rng(0)
    return {view: {name: rng.random(7) for name in "abc"} for view in (CLEAN, *VIEWS)}


def test_effect_episode_by_episode(accuracies):
    pairs = {"blur": ("a", "b"), "dark": ("c", "a")}
    found = effect(accuracies, pairs, VIEWS)
    for e in range(7):
        a = {view: {name: values[e] for name, values in own.items()} for view, own in accuracies.items()}
        blur = (a["blur:1"]["a"] - a["blur:1"]["b"] + a["blur:3"]["a"] - a["blur:3"]["b"]) / 2
        blur -= a[CLEAN]["a"] - a[CLEAN]["b"]
        dark = a["dark:2"]["c"] - a["dark:2"]["a"] - (a[CLEAN]["c"] - a[CLEAN]["a"])
        assert found[e] == pytest.approx((blur + dark) / 2)
    assert np.allclose(gain(accuracies["dark:2"], ("c", "a")), accuracies["dark:2"]["c"] - accuracies["dark:2"]["a"])


def test_what_balances_alike_everywhere_has_no_effect(accuracies):
    """A method that is better by the same amount with and without a shift: that is no transfer."""
    for own in accuracies.values():
        own["d"] = own["b"] + 0.1
    assert np.allclose(effect(accuracies, {"blur": ("d", "b"), "dark": ("d", "b")}, VIEWS), 0)


def test_a_shift_has_no_part_in_its_own_choice(accuracies):
    for name, value in zip("abc", (0.1, 0.2, 0.3), strict=True):
        accuracies["dark:2"][name] = np.full(7, value)
        accuracies["blur:1"][name] = accuracies["blur:3"][name] = np.full(7, 1 - value)
        accuracies[CLEAN][name] = np.full(7, value == 0.2)
    assert choose("abc", accuracies, "blur") == "c"
    assert choose("abc", accuracies, "dark") == "a"
    assert choose("ab", accuracies, "blur") == "b"
    # Of equal ones the first.
    accuracies["dark:2"]["a"] = accuracies["dark:2"]["c"]
    assert choose("abc", accuracies, "blur") == "a"
    with pytest.raises(ValueError, match="0 views"):
        choose("abc", {CLEAN: accuracies[CLEAN], "blur:1": accuracies["blur:1"]}, "blur")
    with pytest.raises(ValueError, match="0 candidates"):
        choose("", accuracies, "blur")
    with pytest.raises(ValueError, match="no view"):
        effect(accuracies, {}, [])


def test_data_sets_are_averaged_and_their_errors_added_in_quadrature():
    found = pooled([Part(0.03, 0.01, 0.02, 21), Part(0.01, 0.03, 0.01, 9)])
    assert found.mean == pytest.approx(0.02)
    assert found.episode_half_width == pytest.approx(np.hypot(0.01, 0.03) / 2)
    assert found.jackknife.degrees == 9
    assert found.jackknife.half_width == pytest.approx(stats.t.ppf(0.975, 9) * np.hypot(0.02, 0.01) / 2)
    alone = pooled([Part(0.03, 0.01, 0.02, 21)])
    assert (alone.mean, alone.episode_half_width, alone.jackknife.standard_error) == (0.03, 0.01, 0.02)
    assert pooled([Part(0.03, 0.01, None, 21), Part(0.03, 0.01, 0.01, 21)]).half_width is None
