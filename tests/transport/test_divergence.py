"""Sinkhorn divergences: against GeomLoss, POT, a plain loop, laws and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import otfew
from otfew.costs import pairwise

REG = 0.3
DENSE = otfew.Sinkhorn(reg=REG, tol=1e-12)
POINTS = otfew.KeOps(reg=REG, tol=1e-12, backend="torch")


def clouds(size=2, n=8, m=6, d=3, mass=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x, y, a, b = rng.random((size, n, d)), rng.random((size, m, d)) + 0.3, rng.random((size, n)), rng.random((size, m))
    a, b = a + 0.05, b + 0.05
    given = (x, y, a * (mass / a.sum(-1, keepdims=True)), b * (mass / b.sum(-1, keepdims=True)))
    return tuple(torch.from_numpy(z) for z in given)


def costs(x, y, cost="sqeuclidean"):
    return pairwise(cost, x, y), pairwise(cost, x, x), pairwise(cost, y, y)


@pytest.mark.parametrize(("cost", "p"), [("sqeuclidean", 2), ("euclidean", 1)])
def test_against_geomloss(cost, p):
    """Its cost is |x - y|^p / p and its temperature blur^p, so that ours are p times as large."""
    geomloss = pytest.importorskip("geomloss")
    x, y, a, b = clouds(size=1)
    loss = geomloss.SamplesLoss("sinkhorn", p=p, blur=(REG / p) ** (1 / p), scaling=0.999, backend="tensorized")
    expected = p * loss(a[0], x[0], b[0], y[0])
    for found in (
        otfew.sinkhorn_divergence(*costs(x, y, cost), a, b, solver=DENSE),
        otfew.sinkhorn_divergence_points(x, y, a, b, cost=cost, solver=POINTS),
    ):
        torch.testing.assert_close(found.value[0], expected, rtol=2e-4, atol=1e-5)


def test_against_pot():
    """POT's is the difference of the costs of the plans, and not of the regularised values."""
    ot = pytest.importorskip("ot")
    x, y, a, b = clouds()
    found = otfew.sinkhorn_divergence_points(x, y, a, b, solver=POINTS)
    linear = found.between.value_linear - (found.within_x.value_linear + found.within_y.value_linear) / 2
    for k in range(2):
        given = [z[k].numpy() for z in (x, y)]
        weights = {"a": a[k].numpy(), "b": b[k].numpy()}
        expected = ot.bregman.empirical_sinkhorn_divergence(*given, REG, **weights, stopThr=1e-12, numIterMax=5000)
        np.testing.assert_allclose(linear[k], expected, atol=1e-9)


def plain(cost, a, b, reg, rho, scale):
    """min <P, C> + reg KL(P | a b' / scale) + rho KL(P 1 | a) + rho KL(P' 1 | b) by plain iterations."""
    damping = rho / (rho + reg)
    kernel = np.exp(-cost / reg) / scale
    u, v = np.ones(len(a)), np.ones(len(b))
    for _ in range(5000):
        u = (kernel @ (b * v)) ** -damping
        v = (kernel.T @ (a * u)) ** -damping
    plan = a[:, None] * u[:, None] * kernel * v * b

    def divergence(p, q):
        return (p * np.log(p / q) - p + q).sum()

    marginals = divergence(plan.sum(1), a) + divergence(plan.sum(0), b)
    return (plan * cost).sum() + reg * divergence(plan, a[:, None] * b / scale) + rho * marginals


@pytest.mark.parametrize("ratio", [1.0, 2.5])
def test_unbalanced(ratio):
    """All three problems have one scale; the masses of a and b add to the divergence."""
    x, y, a, b = clouds(mass=1.3)
    b = b * ratio
    rho = 0.7
    found = otfew.sinkhorn_divergence(*costs(x, y), a, b, solver=otfew.Sinkhorn(reg=REG, tol=1e-12, unbalanced=rho))
    assert (found.value > 0).all()
    for k in range(2):
        between, within_x, within_y = (z[k].numpy() for z in costs(x, y))
        weights_a, weights_b = a[k].numpy(), b[k].numpy()
        scale = np.sqrt(weights_a.sum() * weights_b.sum())
        expected = plain(between, weights_a, weights_b, REG, rho, scale)
        expected -= plain(within_x, weights_a, weights_a, REG, rho, scale) / 2
        expected -= plain(within_y, weights_b, weights_b, REG, rho, scale) / 2
        expected += REG * (weights_a.sum() - weights_b.sum()) ** 2 / (2 * scale)
        np.testing.assert_allclose(found.value[k], expected, atol=1e-9)


