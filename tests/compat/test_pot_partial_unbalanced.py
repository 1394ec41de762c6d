"""Partial and unbalanced transport say what POT says."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

import otfew.compat.pot as mine

ot = pytest.importorskip("ot")

METHODS = ["sinkhorn", "sinkhorn_stabilized", "sinkhorn_translation_invariant"]


def numbers(x):
    return x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def single(x):
    return x.dtype in (np.float32, torch.float32)


@pytest.mark.parametrize("m", [0.2, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_partial_plans_and_costs(seed, m, library, random_problem):
    a, b, M = random_problem(seed)
    a, b, M = (library(x) for x in (2 * a, 1.5 * b, M))
    tolerance = 1e-5 if single(a) else 1e-12
    plan, log = mine.partial_wasserstein(a, b, M, m, log=True)
    their_plan, their_log = ot.partial.partial_wasserstein(a, b, M, m, log=True)
    assert type(plan) is type(their_plan)
    # POT's own arrays of dummies are float64, and make numpy's float32 wider.
    assert plan.dtype == a.dtype
    np.testing.assert_allclose(numbers(plan), numbers(their_plan), atol=tolerance)
    assert their_log.keys() <= log.keys()
    assert float(log["partial_w_dist"]) == pytest.approx(float(their_log["partial_w_dist"]), abs=tolerance)
    assert (plan.sum(1) <= a + tolerance).all()
    assert (plan.sum(0) <= b + tolerance).all()
    assert float(plan.sum()) == pytest.approx(m, abs=tolerance)
    cost, log = mine.partial_wasserstein2(a, b, M, m, 3, True)
    their_cost = ot.partial.partial_wasserstein2(a, b, M, m)
    assert type(cost) is type(their_cost)
    assert float(cost) == pytest.approx(float(their_cost), abs=tolerance)
    assert (log["T"] == plan).all()


def test_partial_potentials_are_the_derivatives_of_the_cost(random_problem):
    a, b, M = random_problem(1)
    log = mine.partial_wasserstein(a, b, M, 0.5, log=True)[1]
    for k in range(7):
        more = a.copy()
        more[k] += 1e-7
        assert (mine.partial_wasserstein2(more, b, M, 0.5) - log["cost"]) / 1e-7 == pytest.approx(log["u"][k], abs=1e-6)


def test_the_whole_smaller_mass(random_problem):
    a, b, M = random_problem(2)
    # One more unit on the smaller side is one more to transport.
    log = mine.partial_wasserstein(a, 2 * b, M, log=True)[1]
    for k in range(7):
        more = a.copy()
        more[k] += 1e-7
        assert (mine.partial_wasserstein2(more, 2 * b, M) - log["cost"]) / 1e-7 == pytest.approx(log["u"][k], abs=1e-6)
    np.testing.assert_allclose(mine.partial_wasserstein(a, b, M), ot.partial.partial_wasserstein(a, b, M), atol=1e-12)
    # POT wants totals of at most 1 where m is None; here they are free.
    plan = mine.partial_wasserstein(2 * a, 3 * b, M)
    np.testing.assert_allclose(plan.sum(1), 2 * a, atol=1e-12)
    np.testing.assert_allclose(mine.partial_wasserstein([], [], M), mine.emd([], [], M), atol=1e-12)
    assert mine.partial_wasserstein2(a, b, M, 0) == 0


def test_the_gradient_of_the_partial_cost_is_the_plan(random_problem):
    a, b, M = (torch.tensor(x) for x in random_problem(3))
    M.requires_grad_()
    cost, log = mine.partial_wasserstein2(a, b, M, 0.4, log=True)
    (5 * cost).backward()
    torch.testing.assert_close(M.grad, 5 * log["T"], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": 2}, "`m` must be from 0 to the smaller total"),
        ({"m": -1}, "`m` must be from 0"),
        ({"m": math.nan}, "`m` must be from 0"),
        ({"a": np.ones(3)}, "`a` must be"),
        ({"b": -np.ones(9)}, "`b` holds"),
        ({"M": np.full((7, 9), np.nan)}, "`M` holds NaN"),
        ({"nb_dummies": 0}, "`nb_dummies`"),
        ({"M": torch.ones(7, 9)}, "give all arrays of one library"),
    ],
    ids=lambda x: str(x)[:30],
)
@pytest.mark.parametrize("name", ["partial_wasserstein", "partial_wasserstein2"])
def test_bad_partial_input(name, change, message, random_problem):
    a, b, M = random_problem(4)
    with pytest.raises(ValueError, match=message):
        getattr(mine, name)(**{"a": a, "b": b, "M": M, "m": 0.5, **change})


REG_M = [1, (0.5,), [2.0, 0.5], np.array([0.3, 3.0]), (math.inf, 1.0), (1.0, math.inf), torch.tensor([0.7, 0.9])]


@pytest.mark.parametrize("reg_m", REG_M, ids=str)
@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
def test_unbalanced_plans_and_logs(reg_m, reg_type, library, random_problem):
    a, b, M = random_problem(5)
    a, b, M = (library(x) for x in (2 * a, 0.9 * b, M))
    tolerance = 1e-4 if single(a) else 1e-8
    plan, log = mine.sinkhorn_unbalanced(a, b, M, 0.3, reg_m, "sinkhorn", reg_type, stopThr=1e-10, log=True)
    prices = reg_m if np.ndim(reg_m) == 0 else [float(x) for x in reg_m]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, their_log = ot.sinkhorn_unbalanced(
            a, b, M, 0.3, prices, "sinkhorn", reg_type, stopThr=1e-12, numItermax=20_000, log=True
        )
    assert type(plan) is type(theirs)
    assert plan.dtype == theirs.dtype
    np.testing.assert_allclose(numbers(plan), numbers(theirs), atol=tolerance)
    assert their_log.keys() <= log.keys()
    for key in ("logu", "logv", "cost", "total_cost"):
        np.testing.assert_allclose(numbers(log[key]), numbers(their_log[key]), atol=20 * tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_unbalanced_costs_of_many_histograms(method, library, random_problem):
    a, _, M = random_problem(6)
    b = 2 * np.random.default_rng(0).dirichlet(np.ones(9), 4).T
    a, b, M = (library(x) for x in (a, b, M))
    tolerance = 1e-4 if single(a) else 1e-7
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, their_log = ot.sinkhorn_unbalanced2(a, b, M, 0.5, 1.0, method, "entropy", stopThr=1e-11, log=True)
    for name in ("sinkhorn_unbalanced", "sinkhorn_unbalanced2"):
        ours, log = getattr(mine, name)(a, b, M, 0.5, 1.0, method, "entropy", stopThr=1e-10, log=True)
        assert type(ours) is type(theirs)
        np.testing.assert_allclose(numbers(ours), numbers(theirs), atol=tolerance)
        np.testing.assert_allclose(numbers(log["logu"]), numbers(their_log["logu"]), atol=100 * tolerance)


def test_unbalanced_costs_and_a_reference(random_problem):
    a, b, M = random_problem(7)
    c = np.random.default_rng(0).random(M.shape) + 0.1
    for cost in ("linear", "total"):
        ours = mine.sinkhorn_unbalanced2(a, 2 * b, M, 0.4, 1, c=c, returnCost=cost, stopThr=1e-10)
        theirs = ot.sinkhorn_unbalanced2(a, 2 * b, M, 0.4, 1, c=c, returnCost=cost, stopThr=1e-12)
        assert ours == pytest.approx(theirs, abs=1e-8)
    with pytest.warns(UserWarning, match="`c` has no effect"):
        mine.sinkhorn_unbalanced(a, b, M, 0.4, 1, reg_type="entropy", c=c)


def test_infinite_costs_and_zeros_of_the_reference_forbid_pairs(random_problem):
    a, b, M = random_problem(7)
    forbidden = np.random.default_rng(1).random(M.shape) < 0.3
    expected = ot.sinkhorn_unbalanced(a, 2 * b, M, 0.4, 1, c=np.where(forbidden, 0, 0.5), stopThr=1e-13)
    ours, log = mine.sinkhorn_unbalanced(a, 2 * b, M, 0.4, 1, c=np.where(forbidden, 0, 0.5), stopThr=1e-10, log=True)
    np.testing.assert_allclose(ours, expected, atol=1e-9)
    assert np.isfinite(log["total_cost"])
    closed = np.where(forbidden, np.inf, M)
    again = mine.sinkhorn_unbalanced(a, 2 * b, closed, 0.4, 1, c=np.full(M.shape, 0.5), stopThr=1e-10)
    np.testing.assert_allclose(again, ours, atol=1e-12)
    assert mine.sinkhorn_unbalanced2(a, 2 * b, closed, 0.4, 1, c=np.full(M.shape, 0.5), stopThr=1e-10) == pytest.approx(
        (expected * M).sum(), abs=1e-9
    )


def test_partial_transport_around_forbidden_pairs(random_problem):
    a, b, M = random_problem(12)
    closed = np.where(np.random.default_rng(2).random(M.shape) < 0.3, np.inf, M)
    price = np.where(np.isinf(closed), 1e3, M)
    assert mine.partial_wasserstein2(a, b, closed, 0.3) == pytest.approx(
        ot.partial.partial_wasserstein2(a, b, price, 0.3)
    )
    closed[:5] = np.inf
    with pytest.warns(UserWarning, match="Problem infeasible"):
        log = mine.partial_wasserstein(a, b, closed, 0.99, log=True)[1]
    assert log["result_code"] == 0


def test_unbalanced_gradients_are_pots(random_problem):
    grads = []
    for library, threshold in ((mine, 1e-12), (ot, 1e-14)):
        leaves = [torch.tensor(x, requires_grad=True) for x in random_problem(8)]
        library.sinkhorn_unbalanced2(leaves[0], 2 * leaves[1], leaves[2], 0.5, 1.0, stopThr=threshold).backward()
        grads.append([x.grad for x in leaves])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


def test_both_marginals_hard_is_balanced(random_problem):
    a, b, M = random_problem(9)
    for kind in ("kl", "entropy"):
        plan = mine.sinkhorn_unbalanced(a, b, M, 0.3, math.inf, reg_type=kind, stopThr=1e-12)
        np.testing.assert_allclose(plan, mine.sinkhorn(a, b, M, 0.3, stopThr=1e-12), atol=1e-11)


def test_unbalanced_weights_that_are_zero(random_problem):
    a, b, M = random_problem(10)
    a[0] = 0
    plan, log = mine.sinkhorn_unbalanced(a, b, M, 0.3, 1, reg_type="entropy", log=True)
    assert (plan[0] == 0).all()
    assert np.isfinite(log["total_cost"])
    assert log["logu"][0] == -math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reg": 0}, "`reg` must be positive"),
        ({"reg_m": 0}, "`reg_m` must be positive"),
        ({"reg_m": [1, 2, 3]}, "`reg_m` must be a number, or one or two"),
        ({"reg_type": "l2"}, "`reg_type` must be"),
        ({"method": "newton"}, "`method` must be one of"),
        ({"c": np.ones(3)}, "`c` must be"),
        ({"c": -np.ones((7, 9))}, "`c` must be finite and not negative"),
        ({"a": np.ones(3)}, "`a` must be"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_bad_unbalanced_input(change, message, random_problem):
    a, b, M = random_problem(11)
    for name in ("sinkhorn_unbalanced", "sinkhorn_unbalanced2"):
        with pytest.raises(ValueError, match=message):
            getattr(mine, name)(**{"a": a, "b": b, "M": M, "reg": 0.5, "reg_m": 1, **change})
    with pytest.raises(ValueError, match="`returnCost`"):
        mine.sinkhorn_unbalanced2(a, b, M, 0.5, 1, returnCost="all")
    with pytest.warns(UserWarning, match="sinkhorn_reg_scaling"):
        mine.sinkhorn_unbalanced(a, b, M, 0.5, 1, method="sinkhorn_reg_scaling")
