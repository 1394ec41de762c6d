"""Sliced transport: against POT on the same projections, closed forms, laws and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import otfew
from otfew.slices import random_directions


def clouds(size=2, n=12, m=9, d=3, seed=0):
    rng = np.random.default_rng(seed)
    x, y, a, b = rng.random((size, n, d)), rng.random((size, m, d)), rng.random((size, n)), rng.random((size, m))
    return x, y, a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_against_pot(p):
    ot = pytest.importorskip("ot")
    x, y, a, b = clouds()
    mean, most = (otfew.sliced_distance(x, y, a, b, p=p, projections=40, seed=3, reduce=how) for how in ("mean", "max"))
    for k in range(2):
        given = (x[k], y[k], a[k], b[k], 40, p, mean.directions.T)
        np.testing.assert_allclose(mean.value[k], ot.sliced_wasserstein_distance(*given) ** p, rtol=1e-10)
        np.testing.assert_allclose(most.value[k], ot.max_sliced_wasserstein_distance(*given) ** p, rtol=1e-10)


def test_translations():
    """|<u, t>|^p on every line; over all directions the mean of its square is |t|^2 / d."""
    x, t = clouds()[0], np.array([1.0, -2.0, 0.5])
    found = otfew.sliced_distance(x, x + t, projections=20_000)
    np.testing.assert_allclose(found.each, np.broadcast_to((found.directions @ t) ** 2, (2, 20_000)), atol=1e-12)
    np.testing.assert_allclose(found.value, t @ t / 3, rtol=0.03)
    most = otfew.sliced_distance(x, x + t, directions=np.stack([t, [1, 0, 0]]), reduce="max", p=3)
    np.testing.assert_allclose(most.value, np.linalg.norm(t) ** 3)


def test_one_dimension_is_the_line():
    x, y, a, b = clouds(d=1)
    found = otfew.sliced_distance(x, y, a, b, projections=3)
    np.testing.assert_allclose(found.value, otfew.solve_1d(x[..., 0], y[..., 0], a, b).value, rtol=1e-13)


def test_a_sliced_cost_is_below_the_cost_of_transport():
    x, y, a, b = clouds()
    most = otfew.sliced_distance(x, y, a, b, projections=500, reduce="max").value
    assert (most <= otfew.solve_points(x, y, a, b, solver="exact").value + 1e-12).all()


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_gradients(reduce):
    given = [torch.from_numpy(z).requires_grad_() for z in clouds(n=4, m=3)]
    assert gradcheck(lambda *z: otfew.sliced_distance(*z, p=2, projections=5, reduce=reduce).value, given)


def test_directions_are_a_function_of_the_seed():
    x, y, _, _ = clouds()
    before = torch.get_rng_state()
    first = otfew.sliced_distance(x, y, projections=8, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    more = otfew.sliced_distance(x, y, projections=20, seed=5)
    np.testing.assert_array_equal(more.directions[:8], first.directions)
    assert not np.allclose(otfew.sliced_distance(x, y, projections=8, seed=6).directions, first.directions)
    np.testing.assert_allclose(np.linalg.norm(more.directions, axis=1), 1, rtol=1e-15)


def test_the_first_directions_are_pinned():
    """Changed by nobody who does not mean to: figures depend on them."""
    expected = [[-0.896516, 0.443011], [-0.696104, 0.717941]]
    np.testing.assert_allclose(random_directions(2, 2, 0).numpy(), expected, atol=1e-5)


def test_directions_are_uniform():
    """Means of u u' are the identity over d, and coordinates of directions in space are uniform (Archimedes)."""
    for d in (2, 3, 5):
        u = random_directions(20_000, d, 1).numpy()
        np.testing.assert_allclose(u.T @ u / len(u), np.eye(d) / d, atol=0.01)
    heights = np.sort(random_directions(20_000, 3, 2).numpy()[:, 2])
    assert np.abs(heights - np.linspace(-1, 1, 20_000)).max() < 0.03


def test_batches_and_kinds_of_array():
    x, y, a, b = clouds()
    found = otfew.sliced_distance(x[:, None], y, a[0], b[0], projections=4)
    assert found.value.shape == (2, 2)
    assert found.each.shape == (2, 2, 4)
    alone = otfew.sliced_distance(x[1], y[0], a[0], b[0], projections=4)
    np.testing.assert_allclose(found.value[1, 0], alone.value, rtol=1e-13)
    tensors = otfew.sliced_distance(torch.from_numpy(x).float(), torch.from_numpy(y).float(), projections=4)
    assert isinstance(tensors.value, torch.Tensor)
    assert tensors.value.dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projections": 0}, "projections must be an integer of at least 1"),
        ({"seed": 0.5}, "seed must be an integer"),
        ({"reduce": "sum"}, "reduce must be 'mean' or 'max'"),
        ({"p": 0}, "p must be a finite number of at least 1"),
        ({"directions": np.zeros((2, 3))}, "directions must be finite and not zero"),
        ({"directions": np.ones((2, 4))}, r"directions must be \(directions, 3\) to fit x"),
        ({"directions": [1.0]}, "directions must be a torch tensor or a numpy array, got list"),
    ],
)
def test_bad_options(options, message):
    x, y, _, _ = clouds()
    with pytest.raises(ValueError, match=message):
        otfew.sliced_distance(x, y, **options)


def test_bad_input():
    x, y, a, b = clouds()
    for given, message in (
        ((x * np.inf, y), "x holds NaN or infinity at batch index 0"),
        ((x, y[..., :2]), "points of one dimension, got 3 and 2"),
        ((x, y, a, 2 * b), "totals of a and b disagree at batch index 0"),
        ((x.tolist(), y), "x must be a torch tensor or a numpy array, got list"),
    ):
        with pytest.raises(ValueError, match=message):
            otfew.sliced_distance(*given)


def test_repr_fits_a_line():
    x = np.random.default_rng(0).random((6, 3))
    found = otfew.sliced_distance(x, x + 1.0, projections=50)
    assert repr(found) == f"Sliced(value={found.value!r}, directions=50)"
