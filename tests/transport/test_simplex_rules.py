"""Rules inside the exact kernel that its answers alone hardly show, by running it as plain Python, uncompiled."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linprog

from otfew.transport.problem import INVALID, UNSURE, Status
from otfew.transport.simplex import assignment, kernel, pivots, reading, rows, start, tree

from .plain_lanes import OPERATIONS

MODULES = (assignment, kernel, pivots, reading, rows, start, tree)


def place(monkeypatch, name, function):
    """Put a function where its name is used."""
    for module in MODULES:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, function)


@pytest.fixture
def plain(monkeypatch):
    """Put what was to be compiled in its place; returns the solver of one problem."""
    for module in MODULES:
        for name, value in vars(module).copy().items():
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)
    for operation in OPERATIONS:
        place(monkeypatch, operation.__name__, operation)
    place(monkeypatch, "count_ones", lambda bits: (int(bits) & (2**64 - 1)).bit_count())
    place(monkeypatch, "trailing_zeros", lambda bits: (int(bits) & -int(bits)).bit_length() - 1)
    return solve


def solve(cost, a, b, *, totals_rtol=1e-4, max_iter=100_000):
    """Solve one problem by ``_solve_batch`` as it stands; returns its outputs by name."""
    n, m = cost.shape
    arcs, one = n + m - 1, np.zeros(1, np.int64)
    out = {
        "rows": np.zeros((1, arcs), np.int32), "cols": np.zeros((1, arcs), np.int32), "flow": np.zeros((1, arcs)),
        "f": np.zeros((1, n)), "g": np.zeros((1, m)), "value": np.zeros(1), "gap": np.zeros(1), "error": np.zeros(1),
        "status": np.zeros(1, np.int8), "n_iter": np.zeros(1, np.int64), "assigned": np.zeros(1, np.bool_),
    }  # fmt: skip
    kernel._solve_batch(
        True if n + m > kernel.WORD else None, None, None, cost[None].astype(float), np.empty((0, n, m), np.float32),
        a[None], b[None], one, one, one, 0, 1, totals_rtol, 0.0, max_iter, *out.values(),
    )  # fmt: skip
    return {name: value[0] for name, value in out.items()}


def optimum(cost, a, b):
    n, m = cost.shape
    sums = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return linprog(cost.ravel(), A_eq=sums[:-1], b_eq=np.concatenate([a, b])[:-1], method="highs").fun


def degenerate(seed, n, m):
    """A problem whose weights are small integers, so that rows and columns are often exhausted together."""
    rng = np.random.default_rng(seed)
    a = rng.integers(1, 4, n).astype(float)
    b = np.ones(m)
    b[: int(a.sum()) - m] += 1 if a.sum() > m else 0
    b *= a.sum() / b.sum()
    return rng.integers(0, 5, (n, m)).astype(float), a, b


@pytest.mark.parametrize("word", [64, 1], ids=["one word", "words"])
def test_trees_stay_strongly_feasible(plain, monkeypatch, word):
    # Cunningham 1976: where arcs without flow lead from a row up to a column, pivots without gain cannot cycle.
    bits, words, empty = pivots.exchange_bits, pivots.exchange, []

    def look(n, nodes, parent, flow):
        here = [x for x in range(nodes) if parent[x] >= 0 and flow[x] == 0]
        assert all(x < n for x in here)
        assert (flow[:nodes][parent[:nodes] >= 0] >= 0).all()
        empty.extend(here)

    def watched_bits(i, j, n, nodes, parent, flow, mask, moved):
        row_side = bits(i, j, n, nodes, parent, flow, mask, moved)
        look(n, nodes, parent, flow)
        return row_side

    def watched_words(i, j, n, words_of, parent, flow, mask, moved):
        row_side = words(i, j, n, words_of, parent, flow, mask, moved)
        look(n, 15, parent, flow)
        return row_side

    monkeypatch.setattr(pivots, "exchange_bits", watched_bits)
    monkeypatch.setattr(pivots, "exchange", watched_words)
    monkeypatch.setattr(kernel, "WORD", word)
    for seed in range(12):
        cost, a, b = degenerate(seed, 7, 8)
        found = plain(cost, a, b)
        assert found["status"] == Status.OPTIMAL
        assert found["value"] == pytest.approx(optimum(cost, a, b), abs=1e-9)
    assert len(empty) > 50


@pytest.mark.parametrize("coarse", [1e-3, 2.0])
def test_a_grid_that_is_too_coarse_costs_time_and_no_more(plain, monkeypatch, coarse):
    simplex, two = kernel.simplex, assignment.two_least
    monkeypatch.setattr(kernel, "simplex", lambda *args: simplex(*args[:4], coarse, *args[5:]))
    monkeypatch.setattr(assignment, "two_least", lambda cost, i, v, n, grid, *rest: two(cost, i, v, n, coarse, *rest))
    # No pivots in whole numbers: all is left to the costs as they are.
    monkeypatch.setattr(kernel, "simplex_whole", lambda *args: 0)
    rng = np.random.default_rng(5)
    for n, m in ((6, 9), (7, 7)):
        cost, a, b = rng.random((n, m)), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
        found = plain(cost, a, b, max_iter=1000)
        assert found["status"] == Status.OPTIMAL
        assert found["value"] == pytest.approx(optimum(cost, a, b), abs=1e-12)
    cost = rng.random((7, 7))
    found = plain(cost, np.ones(7), np.ones(7))
    assert found["assigned"]
    assert found["value"] == pytest.approx(optimum(cost, np.ones(7), np.ones(7)), abs=1e-12)


@pytest.mark.parametrize("grid", [1e-3, 1.0, 1e3, 1e12])
def test_first_and_second_choice_are_the_two_least(plain, grid):
    rng = np.random.default_rng(6)
    for _ in range(50):
        cost, v = rng.random((1, 6)), rng.random(6)
        before = v.copy()
        first, at, second, then = assignment.two_least(cost, 0, v, 6, grid, 3, -1e3)
        order = np.argsort(cost[0] - v)
        assert [first, second] == (cost[0] - v)[order[:2]].tolist()
        assert [at, then] == order[:2].tolist()
        assert (v == before).all()


@pytest.mark.filterwarnings("ignore:overflow")  # of the bit that is a sign
def test_potentials_are_made_anew_after_many_pivots(plain, monkeypatch):
    # An error in the potentials, as rounding makes it in the long run, is gone in the end.
    follow, refresh, count = pivots.follow, pivots.refresh, {"pivots": 0, "refreshed": 0}

    def wrong(shift, n, nodes, words, u, v, moved):
        follow(shift, n, nodes, words, u, v, moved)
        count["pivots"] += 1
        if count["pivots"] == 900:
            u += np.random.default_rng(7).normal(size=len(u)) * 1e-7

    def seen(*args):
        count["refreshed"] += 1
        refresh(*args)

    monkeypatch.setattr(pivots, "follow", wrong)
    monkeypatch.setattr(pivots, "refresh", seen)
    # No pivots in whole numbers, and a tree that knows nothing of the costs, many pivots away from the optimum.
    monkeypatch.setattr(kernel, "simplex_whole", lambda *args: 0)
    tree_of = kernel.first_tree

    def blind(whole, *args):
        return tree_of(np.zeros_like(whole), *args)

    monkeypatch.setattr(kernel, "first_tree", blind)
    rng = np.random.default_rng(8)
    n, m = 110, 220
    x, y = rng.random((n, 2)), rng.random((m, 2))
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    found = plain(cost, a, b)
    assert count["pivots"] > 1000
    assert count["refreshed"] > 0
    assert found["gap"] <= 1e-11


def test_flows_are_counted_in_whole_units_that_leave_nothing_out(plain):
    rng = np.random.default_rng(9)
    for size in (1, 3, 7, 50):
        weights = rng.random(size) * 10.0 ** rng.integers(-20, 3, size)
        weights[rng.integers(size)] = 1.0
        kept, units, dropped = np.zeros(size, np.int64), np.zeros(size), np.zeros(size, np.bool_)
        used = reading.quantise(weights, weights.sum(), kept, units, dropped)
        assert math.fsum(units[:used]) == reading.SCALE
        assert (units[:used] == np.rint(units[:used])).all()
        assert (units[:used] > 0).all()
        assert sorted([*kept[:used], *np.flatnonzero(dropped)]) == list(range(size))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.5, 0.5], [0.5, 0.5002]),
        ([1.5, -0.5], [0.5, 0.5]),
        ([0.5, 0.5], [np.nan, 1.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([np.inf, 1.0], [0.5, 0.5]),
    ],
)
def test_unsound_weights_have_no_answer(plain, a, b):
    found = plain(np.ones((2, 2)), np.array(a), np.array(b))
    assert found["status"] == INVALID
    assert np.isnan([found["value"], found["gap"], found["error"], *found["f"], *found["flow"]]).all()


def test_errors_of_both_sides_count_and_are_relative(plain):
    # Where one side's weights are below the units of flow, nothing can flow there.
    tiny = 1e-17
    for a, b in (([tiny, 1.0], [0.5, 0.5 + tiny]), ([0.5, 0.5], [tiny, 1.0])):
        for mass in (1.0, 8.0):
            found = plain(np.array([[0.0, 1.0], [1.0, 0.0]]), mass * np.array(a), mass * np.array(b))
            assert found["error"] == pytest.approx(tiny, rel=1e-6, abs=0)


def test_totals_that_nearly_agree_are_no_error(plain):
    cost = np.random.default_rng(10).random((3, 4))
    found = plain(cost, np.full(3, 1 / 3), np.full(4, 0.25 * (1 + 9e-5)))
    assert found["status"] == Status.OPTIMAL
    assert found["error"] <= 1e-15


@pytest.mark.parametrize("zeros", ["rows", "columns", "both"])
def test_potentials_of_nodes_without_weight_are_feasible(plain, zeros):
    rng = np.random.default_rng(11)
    for _ in range(20):
        cost, a, b = rng.standard_normal((5, 6)), rng.random(5), rng.random(6)
        a[:2] *= zeros == "columns"
        b[:2] *= zeros == "rows"
        a, b = a / a.sum(), b / b.sum()
        found = plain(cost, a, b)
        slack = cost - found["f"][:, None] - found["g"]
        assert slack.min() >= -1e-14
        if zeros == "rows":
            # Extreme: the derivative in a weight that is zero.
            assert abs(slack[:2].min(1)).max() <= 1e-14
        if zeros == "columns":
            assert abs(slack[:, :2].min(0)).max() <= 1e-14
        assert abs((found["g"] * b).sum()) <= 1e-14


def test_the_gap_bounds_what_the_kernel_rounds(plain):
    rng = np.random.default_rng(12)
    hidden = 0
    for _ in range(100):
        # One column: the only plan is the rows' weights, and its cost is known exactly.
        cost, a = rng.standard_normal((7, 1)), rng.random(7)
        found = plain(cost, a, np.array([a.sum()]))
        exact = sum(Fraction(float(c)) * Fraction(float(x)) for c, x in zip(cost[:, 0], a, strict=True))
        above = Fraction(float(found["value"])) - exact
        assert above <= Fraction(float(found["gap"]))
        assert found["gap"] <= 1e-13
        hidden += above > 0
    assert hidden > 20


def test_what_is_called_optimal_is_certain_in_units_of_the_costs_used(plain):
    rng = np.random.default_rng(13)
    unsure = 0
    for far in (1e3, 1e9, 1e12, 1e15, 1e18):
        for _ in range(4):
            cost = rng.random((6, 7))
            cost[rng.random((6, 7)) < 0.3] *= far
            found = plain(cost, rng.dirichlet(np.ones(6)), np.full(7, 1 / 7))
            assert found["status"] in {Status.OPTIMAL, UNSURE}
            unsure += found["status"] == UNSURE
            if found["status"] == Status.OPTIMAL:
                assert found["gap"] <= 1e-8 * found["value"]
    assert unsure > 2


@pytest.mark.parametrize("floor", [0.0, 0.7])
def test_a_set_against_itself_is_proven_by_equal_potentials(plain, floor):
    rng = np.random.default_rng(14)
    x, a = rng.random((6, 2)), rng.dirichlet(np.ones(6))
    found = plain(floor + ((x[:, None] - x) ** 2).sum(-1), a, a)
    assert found["status"] == Status.OPTIMAL
    assert found["value"] == pytest.approx(floor, abs=1e-15)
    assert (found["g"] == 0).all()
    assert (found["f"] == floor).all()
