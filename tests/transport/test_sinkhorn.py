"""Entropic transport against plain loops, POT, closed forms and limits; convergence and its report."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import otfew
from otfew.transport.entropic.plain import PATIENCE, SMALL_PATIENCE, scale, scale_torch

REGS = [3.0, 0.2, 0.03, 0.002]


def by_hand(cost, a, b, reg, rounds=20_000, tol=1e-14):
    """Sinkhorn in the log domain, one entry after another's sum, in numpy alone; returns the plan."""
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a / a.sum()), np.log(b / b.sum())
    f, g = np.zeros(len(a)), np.zeros(len(b))

    def soft(x, axis):
        top = x.max(axis, keepdims=True)
        return (top + np.log(np.exp(x - top).sum(axis, keepdims=True))).squeeze(axis)

    for _ in range(rounds):
        f = -soft(log_b + g - cost / reg, 1)
        plan = np.exp(log_a[:, None] + log_b + f[:, None] + g - cost / reg)
        if np.abs(plan.sum(0) - b / b.sum()).max() <= tol:
            break
        g = -soft(log_a[:, None] + f[:, None] - cost / reg, 0)
    return plan * a.sum()


def objective(plan, cost, a, b, reg):
    """<P, C> + reg KL(P | a b' / total)."""
    held = plan > 0
    product = a[:, None] * b / a.sum()
    return (plan * cost).sum() + reg * ((plan * np.log(plan / product, where=held, out=np.zeros_like(plan))).sum()
                                        - plan.sum() + product.sum())  # fmt: skip


def precise(reg, **options):
    return otfew.Sinkhorn(reg=reg, tol=1e-12, **options)


@pytest.mark.parametrize("reg", REGS)
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
def test_against_a_plain_loop(reg, shape, batch):
    cost, a, b = batch(size=3, n=shape[0], m=shape[1], mass=2.5)
    result = otfew.solve(cost, a, b, solver=precise(reg))
    assert (result.status == otfew.Status.OPTIMAL).all()
    for k in range(3):
        plan = by_hand(cost[k], a[k], b[k], reg)
        np.testing.assert_allclose(result.plan[k], plan, rtol=0, atol=1e-9)
        assert abs(result.value[k] - objective(plan, cost[k], a[k], b[k], reg)) <= 1e-11
        assert abs(result.value_linear[k] - (plan * cost[k]).sum()) <= 1e-9
    f, g = result.potentials
    density = np.exp((f[:, :, None] + g[:, None] - cost) / reg)
    np.testing.assert_allclose(a[:, :, None] * b[:, None] / 2.5 * density, result.plan, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose((g * b).sum(-1), 0, atol=1e-13)
    assert (np.abs(result.gap) <= 1e-10).all()
    assert (result.marginal_error <= 1e-12 + 1e-15).all()


@pytest.mark.parametrize("reg", [1.0, 0.1, 0.02])
def test_against_pot(reg, batch):
    ot = pytest.importorskip("ot")
    cost, a, b = batch(size=2)
    found = otfew.solve(cost, a, b, solver=precise(reg)).plan
    for k in range(2):
        plan = ot.sinkhorn(a[k], b[k], cost[k], reg, "sinkhorn_log", 100_000, 1e-14)
        np.testing.assert_allclose(found[k], plan, rtol=0, atol=1e-10)


@pytest.mark.parametrize("reg", REGS)
def test_float32_within_its_precision(reg, batch):
    cost, a, b = batch(size=20, n=12, m=9, mass=3.0)
    solver = otfew.Sinkhorn(reg=reg)
    single = otfew.solve(cost.astype(np.float32), a, b, solver=solver)
    double = otfew.solve(cost, a, b, solver=precise(reg))
    assert single.plan.dtype == single.potentials[0].dtype == single.potentials[1].dtype == np.float32
    for found in (single.value, single.value_linear, single.gap, single.marginal_error):
        assert found.dtype == np.float64
    assert (single.status == otfew.Status.OPTIMAL).all()
    assert (single.marginal_error <= 1.1e-6).all()
    np.testing.assert_allclose(single.value, double.value, rtol=2e-6)
    # The plan of marginals that are off by 1e-6 may differ by more than that where reg is small.
    np.testing.assert_allclose(single.value_linear, double.value_linear, rtol=1e-4)
    sums = single.plan.astype(float).sum(2)
    np.testing.assert_allclose(sums, a, atol=4e-6)


def test_large_reg_gives_the_product(batch):
    cost, a, b = batch(mass=2.0)
    plan = otfew.solve(cost, a, b, solver=precise(1e8)).plan
    np.testing.assert_allclose(plan, a[:, :, None] * b[:, None] / 2, atol=1e-8)


def test_small_reg_approaches_the_linear_program_within_its_certificate(batch):
    cost, a, b = batch(size=8, n=12, m=10, mass=3.0)
    exact = otfew.solve(cost, a, b).value
    excess = []
    for reg in (0.1, 0.01, 0.001, 1e-4):
        result = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, round=True))
        assert (result.status == otfew.Status.OPTIMAL).all()
        np.testing.assert_allclose(result.plan.sum(2), a, rtol=0, atol=1e-15)
        np.testing.assert_allclose(result.plan.sum(1), b, rtol=0, atol=1e-15)
        assert (result.plan >= 0).all()
        assert (result.marginal_error <= 1e-15).all()
        np.testing.assert_allclose(result.value_linear, (result.plan * cost).sum((1, 2)), atol=1e-14)
        f, g = result.potentials
        assert (f[:, :, None] + g[:, None] <= cost + 1e-14).all()
        np.testing.assert_allclose(result.gap, result.value_linear - (f * a).sum(-1) - (g * b).sum(-1), atol=1e-13)
        assert (result.value_linear >= exact - 1e-13).all()
        assert (result.value_linear - result.gap <= exact + 1e-13).all()
        excess.append((result.value_linear - exact).max())
    assert excess == sorted(excess, reverse=True)
    assert excess[-1] <= 1e-3


