"""``emd`` and ``emd2`` say what POT says: arguments, answers, logs, gauges, gradients, warnings, errors."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest
import torch

import otfew
import otfew.compat.pot as mine

ot = pytest.importorskip("ot")


def assert_alike(ours, theirs, tolerance=1e-12):
    """Demand the same kind, dtype, shape and numbers."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, torch.Tensor):
        assert (ours.dtype, ours.device) == (theirs.dtype, theirs.device)
        ours, theirs = ours.detach().numpy(), theirs.detach().numpy()
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype
    assert np.shape(ours) == np.shape(theirs)
    np.testing.assert_allclose(ours, theirs, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("emd", ot),
        ("emd2", ot),
        ("sinkhorn", ot),
        ("sinkhorn2", ot),
        ("sinkhorn_unbalanced", ot),
        ("sinkhorn_unbalanced2", ot),
        ("partial_wasserstein", ot.partial),
        ("partial_wasserstein2", ot.partial),
    ],
)
def test_arguments_their_order_and_their_defaults(name, where):
    def read(function):
        return [(x.name, x.kind, x.default) for x in inspect.signature(function).parameters.values()]

    assert read(getattr(mine, name)) == read(getattr(where, name))


def test_top_level_names():
    assert otfew.emd is mine.emd
    assert otfew.emd2 is mine.emd2
    assert mine.lp.emd is mine.emd
    assert mine.bregman.sinkhorn is mine.sinkhorn
    with pytest.raises(AttributeError, match=r"no 'gromov_wasserstein'.*import ot"):
        _ = mine.gromov_wasserstein


@pytest.mark.parametrize("seed", range(20))
def test_plans_costs_and_logs(seed, library, random_problem):
    problem = [library(x) for x in random_problem(seed, 1 + seed % 8, 1 + seed % 5)]
    single = problem[0].dtype in (np.float32, torch.float32)
    tolerance = 1e-6 if single else 1e-12
    plan, log = mine.emd(*problem, log=True)
    their_plan, their_log = ot.emd(*problem, log=True)
    assert_alike(plan, their_plan, tolerance)
    assert list(log) == list(their_log)
    for key in ("cost", "u", "v"):
        assert_alike(log[key], their_log[key], tolerance)
    assert (log["warning"], log["result_code"]) == (their_log["warning"], their_log["result_code"]) == (None, 1)
    assert_alike(mine.emd(*problem), their_plan, tolerance)
    assert_alike(mine.emd2(*problem), ot.emd2(*problem), tolerance)
    (cost, log2), (their_cost, their_log2) = (o.emd2(*problem, return_matrix=True) for o in (mine, ot))
    assert_alike(cost, their_cost, tolerance)
    assert list(log2) == list(their_log2)
    for key in ("cost", "u", "v", "G"):
        assert_alike(log2[key], their_log2[key], tolerance)


def test_potentials_are_centred_feasible_and_tight(random_problem):
    a, b, M = random_problem(1)
    a[2] = b[3] = 0
    a, b = a / a.sum(), b / b.sum()
    plan, log = mine.emd(a, b, M, log=True)
    u, v = log["u"], log["v"]
    assert abs(u @ a - v @ b) < 1e-14
    assert (u[:, None] + v <= M + 1e-14).all()
    assert abs(u @ a + v @ b - log["cost"]) < 1e-14
    np.testing.assert_allclose((M - u[:, None] - v)[plan > 1e-12], 0, atol=1e-14)
    their = ot.emd(a, b, M, log=True)[1]
    np.testing.assert_allclose(u[a > 0], their["u"][a > 0], atol=1e-13)
    # POT's potentials of weights that are zero are feasible, ours the largest that are.
    assert (u >= their["u"] - 1e-13).all()
    assert (v >= their["v"] - 1e-13).all()
    raw = mine.emd(a, b, M, log=True, center_dual=False)[1]
    assert abs(raw["v"] @ b) < 1e-14
    np.testing.assert_allclose(raw["u"] - u, (raw["u"] - u)[0], atol=1e-14)


