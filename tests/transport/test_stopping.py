"""When iterations stop, what is handed out where they stop early, and what it proves of itself."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import otfew
from otfew.transport.entropic import kernel, newton, plain, points, reductions
from otfew.transport.problem import UNSURE, build
from otfew.transport.simplex.exact import Exact

as_plain_python = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="before NumPy 2, a uint64 and an int made a float"
)
"""For tests that run compiled functions as plain Python."""
METRICS = [reductions.SQUARED, reductions.Metric("euclidean")]


def draw(n=6, m=5, seed=0):
    """One problem of uniform costs and random weights."""
    rng = np.random.default_rng(seed)
    return rng.random((n, m)), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


def unsure(cost, a, b, flow):
    """What the kernel is unsure of: a plan of a 2 x 3 problem on two arcs, with potentials of zero."""
    problem = build(*(torch.tensor([x], dtype=torch.float64) for x in (cost, a, b)), torch.Size([1]))
    rows, cols = np.array([[0, 1, 1, 0]], np.int32), np.array([[0, 1, 2, 2]], np.int32)
    return problem, replace(
        Exact()._run(problem), rows=rows, cols=cols, flow=np.array([[*flow, 0.0, 0.0]]), f=np.zeros((1, 2)),
        g=np.zeros((1, 3)), status=np.array([UNSURE], np.int8), n_iter=np.array([3]),
    )  # fmt: skip


@pytest.mark.parametrize("mass", [1.0, 8.0])
@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_what_is_within_the_tolerance_is_not_solved_again(spread, mass):
    # The plan pays d / 2 a unit of mass and need not pay anything; a column without weight spans the costs.
    half = [0.5 * mass, 0.5 * mass]
    for d, within in ((0.01, True), (0.04, False)):
        cost = [[d * spread, 0.0, spread], [0.0, 0.0, 0.0]]
        problem, found = unsure(cost, half, [*half, 0.0], half)
        Exact(tol=0.01)._settle(problem, found, np.array([0]))
        assert found.status == otfew.Status.OPTIMAL
        assert found.value == pytest.approx(0.5 * d * spread * mass if within else 0, abs=1e-12)
        assert found.gap >= found.value - 1e-12


@pytest.mark.parametrize("mass", [1.0, 8.0])
def test_errors_of_what_was_settled_are_relative(mass):
    half = [0.5 * mass, 0.5 * mass]
    cost = [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]
    problem, found = unsure(cost, half, [*half, 0.0], [0.5 * mass, 0.499 * mass])
    Exact(tol=0.01)._settle(problem, found, np.array([0]))
    assert found.marginal_error == pytest.approx(0.001, rel=1e-9)


def test_columns_without_weight_are_up_to_date_wherever_an_unrolled_run_is_cut():
    cost, a, b = draw()
    b = np.where(np.arange(5) == 2, 0.0, b)
    b /= b.sum()
    for most in (1, 2, 5):
        cut = otfew.Sinkhorn(reg=0.1, gradient="unrolled", max_iter=most)
        f, g = otfew.solve(cost, a, b, solver=cut, on_fail="ignore").potentials
        best = -0.1 * np.log((a * np.exp((f - cost[:, 2]) / 0.1)).sum())
        assert g[2] == pytest.approx(best, abs=1e-12)


def test_iterations_of_an_unrolled_problem_do_not_depend_on_batch_mates():
    cost, a, b = draw()
    costs = np.stack([cost, 20 * cost, 0 * cost])
    solver = otfew.Sinkhorn(reg=0.5, gradient="unrolled")
    alone = [int(otfew.solve(x, a, b, solver=solver).n_iter) for x in costs]
    assert alone[2] < alone[0] < alone[1] < solver.max_iter
    assert otfew.solve(costs, a, b, solver=solver).n_iter.tolist() == alone


@pytest.mark.parametrize("axis", [0, 1])
def test_nodes_without_weight_may_be_cheaper_by_any_number_of_regs(axis):
    cost, a, b = draw()
    solver = otfew.Sinkhorn(reg=0.1, gradient="unrolled")
    expected = otfew.solve(cost, a, b, solver=solver)
    padded = np.insert(cost, 2, -1e3, axis=1 - axis)
    inputs = padded, *(np.insert(w, 2, 0.0) if side == axis else w for side, w in ((1, a), (0, b)))
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
    result = otfew.solve(*leaves, solver=solver)
    assert result.status == otfew.Status.OPTIMAL
    assert result.value.item() == pytest.approx(float(expected.value), abs=1e-9)
    assert np.delete(result.plan.detach().numpy(), 2, 1 - axis) == pytest.approx(expected.plan, abs=1e-9)
    for grad in torch.autograd.grad(result.value, leaves):
        assert torch.isfinite(grad).all()


def by_points(x, y, a=None, b=None, **options):
    solver = otfew.KeOps(backend="torch", **options)
    return otfew.solve_points(x, y, a, b, solver=solver, on_fail="ignore")


def test_nothing_ends_above_the_temperature_that_was_asked_for():
    # A cloud against itself: by symmetry both marginals are right at every temperature, but only one is asked for.
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for reg in (0.5, 0.1, 0.02):
        result = by_points(x, x, reg=reg)
        assert result.status == otfew.Status.OPTIMAL
        assert float(result.value) == pytest.approx(-reg * math.log((1 + math.exp(-1 / reg)) / 2), rel=1e-12)
        stay = 0.5 / (1 + math.exp(-1 / reg))
        expected = torch.tensor([[stay, 0.5 - stay], [0.5 - stay, stay]], dtype=torch.float64)
        torch.testing.assert_close(result.plan.dense(), expected, rtol=1e-12, atol=1e-15)


def test_errors_and_iterations_of_points_do_not_depend_on_the_mass():
    rng = np.random.default_rng(1)
    x, y = (torch.from_numpy(rng.random((k, 2))) for k in (7, 6))
    a, b = (torch.from_numpy(rng.dirichlet(np.ones(k))) for k in (7, 6))
    for options in ({"max_iter": 4}, {"tol": 1e-6}):
        one, many = (by_points(x, y, s * a, s * b, reg=0.02, **options) for s in (1.0, 1024.0))
        assert one.marginal_error > 1e-9
        assert float(many.marginal_error) == pytest.approx(float(one.marginal_error), rel=1e-9)
        assert many.n_iter == one.n_iter


@pytest.mark.parametrize("unbalanced", [None, 0.5, (None, 0.3), (0.3, None)], ids=str)
@pytest.mark.parametrize("most", [1, 2, 4])
def test_wherever_newton_is_cut_its_plan_is_that_of_reg(unbalanced, most):
    cost, a, b = draw(7, 5, seed=2)
    reg = 1e-3
    solver = otfew.Sinkhorn(reg=reg, max_iter=most, unbalanced=unbalanced)
    cut = otfew.solve(cost, a, b, solver=solver, on_fail="ignore")
    assert cut.status == otfew.Status.MAX_ITER
    f, _ = cut.potentials
    rho = solver.rhos[0]
    rows = a if rho is None else a * np.exp(-f / rho)
    # The larger side is solved for in every step, so that its condition holds.
    assert cut.plan.sum(1) == pytest.approx(rows, rel=1e-9)
    assert cut.marginal_error > solver.tol


def test_columns_that_nobody_misses_do_not_shorten_the_steps_of_others():
    rng = np.random.default_rng(3)
    cost, a, b = (torch.from_numpy(x)[None] for x in (rng.random((6, 4)), rng.dirichlet(np.ones(6)), np.full(4, 0.25)))
    one, psi = torch.ones(1, 1, dtype=torch.float64), torch.from_numpy(rng.random((1, 4)))
    light = 1e-8

    def step(cost, b, psi):
        point = newton._evaluate(b.log()[:, None] - 5 * cost, a, b, psi.clone(), one, one)
        return newton._newton(point, psi, one, one, light, True, None) - psi

    alone = step(cost, b, psi)
    # One more column, that is to carry 1e-60 and carries a 1e-40th of that: its own step is long.
    added = torch.nn.functional.pad(cost, (0, 1)), *(torch.nn.functional.pad(x, (0, 1), value=v) for x, v in (
        (b, 1e-60), (psi, -90.0)))  # fmt: skip
    together = step(*added)
    assert alone.abs().max() > 0.1
    torch.testing.assert_close(together[:, :4], alone, rtol=1e-9, atol=0)
    assert 50 < float(together[0, 4]) < 100


@pytest.mark.parametrize("ratio", [1.0, 1e8, 1e50, 1e100])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_a_constant_that_is_far_away_is_reached_at_once(offset, ratio):
    # All that offsets of the costs and unequal totals change is a constant in the potentials, and how much is carried.
    cost, a, b = draw()
    solver = otfew.Sinkhorn(reg=0.1, unbalanced=1.0)
    result = otfew.solve(cost + offset, a, ratio * b, solver=solver)
    assert result.status == otfew.Status.OPTIMAL
    assert result.n_iter <= 15


@pytest.mark.parametrize("unbalanced", [None, 0.5], ids=str)
@pytest.mark.parametrize("reg", [0.1, 1e-3])
def test_the_gap_scales_with_the_mass(reg, unbalanced):
    cost, a, b = draw()
    solver = otfew.Sinkhorn(reg=reg, max_iter=3, unbalanced=unbalanced)
    one, many = (otfew.solve(cost, s * a, s * b, solver=solver, on_fail="ignore").gap for s in (1.0, 1024.0))
    assert one > 1e-6
    assert float(many) == pytest.approx(1024 * float(one), rel=1e-9)


@pytest.mark.parametrize("run", [plain.scale, plain.scale_torch])
@pytest.mark.parametrize("side", [0, 1])
def test_what_holds_nan_has_not_converged(run, side):
    cost = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = [torch.full((3, k), 1 / k, dtype=torch.float64) for k in (4, 5)]
    weights[side][1, 2] = math.nan
    found = run(cost, *weights, 0.5, 1e-6, 50)
    assert found.status.tolist() == [0, 1, 0]
    assert found.error.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(
    "options", [{"reg": 0.1}, {"reg": 1e-3}, {"unbalanced": 1.0}, {"gradient": "unrolled"}], ids=str
)
def test_weights_that_are_no_numbers_fail_alone(options):
    cost = np.random.default_rng(0).random((3, 4, 5))
    a, b = np.full((3, 4), 1 / 4), np.full((3, 5), 1 / 5)
    for weights in (a, b):
        kept, weights[1, 2] = weights[1, 2], math.nan
        found = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(**options), validate=False, on_fail="ignore")
        assert found.status.tolist() == [otfew.Status.OPTIMAL, otfew.Status.FAILED, otfew.Status.OPTIMAL]
        weights[1, 2] = kept


@as_plain_python
@pytest.mark.parametrize("rate", [0.5, 0.9, 0.95, 0.999])
def test_extrapolation_sums_a_geometric_series_where_that_is_not_too_far(rate, monkeypatch):
    monkeypatch.setattr(kernel, "_combine", kernel._combine.py_func)
    memory, gram, right = np.zeros((2 * kernel.DEPTH + 2, 3)), np.zeros((6, 6)), np.zeros(6)
    q = np.array([0.5, 1.0, 1.5])
    start, sums, residual = q.copy(), 2 * q, math.log(2)
    # Each step is ``rate`` times the one before: this one and all that follow make residual / (1 - rate).
    memory[2 * kernel.DEPTH :] = residual / rate
    seen = kernel._extrapolate.py_func(memory, gram, right, np.full(3, 1 / 3), q, sums, 3, 1, 1e-14)
    rest = residual * rate / (1 - rate)
    sound = rest <= kernel.LARGEST_STEP
    assert np.log(q / start) == pytest.approx(residual + rest if sound else residual, rel=1e-9)
    assert seen == (2 if sound else 1)


@pytest.mark.parametrize("dtype", plain.REACH)
def test_numbers_hold_what_the_plain_domain_may_make_of_them(dtype):
    # Scalings lie within exp(4 reach) of the weights.
    info = torch.finfo(dtype)
    assert 4 * plain.REACH[dtype] < min(math.log(info.max), -math.log(info.tiny))


def certified(x, y, a, b, reg, most):
    """A run cut short, and the ends of what its gap may be, made from matrices: see ``point_clouds._gap``."""
    cut = by_points(x, y, a, b, reg=reg, max_iter=most)
    cost = (x[:, None] - y).square().sum(-1)
    plan = cut.plan.dense()

    def kl(p, q):
        return (torch.xlogy(p, p / q) - p + q).sum()

    product = a[:, None] * b
    shrink = (b / plan.sum(0)).clamp(max=1)
    kept = plan * shrink
    rows, columns = (a - kept.sum(1)).clamp(min=0), (b - kept.sum(0)).clamp(min=0)
    d = columns.sum()
    filled = rows[:, None] * columns / rows.sum()
    exact = kept + filled
    least = (exact * cost).sum() + reg * kl(exact, product) - cut.value
    # By convexity the two parts may be charged one by one, what is filled in at the highest cost that there may be.
    centre = (x.mean(0) + y.mean(0)) / 2
    highest = sum((z - centre).square().sum(-1).max().sqrt() for z in (x, y)) ** 2
    apart = kl(kept, (1 - d) * plan) + kl(filled, d * plan) + (filled * (highest - cost)).sum() / reg
    return cut, least, least + reg * (apart - kl(exact, plan))


@pytest.mark.parametrize("most", [2, 4, 8])
def test_the_gap_of_points_is_that_of_a_plan_with_exact_sums(most):
    rng = np.random.default_rng(5)
    for reg in (0.3, 0.1):
        x, y = (torch.from_numpy(rng.random((k, 2))) for k in (7, 6))
        a, b = (torch.from_numpy(rng.dirichlet(np.ones(k))) for k in (7, 6))
        cut, least, highest = certified(x, y, a, b, reg, most)
        assert cut.marginal_error > 1e-5
        assert least <= cut.gap * (1 + 1e-9)
        assert cut.gap <= highest * (1 + 1e-9)


@pytest.mark.parametrize("reg", [0.3, 0.06])
@pytest.mark.parametrize(("n", "m"), [(3, 4), (12, 14)])
def test_gradients_of_points_are_those_of_matrices(n, m, reg):
    rng = np.random.default_rng(6)
    x, y = (torch.from_numpy(rng.random((k, 2))).requires_grad_() for k in (n + 2, m + 2))
    # Rows and columns without weight have the derivative towards some.
    a, b = (torch.tensor([*rng.dirichlet(np.ones(k)), 0.0, 0.0], dtype=torch.float64) for k in (n, m))
    leaves = x, y, a.requires_grad_(), b.requires_grad_()
    points = by_points(*leaves, reg=reg, tol=1e-12)
    cost = (x[:, None] - y).square().sum(-1)
    dense = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, tol=1e-14), on_fail="ignore")
    assert points.status == otfew.Status.OPTIMAL
    found, expected = (torch.autograd.grad(result.value_linear, leaves) for result in (points, dense))
    for ours, its in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours, its, rtol=1e-8, atol=1e-9)
    # Derivatives in weights are determined but for constants of the two sides that cancel.
    shift = (expected[2] - found[2])[0]
    torch.testing.assert_close(found[2] + shift, expected[2], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found[3] - shift, expected[3], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["power", "euclidean"])
@pytest.mark.parametrize("p", [2.0, 1.5])
def test_costs_of_points_are_bounded(kind, p):
    rng = np.random.default_rng(7)
    metric = reductions.Metric(kind, p if kind == "power" else 2.0)
    # Opposite points reach the bound.
    x, y = (torch.from_numpy(rng.standard_normal((20, 3, 2))) for _ in range(2))
    y[:10, 0] = -x[:10, 0]
    found = points.largest_cost(x, y, metric)
    differences = (x[:, :, None] - y[:, None]).abs()
    costs = (differences**p).sum(-1) if kind == "power" else differences.square().sum(-1).sqrt()
    assert (costs.amax((1, 2)) <= found * (1 + 1e-12)).all()
    assert points.largest_cost(x[:1, :1], y[:1, :1], metric) == pytest.approx(float(costs[0, 0, 0]), rel=1e-12)


@pytest.mark.parametrize(
    "metric", [reductions.SQUARED, reductions.Metric("euclidean"), reductions.Metric("power", 1.5)]
)
def test_sums_over_points_do_not_depend_on_blocks(metric, monkeypatch):
    rng = np.random.default_rng(8)
    x, y, r, c, v = (
        torch.from_numpy(rng.standard_normal(shape)) for shape in ((3, 11, 2), (3, 5, 2), (3, 11), (3, 5), (3, 5, 2))
    )
    sums = reductions.ChunkedTorch(metric)

    def all_of_them():
        # Memory that nothing was written to shall not look right.
        monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, shape: self.new_full(shape, math.nan))
        weights = torch.zeros_like(r), torch.ones_like(c)
        return (
            sums.logsumexp(x, y, c), sums.apply(x, y, r, c, v), sums.apply(x, y, r, c, v, weighted=True),
            sums.gradient(x, y, r, c), sums.gradient(x, y, r, c, weights), sums.dense(x, y, r, c),
        )  # fmt: skip

    whole = all_of_them()
    for entries in (5, 10, 20, 60, 120):
        monkeypatch.setattr(reductions, "ELEMENTS_PER_THREAD", -(-entries // torch.get_num_threads()))
        for found, expected in zip(all_of_them(), whole, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("metric", METRICS, ids=str)
def test_large_row_and_column_terms_cancel_before_they_are_rounded(metric):
    rng = np.random.default_rng(9)
    x, y = (torch.from_numpy(rng.random((2, k, 2)).astype(np.float32)) for k in (6, 5))
    r, c, v = (torch.from_numpy(rng.random(shape)) for shape in ((2, 6), (2, 5), (2, 5, 1)))
    sums = reductions.ChunkedTorch(metric)
    for name, args in (("apply", (v,)), ("gradient", ()), ("dense", ())):
        near, far = (getattr(sums, name)(x, y, r + s, c - s, *args) for s in (0.0, 1e4))
        torch.testing.assert_close(far, near, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rhos", [(None, 0.3), (0.3, None)], ids=str)
@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
def test_the_gap_bounds_the_error_where_one_marginal_is_hard(rhos, shape):
    cost, a, b = draw(*shape, seed=4)
    whole = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=0.05, tol=1e-13, unbalanced=rhos), on_fail="ignore")
    errors = []
    for most in (1, 2, 3, 4, 6):
        solver = otfew.Sinkhorn(reg=0.05, max_iter=most, unbalanced=rhos)
        cut = otfew.solve(cost, a, b, solver=solver, on_fail="ignore")
        errors.append(abs(cut.value - whole.value))
        assert cut.gap >= errors[-1] - 1e-12
    assert max(errors) > 1e-3


@pytest.mark.filterwarnings("ignore")  # cut short on purpose
@pytest.mark.parametrize("method", ["sinkhorn_log", "sinkhorn", "sinkhorn_stabilized"])
def test_a_run_of_pot_that_is_cut_took_all_of_its_iterations(method):
    pytest.importorskip("ot")
    cost, a, b = draw()
    for most in (2, 11, 25):
        cut = otfew.solve(cost, a, b, solver=otfew.POTSinkhorn(reg=0.01, method=method, max_iter=most))
        assert cut.status == otfew.Status.MAX_ITER
        assert cut.n_iter == most


def test_geomloss_is_measured_by_its_own_tolerance():
    pytest.importorskip("geomloss")
    rng = np.random.default_rng(10)
    x, y = (torch.from_numpy(rng.random((k, 2))) for k in (9, 8))
    settings = {"reg": 0.02, "scaling": 0.7, "backend": "tensorized"}
    error = otfew.solve_points(x, y, solver=otfew.GeomLoss(**settings), on_fail="ignore").marginal_error.item()
    for factor, status in ((1.1, otfew.Status.OPTIMAL), (0.9, otfew.Status.MAX_ITER)):
        solver = otfew.GeomLoss(tol=factor * error, **settings)
        assert otfew.solve_points(x, y, solver=solver, on_fail="ignore").status == status


@pytest.mark.parametrize("reg", [0.1, 1e-3])
def test_clouds_of_one_place_have_the_product_as_plan(reg):
    pytest.importorskip("geomloss")
    x, y = (torch.full((k, 2), 0.25, dtype=torch.float64) for k in (3, 4))
    for solver in (otfew.GeomLoss(reg=reg, backend="tensorized"), otfew.KeOps(reg=reg, backend="torch")):
        result = otfew.solve_points(x, y, solver=solver)
        assert result.status == otfew.Status.OPTIMAL
        assert result.value.item() == pytest.approx(0, abs=1e-15)
        torch.testing.assert_close(result.plan.dense(), torch.full((3, 4), 1 / 12, dtype=torch.float64))
        assert result.n_iter >= 1


def test_highs_carries_what_is_far_below_its_tolerance_of_the_total():
    # Its tolerances of 1e-10 are for masses that are one on average, not for their shares.
    for seed, weight in enumerate((9e-11, 4e-11, 2e-11)):
        cost, a, b = draw(40, 40, seed)
        a[3] = weight
        a /= a.sum()
        plan = otfew.solve(cost, a, b, solver="scipy").plan
        assert plan[3].sum() == pytest.approx(weight, rel=0.2)


@pytest.mark.parametrize("run", [plain.scale, plain.scale_torch])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_costs_out_of_reach_on_either_side_are_left_alone(run, sign):
    rng = np.random.default_rng(11)
    cost = torch.from_numpy(rng.random((2, 4, 5)))
    cost[1, 2, 3] = sign * 200
    a, b = (torch.full((2, k), 1 / k, dtype=torch.float64) for k in (4, 5))
    found = run(cost, a, b, 1.0, 1e-6, 100)
    assert (found.n_iter > 0).tolist() == [True, False]
    assert found.status.tolist() == [0, 1]


@as_plain_python
def test_an_error_that_grows_makes_the_past_forgotten(monkeypatch):
    for name in ("_begin", "_column_sums", "_sweep"):
        monkeypatch.setattr(kernel, name, getattr(kernel, name).py_func)
    told = []

    def spoil_the_second(memory, gram, right, weights, q, sums, m, seen, ridge):
        told.append(seen)
        q[:] = sums * (np.array([5.0, 1.0, 0.2]) if len(told) == 2 else 1.0)
        return seen + 1

    monkeypatch.setattr(kernel, "_extrapolate", spoil_the_second)
    rng = np.random.default_rng(12)
    cost, a, b = rng.random((3, 3)), rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3))
    p, q, u, v, sums = (np.zeros(3) for _ in range(5))
    used = kernel._iterate.py_func(
        np.exp(-cost).ravel(), None, 0, a, b, p, q, u, v, sums, None, None, None, 0.0, 0.0, 6, 1, 0.0, 3, 3, 3
    )[1]
    assert used == 6
    assert told == [0, 1, 0, 1, 2]
