"""``sinkhorn`` and ``sinkhorn2`` say what POT says, where POT converges, and more where it does not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import otfew.compat.pot as mine

ot = pytest.importorskip("ot")

METHODS = ["sinkhorn", "sinkhorn_log", "greenkhorn", "sinkhorn_stabilized", "sinkhorn_epsilon_scaling"]
LOSSES = ["sinkhorn", "sinkhorn_log", "sinkhorn_stabilized"]


def single(x):
    return x.dtype in (np.float32, torch.float32)


def numbers(x):
    return x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def quietly(function, *args, **options):
    """Call POT, which warns where its threshold is beyond its dtype."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reg", [0.1, 1])
def test_plans_and_losses(method, reg, library, random_problem):
    problem = random_problem(0)
    a, b, M = (library(x) for x in problem)
    expected = ot.sinkhorn(*problem, reg, numItermax=5000, stopThr=1e-12)
    ours = mine.sinkhorn(a, b, M, reg, method, stopThr=1e-11)
    kind = quietly(ot.sinkhorn, a, b, M, reg, method, numItermax=20)
    assert type(ours) is type(kind)
    assert ours.dtype == M.dtype
    np.testing.assert_allclose(numbers(ours), expected, atol=1e-6 if single(a) else 1e-10)
    np.testing.assert_allclose(numbers(ours.sum(1)), problem[0], atol=1e-6 if single(a) else 1e-11)
    np.testing.assert_allclose(numbers(ours.sum(0)), problem[1], atol=1e-6 if single(a) else 1e-11)
    if method not in LOSSES:
        with pytest.raises(ValueError, match="`method`"):
            mine.sinkhorn2(a, b, M, reg, method)
        return
    ours = mine.sinkhorn2(a, b, M, reg, method, stopThr=1e-11)
    kind = quietly(ot.sinkhorn2, a, b, M, reg, method, numItermax=20)
    assert type(ours) is type(kind)
    assert ours.dtype == M.dtype
    assert float(ours) == pytest.approx((expected * problem[2]).sum(), abs=1e-6 if single(a) else 1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_logs_hold_what_pots_hold(method, random_problem):
    a, b, M = random_problem(1)
    a, b = 3 * a, 3 * b
    plan, log = mine.sinkhorn(a, b, M, 0.1, method, log=True)
    theirs = ot.sinkhorn(a, b, M, 0.1, method, log=True)[1]
    assert theirs.keys() <= log.keys()
    np.testing.assert_allclose(log["u"][:, None] * np.exp(-M / 0.1) * log["v"], plan, atol=1e-12)
    np.testing.assert_allclose(np.exp(log["log_u"]), log["u"])
    np.testing.assert_allclose(log["alpha"], 0.1 * log["logu"])
    # The gauge is free: the products are the same.
    for u, v in (("u", "v"), ("log_u", "log_v"), ("alpha", "beta")):
        if u in theirs:
            combine = np.multiply.outer if u == "u" else np.add.outer
            np.testing.assert_allclose(combine(log[u], log[v]), combine(theirs[u], theirs[v]), rtol=1e-4)
    assert log["err"][-1] < 1e-9
    assert log["niter"] == log["n_iter"] > 0


@pytest.mark.parametrize("method", LOSSES)
def test_many_histograms(method, library, random_problem):
    a, _, M = random_problem(2)
    b = np.random.default_rng(0).dirichlet(np.ones(9), 4).T
    a, b, M = (library(x) for x in (a, b, M))
    for name in ("sinkhorn", "sinkhorn2"):
        ours, log = getattr(mine, name)(a, b, M, 0.2, method, log=True)
        theirs, their_log = quietly(getattr(ot, name), a, b, M, 0.2, method, stopThr=1e-11, log=True)
        assert type(ours) is type(theirs)
        assert ours.shape == (4,)
        np.testing.assert_allclose(numbers(ours), numbers(theirs), atol=1e-5 if single(a) else 1e-8)
        key = "logu" if method == "sinkhorn_stabilized" else "u"
        assert tuple(log[key].shape) == tuple(their_log[key].shape) == (7, 4)
    with pytest.raises(ValueError, match="`b` must be one histogram"):
        mine.sinkhorn(a, b, M, 0.2, "greenkhorn")


def test_gradients_of_the_loss_and_of_the_plan_are_pots(random_problem):
    """POT differentiates through its iterations."""
    weights = torch.rand(7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for way in (
        lambda o, *x: o.sinkhorn2(*x, 0.3, stopThr=1e-13),
        lambda o, *x: (o.sinkhorn(*x, 0.3, stopThr=1e-13) * weights).sum(),
    ):
        grads = []
        for library in (mine, ot):
            leaves = [torch.tensor(x, requires_grad=True) for x in random_problem(3)]
            way(library, *leaves).backward()
            grads.append([x.grad for x in leaves])
        for ours, theirs in zip(*grads, strict=True):
            # Those of weights are defined up to a constant: the totals are given.
            apart = ours - theirs
            apart = apart - apart.mean() if apart.ndim == 1 else apart
            assert apart.abs().max() < 1e-8


def test_a_small_reg_neither_overflows_nor_stops_early(random_problem):
    a, b, M = random_problem(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = mine.sinkhorn(a, b, M, 1e-4)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-9)
    np.testing.assert_allclose(plan, mine.emd(a, b, M), atol=1e-3)


def test_weights_that_are_zero(random_problem):
    a, b, M = random_problem(5)
    a[1] = b[2] = 0
    a, b = a / a.sum(), b / b.sum()
    plan, log = mine.sinkhorn(a, b, M, 0.1, log=True)
    assert (plan[1] == 0).all()
    assert (plan[:, 2] == 0).all()
    assert log["u"][1] == log["v"][2] == 0
    np.testing.assert_allclose(plan, ot.sinkhorn(a, b, M, 0.1, "sinkhorn_log", stopThr=1e-12), atol=1e-9)


def test_what_is_warned_of(random_problem, capsys):
    a, b, M = random_problem(6)
    with pytest.warns(UserWarning, match="did not converge"):
        mine.sinkhorn(a, b, M, 0.01, numItermax=1)
    with pytest.warns(UserWarning, match="did not converge"):
        mine.sinkhorn2(a, b, M, 0.01, numItermax=1, warn=True)
    with pytest.warns(UserWarning, match="did not converge"):
        mine.sinkhorn(a, b, M, 1, stopThr=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine.sinkhorn2(a, b, M, 0.01, numItermax=1)
        mine.sinkhorn(a, b, M, 0.01, numItermax=1, warn=False)
    with pytest.warns(UserWarning, match="numerical errors"):
        plan = mine.sinkhorn(a, b, M, 0, warn=False)
    np.testing.assert_allclose(plan, mine.emd(a, b, M), atol=1e-14)
    mine.sinkhorn(a, b, M, 1, verbose=True)
    assert "err" in capsys.readouterr().out


def test_infinite_costs_forbid_pairs(library, random_problem):
    a, b, M = random_problem(13)
    M[0, :4] = M[3, 5:] = np.inf
    expected = ot.sinkhorn(a, b, M, 0.3, stopThr=1e-13)
    a, b, M = (library(x) for x in (a, b, M))
    tolerance = 1e-6 if single(a) else 1e-9
    plan = mine.sinkhorn(a, b, M, 0.3)
    np.testing.assert_allclose(numbers(plan), expected, atol=tolerance)
    loss = mine.sinkhorn2(a, b, M, 0.3)
    cost = numbers(M)
    assert float(loss) == pytest.approx((expected * np.where(np.isinf(cost), 0, cost)).sum(), abs=tolerance)
    M[1] = np.inf
    with pytest.warns(UserWarning, match="Problem infeasible"):
        assert (mine.sinkhorn(a, b, M, 0.3) == 0).all()


def test_totals_that_differ(random_problem):
    """Rows are kept and columns missed in proportion, as POT's iterations end, with its warning."""
    a, b, M = random_problem(7)
    with pytest.warns(UserWarning, match="did not converge"):
        ours, log = mine.sinkhorn(a, 2 * b, M, 0.5, log=True)
    with pytest.warns(UserWarning, match="did not converge"):
        theirs, their_log = ot.sinkhorn(a, 2 * b, M, 0.5, log=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert log["err"][-1] == pytest.approx(their_log["err"][-1], rel=1e-6)


def test_weights_may_be_left_out(random_problem):
    M = random_problem(8)[2]
    np.testing.assert_allclose(mine.sinkhorn([], [], M, 0.5), ot.sinkhorn([], [], M, 0.5), atol=1e-9)
    np.testing.assert_allclose(mine.sinkhorn(None, None, M, 0.5), mine.sinkhorn([], [], torch.tensor(M), 0.5))


def test_batches_and_options_without_effect():
    rng = np.random.default_rng(9)
    a, b, M = rng.dirichlet(np.ones(4), 3), rng.dirichlet(np.ones(5), 3), rng.random((3, 4, 5))
    plan, log = mine.sinkhorn(a, b, M, 0.2, log=True, tau=100, warmstart=(np.zeros(4), np.zeros(5)))
    losses = mine.sinkhorn2(a, b, M, 0.2)
    for k in range(3):
        np.testing.assert_allclose(plan[k], mine.sinkhorn(a[k], b[k], M[k], 0.2), atol=1e-12)
        assert losses[k] == pytest.approx(mine.sinkhorn2(a[k], b[k], M[k], 0.2), abs=1e-12)
        np.testing.assert_allclose(log["u"][k][:, None] * np.exp(-M[k] / 0.2) * log["v"][k], plan[k], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.ones(8) / 8}, "`a` must be"),
        ({"b": np.ones((8, 2)) / 8}, "`b` must be"),
        ({"a": -np.ones(7)}, "a holds a negative weight"),
        ({"M": np.full((7, 9), np.nan)}, "`M` holds NaN"),
        ({"M": np.ones(7)}, "`M` must be"),
        ({"M": np.ones((7, 9)) + 1j}, "`M` must hold real numbers"),
        ({"a": torch.ones(7) / 7}, "give all arrays of one library"),
        ({"reg": -1}, "`reg` must be a finite number"),
        ({"reg": float("nan")}, "`reg` must be a finite number"),
        ({"method": "new_method"}, "`method` must be one of .*Unknown method"),
        ({"numItermax": 0}, "`numItermax`"),
        ({"stopThr": float("inf")}, "`stopThr`"),
    ],
    ids=lambda x: str(x)[:30],
)
@pytest.mark.parametrize("name", ["sinkhorn", "sinkhorn2"])
def test_bad_input_is_one_sentence(name, change, message, random_problem):
    a, b, M = random_problem(12)
    with pytest.raises(ValueError, match=message) as caught:
        getattr(mine, name)(**{"a": a, "b": b, "M": M, "reg": 0.1, **change})
    assert "\n" not in str(caught.value)