@pytest.mark.parametrize("given", ["lists", "empty", "none", "empty tensors", "integers"])
def test_what_may_be_given(given, random_problem):
    a, b, M = random_problem(2, 4, 4)
    if given == "lists":
        args = a.tolist(), b.tolist(), M.tolist()
    elif given == "empty":
        args = [], [], M
    elif given == "none":
        assert mine.emd2(None, None, M) == mine.emd2([], [], M)
        return
    elif given == "empty tensors":
        args = torch.empty(0), torch.empty(0), torch.tensor(M)
        assert mine.emd(*args).dtype == torch.float64
        np.testing.assert_allclose(mine.emd(*args), ot.emd([], [], M), atol=1e-12)
        return
    else:
        args = np.array([1, 2, 1, 0]), np.array([1, 1, 1, 1]), (10 * M).astype(int)
        with pytest.warns(UserWarning, match="integer"):
            plan = mine.emd(*args)
        with pytest.warns(UserWarning, match="integer"):
            assert_alike(plan, ot.emd(*args))
        return
    assert_alike(mine.emd(*args), ot.emd(*args))
    assert_alike(mine.emd2(*args), ot.emd2(*args))


def test_arrays_that_may_not_be_written_to(random_problem):
    a, b, M = random_problem(2)
    expected = mine.emd(a, b, M)
    given = [np.broadcast_to(x, x.shape) for x in (a, b, M)]
    assert (mine.emd(*given) == expected).all()
    np.testing.assert_allclose(mine.emd(a[::-1], b, np.asfortranarray(M)[::-1])[::-1], expected, atol=1e-15)


def test_plans_hold_no_trifles():
    """Uniform weights of 20 and 30 nodes are no multiples of the solver's unit; what that leaves is not shown."""
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.standard_normal(20)), np.sort(rng.standard_normal(30))
    M = (x[:, None] - y) ** 2
    plan = mine.emd([], [], M)
    steps = np.unique(np.r_[np.arange(1, 21) / 20, np.arange(1, 31) / 30].round(12))
    assert np.count_nonzero(plan) == len(steps)
    assert plan[plan > 0].min() > 1e-3
    np.testing.assert_allclose(plan.sum(1), 1 / 20, atol=1e-14)
    batch = mine.emd([], [], np.stack([M, M]))
    assert (batch == plan).all()


def test_many_histograms_are_one_batch(library, random_problem):
    a, _, M = random_problem(3)
    b = np.random.default_rng(0).dirichlet(np.ones(9), 5).T
    problem = [library(x) for x in (a, b, M)]
    tolerance = 1e-6 if problem[0].dtype in (np.float32, torch.float32) else 1e-12
    ours, theirs = mine.emd2(*problem), ot.emd2(*problem)
    assert type(ours) is type(theirs) is list
    for x, y in zip(ours, theirs, strict=True):
        assert_alike(x, y, tolerance)
    ours, theirs = (o.emd2(*problem, log=True, return_matrix=True) for o in (mine, ot))
    for (cost, log), (their_cost, their_log) in zip(ours, theirs, strict=True):
        assert_alike(cost, their_cost, tolerance)
        for key in ("cost", "u", "v", "G"):
            assert_alike(log[key], their_log[key], tolerance)
    with pytest.warns(UserWarning, match="processes"):
        mine.emd2(*problem, 2)


@pytest.mark.parametrize("scale", [1.0, -10.0])
def test_gradients_are_pots(scale, random_problem):
    grads = []
    for library in (mine, ot):
        leaves = [torch.tensor(x, requires_grad=True) for x in random_problem(4)]
        (scale * library.emd2(*leaves)).backward()
        grads.append([x.grad for x in leaves])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    u = mine.emd(*random_problem(4), log=True)[1]["u"]
    np.testing.assert_allclose(grads[0][0] / scale, u - u.mean(), atol=1e-12)


def test_gradients_of_many_histograms_and_batches():
    """Finite differences along directions that keep the totals."""
    rng = np.random.default_rng(5)
    for many in (True, False):
        a, M = rng.dirichlet(np.ones(4)), rng.random((4, 5)) if many else rng.random((3, 4, 5))
        b = rng.dirichlet(np.ones(5), 3)
        b = b.T if many else b
        weights = torch.tensor(rng.random(3))

        def loss(a, b, M, weights=weights, many=many):
            found = mine.emd2(a, b, M)
            return (torch.stack(found) if many else found) @ weights

        leaves = [torch.tensor(x, requires_grad=True) for x in (a, b, M)]
        grads = torch.autograd.grad(loss(*leaves), leaves)
        for k, leaf in enumerate(leaves):
            along = torch.tensor(rng.standard_normal(leaf.shape))
            if k < 2:
                axis = 0 if k == 1 and many else -1
                along = along - along.mean(axis, keepdim=True)
            moved = [
                loss(*[x.detach() + step * along if j == k else x.detach() for j, x in enumerate(leaves)])
                for step in (1e-7, -1e-7)
            ]
            assert abs((moved[0] - moved[1]) / 2e-7 - (grads[k] * along).sum()) < 1e-7


