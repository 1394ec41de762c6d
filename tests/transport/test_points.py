"""solve_points with any solver: the plan as an operator, gradients in points and weights, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import otfew
from otfew import costs

TORCH = otfew.KeOps(reg=0.5, tol=1e-12, backend="torch")
SOLVERS = [TORCH, otfew.GeomLoss(reg=2.0, backend="tensorized"), "exact", otfew.Sinkhorn(reg=0.5, tol=1e-10)]
every = pytest.mark.parametrize("solver", SOLVERS, ids=["keops", "geomloss", "exact", "sinkhorn"])


@pytest.fixture
def clouds():
    """Draw point clouds x (size, n, d), y (size, m, d) in the unit cube and weights of one total."""

    def draw(size=2, n=6, m=5, d=3, mass=1.0, seed=0):
        rng = np.random.default_rng(seed)
        x, y, a, b = rng.random((size, n, d)), rng.random((size, m, d)), rng.random((size, n)), rng.random((size, m))
        a, b = a + 0.05, b + 0.05
        return x, y, a * (mass / a.sum(-1, keepdims=True)), b * (mass / b.sum(-1, keepdims=True))

    return draw


@every
def test_the_plan_is_an_operator(solver, clouds):
    x, y, a, b = clouds(mass=2.5)
    plan = otfew.solve_points(x, y, a, b, solver=solver).plan
    dense = plan.dense()
    assert isinstance(dense, np.ndarray)
    assert plan.shape == dense.shape == (2, 6, 5)
    assert plan.T.shape == (2, 5, 6)
    rng = np.random.default_rng(1)
    for k in (1, 3, 11):
        v, u = rng.standard_normal((2, 5, k)), rng.standard_normal((2, 6, k))
        np.testing.assert_allclose(plan @ v, dense @ v, atol=1e-13)
        np.testing.assert_allclose(plan.T @ u, dense.swapaxes(1, 2) @ u, atol=1e-13)
    v = rng.standard_normal((2, 5))
    np.testing.assert_allclose(plan @ v, np.einsum("bij,bj->bi", dense, v), atol=1e-13)
    np.testing.assert_allclose(plan.T.T @ v, plan @ v)
    np.testing.assert_allclose(plan @ np.ones((1, 5)), a, rtol=1e-9)
    np.testing.assert_allclose(plan.T.dense(), dense.swapaxes(1, 2))
    assert "n=6, m=5" in repr(plan)


@every
def test_products_are_differentiable_in_the_vector(solver, clouds):
    x, y, a, b = (torch.from_numpy(z) for z in clouds())
    plan = otfew.solve_points(x, y, a, b, solver=solver).plan
    v = torch.rand(2, 5, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda v: plan @ v, (v,))
    assert isinstance(plan @ v, torch.Tensor)


@every
def test_what_a_plan_cannot_be_multiplied_with(solver, clouds):
    plan = otfew.solve_points(*clouds(), solver=solver).plan
    for shape in ((5,), (2, 6), (3, 5), (2, 6, 1), (2, 2, 5, 1), ()):
        with pytest.raises(ValueError, match=r"plan @ v needs v of shape \(2, 5\) or \(2, 5, k\), got"):
            plan @ np.ones(shape)
    with pytest.raises(ValueError, match="needs a torch tensor or a numpy array, got list"):
        plan @ [1.0]


@every
def test_one_problem_without_a_batch(solver, clouds):
    x, y, a, b = (z[0] for z in clouds())
    result = otfew.solve_points(x, y, a, b, solver=solver)
    assert result.value.shape == ()
    assert result.potentials[0].shape == (6,)
    assert (result.plan @ np.ones(5)).shape == (6,)
    assert (result.plan @ np.ones((5, 2))).shape == (6, 2)


@every
def test_batches_broadcast(solver, clouds):
    x, y, a, b = clouds(size=3)
    result = otfew.solve_points(x[:, None], y[:2], a[0], b[0], solver=solver)
    assert result.value.shape == (3, 2)
    assert result.plan.shape == (3, 2, 6, 5)
    one = otfew.solve_points(x[2], y[1], a[0], b[0], solver=solver)
    np.testing.assert_allclose(result.value[2, 1], one.value, rtol=1e-9)
    np.testing.assert_allclose(result.plan.dense()[2, 1], one.plan.dense(), atol=1e-9)


@every
def test_missing_weights_are_uniform(solver, clouds):
    x, y, a, _ = clouds()
    ones = np.ones((2, 5)) / 5
    expected = otfew.solve_points(x, y, 3 * a, 3 * ones, solver=solver).value
    np.testing.assert_allclose(otfew.solve_points(x, y, 3 * a, solver=solver).value, expected, rtol=1e-12)
    expected = otfew.solve_points(y, x, 3 * ones, 3 * a, solver=solver).value
    np.testing.assert_allclose(otfew.solve_points(y, x, None, 3 * a, solver=solver).value, expected, rtol=1e-9)


@every
def test_empty_batch(solver):
    x, y = (torch.zeros(0, n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    result = otfew.solve_points(x, y, solver=solver)
    assert result.value.shape == (0,)
    assert (result.plan @ torch.ones(0, 5, 2)).shape == (0, 4, 2)
    grads = torch.autograd.grad(result.value.sum() + result.value_linear.sum(), (x, y), allow_unused=True)
    assert grads[0] is None or grads[0].shape == x.shape


@every
def test_single_points(solver):
    x, y = np.zeros((1, 3)), np.ones((1, 3))
    result = otfew.solve_points(x, y, solver=solver)
    np.testing.assert_allclose(result.value, 3.0)
    np.testing.assert_allclose(result.plan.dense(), [[1.0]])


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "lp:3"])
def test_dense_solvers_get_the_cost(cost, clouds):
    x, y, a, b = clouds()
    matrix = costs.pairwise(cost, torch.from_numpy(x), torch.from_numpy(y)).numpy()
    found, expected = otfew.solve_points(x, y, a, b, cost=cost, solver="exact"), otfew.solve(matrix, a, b)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-14)
    np.testing.assert_allclose(found.plan.dense(), expected.plan)
    assert found.solver == expected.solver


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "lp:3"])
def test_gradients_of_exact_reach_points_and_weights(cost, clouds):
    inputs = tuple(torch.from_numpy(z).requires_grad_() for z in clouds(n=4, m=3, mass=2.0))
    assert gradcheck(lambda *z: otfew.solve_points(*z, cost=cost, solver="exact").value, inputs)


def test_dtypes_and_kinds_of_array(clouds):
    x, y, a, b = clouds()
    single = otfew.solve_points(x.astype(np.float32), y.astype(np.float32), a, b, solver=TORCH)
    assert isinstance(single.value, np.ndarray)
    assert single.value.dtype == single.gap.dtype == np.float64
    assert single.potentials[0].dtype == single.plan.dense().dtype == np.float32
    double = otfew.solve_points(x, y, a, b, solver=TORCH)
    np.testing.assert_allclose(single.value, double.value, rtol=1e-6)
    np.testing.assert_allclose(single.plan @ np.ones((2, 5)), a, rtol=1e-5)
    tensors = otfew.solve_points(*(torch.from_numpy(z) for z in (x, y, a, b)), solver=TORCH)
    assert isinstance(tensors.value, torch.Tensor)
    np.testing.assert_array_equal(tensors.value.numpy(), double.value)


def spoil(array, index, value):
    spoiled = array.copy()
    spoiled[index] = value
    return spoiled


CASES = {
    "NaN in x": (
        lambda x, y, a, b: (spoil(x, (1, 0, 1), np.nan), y, a, b),
        r"x holds NaN or infinity at batch index 1",
    ),
    "infinity in y": (lambda x, y, a, b: (x, spoil(y, (0, 0, 1), np.inf), a, b), r"y holds NaN .* at batch index 0"),
    "negative a": (lambda x, y, a, b: (x, y, spoil(a, (1, 2), -1), b), r"a holds a negative weight at batch index 1"),
    "NaN in b": (lambda x, y, a, b: (x, y, a, spoil(b, (1, 2), np.nan)), r"b holds NaN or infinity at batch index 1"),
    "no mass": (lambda x, y, a, b: (x, y, spoil(a, 0, 0), b), r"a has total weight zero at batch index 0"),
    "totals": (lambda x, y, a, b: (x, y, a, 2 * b), r"totals of a and b disagree at batch index 0"),
    "length of a": (lambda x, y, a, b: (x, y, b, a), r"a must be \(\*batch, 6\) to fit x \(2, 6, 3\), got \(2, 5\)"),
    "length of b": (lambda x, y, a, b: (x, y, a, a), r"b must be \(\*batch, 5\) to fit y \(2, 5, 3\), got \(2, 6\)"),
    "integer weights": (lambda x, y, a, b: (x, y, a > 0, b), r"a must be float32 or float64"),
    "dimensions": (lambda x, y, a, b: (x, y[..., :2], a, b), r"x and y must have points of one dimension, got 3 and 2"),
    "dtypes": (lambda x, y, a, b: (x, y.astype(np.float32), a, b), r"x and y must have one dtype and device"),
    "integer points": (lambda x, y, a, b: (x.astype(int), y, a, b), r"x must be float32 or float64, got int64"),
    "half": (lambda x, y, a, b: (x.astype(np.float16), y, a, b), r"x and y must have one dtype and device"),
    "no x": (lambda x, y, a, b: (None, y, a, b), r"x must be a torch tensor or a numpy array, got None"),
    "list": (lambda x, y, a, b: (x, y.tolist(), a, b), r"y must be a torch tensor or a numpy array, got list"),
    "vector": (lambda x, y, a, b: (x[0, 0], y, a, b), r"x must be \(\*batch, points, dimensions\)"),
    "no points": (lambda x, y, a, b: (x, y[:, :0], a, None), r"y must be .* with at least one of each, got shape"),
    "batches": (lambda x, y, a, b: (np.concatenate([x, x[:1]]), y, None, b), r"batch shapes .* do not broadcast"),
}


@every
@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, solver, clouds):
    change, message = CASES[case]
    with pytest.raises(ValueError, match=message) as caught:
        otfew.solve_points(*change(*clouds()), solver=solver)
    assert "\n" not in str(caught.value)


def test_bad_options(clouds):
    with pytest.raises(ValueError, match="cost must be 'sqeuclidean'"):
        otfew.solve_points(*clouds(), cost="sqeuclid", solver=TORCH)
    with pytest.raises(ValueError, match="on_fail must be"):
        otfew.solve_points(*clouds(), solver=TORCH, on_fail="explode")
    with pytest.raises(ValueError, match="unknown solver 'keop'; did you mean 'keops'"):
        otfew.solve_points(*clouds(), solver="keop")


def test_costs_that_overflow_are_named(clouds):
    x, y, a, b = (z.astype(np.float32) for z in clouds())
    x[1] *= np.float32(1e30)
    with pytest.raises(ValueError, match=r"sqeuclidean costs .* overflow torch.float32 at batch index 1; rescale"):
        otfew.solve_points(x, y, a, b, solver="exact")


@pytest.mark.parametrize("solver", ["keops", "geomloss"])
def test_solve_names_solve_points(solver):
    with pytest.raises(ValueError, match=rf"solve_points\(x, y, a, b, solver='{solver}'\)"):
        otfew.solve(np.eye(2), solver=solver)


def test_vmap_is_refused_in_a_sentence(clouds):
    x, y, _, _ = (torch.from_numpy(z) for z in clouds())
    with pytest.raises(RuntimeError, match="vmap"):
        torch.vmap(lambda x, y: otfew.solve_points(x, y, solver=TORCH).value)(x, y)
