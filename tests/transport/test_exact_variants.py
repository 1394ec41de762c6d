"""The exact kernel is compiled for sizes, not for precisions: where sizes change hands, and float32 beside float64."""

from __future__ import annotations

import numpy as np
import pytest

import otfew

SIZES = [(1, 1), (5, 7), (32, 32), (32, 33), (60, 5), (3, 128), (3, 129), (129, 3)]
"""Up to 64 nodes masks are one word; up to 128 columns are sorted by counting."""


def draw(n, m, kind):
    rng = np.random.default_rng(n * 1000 + m)
    cost = rng.random((4, n, m)).astype(np.float32)
    if kind == "ties":
        return np.round(4 * cost), None, None
    a, b = rng.dirichlet(np.ones(n), 4), rng.dirichlet(np.ones(m), 4)
    if kind == "zeros" and min(n, m) > 2:
        a[:, ::2], b[:, ::2] = 0, 0
        a, b = a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)
    return cost, a, b


@pytest.mark.parametrize("kind", ["weights", "zeros", "ties"])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_each_size_is_optimal_by_a_certificate_of_its_plan(n, m, kind):
    cost, a, b = draw(n, m, kind)
    cost = cost.astype(np.float64)
    proof = otfew.certify(otfew.solve(cost, a, b).plan, cost, a, b)
    np.testing.assert_allclose(proof.gap, 0, atol=1e-12)
    assert proof.marginal_error.max() < 1e-12


@pytest.mark.parametrize("kind", ["weights", "zeros", "ties"])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_float32_costs_are_the_same_numbers_in_float64_bit_for_bit(n, m, kind):
    cost, a, b = draw(n, m, kind)
    narrow, wide = (otfew.solve(x, a, b) for x in (cost, cost.astype(np.float64)))
    for part in ("value", "gap", "marginal_error", "status", "n_iter"):
        assert getattr(narrow, part).tobytes() == getattr(wide, part).tobytes(), part
    assert narrow.plan.tobytes() == wide.plan.astype(np.float32).tobytes()
    for f, g in zip(narrow.potentials, wide.potentials, strict=True):
        assert f.tobytes() == g.astype(np.float32).tobytes()


def test_float32_costs_may_be_shared_strided_and_expanded():
    rng = np.random.default_rng(0)
    cost = rng.random((3, 1, 14, 6)).astype(np.float32)[:, :, ::2].swapaxes(-1, -2)
    a, b = rng.dirichlet(np.ones(6), (1, 5)), rng.dirichlet(np.ones(7), (3, 1))
    result = otfew.solve(cost, a, b)
    for i in range(3):
        for k in range(5):
            alone = otfew.solve(cost[i, 0].astype(np.float64), a[0, k], b[i, 0])
            assert result.value[i, k] == alone.value