def test_unbalanced_gradients():
    x, y, a, b = clouds(n=4, m=3)
    solver = otfew.Sinkhorn(reg=REG, tol=1e-13, unbalanced=0.7)
    given = [z.requires_grad_() for z in (x, y, a, 1.5 * b)]
    given[3] = given[3].detach().requires_grad_()
    assert gradcheck(lambda x, y, a, b: otfew.sinkhorn_divergence(*costs(x, y), a, b, solver=solver).value, given)


@pytest.mark.parametrize("unbalanced", [None, 0.5])
def test_never_negative_and_zero_for_equal_measures(unbalanced):
    solver = otfew.Sinkhorn(reg=0.05, unbalanced=unbalanced)
    rng = np.random.default_rng(1)
    x, _, a, _ = clouds(size=20)
    same = otfew.sinkhorn_divergence(*costs(x, x), a, a, solver=solver)
    assert (same.value == 0).all()
    rows = torch.from_numpy(rng.permutation(8))
    turned = otfew.sinkhorn_divergence(*costs(x, x[:, rows]), a, a[:, rows], solver=solver)
    assert (turned.value <= turned.gap + 1e-13).all()
    for step in (1e-6, 1e-3, 0.1):
        near = otfew.sinkhorn_divergence(
            *costs(x, x + step * torch.from_numpy(rng.random((20, 8, 3)))), a, a, solver=solver
        )
        assert (near.value >= 0).all()
        assert (near.value <= 3 * step**2 + near.gap + 1e-13).all() if unbalanced is None else True
    points = otfew.sinkhorn_divergence_points(x, x, a, a, solver=otfew.KeOps(reg=0.5, tol=1e-9, backend="torch"))
    assert ((points.value >= 0) & (points.value <= points.gap + 1e-14)).all()


