"""Whether a plan of allowed pairs exists, against maximum flows in whole numbers, and cuts that prove there is none."""

from __future__ import annotations

from fractions import Fraction

import networkx
import numpy as np
import pytest

from otfew.transport.forbidden import feasibility


def movable(allowed, a, b):
    """Largest mass that allowed pairs can carry, weights whole numbers."""
    graph = networkx.DiGraph()
    for i, weight in enumerate(a):
        graph.add_edge("all", ("row", i), capacity=int(weight))
    for j, weight in enumerate(b):
        graph.add_edge(("column", j), "end", capacity=int(weight))
    for i, j in zip(*np.nonzero(allowed), strict=True):
        graph.add_edge(("row", i), ("column", j))
    return networkx.maximum_flow_value(graph, "all", "end")


def draw(rng):
    """Pairs and whole weights, some zero, of one total."""
    n, m = rng.integers(1, 9, 2)
    a, b = rng.integers(0, 5, n), rng.integers(0, 5, m)
    a[rng.integers(n)] += 1
    b[rng.integers(m)] += 1
    return rng.random((n, m)) < rng.choice([0.1, 0.3, 0.5, 0.8]), a * b.sum(), b * a.sum()


def test_against_maximum_flows():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        allowed, a, b = draw(rng)
        scale = 10.0 ** rng.integers(-6, 6)
        result = feasibility(allowed[None], a[None] * scale, b[None] * scale / 7)
        lacking = int(a.sum()) - movable(allowed, a, b)
        rows, columns = result.rows[0], result.columns[0]
        assert bool(result.infeasible[0]) == (lacking > 0)
        assert a[rows].sum() - b[columns].sum() == lacking
        assert (allowed[rows].any(0) == columns).all()
        assert (a[rows] > 0).all()
        found.append(lacking > 0)
    assert 50 < sum(found) < 250


def test_blocks_that_balance_before_their_weights_are_rounded():
    assert Fraction(0.1) + Fraction(0.2) > Fraction(0.3)
    allowed = np.array([[[True, False], [True, False], [False, True]]])
    a, b = np.array([[0.1, 0.2, 0.7]]), np.array([[0.3, 0.7]])
    assert not feasibility(allowed, a, b).infeasible
    narrow = (x.astype(np.float32).astype(float) for x in (a, b))
    assert not feasibility(allowed, *narrow, rounding=2.0**-24).infeasible
    assert feasibility(allowed, a + np.array([1e-12, 0, -1e-12]), b).infeasible


def test_many_blocks_in_single_precision():
    rng = np.random.default_rng(1)
    parts = rng.random((300, 10)).astype(np.float32)
    parts /= parts.sum()
    allowed = np.kron(np.eye(300), np.ones((5, 10)))[None] > 0
    a, b = (parts[:, :5] + parts[:, 5:]).reshape(1, -1), parts.reshape(1, -1)
    assert not feasibility(allowed, a.astype(float), b.astype(float), rounding=2.0**-24).infeasible
    a[0, :5] *= 1.0001
    result = feasibility(allowed, a.astype(float), b.astype(float), rounding=2.0**-24)
    assert result.infeasible
    assert np.flatnonzero(result.rows).tolist() == [0, 1, 2, 3, 4]
    assert np.flatnonzero(result.columns).tolist() == list(range(10))


@pytest.mark.parametrize("weight", [0.0, 1e-9])
def test_a_row_that_nothing_is_allowed_for(weight):
    """Without mass it asks for nothing; with the least that is not rounding, it cannot be served."""
    allowed = np.ones((1, 3, 2), np.bool_)
    allowed[0, 1] = False
    result = feasibility(allowed, np.array([[0.5, weight, 0.5]]), np.array([[0.4, 0.6]]))
    assert bool(result.infeasible[0]) == (weight > 0)
    assert result.rows.tolist() == [[False, weight > 0, False]]
    assert not result.columns.any()


def test_thousands_of_rows():
    rng = np.random.default_rng(2)
    n = 3000
    allowed = np.roll(np.eye(n, dtype=bool), 1, 1)[None] | (rng.random((1, n, n)) < 1e-3)
    a = np.full((1, n), 1 / n)
    assert not feasibility(allowed, a, a).infeasible
    allowed[0, [5, 6, 7]] = False
    allowed[0, [5, 6, 7], 9] = True
    result = feasibility(allowed, a, a)
    assert result.infeasible
    assert {5, 6, 7} <= set(np.flatnonzero(result.rows[0]))


def test_everything_forbidden_and_nothing():
    a, b = np.full((1, 4), 0.25), np.array([[0.5, 0.5, 0.0]])
    nothing = feasibility(np.zeros((1, 4, 3), np.bool_), a, b)
    assert nothing.infeasible
    assert nothing.rows.all()
    assert not nothing.columns.any()
    assert not feasibility(np.ones((1, 4, 3), np.bool_), a, b).infeasible
    empty = feasibility(np.ones((0, 4, 3), np.bool_), a[:0], b[:0])
    assert empty.infeasible.shape == (0,)


def test_the_layout_of_a_mask_does_not_matter():
    rng = np.random.default_rng(5)
    allowed = rng.random((3, 6, 5)) > 0.5
    a, b = rng.dirichlet(np.ones(6), 3), rng.dirichlet(np.ones(5), 3)
    turned = np.ascontiguousarray(allowed.transpose(0, 2, 1)).transpose(0, 2, 1)
    for one, other in zip(vars_of(feasibility(allowed, a, b)), vars_of(feasibility(turned, a, b)), strict=True):
        np.testing.assert_array_equal(one, other)


def vars_of(found):
    """Its parts."""
    return found.infeasible, found.rows, found.columns