def test_a_gradient_cannot_be_differentiated_again(random_problem):
    leaves = [torch.tensor(x, requires_grad=True) for x in random_problem(4)]
    grads = torch.autograd.grad(mine.emd2(*leaves), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        grads[2].sum().backward()


def test_batches_are_their_problems(library):
    rng = np.random.default_rng(6)
    a, b, M = rng.dirichlet(np.ones(4), (2, 3)), rng.dirichlet(np.ones(5)), rng.random((2, 3, 4, 5))
    a, b, M = (library(x) for x in (a, b, M))
    plan, log = mine.emd(a, b, M, log=True)
    costs = mine.emd2(a, b, M)
    assert plan.shape == (2, 3, 4, 5)
    assert plan.dtype == a.dtype
    assert costs.shape == log["result_code"].shape == (2, 3)
    for k in np.ndindex(2, 3):
        one, one_log = mine.emd(a[k], b, M[k], log=True)
        assert (one == plan[k]).all()
        assert float(costs[k]) == pytest.approx(one_log["cost"], abs=1e-6)
        for key in "uv":
            assert (one_log[key] == log[key][k]).all()


def sparse_problem(seed, n=12, m=12):
    """Costs of which a part is stored, and the dense ones with a price for the others that nothing pays."""
    rng = np.random.default_rng(seed)
    cost, stored = rng.random((n, m)), rng.random((n, m)) < 0.3
    stored |= np.eye(n, m, dtype=bool)
    return cost, stored, np.where(stored, cost, 1e4)


@pytest.mark.parametrize("seed", range(5))
def test_sparse_costs_of_scipy(seed):
    sparse = pytest.importorskip("scipy.sparse")
    cost, stored, dense = sparse_problem(seed)
    M = sparse.coo_array((cost[stored], stored.nonzero()), shape=cost.shape)
    plan, log = mine.emd([], [], M, log=True)
    their_plan, their_log = ot.emd([], [], M, log=True)
    assert type(plan) is type(their_plan)
    np.testing.assert_allclose(plan.toarray(), their_plan.toarray(), atol=1e-12)
    assert log["cost"] == pytest.approx(their_log["cost"], abs=1e-12)
    assert log["cost"] == pytest.approx(mine.emd2([], [], dense), abs=1e-12)
    assert mine.emd2([], [], M) == pytest.approx(log["cost"], abs=1e-12)
    u, v = log["u"], log["v"]
    assert (u[:, None] + v <= np.where(stored, cost, np.inf) + 1e-12).all()


def test_sparse_costs_of_torch_and_their_gradient():
    cost, stored, dense = sparse_problem(7)
    values = torch.tensor(cost[stored], requires_grad=True)
    M = torch.sparse_coo_tensor(np.stack(stored.nonzero()), values, cost.shape)
    plan = mine.emd([], [], M)
    assert plan.layout == torch.sparse_coo
    expected = mine.emd([], [], dense)
    np.testing.assert_allclose(plan.to_dense(), expected, atol=1e-12)
    value = mine.emd2([], [], M)
    (3 * value).backward()
    np.testing.assert_allclose(values.grad, 3 * expected[stored], atol=1e-12)


def test_infinity_forbids_a_pair(library, random_problem):
    a, b, M = random_problem(8)
    M[0, :8] = np.inf
    a[0] = min(a[0], b[8] / 2)
    a = a / a.sum()
    plan, log = mine.emd(*map(library, (a, b, M)), log=True)
    assert (plan[0, :8] == 0).all()
    price = np.where(np.isinf(M), 1e3, M)
    assert log["cost"] == pytest.approx(ot.emd2(a, b, price), abs=1e-6)


def test_no_plan_is_said(random_problem):
    a, b, M = random_problem(9)
    M[0] = np.inf
    with pytest.warns(UserWarning, match="Problem infeasible"):
        plan, log = mine.emd(a, b, M, log=True)
    assert (plan == 0).all()
    assert log["result_code"] == 0
    assert "infeasible" in log["warning"]
    assert log["cost"] == np.inf
    with pytest.warns(UserWarning, match="Problem infeasible"):
        assert mine.emd2(a, b, M) == np.inf


def test_a_limit_of_pivots():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 2))
    a, b, M = rng.dirichlet(np.ones(60)), rng.dirichlet(np.ones(60)), ((x[:, None] - x) ** 2).sum(-1)
    with pytest.warns(UserWarning, match="numItermax"):
        plan, log = mine.emd(a, b, M, numItermax=1, log=True)
    assert log["result_code"] == 3
    assert "numItermax" in log["warning"]
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-12)
    assert log["cost"] > mine.emd2(a, b, M)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mine.emd2(a, b, M, numItermax=0) == mine.emd2(a, b, M)