def test_self_terms_by_averaged_iterations():
    """The same answers, in few iterations also where points hardly exchange anything."""
    x, _, a, _ = clouds(size=4)
    for cost in ("sqeuclidean", "euclidean", "lp:3"):
        ours = otfew.sinkhorn_divergence_points(x, x, a, a, cost=cost, solver=POINTS).within_x
        plain = otfew.solve_points(x, x, a, a, cost=cost, solver=POINTS)
        torch.testing.assert_close(ours.value, plain.value, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(ours.plan.dense(), plain.plan.dense(), rtol=0, atol=1e-9)
        assert (ours.marginal_error <= 1e-12).all()
    sharp = otfew.KeOps(reg=0.003, backend="torch", max_iter=60)
    found = otfew.sinkhorn_divergence_points(x, x, a, a, solver=sharp, on_fail="ignore").within_x
    assert (found.status == 0).all()
    alone = otfew.sinkhorn_divergence_points(x[1], x[1], a[1], a[1], solver=sharp, on_fail="ignore").within_x
    assert alone.n_iter == found.n_iter[1]
    torch.testing.assert_close(alone.value, found.value[1], rtol=1e-12, atol=0)


def test_laws():
    x, y, a, b = clouds()
    first = otfew.sinkhorn_divergence_points(x, y, a, b, solver=POINTS)
    swapped = otfew.sinkhorn_divergence_points(y, x, b, a, solver=POINTS)
    torch.testing.assert_close(swapped.value, first.value, rtol=1e-9, atol=1e-12)
    # Translations add |t|^2 + 2 <t, difference of the means>, and masses multiply.
    t = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    moved = otfew.sinkhorn_divergence_points(x + t, y, 3 * a, 3 * b, solver=POINTS)
    means = (a[..., None] * x).sum(1) - (b[..., None] * y).sum(1)
    torch.testing.assert_close(moved.value, 3 * (first.value + t @ t + 2 * means @ t), rtol=1e-8, atol=1e-10)
    dense = otfew.sinkhorn_divergence(*costs(x, y), a, b, solver=DENSE)
    torch.testing.assert_close(dense.value, first.value, rtol=1e-8, atol=1e-10)
    # Both ends (Feydy et al. 2019): the linear program, and half of the energy distance of the cost.
    large = otfew.sinkhorn_divergence(*costs(x, y), a, b, solver=otfew.Sinkhorn(reg=1e6, tol=1e-14))
    torch.testing.assert_close(large.value, means.square().sum(-1), rtol=1e-5, atol=0)
    small = otfew.sinkhorn_divergence(*costs(x, y), a, b, solver=otfew.Sinkhorn(reg=1e-3, tol=1e-9, max_iter=5000))
    exact = otfew.solve_points(x, y, a, b, solver="exact").value
    assert ((small.value - exact).abs() <= 5e-3).all()


def test_gradients_in_costs_points_and_weights():
    x, y, a, b = (z.requires_grad_() for z in clouds(n=4, m=3, mass=1.7))
    given = [*(z.detach().requires_grad_() for z in costs(x, y)), a, b]
    assert gradcheck(lambda *z: otfew.sinkhorn_divergence(*z, solver=DENSE).value, given)
    assert gradcheck(lambda *z: otfew.sinkhorn_divergence_points(*z, solver=POINTS).value, (x, y, a, b), atol=1e-6)
    assert gradcheck(
        lambda x, b: otfew.sinkhorn_divergence_points(x, y, None, b, solver=DENSE).value, (x, b), atol=1e-6
    )


def test_certificates_are_kept():
    x, y, a, b = clouds()
    exact = otfew.sinkhorn_divergence_points(x, y, a, b, solver=otfew.KeOps(reg=0.1, tol=1e-11, backend="torch"))
    rough = otfew.sinkhorn_divergence_points(x, y, a, b, solver=otfew.KeOps(reg=0.1, tol=1e-3, backend="torch"))
    assert ((rough.value - exact.value).abs() <= rough.gap).all()
    assert (rough.marginal_error <= 1e-3).all()
    assert (rough.status == otfew.Status.OPTIMAL).all()
    assert (rough.n_iter < exact.n_iter).all()
    short = otfew.KeOps(reg=0.02, tol=1e-13, max_iter=3, backend="torch")
    stopped = otfew.sinkhorn_divergence_points(x, y, a, b, solver=short, on_fail="ignore")
    assert (stopped.status == otfew.Status.MAX_ITER).all()
    with pytest.warns(otfew.ConvergenceWarning, match="keops did not reach"):
        otfew.sinkhorn_divergence_points(x, y, a, b, solver=short)


def test_kinds_of_array_and_batches():
    x, y, a, b = (z.numpy() for z in clouds())
    found = otfew.sinkhorn_divergence_points(x, y[0], a[0], b[0], solver=POINTS)
    assert isinstance(found.value, np.ndarray)
    assert found.value.shape == found.gap.shape == found.status.shape == (2,)
    dense = otfew.sinkhorn_divergence(*(z.numpy() for z in costs(*clouds()[:2])), 2.0 * a, 2.00001 * b, solver=DENSE)
    assert isinstance(dense.value, np.ndarray)
    expected = 2 * otfew.sinkhorn_divergence_points(x, y, a, b, solver=POINTS).value
    np.testing.assert_allclose(dense.value, expected, rtol=1e-8)
    uniform = otfew.sinkhorn_divergence_points(x, y, 2 * a, solver=POINTS).value
    ones = np.full((2, 6), 1 / 6)
    np.testing.assert_allclose(uniform, 2 * otfew.sinkhorn_divergence_points(x, y, a, ones, solver=POINTS).value)
    half = [torch.from_numpy(z).half() for z in (x, y)]
    assert otfew.sinkhorn_divergence_points(*half).value.dtype == torch.float64


def test_bad_input():
    x, y, a, b = clouds()
    between, within_x, within_y = costs(x, y)
    cases = [
        ((between, within_y, within_y, a, b), r"cost_x must be \(\*batch, 8, 8\) to fit cost \(2, 8, 6\), got"),
        ((between, within_x, None, a, b), "cost_y must be a torch tensor or a numpy array, got None"),
        ((between, within_x, within_y * torch.nan, a, b), "cost_y holds NaN or infinity at batch index 0"),
        ((between, within_x.float(), within_y, a, b), "cost_x and cost must have one dtype and device"),
        ((None, within_x, within_y), "cost must be a torch tensor or a numpy array, got None"),
        ((between * torch.nan, within_x, within_y), "cost holds NaN"),
        ((between, within_x, within_y, a, 2 * b), "totals of a and b disagree at batch index 0"),
        ((between, within_x, within_y, -a, b), "a holds a negative weight at batch index 0"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            otfew.sinkhorn_divergence(*given)
    with pytest.raises(ValueError, match="solver 'exact' is not entropic"):
        otfew.sinkhorn_divergence(between, within_x, within_y, solver="exact")
    with pytest.raises(ValueError, match="solver 'keops' works on point clouds: call"):
        otfew.sinkhorn_divergence(between, within_x, within_y, solver="keops")
    with pytest.raises(ValueError, match="one price for both marginals"):
        otfew.sinkhorn_divergence(between, within_x, within_y, solver=otfew.Sinkhorn(unbalanced=(1.0, None)))
    with pytest.raises(ValueError, match="takes balanced solvers"):
        otfew.sinkhorn_divergence_points(x, y, solver=otfew.Sinkhorn(unbalanced=1.0))
