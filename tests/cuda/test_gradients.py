"""Gradients through the kernels: the CPU's, finite differences, and sums over what is shared."""

from __future__ import annotations

import pytest
import torch

import otfew

from .places import on_each

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def gradients(leaves, scale):
    """Of values that count differently, in cost, a and b."""
    value = otfew.solve(*leaves).value
    return torch.autograd.grad((value * scale.to(value.device)).sum(), leaves)


def leaves_of(*tensors):
    return tuple(tensor.clone().requires_grad_() for tensor in tensors)


def close(found, expected, rtol):
    """Each problem's plan beside the other's: costs drawn from the reals have one optimum."""
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=rtol)


SHAPES = [(1, 1), (9, 9), (25, 25), (49, 49), (7, 33), (100, 90)]


@dtypes
@pytest.mark.parametrize(("place", "shape"), on_each(SHAPES, SHAPES[:3]), indirect=["place"], ids=str)
def test_those_of_the_processor(shape, dtype, place, problems):
    n, m = shape
    count = 4 if n < 50 else 2
    given = leaves_of(*problems("bar", count, n, m, dtype))
    scale = torch.linspace(-1, 2, count, dtype=torch.float64)
    expected = gradients(given, scale)
    found = gradients(place.away(given), scale)
    assert all(x.device == place.device and x.dtype == y.dtype for x, y in zip(found, given, strict=True))
    close(place.home(found), expected, 1e-5 if dtype == torch.float32 else 1e-9)


def test_of_shared_costs_and_weights(place, problems):
    cost, a, b = problems("bar", 6, 7, 9)
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    scale = torch.linspace(-1, 2, 6, dtype=torch.float64)
    for shared in ((cost[0], a, b), (cost, a[0], b), (cost[:1].expand(6, 7, 9), a, b[:1])):
        given = leaves_of(*shared)
        close(place.home(gradients(place.away(given), scale)), gradients(given, scale), 1e-9)


@pytest.mark.parametrize("missing", ["a", "b", "both"])
def test_without_weights(missing, place, problems):
    cost, a, b = problems("bar", 5, 7, 9)

    def gradient(cost, a, b):
        given = leaves_of(*(x for x in (cost, a, b) if x is not None))
        names = [name for name, x in (("cost", cost), ("a", a), ("b", b)) if x is not None]
        return torch.autograd.grad(otfew.solve(**dict(zip(names, given, strict=True))).value.sum(), given)

    weights = (None if missing in {"a", "both"} else a, None if missing in {"b", "both"} else b)
    expected = gradient(cost, *weights)
    found = gradient(place.away(cost), *(None if w is None else place.away(w) for w in weights))
    close(place.home(found), expected, 1e-9)


def test_finite_differences(place, problems):
    """Along random directions: the value is piecewise linear, and smooth where the optimum is one vertex."""
    given = problems("bar", 5, 6, 8)
    generator = torch.Generator().manual_seed(1)
    there = place.away(leaves_of(*given))
    slope = place.home(torch.autograd.grad(otfew.solve(*there).value.sum(), there))
    step = 1e-6
    for k, x in enumerate(given):
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        if k:
            # Weights keep their totals.
            direction -= direction.mean(-1, keepdim=True)
        moved = [[y + sign * step * direction if j == k else y for j, y in enumerate(given)] for sign in (1, -1)]
        up, down = (place.home(otfew.solve(*place.away(tuple(each))).value).sum() for each in moved)
        expected = (up - down) / (2 * step)
        assert float((slope[k] * direction).sum()) == pytest.approx(float(expected), rel=1e-5, abs=1e-7)


@pytest.mark.cuda
def test_gradcheck(problems):
    cost, a, b = (x.cuda() for x in problems("bar", 3, 4, 5))

    def value(cost, a, b):
        # Perturbed weights must agree again.
        return otfew.solve(cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)).value

    assert torch.autograd.gradcheck(value, leaves_of(cost, a, b))


def test_the_same_bits_again_and_in_other_company(place, problems):
    given = problems("ties", 20, 25, dtype=torch.float32)
    scale = torch.ones(20, dtype=torch.float64)
    first = place.home(gradients(place.away(leaves_of(*given)), scale))
    again = place.home(gradients(place.away(leaves_of(*given)), scale))
    some = place.home(gradients(place.away(leaves_of(*(x[7:12] for x in given))), scale[7:12]))
    for x, y, z in zip(first, again, some, strict=True):
        assert torch.equal(x, y)
        assert torch.equal(x[7:12], z)


def test_where_the_gradient_is_strided(place, problems):
    """As the backward of an expand or a transpose gives it."""
    given = leaves_of(*problems("bar", 6, 7, 9))

    def gradient(leaves):
        value = otfew.solve(leaves[0].view(2, 3, 7, 9), leaves[1].view(2, 3, 7), leaves[2].view(2, 3, 9)).value
        weights = torch.arange(6.0, dtype=torch.float64).view(3, 2).to(value.device)
        return torch.autograd.grad((value.T * weights).sum() + value.mean(), leaves)

    close(place.home(gradient(place.away(given))), gradient(given), 1e-9)


def test_no_second_derivative(place, problems):
    (cost, a, b) = place.away(leaves_of(*problems("bar", 2, 5)))
    (slope,) = torch.autograd.grad(otfew.solve(cost, a, b).value.sum(), cost, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated"):
        torch.autograd.grad(slope.sum(), cost)