def test_rounding_keeps_the_bound_where_nothing_converged(batch):
    cost, a, b = batch(size=5, n=9, m=11)
    solver = otfew.Sinkhorn(reg=0.002, max_iter=3, round=True)
    result = otfew.solve(cost, a, b, solver=solver, on_fail="ignore")
    exact = otfew.solve(cost, a, b).value
    assert (result.status == otfew.Status.MAX_ITER).all()
    np.testing.assert_allclose(result.plan.sum(2), a, atol=1e-15)
    np.testing.assert_allclose(result.plan.sum(1), b, atol=1e-15)
    assert (result.value_linear >= exact - 1e-14).all()
    assert (result.value_linear - result.gap <= exact + 1e-14).all()


def test_two_by_two_in_closed_form():
    """P = [[p, q], [q, p]] with p / q = exp(cost / reg) for equal weights and an off-diagonal cost."""
    cost = np.array([[0.0, 1.0], [1.0, 0.0]])
    for reg in (2.0, 0.3, 0.05):
        ratio = np.exp(1 / reg)
        p, q = ratio / (2 + 2 * ratio), 1 / (2 + 2 * ratio)
        result = otfew.solve(cost, solver=precise(reg))
        np.testing.assert_allclose(result.plan, [[p, q], [q, p]], rtol=1e-10)
        value = 2 * q + reg * (2 * p * np.log(4 * p) + 2 * q * np.log(4 * q))
        assert abs(float(result.value) - value) <= 1e-13


