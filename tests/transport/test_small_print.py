"""The small print of docstrings: bounds that hold in spite of rounding, gauges, factors, edges of what is allowed."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

import otfew
from otfew.transport import costs
from otfew.transport.certificate import c_transform, certify_plan, rounding
from otfew.transport.entropic import newton
from otfew.transport.partial import with_dummies, without_dummies
from otfew.transport.problem import build
from otfew.transport.simplex.exact import Exact
from otfew.transport.simplex.scales import Answer, Rule, settle


def test_potentials_of_columns_without_weight_are_ignored():
    cost = np.random.default_rng(0).random((4, 3))
    a, b = np.full(4, 0.25), np.array([0.5, 0.5, 0.0])
    found = [c_transform(cost, np.array([0.1, -0.2, far]), a, b) for far in (0.0, 1e3, -1e3)]
    for f, g in found:
        assert (f == found[0][0]).all()
        assert (g == found[0][1]).all()
        assert (f[:, None] + g <= cost + 1e-15).all()
        # Both are extreme: none can be raised.
        assert np.allclose((cost - f[:, None] - g)[:, :2].min(1), 0, atol=1e-15)
        assert np.allclose((cost - f[:, None] - g).min(0)[2], 0, atol=1e-15)


def forced(rng, n):
    """A problem of one column, whose only plan is its rows' weights: the optimum is a sum, known exactly."""
    cost, a = rng.standard_normal((n, 1)), rng.random(n)
    a /= a.sum()
    optimum = sum(Fraction(float(c)) * Fraction(float(x)) for c, x in zip(cost[:, 0], a, strict=True))
    return cost, a, np.array([a.sum()]), optimum


def test_the_gap_bounds_what_rounding_hides():
    rng = np.random.default_rng(1)
    hidden = 0
    for _ in range(200):
        cost, a, b, optimum = forced(rng, 9)
        f, g = c_transform(cost, np.zeros(1), a, b)
        value, gap, _ = certify_plan(cost, a, b, a[:, None], f, g)
        above = Fraction(float(value)) - optimum
        assert above <= Fraction(float(gap))
        assert gap <= 1e-13
        hidden += above > 0
    assert hidden > 50  # of the rounding that the gap accounts for


@pytest.mark.parametrize("mass", [1.0, 3.0])
def test_potentials_that_are_a_little_too_high_prove_nothing_false(mass):
    rng = np.random.default_rng(2)
    for excess in (1e-3, 1e-12):
        cost, a, b, optimum = forced(rng, 9)
        a, b = mass * a, mass * b
        f, g = c_transform(cost, np.zeros(1), a, b)
        value, gap, _ = certify_plan(cost, a, b, a[:, None], f + excess, g)
        assert gap >= float(value) - mass * float(optimum)
        assert gap == pytest.approx(0, abs=1e-13)
        assert rounding(cost, a, b, f + excess, g) == pytest.approx(excess * mass, abs=1e-13)


@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
def test_the_gradient_in_b_knows_that_b_is_rescaled(solver):
    # One row: all of it goes to the columns as b divides it, so the value is sum(a) * b_2 / sum(b).
    cost = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    a = torch.tensor([1.0], dtype=torch.float64)
    b = (torch.tensor([0.3, 0.7], dtype=torch.float64) * (1 + 9e-5)).requires_grad_()
    result = otfew.solve(cost, a, b, solver=solver)
    entropic = solver == "sinkhorn"
    (found,) = torch.autograd.grad(result.value_linear if entropic else result.value, b)
    total, second = float(b.detach().sum()), float(b.detach()[1])
    expected = torch.tensor([-second / total**2, (total - second) / total**2], dtype=torch.float64)
    # Without the factor sum(a) / sum(b), 9e-5 would be missing.
    assert torch.allclose(found, expected, rtol=1e-6)


def test_rounded_answers_are_certified_by_the_better_of_two_ways():
    rng = np.random.default_rng(3)
    cost = rng.random((40, 5, 7))
    a, b = rng.dirichlet(np.ones(5), 40), rng.dirichlet(np.ones(7), 40)
    blurred = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=0.3))
    f, g = blurred.potentials
    highest_f, highest_g = (cost - g[:, None]).min(2), (cost - f[:, :, None]).min(1)
    bounds = [
        (highest_f * a).sum(-1) + ((cost - highest_f[:, :, None]).min(1) * b).sum(-1),
        ((cost - highest_g[:, None]).min(2) * a).sum(-1) + (highest_g * b).sum(-1),
    ]
    # Either way is the better one somewhere.
    assert 5 < (bounds[0] > bounds[1] + 1e-6).sum() < 35
    rounded = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=0.3, round=True))
    assert rounded.value_linear - rounded.gap == pytest.approx(np.maximum(*bounds), abs=1e-6)


