"""Queries of each class: proportions of the named law, whole numbers with the right sum, the same everywhere."""

import _pydecimal
import decimal
import importlib.util
import sys
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from otfew.errors import UserError
from otfew.evaluation import query_balance
from otfew.evaluation.query_balance import Dirichlet, apportion, canonical, gamma, parse


def words(seed):
    generator = np.random.Philox(seed)
    while True:
        yield from generator.random_raw(64).tolist()


@pytest.mark.parametrize("alpha", ["0.2", "0.5", "1", "2", "40"])
def test_proportions_follow_the_law(alpha):
    # A part of a symmetric Dirichlet distribution of 5 parts is Beta(alpha, 4 alpha). With so many queries rounding
    # does not show.
    stream = words(7)
    drawn = np.array([Dirichlet(Decimal(alpha)).counts(stream, 5, 10**12) for _ in range(1200)])
    assert (drawn.sum(1) == 10**12).all()
    law = stats.beta(float(alpha), 4 * float(alpha))
    for c in range(5):
        assert stats.kstest(drawn[:, c] / 1e12, law.cdf).pvalue > 1e-3
    # Parts compete: the correlation of two of them is -1/4.
    assert np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1] == pytest.approx(-0.25, abs=0.1)


@pytest.mark.parametrize("shape", ["0.3", "1", "3.5"])
def test_gamma_variates_follow_the_law(shape):
    stream = words(3)
    drawn = [float(gamma(Decimal(shape), stream)) for _ in range(3000)]
    assert stats.kstest(drawn, stats.gamma(float(shape)).cdf).pvalue > 1e-3


def test_python_s_own_decimals_give_the_same_counts(monkeypatch):
    # Another implementation of the same specified arithmetic stands for another machine.
    spec = importlib.util.spec_from_file_location("another_query_balance", query_balance.__file__)
    another = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, another)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "decimal", _pydecimal)
        spec.loader.exec_module(another)
    assert another.Decimal is not Decimal
    for alpha in ("0.2", "2"):
        here, there = words(5), words(5)
        for _ in range(12):
            counts = Dirichlet(Decimal(alpha)).counts(here, 5, 75)
            assert another.Dirichlet(another.Decimal(alpha)).counts(there, 5, 75) == counts


def test_the_caller_s_arithmetic_does_not_matter():
    expected = Dirichlet(Decimal(2)).counts(words(1), 5, 10**9)
    with decimal.localcontext(decimal.Context(prec=4, rounding=decimal.ROUND_UP)):
        assert Dirichlet(Decimal(2)).counts(words(1), 5, 10**9) == expected


def to_the_nearest(parts, total):
    """Round as Veilleux et al. do: to the nearest, then move what was nearest to a half until the sum is right."""
    exact = [part * total / sum(parts) for part in parts]
    up = [value - int(value) > Decimal("0.5") for value in exact]
    while (surplus := sum(int(v) + u for v, u in zip(exact, up, strict=True)) - total) != 0:
        movable = [i for i in range(len(parts)) if up[i] == (surplus > 0)]
        nearest = min(movable, key=lambda i: abs(exact[i] - int(exact[i]) - Decimal("0.5")))
        up[nearest] = not up[nearest]
    return [int(v) + u for v, u in zip(exact, up, strict=True)]


@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=8), st.integers(1, 200))
def test_rounding_is_that_of_the_published_code(parts, total):
    exact = [Decimal(part) for part in parts]
    counts = apportion(exact, total)
    assert sum(counts) == total
    assert all(abs(count - part * total / sum(exact)) < 1 for count, part in zip(counts, exact, strict=True))
    remainders = [part * total / sum(exact) % 1 for part in exact]
    if len(set(remainders)) == len(parts):  # of equal remainders, either may be rounded up
        assert counts == to_the_nearest(exact, total)


def test_equal_parts_go_to_the_first():
    assert apportion([Decimal(1)] * 4, 10) == [3, 3, 2, 2]
    assert apportion([Decimal(0), Decimal(1)], 3) == [0, 3]


def test_balanced_and_spellings():
    assert parse("balanced") is None
    assert canonical("balanced") == "balanced"
    assert canonical("dirichlet:2.50") == "dirichlet:2.5"
    assert canonical("dirichlet:1e2") == "dirichlet:100"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Balanced", "neither balanced nor"),
        ("dirichlet", "neither balanced nor"),
        ("dirichlet:", "neither balanced nor"),
        ("dirichlet:two", "neither balanced nor"),
        ("dirichlet:nan", "neither balanced nor"),
        ("dirichlet:inf", "neither balanced nor"),
        ("gamma:2", "neither balanced nor"),
        ("dirichlet:0", "between 0.01 and 10000"),
        ("dirichlet:-1", "between 0.01 and 10000"),
        ("dirichlet:0.001", "between 0.01 and 10000"),
        ("dirichlet:1e9", "between 0.01 and 10000"),
    ],
)
def test_what_cannot_be_read_is_said(text, said):
    with pytest.raises(UserError, match=said):
        parse(text)