def test_gaussians_on_a_line_in_closed_form():
    """Between N(0, s^2) and N(0, t^2) the entropic plan is Gaussian with covariance c, c^2 + c reg / 2 = s^2 t^2."""
    s, t, reg = 0.8, 1.3, 0.5
    x = np.linspace(-8, 8, 201)
    a, b = (np.exp(-((x / d) ** 2) / 2) for d in (s, t))
    a, b = a / a.sum(), b / b.sum()
    plan = otfew.solve((x[:, None] - x) ** 2, a, b, solver=precise(reg)).plan
    covariance = float(x @ plan @ x)
    expected = -reg / 4 + np.sqrt(reg**2 / 16 + s**2 * t**2)
    assert abs(covariance - expected) <= 1e-7


KINDS = ("uniform", "points", "ties", "outlier", "sum", "huge", "tiny", "offset")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", ["random", "uniform", "ratios", "zeros"])
@pytest.mark.parametrize("fraction", [1.0, 0.05, 1e-3, 1e-4])
def test_hard_problems_converge(kind, weights, fraction):
    """From plan to nearly exact transport: the certificate, not the solver's word, shows that it has converged."""
    rng = np.random.default_rng(7)
    size, n, m = 4, 9, 8
    cost = rng.random((size, n, m))
    spread = 1.0
    if kind == "points":
        x, y = rng.standard_normal((size, n, 3)), rng.standard_normal((size, m, 3))
        cost = ((x[:, :, None] - y[:, None]) ** 2).sum(-1)
    elif kind == "ties":
        cost = rng.integers(0, 4, (size, n, m)).astype(float)
    elif kind == "outlier":
        cost[:, 0, 0] = 1e6
    elif kind == "sum":
        cost = rng.random((size, n, 1)) + rng.random((size, 1, m))
    elif kind in {"huge", "tiny"}:
        spread = 1e12 if kind == "huge" else 1e-12
        cost = cost * spread
    elif kind == "offset":
        cost = cost + 1e3

    def draw(k):
        if weights == "uniform":
            drawn = np.ones((size, k))
        elif weights == "ratios":
            drawn = 10.0 ** rng.uniform(-6, 0, (size, k))
        else:
            drawn = rng.random((size, k)) + 1e-3
            if weights == "zeros":
                drawn *= rng.random((size, k)) < 0.6
                drawn[:, 0] = 1
        return drawn / drawn.sum(-1, keepdims=True)

    a, b = draw(n), draw(m)
    reg = fraction * spread
    result = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg))
    assert (result.status == otfew.Status.OPTIMAL).all()
    assert (result.marginal_error <= 1e-6).all()
    scale = np.ptp(cost, axis=(1, 2)) + reg
    assert (result.gap >= -1e-12 * scale).all()
    assert (result.gap <= 1e-4 * scale).all()
    f, g = result.potentials
    assert np.isfinite(f).all()
    assert np.isfinite(g).all()
    # Between two nodes without weight the exponent may be anything.
    exponent = np.minimum((f[:, :, None] + g[:, None] - cost) / reg, 700)
    plan = a[:, :, None] * b[:, None] * np.exp(exponent)
    np.testing.assert_allclose(plan.sum(2), a, atol=3e-6)
    np.testing.assert_allclose(plan.sum(1), b, atol=3e-6)


@pytest.mark.parametrize("scale", [1e-280, 1e280])
def test_totals_of_extreme_size(scale, batch):
    cost, a, b = batch()
    for reg in (0.1, 0.001):
        solver = precise(reg, max_iter=2000)
        found, expected = otfew.solve(cost, a * scale, b * scale, solver=solver), otfew.solve(cost, a, b, solver=solver)
        np.testing.assert_allclose(found.value / scale, expected.value, rtol=1e-12)
        np.testing.assert_allclose(found.plan / scale, expected.plan, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.value_linear / scale, expected.value_linear, rtol=1e-10)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1)])
