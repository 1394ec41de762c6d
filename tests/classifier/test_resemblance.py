"""Whether new photos resemble the labelled ones: level, power, and what is no difference."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from otfew.classifier.resemblance import DOUBTFUL, LEVEL, MOST, Resemblance, energies, resemble


def made(rng, count, shift=0.0, shares=(0.5, 0.5)):
    taken = rng.choice(2, count, p=shares)
    return rng.normal(size=(count, 5)) + 3 * np.eye(5)[taken] + shift * np.eye(5)[4], taken


def test_energies_against_the_definition():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    both = np.concatenate([x, y])
    expect = 7 * 5 / 12 * (2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean())
    sides = (np.arange(12) >= 7)[None]
    assert energies(cdist(both, both), sides)[0] == pytest.approx(expect)
    assert energies(cdist(both, both), ~sides)[0] == pytest.approx(expect)


def test_p_is_uniform_where_both_are_alike():
    rng = np.random.default_rng(1)
    p = np.array([resemble(*made(rng, 40), *made(rng, 30), permutations=199).p for _ in range(200)])
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=3.5 * np.sqrt(level * (1 - level) / 200))


def test_other_shares_of_the_classes_are_no_difference_and_other_pictures_are():
    rng = np.random.default_rng(2)
    labelled = made(rng, 60)
    assert not resemble(*labelled, *made(rng, 60, shares=(0.95, 0.05))).differs
    other = resemble(*labelled, *made(rng, 60, shift=3.0))
    assert other.differs
    assert other.p <= LEVEL
    assert "does not resemble" in str(other)


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (0.001, "NEW does not resemble LABELLED (p 0.001): "),
        (LEVEL, "NEW does not resemble LABELLED (p 0.010): "),
        (0.011, "NEW may differ from LABELLED (p 0.011, and 0.01 would tell): "),
        (DOUBTFUL, "NEW may differ from LABELLED (p 0.050, and 0.01 would tell): "),
        (0.051, "NEW resembles LABELLED (p 0.05)"),
        (0.4, "NEW resembles LABELLED (p 0.40)"),
        (None, "too few photos to tell"),
    ],
)
def test_what_is_near_the_level_is_said_to_be_open(p, said):
    """No p of 0.01 beside the word that both are alike."""
    assert str(Resemblance(p, 72)).startswith(said)
    assert Resemblance(p, 72).differs == said.startswith("NEW does not")


def test_it_is_the_same_in_every_run_and_names_of_classes_change_nothing():
    rng = np.random.default_rng(3)
    (x, x_as), (y, y_as) = made(rng, 40), made(rng, 40)
    assert resemble(x, x_as, y, y_as) == resemble(x, x_as, y, y_as)
    assert resemble(x, 7 + x_as, y, 7 + y_as) == resemble(x, x_as, y, y_as)


def test_too_few_photos_tell_nothing():
    rng = np.random.default_rng(4)
    few = resemble(*made(rng, 4), *made(rng, 40))
    assert few.p is None
    assert not few.differs
    # Nothing is taken for the same class on both sides.
    assert resemble(rng.normal(size=(20, 3)), np.zeros(20, int), rng.normal(size=(20, 3)), np.ones(20, int)).p is None


def test_thousands_are_looked_at_in_part():
    rng = np.random.default_rng(5)
    found = resemble(*made(rng, 40), *made(rng, 3000), permutations=19)
    assert found.photos == MOST
