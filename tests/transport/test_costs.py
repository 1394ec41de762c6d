"""Costs between points against SciPy, at near-duplicates, and their gradients."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch.autograd import gradcheck

from otfew import costs
from otfew.transport import costs as costs_module

NAMES = ["sqeuclidean", "euclidean", "cosine", "lp:1", "lp:3", "lp:1.5"]
every = pytest.mark.parametrize("name", NAMES)
# Below and above the dimension where distances start to come from a matrix product.
dimensions = pytest.mark.parametrize("d", [1, 3, 40])


def oracle(name, x, y):
    kind, _, p = name.partition(":")
    if kind == "lp":
        return cdist(x, y, "minkowski", p=float(p)) ** float(p)
    return cdist(x, y, kind)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@every
@dimensions
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 3e-5)])
def test_against_scipy(name, d, dtype, rtol):
    x, y = draw(4, 7, d, dtype=dtype) + 3, draw(4, 5, d, seed=1, dtype=dtype) + 3
    found = costs.pairwise(name, x, y)
    assert found.dtype == dtype
    for k in range(4):
        expected = oracle(name, x[k].double().numpy(), y[k].double().numpy())
        np.testing.assert_allclose(
            found[k].numpy(), expected, rtol=rtol, atol=1e-6 if dtype == torch.float32 else 1e-14
        )


@pytest.mark.parametrize("offset", [4.0, 7.0, 100.0])
def test_clouds_far_from_the_origin_lose_no_digits(offset):
    """About the origin, squared norms would round away digits of entries that are not small enough to be redone."""
    x, y = draw(200, 40, dtype=torch.float32) + offset, draw(200, 40, seed=1, dtype=torch.float32) + offset
    expected = oracle("sqeuclidean", x.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(costs.sqeuclidean(x, y).numpy(), expected, rtol=1e-6)


def test_clouds_far_from_the_origin_cost_a_matrix_product_only(monkeypatch):
    def redone(*arguments):
        raise AssertionError("distances were taken one by one")

    monkeypatch.setattr(costs_module, "GATHERED", -1)
    monkeypatch.setattr(costs_module, "_distances", redone)
    assert costs.sqeuclidean(draw(50, 40) + 1000, draw(60, 40, seed=1) + 1000).shape == (50, 60)


@every
@dimensions
def test_batches_broadcast(name, d):
    x, y = draw(2, 1, 6, d), draw(3, 5, d, seed=1)
    y[0, 0] = x[1, 0, 0]
    found = costs.pairwise(name, x, y)
    assert found.shape == (2, 3, 6, 5)
    torch.testing.assert_close(found[1, 0], costs.pairwise(name, x[1, 0], y[0]))


@every
@dimensions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_equal_points_cost_nothing(name, d, dtype, shift):
    x = draw(20, d, dtype=dtype) + shift
    found = costs.pairwise(name, x, x.clone())
    assert (found.diagonal() == 0).all()
    assert (found >= 0).all()
    torch.testing.assert_close(found, found.mT, rtol=1e-6, atol=0 if name != "cosine" else 1e-6)


@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean"])
@dimensions
@pytest.mark.parametrize(("dtype", "step"), [(torch.float32, 2.0**-10), (torch.float64, 2.0**-25)])
def test_near_duplicates_keep_their_distance(name, d, dtype, step):
    """A matrix product alone would lose it in the rounding of the norms."""
    x = (draw(20, d) * 64).round() / 64
    y = x.clone()
    y[:, 0] += step
    found = costs.pairwise(name, x.to(dtype), y.to(dtype)).diagonal()
    torch.testing.assert_close(
        found, torch.full((20,), step**2 if name == "sqeuclidean" else step, dtype=dtype), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("d", [2, 40])
def test_near_directions_keep_their_distance(d):
    x = draw(10, d)
    across = draw(10, d, seed=1)
    across -= (across * x).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True) * x
    angle = 1e-6
    y = x / x.norm(dim=-1, keepdim=True) + angle * across / across.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(
        costs.cosine(x, y).diagonal(), torch.full((10,), angle**2 / 2, dtype=torch.float64), rtol=1e-6, atol=0
    )


@every
@dimensions
def test_gradients(name, d):
    x, y = draw(2, 4, d).requires_grad_(), draw(2, 3, d, seed=1).requires_grad_()
    assert gradcheck(lambda x, y: costs.pairwise(name, x, y), (x, y))


@pytest.mark.parametrize("name", ["sqeuclidean", "cosine"])
def test_gradients_of_near_duplicates(name):
    x = draw(4, 20).requires_grad_()
    y = (x.detach()[:3] + 1e-3 * draw(3, 20, seed=1)).requires_grad_()
    assert gradcheck(lambda x, y: costs.pairwise(name, x, y), (x, y))


@every
@dimensions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_coincident_points(name, d, dtype):
    x = draw(5, d, dtype=dtype).requires_grad_()
    y = x.detach().clone().requires_grad_()
    for grad in torch.autograd.grad(costs.pairwise(name, x, y).sum(), (x, y)):
        assert torch.isfinite(grad).all()
    (own,) = torch.autograd.grad(costs.pairwise(name, x, y).diagonal().sum(), x)
    torch.testing.assert_close(own, torch.zeros_like(own), rtol=0, atol=1e-6)


def test_zero_vectors_are_orthogonal_to_all():
    x = draw(4, 3)
    x[1] = 0
    x.requires_grad_()
    found = costs.cosine(x, x.detach())
    expected = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(found[1], expected)
    torch.testing.assert_close(found[:, 1], expected)
    (grad,) = torch.autograd.grad(found.sum(), x)
    assert torch.isfinite(grad).all()
    assert (grad[1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lengths_do_not_matter_to_cosines(dtype):
    x, y = draw(4, 3, dtype=dtype), draw(5, 3, seed=1, dtype=dtype)
    expected = costs.cosine(x, y)
    largest, least = torch.finfo(dtype).max / 8, torch.finfo(dtype).tiny * 8
    for scale in (largest, least):
        torch.testing.assert_close(costs.cosine(x * scale, y), expected, rtol=1e-5, atol=1e-6)


def test_p_of_two_is_the_squared_distance():
    x, y = draw(4, 3), draw(5, 3, seed=1)
    torch.testing.assert_close(costs.lp(x, y, 2), costs.sqeuclidean(x, y), rtol=0, atol=0)
    torch.testing.assert_close(costs.pairwise("lp:2", x, y), costs.sqeuclidean(x, y), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["manhattan", "lp", "lp:", "lp:x", "lp:0.5", "lp:inf", "lp:nan", "", None, 3])
def test_unknown_costs(name):
    with pytest.raises(ValueError, match=r"cost must be 'sqeuclidean', 'euclidean', 'cosine' or 'lp:p'"):
        costs.pairwise(name, draw(2, 2), draw(2, 2))


def test_exponents_below_one():
    with pytest.raises(ValueError, match=r"p must be a number >= 1, got 0\.5"):
        costs.lp(draw(2, 2), draw(2, 2), 0.5)


@dimensions
@pytest.mark.parametrize("gathered", [costs_module.GATHERED, 0])
@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean"])
def test_one_far_point_does_not_spoil_the_distances_of_others(name, gathered, d, monkeypatch):
    """Whether few pairs are taken again from differences, or so many that all are."""
    monkeypatch.setattr(costs_module, "GATHERED", gathered)
    x, y = (draw(2, n, d, seed=n, dtype=torch.float32) for n in (7, 5))
    x[0, 0] = 1e6
    x.requires_grad_()
    found = costs.pairwise(name, x, y)
    expected = torch.from_numpy(oracle(name, x[0].detach().double().numpy(), y[0].double().numpy()))
    torch.testing.assert_close(found[0].double(), expected, rtol=1e-5, atol=0)
    found[:, 1:].sum().backward()
    difference = (x.detach().double()[:, 1:, None] - y.double()[:, None])[0]
    slope = 2.0 if name == "sqeuclidean" else 1 / expected[1:, :, None]
    torch.testing.assert_close(x.grad[0, 1:].double(), (slope * difference).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean"])
def test_many_pairs_taken_again_at_once_have_the_same_gradients(name, monkeypatch):
    x = draw(3, 6, 20).requires_grad_()
    y = (x.detach()[:, :4] + 1e-3 * draw(3, 4, 20, seed=1)).requires_grad_()
    monkeypatch.setattr(costs_module, "GATHERED", 0)
    assert gradcheck(lambda x, y: costs.pairwise(name, x, y), (x, y), eps=1e-7, atol=1e-5)


def test_the_functions_are_there_without_an_import_of_their_own():
    code = "import otfew, torch; print(float(otfew.costs.euclidean(torch.zeros(1, 2), torch.tensor([[3.0, 4]]))))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert found.stdout == "5.0\n"
