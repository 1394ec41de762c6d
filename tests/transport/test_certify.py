"""Certificates from a plan alone: tight for optimal plans, valid bounds for all others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otfew

reproducible = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def feasible(certificate, cost, b, allowed):
    f, g = certificate.potentials
    assert (f[..., None] + g[..., None, :] <= cost + allowed).all()
    np.testing.assert_allclose((g * b).sum(-1), 0, atol=1e-9 * max(1.0, np.abs(g).max()) * b.sum())


@settings(reproducible, max_examples=150)
@given(data=st.data())
def test_optimal_plans_prove_themselves(data, examples):
    example = data.draw(examples)
    result = otfew.solve(example.cost, example.a, example.b)
    found = otfew.certify(result.plan, example.cost, example.a, example.b)
    size = example.mass * np.abs(example.cost).max()
    assert abs(found.gap) <= example.tolerance() + 1e-14 * size * sum(example.cost.shape), example.kind
    assert abs(found.value - result.value) <= 1e-13 * size
    assert found.marginal_error <= 1e-12
    feasible(found, example.cost, example.b, 1e-12 * example.spread + 1e-15 * np.abs(example.cost).max())


@settings(reproducible, max_examples=150)
@given(data=st.data(), share=st.sampled_from([1.0, 0.5, 1e-3]), seed=st.integers(0, 1000))
def test_no_plan_claims_to_be_closer_to_the_optimum_than_it_is(data, share, seed, examples):
    """Mixtures of the optimal plan, that of another cost, and the product coupling, which uses every arc."""
    example = data.draw(examples)
    cost, a, b = example.cost, example.a, example.b
    best = otfew.solve(cost, a, b)
    other = otfew.solve(np.random.default_rng(seed).random(cost.shape), a, b).plan
    product = np.outer(a, b / b.sum())
    for poor in (other, product):
        found = otfew.certify((1 - share) * best.plan + share * poor, cost, a, b)
        assert found.value - best.value <= found.gap + example.tolerance(), example.kind
        dual = (found.potentials[0] * a).sum() + (found.potentials[1] * b).sum()
        assert dual <= best.value + example.tolerance(), example.kind


def test_the_bound_of_a_slightly_poor_plan_is_small(batch):
    """Potentials are sought at several sizes of flow: a trace of mass gone astray does not spoil them."""
    cost, a, b = batch(size=20, n=12, m=9)
    best = otfew.solve(cost, a, b)
    astray = 1e-6 * a[:, :, None] * b[:, None] + (1 - 1e-6) * best.plan
    found = otfew.certify(astray, cost, a, b)
    np.testing.assert_allclose(found.gap, found.value - best.value, rtol=1e-6)
    assert (found.gap > 1e-8).all()


def test_plans_of_an_entropic_solver_are_bounded(batch):
    pytest.importorskip("ot")
    cost, a, b = batch(size=4)
    best = otfew.solve(cost, a, b).value
    for reg, allowed in ((1e-2, 5e-3), (0.1, 0.2)):
        blurred = otfew.solve(cost, a, b, solver=otfew.POTSinkhorn(reg=reg))
        found = otfew.certify(blurred.plan, cost, a, b)
        assert (found.gap >= blurred.value_linear - best - 1e-8).all()
        assert (found.gap <= allowed).all()
        np.testing.assert_allclose(found.value, blurred.value_linear, rtol=1e-12)
        np.testing.assert_allclose(found.marginal_error, blurred.marginal_error, atol=1e-15)


def test_missed_sums_are_measured(batch):
    cost, a, b = batch(size=3, mass=2.0)
    plan = otfew.solve(cost, a, b).plan
    plan[1, 2, 3] += 0.5
    error = otfew.certify(plan, cost, a, b).marginal_error
    np.testing.assert_allclose(error, [0, 0.25, 0], atol=1e-12)


def test_weights_are_read_as_solve_reads_them(batch):
    cost, a, b = batch(mass=2.5)
    for weights in ((None, None), (a, None), (None, b), (a, b * (1 + 9e-5))):
        result = otfew.solve(cost, *weights)
        found = otfew.certify(result.plan, cost, *weights)
        assert np.abs(found.gap).max() <= 1e-12
        assert found.marginal_error.max() <= 1e-12


def test_batches_broadcast_and_stand_for_themselves(batch):
    cost, a, b = batch(size=5)
    plans = otfew.solve(cost, a[0], b[0]).plan
    whole = otfew.certify(plans, cost, a[0], b[0])
    assert whole.value.shape == whole.gap.shape == whole.marginal_error.shape == (5,)
    assert [p.shape for p in whole.potentials] == [(5, 7), (5, 5)]
    for k in range(5):
        one = otfew.certify(plans[k], cost[k], a[0], b[0])
        assert one.gap.shape == ()
        assert float(one.gap) == whole.gap[k]
        assert one.potentials[0].tobytes() == whole.potentials[0][k].tobytes()
    # Many plans of one cost, and one plan under many costs.
    assert otfew.certify(plans, cost[0], a[0], b[0]).gap.shape == (5,)
    shared = otfew.certify(plans[0], cost, a[0], b[0])
    assert abs(shared.gap[0]) <= 1e-12
    assert (shared.gap[1:] > 1e-3).all()
    assert otfew.certify(plans[None], cost[:, None], a[0], b[0]).gap.shape == (5, 5)
    assert otfew.certify(np.zeros((0, 4, 3)), np.zeros((0, 4, 3))).gap.shape == (0,)


def test_tensors_in_tensors_out(batch):
    cost, a, b = (torch.from_numpy(x) for x in batch())
    cost.requires_grad_()
    result = otfew.solve(cost, a, b)
    found = otfew.certify(result.plan.float(), cost, a, b)
    assert isinstance(found.gap, torch.Tensor)
    assert not found.value.requires_grad
    assert {x.dtype for x in (found.value, found.gap, found.marginal_error, *found.potentials)} == {torch.float64}
    assert float(found.gap.abs().max()) <= 1e-6
    assert float(found.marginal_error.max()) <= 1e-6


def test_many_small_and_one_large_problem_fit_the_chunks():
    rng = np.random.default_rng(0)
    cost = rng.random((9000, 4, 4))
    assert np.abs(otfew.certify(otfew.solve(cost).plan, cost).gap).max() <= 1e-13
    x = rng.standard_normal((200, 2))
    large = ((x[:, None] - rng.standard_normal((200, 2))) ** 2).sum(-1)
    assert abs(float(otfew.certify(otfew.solve(large).plan, large).gap)) <= 1e-12


CASES = {
    "NaN in plan": (lambda p, c: (np.where(np.arange(6)[:, None, None] == 4, np.nan, p), c), "plan holds NaN .* 4$"),
    "negative flow": (lambda p, c: (-p, c), "plan holds negative flow at batch index 0$"),
    "shape": (lambda p, c: (p[:, 1:], c), r"plan must be \(\*batch, 7, 5\) to fit cost .*, got \(6, 6, 5\)"),
    "vector": (lambda p, c: (p[0, 0], c), r"plan must be \(\*batch, 7, 5\)"),
    "batch": (lambda p, c: (p[:4], c), r"batch shapes of plan and cost do not broadcast: \(4,\), \(6,\)"),
    "integers": (lambda p, c: (torch.zeros(6, 7, 5, dtype=torch.int64), c), "plan must be float32 or float64"),
    "no plan": (lambda p, c: (None, c), "plan must be a torch tensor or a numpy array, got None"),
    "no cost": (lambda p, c: (p, None), "cost must be a torch tensor or a numpy array, got None"),
    "list": (lambda p, c: (p.tolist(), c), "plan must be a torch tensor or a numpy array, got list"),
    "NaN in cost": (lambda p, c: (p, c * np.nan), "cost holds NaN or -inf at batch index 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, batch):
    cost, a, b = batch()
    change, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        otfew.certify(*change(a[:, :, None] * b[:, None], cost), a, b)