@pytest.mark.parametrize("reg", [0.5, 1e-3])
def test_one_row_or_one_column_leaves_no_choice(shape, reg, batch):
    cost, a, b = batch(n=shape[0], m=shape[1], mass=2.0)
    for solver in (otfew.Sinkhorn(reg=reg), otfew.Sinkhorn(reg=reg, round=True)):
        result = otfew.solve(cost, a, b, solver=solver)
        np.testing.assert_allclose(result.plan, a[:, :, None] * b[:, None] / 2, atol=1e-12)
        np.testing.assert_allclose(result.value, result.value_linear, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"round": True}, {"unbalanced": 1.0}, {"gradient": "unrolled"}], ids=str)
def test_empty_batch(options):
    inputs = tuple(torch.zeros(0, *shape, requires_grad=True) for shape in ((4, 3), (4,), (3,)))
    result = otfew.solve(*inputs, solver=otfew.Sinkhorn(**options))
    assert result.value.shape == result.gap.shape == result.marginal_error.shape == result.status.shape == (0,)
    assert result.plan.shape == (0, 4, 3)
    total = result.value.sum() + result.value_linear.sum() + result.plan.sum()
    assert [x.shape for x in torch.autograd.grad(total, inputs)] == [x.shape for x in inputs]


def test_expanded_and_transposed_costs_are_read_as_they_are(batch):
    cost, a, b = (torch.from_numpy(x) for x in batch())
    shared = cost[:1].expand(6, 7, 5)
    for solver in (otfew.Sinkhorn(tol=1e-12), otfew.Sinkhorn(reg=1e-3, tol=1e-12)):
        found = otfew.solve(shared, a, b, solver=solver)
        expected = otfew.solve(shared.contiguous(), a, b, solver=solver)
        torch.testing.assert_close(found.plan, expected.plan, rtol=1e-9, atol=1e-12)
        turned = otfew.solve(cost.mT.contiguous().mT, a, b, solver=solver).plan
        torch.testing.assert_close(turned, otfew.solve(cost, a, b, solver=solver).plan, rtol=1e-9, atol=1e-12)


def test_plain_domain_on_any_device_does_as_the_compiled_one(batch):
    cost, a, b = (torch.from_numpy(x) for x in batch(size=30, n=9, m=12))
    cost[::7] *= 100
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 3e-5)):
        inputs = cost.to(dtype), 2.5 * a, 2.5 * b
        # Later iterations of the compiled one are extrapolated.
        for max_iter in (3, SMALL_PATIENCE):
            first, second = scale(*inputs, 0.1, 1e-6, max_iter), scale_torch(*inputs, 0.1, 1e-6, max_iter)
            left = first.n_iter == 0
            assert left.tolist() == [k % 7 == 0 for k in range(30)]
            if dtype == torch.float64:
                assert torch.equal(first.n_iter, second.n_iter)
                assert torch.equal(first.status, second.status)
            torch.testing.assert_close((first.a, first.b, first.mass), (second.a, second.b, second.mass))
            for name in ("phi", "psi", "plan", "value"):
                x, y = getattr(first, name)[~left], getattr(second, name)[~left]
                torch.testing.assert_close(x, y, rtol=rtol, atol=rtol)