def test_options_that_do_nothing(random_problem):
    problem = random_problem(10)
    with pytest.warns(DeprecationWarning, match="numThreads"):
        plan = mine.emd(*problem, numThreads="max")
    assert (plan == mine.emd(*problem)).all()
    start = np.zeros(7), np.ones(9)
    assert (mine.emd(*problem, potentials_init=start) == plan).all()
    assert mine.emd2(*problem, potentials_init=start) == mine.emd2(*problem)


def test_totals_may_be_left_unchecked(random_problem):
    a, b, M = random_problem(11)
    np.testing.assert_allclose(mine.emd(a, 3 * b, M, check_marginals=False), mine.emd(a, b, M), atol=1e-15)
    assert mine.emd2(a, b * (1 + 1e-6), M) == pytest.approx(ot.emd2(a, b * (1 + 1e-6), M), abs=1e-14)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": np.ones(8) / 8}, AssertionError, "`a` must be"),
        ({"b": np.ones(8) / 8}, AssertionError, "`b` must be"),
        ({"a": np.ones(7)}, AssertionError, "must have the same sum, got 7 and 1"),
        ({"a": np.full(7, (1 + 2e-6) / 7)}, AssertionError, "must have the same sum"),
        ({"a": -np.ones(7)}, ValueError, "`a` holds a negative weight"),
        ({"b": np.full(9, np.nan)}, ValueError, "`b` holds NaN"),
        ({"a": np.zeros(7)}, ValueError, "`a` has total weight zero"),
        ({"M": np.full((7, 9), np.nan)}, ValueError, "`M` holds NaN"),
        ({"M": np.full((7, 9), -np.inf)}, ValueError, "`M` holds NaN or minus infinity"),
        ({"M": np.ones(7)}, ValueError, "`M` must be"),
        ({"M": np.ones((7, 9)) + 1j}, ValueError, "`M` must hold real numbers"),
        ({"M": [[1.0], [1.0, 2.0]]}, ValueError, "`M` must hold real numbers"),
        ({"M": "costs"}, ValueError, "`M` must be a numpy array"),
        ({"a": torch.ones(7) / 7}, ValueError, "`a` is a torch tensor and `b` a numpy array"),
        ({"numThreads": 0}, ValueError, "`numThreads`"),
        ({"numItermax": -1}, ValueError, "`numItermax`"),
        ({"potentials_init": (np.zeros(7), np.zeros(3))}, ValueError, "`potentials_init`"),
    ],
    ids=lambda x: str(x)[:30],
)
@pytest.mark.parametrize("name", ["emd", "emd2"])
def test_bad_input_is_one_sentence(name, change, error, message, random_problem):
    a, b, M = random_problem(12)
    with pytest.raises(error, match=message) as caught:
        getattr(mine, name)(**{"a": a, "b": b, "M": M, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
def test_costs_between_points(metric, library):
    rng = np.random.default_rng(0)
    x, y = (library(rng.random((n, 3))) for n in (5, 6))
    tolerance = 1e-6 if x.dtype in (np.float32, torch.float32) else 1e-12
    assert_alike(mine.dist(x, y, metric), ot.dist(x, y, metric), tolerance)
    assert (np.diagonal(mine.dist(x, metric=metric)) <= tolerance).all()
    assert_alike(mine.unif(4, type_as=x), ot.unif(4, type_as=x))
    for p in (1, 2, 3.5):
        assert_alike(mine.dist(x, y, "minkowski", p), ot.dist(x, y, "minkowski", p), tolerance)
    with pytest.raises(ValueError, match="`p` must be"):
        mine.dist(x, y, "minkowski", 0.5)
    with pytest.raises(ValueError, match="`metric` must be one of"):
        mine.dist(x, y, "haversine")
    with pytest.raises(ValueError, match="`x1` and `x2`"):
        mine.dist(x, y[:, :2])