def test_nodes_without_weight_do_not_loosen_the_bound_of_a_rounded_answer():
    rng = np.random.default_rng(4)
    cost = rng.random((6, 7, 8))
    a, b = rng.dirichlet(np.ones(4), 6), rng.dirichlet(np.ones(5), 6)
    solver = otfew.Sinkhorn(reg=0.5, tol=1e-10, round=True)
    alone = otfew.solve(cost[:, :4, :5], a, b, solver=solver)
    padded = otfew.solve(cost, np.pad(a, ((0, 0), (0, 3))), np.pad(b, ((0, 0), (0, 3))), solver=solver)
    assert padded.gap == pytest.approx(alone.gap, abs=1e-8)
    f, g = padded.potentials
    assert (f[:, :, None] + g[:, None] <= cost + 1e-12).all()
    for ours, its in zip((f[:, :4], g[:, :5]), alone.potentials, strict=True):
        assert ours == pytest.approx(its, abs=1e-8)


def partial(mass):
    """Problems whose totals differ, with dummy nodes, solved: what ``without_dummies`` is given."""
    rng = np.random.default_rng(5)
    cost, a, b = rng.standard_normal((3, 4, 5)), rng.random((3, 4)), rng.random((3, 5))
    tensors = (torch.from_numpy(x) for x in (cost, a, b))
    problem = build(*tensors, torch.Size([3]))
    extended, moved = with_dummies(problem, mass)
    return problem, Exact().solve_all(extended), moved


@pytest.mark.parametrize("mass", [0.5, "min"])
def test_a_price_for_keeping_mass_proves_nothing_false(mass):
    # With potentials above zero, rows would be paid for keeping what they must not: the dual value is then too high.
    problem, found, moved = partial(mass)
    optimum = without_dummies(problem, found, moved, mass).value
    for excess in (1e-3, 1e-9):
        raised = replace(found, g=found.g + excess * (np.arange(6) == 5))
        result = without_dummies(problem, raised, moved, mass)
        assert (result.gap >= result.value - optimum).all()
        assert (result.gap <= 1e-12 + 3 * excess).all()


def test_what_exceeds_the_weights_counts_as_an_error():
    problem, found, moved = partial(0.5)
    assert without_dummies(problem, found, moved, 0.5).marginal_error.max() <= 1e-14
    # All that leaves real rows leaves the first one.
    crowded = replace(found, rows=np.where(found.rows < 4, 0, found.rows))
    over = (found.flow * ((found.rows < 4) & (found.cols < 5))).sum(-1) - problem.a[:, 0]
    assert (over > 0).any()
    expected = np.maximum(over, 0) / 0.5
    assert without_dummies(problem, crowded, moved, 0.5).marginal_error == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean"])
def test_clouds_far_from_the_origin_have_the_distances_of_near_ones(name):
    # So far that a squared norm is forty times a squared distance, and not so far that all are taken again.
    rng = np.random.default_rng(6)
    x, y = (torch.from_numpy(rng.standard_normal((k, 64)).astype(np.float32) + 6) for k in (40, 50))
    found = costs.pairwise(name, x, y).double()
    exact = costs.pairwise(name, x.double(), y.double())
    direct = (x.double()[:, None] - y.double()).square().sum(-1)
    assert torch.allclose(exact, direct if name == "sqeuclidean" else direct.sqrt(), rtol=1e-12)
    assert ((found - exact).abs() / exact).max() < 8e-7


def test_vectors_too_small_for_normal_numbers_have_no_direction():
    tiny = torch.finfo(torch.float32).tiny
    x = torch.tensor([[tiny / 8, 0.0], [0.0, 0.0], [tiny, 0.0]])
    assert costs.directions(x).tolist() == [[0, 0], [0, 0], [1, 0]]
    assert costs.cosine(x, x)[0].tolist() == [1, 1, 1]


def slow(n=12, groups=4):
    """Groups of nodes that hardly exchange anything and must: a hundred iterations in the plain domain do not do."""
    rng = np.random.default_rng(7)
    side = np.arange(n) % groups
    cost = 0.2 * rng.random((n, n)) + np.abs(side[:, None] - side)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(n))
    return cost, a, b


@pytest.mark.filterwarnings("ignore")  # most are cut short
def test_iterations_of_both_domains_count_together():
    cost, a, b = slow()
    settings = {"reg": 1 / 60, "tol": 1e-10}
    whole = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(**settings))
    assert whole.status == otfew.Status.OPTIMAL
    # From where the plain domain ends, Newton's steps are few.
    assert 100 < whole.n_iter <= 115
    for most in (100, 101, 102, 103):
        cut = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(max_iter=most, **settings))
        assert cut.n_iter <= most
        done = cut.n_iter == whole.n_iter
        assert (cut.status == otfew.Status.OPTIMAL) == done


