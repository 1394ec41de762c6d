"""OpenCV's solver: right to float32 where it is right, caught where it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otfew

SINGLE = 1e-5
"""What float32 and its sums may cost, relative to mass times range of the costs."""

reproducible = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@settings(reproducible, max_examples=200)
@given(data=st.data())
def test_right_to_float32_and_honest(data, examples):
    example = data.draw(examples)
    result = otfew.solve(example.cost, example.a, example.b, solver="opencv")
    assert result.status == otfew.Status.OPTIMAL
    # The sums hold to float32, and a cost far from zero is paid for what is missing.
    size = example.mass * (example.spread + np.abs(example.cost).max())
    assert result.marginal_error <= SINGLE
    expected = otfew.solve(example.cost, example.a, example.b).value
    assert abs(float(result.value - expected)) <= SINGLE * size, example.kind
    worst = max(np.abs(result.plan.sum(1) - example.a).max(), np.abs(result.plan.sum(0) - example.b).max())
    assert abs(worst / example.mass - result.marginal_error) <= 1e-9
    f, g = result.potentials
    assert (f[:, None] + g <= example.cost + 1e-12 * example.spread + 1e-15 * np.abs(example.cost).max()).all()
    dual = float(f @ example.a + g @ example.b)
    assert abs(float(result.value) - dual - float(result.gap)) <= 1e-12 * size
    assert dual <= expected + 1e-9 * size


def squared_euclidean(n):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, 2)), rng.standard_normal((n, 2)) + 1
    return ((x[:, None] - y) ** 2).sum(-1), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(n))


@pytest.mark.parametrize("n", [200, 300])
def test_a_wrong_answer_is_caught(n):
    """``cv2.EMD`` stops after 500 pivots without a word."""
    problem = squared_euclidean(n)
    with pytest.raises(otfew.ConvergenceError, match=r"opencv did not reach .* 1 of 1 .*MAX_ITER.*solver='exact'"):
        otfew.solve(*problem, solver="opencv")
    result, best = otfew.solve(*problem, solver="opencv", on_fail="ignore"), otfew.solve(*problem)
    assert result.value > 1.1 * best.value
    assert result.gap >= result.value - best.value - 1e-6
    assert result.status == otfew.Status.MAX_ITER


def test_a_wrong_answer_does_not_touch_its_batch_mates():
    cost, a, b = squared_euclidean(200)
    easy = np.broadcast_to(cost.min(0), cost.shape)
    result = otfew.solve(np.stack([easy, cost, easy]), a, b, solver="opencv", on_fail="ignore")
    np.testing.assert_array_equal(result.status, [0, 1, 0])
    np.testing.assert_allclose(result.value[[0, 2]], cost.min(0) @ b, rtol=1e-5)


@pytest.mark.parametrize("n", [25, 49])
def test_cosine_problems_of_deepemd_sizes_agree(n):
    rng = np.random.default_rng(n)
    x = np.maximum(rng.standard_normal((20, 2, n, 64)) + 0.3, 0)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    cost = 1 - x[:, 0] @ x[:, 1].swapaxes(1, 2)
    a, b = ((x[:, i] @ x[:, 1 - i].mean(1)[:, :, None])[..., 0] for i in (0, 1))
    a, b = a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)
    result, best = otfew.solve(cost, a, b, solver="opencv"), otfew.solve(cost, a, b)
    np.testing.assert_allclose(result.value, best.value, rtol=1e-6)
    assert (np.abs(result.gap) <= 1e-6).all()


def test_zero_weights_negative_costs_and_masses(batch):
    cost, a, b = batch(mass=3.0)
    cost = cost - 5
    a[:, 2], b[:, 0] = 0, 0
    a, b = 3 * a / a.sum(-1, keepdims=True), 3 * b / b.sum(-1, keepdims=True)
    result, best = otfew.solve(cost, a, b, solver="opencv"), otfew.solve(cost, a, b)
    np.testing.assert_allclose(result.value, best.value, atol=1e-4)
    assert (result.plan[:, 2] == 0).all()
    assert (result.plan[:, :, 0] == 0).all()
    f, g = result.potentials
    assert (f[:, :, None] + g[:, None] <= cost + 1e-12).all()


def test_a_problem_does_not_depend_on_its_batch_mates(batch):
    cost, a, b = batch(size=9)
    whole = otfew.solve(cost, a, b, solver="opencv")
    for k in range(9):
        one = otfew.solve(cost[k], a[k], b[k], solver="opencv")
        assert one.value.tobytes() == whole.value[k].tobytes()
        assert one.potentials[0].tobytes() == whole.potentials[0][k].tobytes()
        assert one.gap.tobytes() == whole.gap[k].tobytes()


def leaves(problem):
    return tuple(torch.from_numpy(x).requires_grad_() for x in problem)


@pytest.mark.parametrize("mass", [1.0, 3.5])
def test_gradients_are_those_of_the_exact_solver(mass, batch):
    """Plan and potentials are unique in general position; those of ``exact`` are tested by finite differences."""
    upstream = torch.tensor([10.0, -1.0, 0.0, 2.5])
    for missing in (None, 0, 1):
        grads = []
        for solver in ("opencv", "exact"):
            inputs = leaves(batch(size=4, n=5, m=4, mass=mass))
            weights = [None if missing == k else w for k, w in enumerate(inputs[1:])]
            value = (otfew.solve(inputs[0], *weights, solver=solver).value * upstream).sum()
            grads.append(torch.autograd.grad(value, [inputs[0], *(w for w in weights if w is not None)]))
        for found, expected in zip(*grads, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * mass)


def test_gradients_by_finite_differences(batch):
    cost, a, b = batch(size=3, n=5, m=4, mass=2.0)
    inputs = leaves((cost, a, b))
    grads = torch.autograd.grad(otfew.solve(*inputs, solver="opencv").value.sum(), inputs)
    rng, step = np.random.default_rng(0), 1e-2
    # Steps that float32 resolves; masses move within one total.
    for _ in range(5):
        moves = [rng.standard_normal(x.shape) * size for x, size in ((cost, 1e-1), (a, 1e-2), (b, 1e-2))]
        moves[1:] = [move - move.mean(-1, keepdims=True) for move in moves[1:]]
        ends = [
            float(otfew.solve(*(x + s * step * d for x, d in zip((cost, a, b), moves, strict=True)), solver="opencv")
                  .value.sum())
            for s in (1, -1)
        ]  # fmt: skip
        slope = sum(float((g.numpy() * d).sum()) for g, d in zip(grads, moves, strict=True))
        assert abs((ends[0] - ends[1]) / (2 * step) - slope) <= 1e-3


@pytest.mark.parametrize("kind", ["uniform", "ties"])
def test_degenerate_problems_get_a_super_and_a_subgradient(kind):
    rng = np.random.default_rng(0)
    n = 5
    cost = rng.integers(0, 3, (n, n)).astype(float) if kind == "ties" else rng.random((n, n))
    weights = np.full(n, 1 / n) if kind == "uniform" else rng.integers(1, 3, n) / 7
    other = weights[::-1].copy()
    inputs = leaves((cost, weights, other))
    result = otfew.solve(*inputs, solver="opencv")
    by_cost, by_a, by_b = (x.numpy() for x in torch.autograd.grad(result.value, inputs))
    here = float(result.value.detach())
    for _ in range(30):
        step = rng.standard_normal((n, n)) * 10 ** rng.uniform(-3, 0)
        assert float(otfew.solve(cost + step, weights, other).value) <= here + (by_cost * step).sum() + SINGLE
        a, b = rng.dirichlet(np.ones(n), 2) * weights.sum()
        tangent = here + by_a @ (a - weights) + by_b @ (b - other)
        assert float(otfew.solve(cost, a, b).value) >= tangent - SINGLE


@pytest.mark.parametrize("side", [0, 1])
def test_one_sided_derivative_at_zero_weights(side):
    rng = np.random.default_rng(1)
    cost, weights = rng.random((6, 5)), [rng.random(6) + 0.1, rng.random(5) + 0.1]
    weights[side][[1, 3]] = 0
    weights = [2 * w / w.sum() for w in weights]
    found = otfew.solve(cost, *weights, solver="opencv").potentials[side]
    expected = otfew.solve(cost, *weights).potentials[side]
    np.testing.assert_allclose(found, expected, atol=1e-10)
