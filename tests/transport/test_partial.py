"""Transport of part of the mass: ``Exact(mass=...)`` against the linear program with inequalities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import otfew


def oracle(cost, a, b, mass):
    """Least cost of sending ``mass`` with row sums at most a and column sums at most b."""
    n, m = cost.shape
    sums = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    found = linprog(
        cost.ravel(), A_ub=sums, b_ub=np.concatenate([a, b]), A_eq=np.ones((1, n * m)), b_eq=[mass], method="highs-ds"
    )
    assert found.status == 0, found.message
    return found.fun


def draw(size=8, n=6, m=4, seed=0, signed=True):
    rng = np.random.default_rng(seed)
    cost = rng.standard_normal((size, n, m)) if signed else rng.random((size, n, m))
    return cost, rng.random((size, n)) + 0.05, rng.random((size, m)) + 0.05


def totals(a, b):
    return np.minimum(a.sum(-1), b.sum(-1))


@pytest.mark.parametrize("share", [1.0, 0.7, 0.2, 1e-3])
@pytest.mark.parametrize("kind", ["signed", "positive", "ties", "constant", "offset", "zeros"])
def test_value_is_that_of_the_linear_program(kind, share):
    cost, a, b = draw(signed=kind == "signed")
    if kind == "ties":
        cost = np.rint(3 * cost)
    if kind == "constant":
        cost[:] = -2.5
    if kind == "offset":
        cost += 1e4
    if kind == "zeros":
        a[:, 1] = b[:, 0] = 0
    for c, x, y, least in zip(cost, a, b, totals(a, b), strict=True):
        mass = float(share * least)
        found = otfew.solve(c, x, y, solver=otfew.Exact(mass=mass))
        # Flows are multiples of 2^-52 of all the mass, transported or not.
        resolution = 24 * 2.0**-52 * (x.sum() + y.sum())
        tolerance = 1e-9 * mass * np.ptp(c) + resolution * np.abs(c).max()
        assert abs(found.value - oracle(c, x, y, mass)) <= tolerance
        assert (found.plan >= 0).all()
        assert (found.plan.sum(1) <= x + 1e-13).all()
        assert (found.plan.sum(0) <= y + 1e-13).all()
        assert abs(found.plan.sum() - mass) <= resolution
        assert found.marginal_error <= resolution / mass
        assert -tolerance <= found.gap <= tolerance


def test_the_smaller_total():
    cost, a, b = draw()
    found = otfew.solve(cost, a, b, solver=otfew.Exact(mass="min"))
    for k, least in enumerate(totals(a, b)):
        assert abs(found.value[k] - oracle(cost[k], a[k], b[k], least)) <= 1e-12
    np.testing.assert_allclose(found.plan.sum((1, 2)), totals(a, b), rtol=1e-13)
    assert (found.plan.sum(2) <= a + 1e-13).all()
    assert (found.plan.sum(1) <= b + 1e-13).all()


@pytest.mark.parametrize("mass", [1.5, "min"])
def test_the_gap_of_plans_that_are_not_the_cheapest_bounds_what_they_cost_too_much(mass):
    cost, a, b = draw(n=9, m=8)
    best = otfew.solve(cost, a, b, solver=otfew.Exact(mass=mass))
    worse = 0
    for pivots in (1, 2, 3, 4, 5, 6):
        found = otfew.solve(cost, a, b, solver=otfew.Exact(mass=mass, max_iter=pivots), on_fail="ignore")
        whole = found.marginal_error < 1e-9
        excess = (found.value - best.value)[whole]
        assert (found.gap[whole] >= excess).all()
        worse += (excess > 1e-3).sum()
    assert worse >= 8
    # The best plans' own gap is what rounding hides, which is not nothing.
    assert (best.gap > 0).all()


def test_equal_totals_leave_nothing_behind(batch):
    cost, a, b = batch(mass=2.5)
    for mass in ("min", 2.5):
        found = otfew.solve(cost, a, b, solver=otfew.Exact(mass=mass))
        np.testing.assert_allclose(found.value, otfew.solve(cost, a, b).value, rtol=0, atol=1e-13)


def test_agrees_with_opencv_where_it_matches_partially():
    cv2 = pytest.importorskip("cv2")
    cost, a, b = (x.astype(np.float32) for x in draw(signed=False))
    found = otfew.solve(cost, a, b, solver=otfew.Exact(mass="min"))
    for k, least in enumerate(totals(a, b)):
        _, _, flow = cv2.EMD(a[k][:, None], b[k][:, None], cv2.DIST_USER, cost[k])
        assert abs((flow * cost[k]).sum() - found.value[k]) <= 1e-5 * least


def test_batch_and_broadcasting():
    cost, a, b = draw()
    solver = otfew.Exact(mass=0.1)
    together = otfew.solve(cost.reshape(2, 4, 6, 4), a[0], b.reshape(2, 4, 4), solver=solver)
    assert together.value.shape == (2, 4)
    for k in range(8):
        assert together.value.reshape(-1)[k] == otfew.solve(cost[k], a[0], b[k], solver=solver).value
    assert otfew.solve(cost[:0], a[:0], b[:0], solver=solver).value.shape == (0,)


@pytest.mark.parametrize("mass", [0.3, "min"])
@pytest.mark.parametrize("missing", ["", "a", "b"])
def test_gradients_by_finite_differences(mass, missing):
    cost, a, b = (torch.from_numpy(x) for x in draw(size=3))
    given = [cost, None if missing == "a" else a, None if missing == "b" else b]
    leaves = [x.clone().requires_grad_() for x in given if x is not None]

    def value(*inputs):
        inputs = iter(inputs)
        return otfew.solve(*(None if x is None else next(inputs) for x in given), solver=otfew.Exact(mass=mass)).value

    assert torch.autograd.gradcheck(value, leaves, eps=1e-6, atol=1e-6)


def test_potentials_are_feasible_up_to_the_level():
    cost, a, b = draw()
    found = otfew.solve(cost, a, b, solver=otfew.Exact(mass=0.4))
    f, g = found.potentials
    assert (f <= 1e-12).all()
    assert (g <= 1e-12).all()
    level = (found.value - (f * a).sum(-1) - (g * b).sum(-1)) / 0.4
    assert (f[:, :, None] + g[:, None] + level[:, None, None] <= cost + 1e-12).all()


@pytest.mark.parametrize("mass", [0, -1.0, float("nan"), "max"])
def test_bad_mass(mass):
    with pytest.raises(ValueError, match=r"^Exact: mass must be positive"):
        otfew.Exact(mass=mass)


def test_more_than_there_is():
    cost, a, b = draw()
    a[3] *= 1e-3
    with pytest.raises(ValueError, match=r"mass 0\.4 is more than the smaller total of a and b at batch index 3"):
        otfew.solve(cost, a, b, solver=otfew.Exact(mass=0.4))


def test_unsound_weights_are_named():
    cost, a, b = draw()
    a[2] = 0
    with pytest.raises(ValueError, match="a has total weight zero at batch index 2"):
        otfew.solve(cost, a, b, solver=otfew.Exact(mass="min"))