def test_a_problem_that_converged_keeps_its_value_beside_one_that_does_not():
    cost, a, b = slow()
    easy = np.random.default_rng(8).random(cost.shape)
    solver = otfew.Sinkhorn(reg=1 / 60, tol=1e-10)
    alone, together = (otfew.solve(x, a, b, solver=solver) for x in (easy, np.stack([easy, cost])))
    assert together.n_iter[0] < 100 < together.n_iter[1]
    assert together.value[0] == alone.value


def test_products_with_a_plan_are_taken_in_the_dtype_of_the_points():
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    plan = otfew.solve_points(x, x + 1, solver="exact").plan
    for v in (torch.ones(5, dtype=torch.float64), torch.ones(5, dtype=torch.int64), torch.ones(5)):
        assert (plan @ v).dtype == torch.float32
        assert torch.allclose(plan @ v, torch.full((5,), 0.2))
    assert (plan @ np.ones((5, 1))).shape == (5, 1)
    assert (plan @ np.ones(5)).dtype == np.float32


@pytest.mark.filterwarnings("ignore")  # cut short on purpose
def test_the_gap_of_an_unfinished_run_bounds_its_error():
    cost, a, b = slow()
    whole = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=0.1, tol=1e-13))
    missed = 0
    for most in (1, 2, 3, 5, 8, 13):
        cut = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=0.1, max_iter=most))
        assert cut.gap >= abs(cut.value - whole.value) - 1e-13
        missed += abs(cut.value - whole.value) > 1e-6
    assert missed > 1


@pytest.mark.parametrize("reg", [0.002, 0.1])
def test_a_column_without_weight_has_the_potential_of_one_with_a_little(reg):
    rng = np.random.default_rng(9)
    cost, a, b = rng.random((6, 5)), rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(5))
    # Both ways round, since rows and columns trade places on the way.
    for axis in (0, 1):
        potentials = []
        for weight in (0.0, 1e-12):
            x, y = a.copy(), b.copy()
            (x if axis == 0 else y)[2] = weight
            x, y = x / x.sum(), y / y.sum()
            solver = otfew.Sinkhorn(reg=reg, tol=1e-14, max_iter=3000)
            potentials.append(otfew.solve(cost, x, y, solver=solver, on_fail="ignore").potentials[axis][2])
        assert potentials[0] == pytest.approx(potentials[1], abs=1e-6)


@pytest.mark.parametrize("better", [False, True])
def test_only_what_is_proven_stays_optimal_and_all_pivots_count(better):
    # A poor plan that its solver calls optimal; costs far above those that it uses, so that it is asked again.
    cost = np.array([[[0.0, 1.0, 1e9], [1.0, 0.0, 1e9]]])
    a, b = np.array([[0.5, 0.5]]), np.array([[0.5, 0.5, 0.0]])
    poor, good = np.array([[0, 0.5, 0, 0.5, 0, 0]]), np.array([[0.5, 0, 0, 0, 0.5, 0]])

    def answer(flow, n_iter):
        f, g = c_transform(cost, np.zeros((1, 3)), a, b)
        return Answer(None, flow.copy(), f, g, np.zeros(1, np.int8), np.array([n_iter]))

    asked = []

    def again(index, lowered):
        asked.append(float(lowered.max()))
        return answer(good if better else poor, 7)

    found = answer(poor, 3)
    seen = settle(cost, a, b, found, again, Rule(), np.zeros(1), np.zeros(1))
    assert asked[0] < 1e3
    assert found.n_iter == 3 + 7 * len(asked)
    assert found.status == (otfew.Status.OPTIMAL if better else otfew.Status.FAILED)
    assert seen.value == pytest.approx(0 if better else 1, abs=1e-15)


def test_what_is_no_number_has_failed():
    cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, math.nan], [1.0, 0.0]]], dtype=torch.float64)
    half = torch.full((2, 2), 0.5, dtype=torch.float64)
    found = newton.maximise(cost, half, half, 0.1, (None, None), 1e-9, 50)
    assert found.status.tolist() == [otfew.Status.OPTIMAL, otfew.Status.FAILED]


def test_a_plan_at_the_least_cost_is_proven_without_asking_again():
    cost = np.array([[[0.0, 1.0, 1e9], [1.0, 0.0, 1e9]]])
    a, b = np.array([[0.5, 0.5]]), np.array([[0.5, 0.5, 0.0]])
    f, g = c_transform(cost, np.array([[5.0, -5.0, 0.0]]), a, b)
    found = Answer(None, np.array([[0.5, 0, 0, 0, 0.5, 0]]), f, g, np.zeros(1, np.int8), np.ones(1, np.int64))
    seen = settle(cost, a, b, found, lambda *_: pytest.fail("asked again"), Rule(), np.zeros(1), np.zeros(1))
    assert found.status == otfew.Status.OPTIMAL
    assert seen.gap == 0
    assert (found.f == 0).all()