def cloud(n, m, seed=0):
    """Squared distances, the largest 1, between points whose weights differ."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((n, 2)), rng.random((m, 2)) ** 2
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
    return cost / cost.max(), a / a.sum(), b / b.sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(60, 50), (50, 63), (9, 300), (300, 9), (64, 64)])
@pytest.mark.parametrize("reg", [0.1, 0.02, 0.01])
def test_larger_problems_against_a_plain_loop(reg, shape, dtype):
    """Large enough that iterations are extrapolated; at reg 0.02 and below out of the plain domain of float32."""
    cost, a, b = (x.astype(dtype) for x in cloud(*shape))
    result = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, tol=1e-7))
    wide = [x.astype(np.float64) for x in (cost, a, b)]
    expected = by_hand(*wide, reg, tol=1e-10)
    assert result.status == otfew.Status.OPTIMAL
    assert result.marginal_error <= (2e-7 if dtype == np.float64 else 1e-6)
    np.testing.assert_allclose(result.plan, expected, rtol=0, atol=2e-6)
    assert abs(result.value - objective(expected, *wide, reg)) <= (1e-9 if dtype == np.float64 else 1e-6)
    assert -1e-14 <= result.gap <= 1e-5


def test_extrapolation_saves_iterations():
    """The rate of plain iterations at reg 0.01 is about 0.9: more than a hundred for six digits."""
    cost, a, b = (torch.from_numpy(x)[None] for x in cloud(80, 70))
    found = scale(cost, a, b, 0.01, 1e-9, 100)
    plain = scale_torch(cost, a, b, 0.01, 1e-9, 1000)
    assert found.error <= 1e-9
    assert PATIENCE < found.n_iter < plain.n_iter / 3
    torch.testing.assert_close(found.plan, plain.plan, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.plan.sum(2), a, rtol=1e-12)
    for side, weights in ((1, b), (2, a)):
        assert (found.plan.sum(side) - weights).abs().max() <= 1e-9


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [12, 70])
def test_wide_and_narrow_problems_in_one_batch(size, dtype):
    """Each is solved as alone, bit for bit, whichever domain and precision its neighbours need."""
    parts = [cloud(size, size, seed) for seed in range(4)]
    cost, a, b = (np.stack([part[i] for part in parts]).astype(dtype) for i in range(3))
    cost *= np.array([1, 0.1, 10, 100], dtype)[:, None, None]
    solver = otfew.Sinkhorn(reg=0.03, max_iter=500)
    together = otfew.solve(cost, a, b, solver=solver)
    assert (together.status == otfew.Status.OPTIMAL).all()
    for k in range(3):
        alone = otfew.solve(cost[k], a[k], b[k], solver=solver)
        for name in ("value", "plan", "n_iter", "marginal_error"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together, name)[k])


@pytest.mark.parametrize("reach", [165, 175])
def test_the_end_of_the_plain_domain(reach):
    """Costs at both ends of the range, and weights without mass or with next to none."""
    rng = np.random.default_rng(0)
    cost = rng.choice([0.0, 2.0], (60, 52))
    cost += 1 - cost.mean()
    a, b = rng.random(60), rng.random(52)
    a[[3, 7]], b[[1, 2]] = [0, 1e-30], [1e-200, 0]
    b *= a.sum() / b.sum()
    reg = np.abs(cost - cost.mean()).max() / reach
    result = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, tol=1e-8))
    assert result.status == otfew.Status.OPTIMAL
    assert result.marginal_error <= 1e-8 * 1.01
    assert -1e-14 <= result.gap <= 1e-5
    log = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, gradient="unrolled", tol=1e-8, max_iter=3000))
    np.testing.assert_allclose(result.value, log.value, rtol=1e-6)
    np.testing.assert_allclose(result.plan, log.plan, rtol=0, atol=1e-6)
    for potential in result.potentials:
        assert np.isfinite(potential).all()


def test_what_does_not_converge_is_reported(batch):
    cost, a, b = batch(size=4)
    cost[2] *= 1e-3
    solver = otfew.Sinkhorn(reg=0.002, max_iter=4)
    with pytest.warns(otfew.ConvergenceWarning, match=r"sinkhorn did not reach .* 3 of 4 .*index 0 \(MAX_ITER"):
        result = otfew.solve(cost.astype(np.float32), a, b, solver=solver)
    assert result.status.tolist() == [1, 1, 0, 1]
    assert (result.n_iter[[0, 1, 3]] == 4).all()
    assert (result.marginal_error[[0, 1, 3]] > 1e-6).all()
    with pytest.raises(otfew.ConvergenceError):
        otfew.solve(cost, a, b, solver=solver, on_fail="raise")


def test_nothing_is_said_where_all_is_well(batch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        otfew.solve(*batch(), solver="sinkhorn")


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e300])
@pytest.mark.parametrize("reg", [1.0, 1e-3])
def test_a_problem_without_an_answer_fails_alone(bad, reg, batch):
    cost, a, b = batch(size=5)
    expected = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg))
    cost[3, 2, 2] = bad
    found = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg, max_iter=300), validate=False, on_fail="ignore")
    others = [0, 1, 2, 4]
    if not np.isfinite(bad):
        assert found.status[3] == otfew.Status.FAILED
    np.testing.assert_allclose(found.value[others], expected.value[others], rtol=1e-12)
    np.testing.assert_allclose(found.plan[others], expected.plan[others], rtol=1e-9, atol=1e-12)
    assert (found.status[others] == otfew.Status.OPTIMAL).all()


def test_autocast_changes_nothing(batch):
    inputs = tuple(torch.from_numpy(x).float() for x in batch())
    expected = otfew.solve(*inputs, solver=otfew.Sinkhorn(reg=0.001)).plan
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(otfew.solve(*inputs, solver=otfew.Sinkhorn(reg=0.001)).plan, expected)


def test_a_large_problem_takes_steps_without_linear_algebra(monkeypatch, batch):
    from otfew.transport.entropic import newton as sinkhorn_newton

    cost, a, b = batch(size=2, n=30, m=20)
    solver = otfew.Sinkhorn(reg=0.01, max_iter=20_000)
    expected = otfew.solve(cost, a, b, solver=solver)
    monkeypatch.setattr(sinkhorn_newton, "LARGEST", 10)
    monkeypatch.setattr(sinkhorn_newton, "schur_solve", None)
    found = otfew.solve(cost, a, b, solver=solver)
    assert (found.status == otfew.Status.OPTIMAL).all()
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reg": 0.0}, "Sinkhorn: reg must be a positive finite number, got 0.0"),
        ({"reg": -1}, "Sinkhorn: reg must be"),
        ({"reg": float("nan")}, "Sinkhorn: reg must be"),
        ({"reg": float("inf")}, "Sinkhorn: reg must be"),
        ({"reg": "small"}, "Sinkhorn: reg must be"),
        ({"tol": 0}, "Sinkhorn: tol must be"),
        ({"max_iter": 0}, "Sinkhorn: max_iter must be an integer of at least 1, got 0"),
        ({"max_iter": 1.5}, "Sinkhorn: max_iter must be"),
        ({"gradient": "magic"}, "Sinkhorn: gradient must be 'implicit' or 'unrolled', got 'magic'"),
        ({"unbalanced": 0.0}, "Sinkhorn: unbalanced must be"),
        ({"unbalanced": (1.0,)}, "Sinkhorn: unbalanced must be"),
        ({"unbalanced": (1.0, -1.0)}, "Sinkhorn: unbalanced must be"),
        ({"unbalanced": 1.0, "round": True}, "Sinkhorn: round needs hard marginals"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        otfew.Sinkhorn(**options)


def test_potentials_of_a_run_cut_short_are_those_of_its_plan(batch):
    """Also where the regularisation was still on its way down."""
    cost, a, b = batch(size=3)
    for max_iter in (1, 2, 5, 10):
        result = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=1e-3, max_iter=max_iter), on_fail="ignore")
        assert (result.status == otfew.Status.MAX_ITER).all()
        f, g = result.potentials
        plan = a[:, :, None] * b[:, None] * np.exp((f[:, :, None] + g[:, None] - cost) / 1e-3)
        np.testing.assert_allclose(result.plan, plan, rtol=1e-9, atol=1e-14)
        error = np.maximum(np.abs(plan.sum(2) - a).max(-1), np.abs(plan.sum(1) - b).max(-1))
        np.testing.assert_allclose(result.marginal_error, error, rtol=1e-6)
        optimum = otfew.solve(cost, a, b, solver=precise(1e-3)).value
        assert (result.value <= optimum + 1e-12).all()
        assert (result.value + result.gap >= optimum - 1e-12).all()
