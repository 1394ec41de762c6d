"""Transport on the line: against POT, our exact solver, closed forms, laws and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import otfew

POWERS = (1, 1.5, 2.0, 3.0)


def problem(rng, size=3, n=9, m=7, ties=False, mass=1.0):
    x, y = rng.standard_normal((size, n)), rng.standard_normal((size, m))
    if ties:
        x, y = np.round(x), np.round(y)
    a, b = rng.random((size, n)) + 0.05, rng.random((size, m)) + 0.05
    if ties:
        a, b = np.ceil(3 * a) * (rng.random((size, n)) < 0.7), np.ceil(3 * b)
        a[:, 0] += 1
    return x, y, a * (mass / a.sum(-1, keepdims=True)), b * (mass / b.sum(-1, keepdims=True))


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("ties", [False, True])
def test_against_the_linear_program(p, ties):
    """Coincident points, zero weights, single points; the certificate is checked pair by pair."""
    rng = np.random.default_rng(0)
    for n, m in ((9, 7), (1, 6), (5, 1), (1, 1), (30, 40)):
        x, y, a, b = problem(rng, n=n, m=m, ties=ties, mass=2.5)
        cost = np.abs(x[:, :, None] - y[:, None]) ** p
        found, expected = otfew.solve_1d(x, y, a, b, p=p), otfew.solve(cost, a, b)
        np.testing.assert_allclose(found.value, expected.value, atol=1e-12)
        f, g = found.potentials
        assert (f[:, :, None] + g[:, None] <= cost + 1e-12).all()
        np.testing.assert_allclose((g * b).sum(1), 0, atol=1e-12)
        np.testing.assert_allclose(found.gap, found.value - (f * a).sum(1) - (g * b).sum(1), atol=1e-13)
        assert np.abs(found.gap).max() <= 1e-12
        plan = found.plan
        assert (plan >= 0).all()
        np.testing.assert_allclose(plan.sum(2), a, atol=1e-14)
        np.testing.assert_allclose(plan.sum(1), b, atol=1e-14)
        np.testing.assert_allclose((plan * cost).sum((1, 2)), found.value, atol=1e-13)
        assert (found.marginal_error <= 1e-14).all()
        assert (found.status == otfew.Status.OPTIMAL).all()


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_against_pot(p):
    ot = pytest.importorskip("ot")
    x, y, a, b = problem(np.random.default_rng(1), size=4, n=50, m=60)
    found = otfew.solve_1d(x, y, a, b, p=p)
    for k in range(4):
        plan = ot.emd_1d(x[k], y[k], a[k], b[k], metric="minkowski", p=p)
        np.testing.assert_allclose(found.plan[k], plan, atol=1e-14)
        np.testing.assert_allclose(found.value[k], ot.wasserstein_1d(x[k], y[k], a[k], b[k], p=p), rtol=1e-12)


def test_closed_forms():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 3, 20))
    matched = np.sort(x) - np.sort(y)
    for p in POWERS:
        np.testing.assert_allclose(otfew.solve_1d(x, y, p=p).value, (np.abs(matched) ** p).mean(1), rtol=1e-12)
        np.testing.assert_allclose(otfew.solve_1d(x, x + 3.0, p=p).value, 3.0**p, rtol=1e-12)
        np.testing.assert_allclose(otfew.solve_1d(x, x[:, ::-1].copy(), p=p).value, 0, atol=1e-300)
        np.testing.assert_allclose(otfew.solve_1d(-2 * x, -2 * y, p=p).value, 2**p * otfew.solve_1d(x, y, p=p).value)
    # Quantiles of two step functions.
    steps = (np.array(z) for z in ([0.0, 1.0], [4.0, 2.0], [0.25, 0.75], [0.5, 0.5]))
    value = otfew.solve_1d(*steps).value
    np.testing.assert_allclose(value, 0.25 * 4 + 0.25 * 1 + 0.5 * 9)


@pytest.mark.parametrize("p", POWERS)
def test_gradients_in_points_and_weights(p):
    given = [
        torch.from_numpy(z).requires_grad_() for z in problem(np.random.default_rng(3), size=2, n=5, m=4, mass=1.7)
    ]
    assert gradcheck(lambda *z: otfew.solve_1d(*z, p=p).value, given)
    assert gradcheck(lambda x, b: otfew.solve_1d(x, given[1].detach(), None, b, p=p).value, (given[0], given[3]))


def test_weights_have_subgradients_at_ties():
    """The value is convex in weights of one total: no step may fall below the tangent, towards zero weights neither."""
    rng = np.random.default_rng(4)
    x, y, a, b = (torch.from_numpy(z) for z in problem(rng, size=1, n=6, m=6, ties=True))
    a.requires_grad_()
    value = otfew.solve_1d(x, y, a, b).value
    (slope,) = torch.autograd.grad(value.sum(), a)
    for _ in range(50):
        other = torch.from_numpy(rng.random((1, 6)))
        moved = 0.9 * a.detach() + 0.1 * other * (a.detach().sum() / other.sum())
        assert otfew.solve_1d(x, y, moved, b).value >= value + (slope * (moved - a)).sum() - 1e-12


def test_an_answer_does_not_depend_on_batch_mates_or_order():
    x, y, a, b = problem(np.random.default_rng(5), size=5)
    together = otfew.solve_1d(x, y, a, b)
    for k in range(5):
        alone = otfew.solve_1d(x[k], y[k], a[k], b[k])
        assert alone.value == together.value[k]
        np.testing.assert_array_equal(alone.plan, together.plan[k])
    turned = otfew.solve_1d(x[:, ::-1].copy(), y, a[:, ::-1].copy(), b)
    np.testing.assert_allclose(turned.value, together.value, rtol=1e-13)
    np.testing.assert_allclose(turned.potentials[0][:, ::-1], together.potentials[0], atol=1e-13)
    swapped = otfew.solve_1d(y, x, b, a)
    np.testing.assert_allclose(swapped.value, together.value, rtol=1e-13)


def test_shapes_and_dtypes():
    x, y, a, b = problem(np.random.default_rng(6))
    result = otfew.solve_1d(x[:, None], y[:2], a[0], b[0])
    assert result.value.shape == (3, 2)
    assert result.plan.shape == (3, 2, 9, 7)
    assert otfew.solve_1d(x[0], y[0]).value.shape == ()
    single = otfew.solve_1d(torch.from_numpy(x).float(), torch.from_numpy(y).float(), torch.from_numpy(a))
    assert single.value.dtype == torch.float64
    assert single.plan.dtype == torch.float32
    half = torch.from_numpy(x).half().requires_grad_()
    otfew.solve_1d(half, torch.from_numpy(y).half()).value.sum().backward()
    assert half.grad.dtype == torch.float16
    assert otfew.solve_1d(np.zeros((0, 3)), np.zeros((0, 2))).value.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, a, b: (x * np.nan, y, a, b), "x holds NaN or infinity at batch index 0"),
        (lambda x, y, a, b: (x, y, -a, b), "a holds a negative weight at batch index 0"),
        (lambda x, y, a, b: (x, y, a, 2 * b), "totals of a and b disagree at batch index 0"),
        (lambda x, y, a, b: (x, y, b, a), r"a must be \(\*batch, 9\)"),
        (lambda x, y, a, b: (x[:, :0], y, None, b), r"x must be \(\*batch, points\) with at least one point"),
        (lambda x, y, a, b: (x, None, a, b), "y must be a torch tensor or a numpy array, got None"),
        (lambda x, y, a, b: (x * 1e200, y, a, b), "costs between x and y overflow at batch index 0"),
        (lambda x, y, a, b: (x, y.astype(np.float32), a, b), "x and y must have one dtype and device"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        otfew.solve_1d(*change(*problem(np.random.default_rng(0))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("p", [0.5, np.nan, np.inf, "2", True])
def test_bad_exponents(p):
    with pytest.raises(ValueError, match="p must be a finite number of at least 1"):
        otfew.solve_1d(np.zeros(2), np.zeros(2), p=p)
