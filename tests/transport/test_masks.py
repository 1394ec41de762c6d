"""Masks and costs of +inf: values, statuses, cuts, gradients and sentences, against HiGHS without those variables."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import linprog

import otfew
from otfew.transport.registry import SOLVERS, lookup

EXACT = [name for name in SOLVERS if lookup(name).forbids and lookup(name).kind == "exact"]
REFUSING = [name for name in SOLVERS if not lookup(name).forbids and lookup(name).input == "dense cost"]
every = pytest.mark.parametrize("solver", EXACT)
PRECISION = {"opencv": 1e-5}
LIBRARIES = {"pot": "ot", "opencv": "cv2", "pot-sinkhorn": "ot", "qpth": "qpth"}


def optimum(cost, a, b, mass=None):
    """Least cost by HiGHS, in which forbidden pairs have no variable; infinite where it says infeasible."""
    n, m = cost.shape
    allowed = np.isfinite(cost).ravel()
    if not allowed.any():
        return math.inf
    sums = sparse.vstack([sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))])
    sums, weights = sums.tocsc()[:, allowed].tocsr(), np.concatenate([a, b])
    if mass is None:
        kept = np.delete(np.arange(n + m), n + int(np.argmax(b)))
        limits = {"A_eq": sums[kept], "b_eq": weights[kept]}
    else:
        limits = {"A_ub": sums, "b_ub": weights, "A_eq": np.ones((1, allowed.sum())), "b_eq": [mass]}
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    found = linprog(cost.ravel()[allowed], method="highs-ds", options=tight, **limits)
    assert found.status in (0, 2), found.message
    return found.fun if found.status == 0 else math.inf


def draw(rng):
    """One problem: costs in general position or with ties, 10 to 90 % forbidden, weights of several kinds."""
    n, m = rng.integers(1, 13, 2)
    m = n if rng.random() < 0.3 else m
    cost = rng.standard_normal((n, m)) if rng.random() < 0.5 else rng.integers(0, 4, (n, m)).astype(float)
    kind = rng.integers(3)
    a, b = (np.ones(k) if kind == 0 else rng.random(k) + 1e-3 for k in (n, m))
    if kind == 2:
        a, b = (np.where(rng.random(len(x)) < 0.7, x, 0) for x in (a, b))
        a[rng.integers(n)] = b[rng.integers(m)] = 1
    mask = rng.random((n, m)) > rng.uniform(0.1, 0.9)
    if rng.random() < 0.4:
        # A plan that there is, so that not only problems of many pairs are feasible.
        i, j, left, right = 0, 0, a / a.sum(), b / b.sum()
        while i < n and j < m:
            mask[i, j] = True
            flow = min(left[i], right[j])
            left[i], right[j] = left[i] - flow, right[j] - flow
            i, j = (i + 1, j) if left[i] <= right[j] else (i, j + 1)
    return cost, mask, a, b * (a.sum() / b.sum())


def prove(result, cost, a, b, wanted, precision=1e-9):
    """Prove one answer: a plan and potentials of the optimum, or a cut; ``cost`` holds infinity."""
    mask = np.isfinite(cost)
    (f, g), (rows, columns) = result.potentials, result.cut
    if not math.isfinite(wanted):
        assert result.status == otfew.Status.INFEASIBLE
        assert a[rows].sum() > b[columns].sum()
        assert not (mask[rows] & ~columns).any()
        assert result.value == result.value_linear == math.inf
        assert np.isnan(result.gap)
        assert np.isnan(result.marginal_error)
        assert not any(part.any() for part in (result.plan, f, g))
        return
    scale = precision * a.sum()
    assert result.status == otfew.Status.OPTIMAL
    assert not any(side.any() for side in (rows, columns))
    assert abs(result.value - wanted) <= 10 * scale
    assert not result.plan[~mask].any()
    assert max(abs(result.plan.sum(1) - a).max(), abs(result.plan.sum(0) - b).max()) <= scale
    assert (f[:, None] + g <= cost + 10 * precision).all()
    assert abs(f @ a + g @ b - result.value) <= 10 * scale
    assert abs(g @ b) <= scale
    assert abs(result.gap) <= 10 * scale
    # Costs lie between -4 and 4: paths of allowed pairs bring nothing further apart.
    assert max(abs(f).max(), abs(g).max()) <= 8 * sum(cost.shape)


def against_highs(solver, size, seed):
    rng = np.random.default_rng(seed)
    infeasible = 0
    for _ in range(size):
        cost, mask, a, b = draw(rng)
        forbidden = np.where(mask, cost, math.inf)
        wanted = optimum(forbidden, a, b)
        result = otfew.solve(cost, a, b, mask=mask, solver=solver, on_fail="ignore")
        prove(result, forbidden, a, b, wanted, PRECISION.get(solver, 1e-9))
        if solver == "exact":
            written = otfew.solve(forbidden, a, b, on_fail="ignore")
            assert written.plan.tobytes() == result.plan.tobytes()
            assert written.value.tobytes() == result.value.tobytes()
        infeasible += not math.isfinite(wanted)
    assert 0.2 * size < infeasible < 0.8 * size


@every
def test_values_statuses_and_cuts_are_those_of_highs(solver):
    pytest.importorskip(LIBRARIES.get(solver, "scipy"))
    against_highs(solver, 200 if solver == "exact" else 40, 0)


@pytest.mark.slow
@every
def test_values_statuses_and_cuts_of_two_thousand_problems(solver):
    pytest.importorskip(LIBRARIES.get(solver, "scipy"))
    against_highs(solver, 2000 if solver == "exact" else 300, 1)


def differences(value, x, step):
    """Central differences of a function of one array."""
    out = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            ends.append(value(moved))
        out[index] = (ends[0] - ends[1]) / (2 * step)
    return out


def by_differences(solver, size, seed, mass=None):
    """Compare the gradients of one problem in general position with differences; weights keep their total."""
    rng = np.random.default_rng(seed)
    checked = 0
    while checked < size:
        n, m = rng.integers(3, 7, 2)
        cost, mask = rng.random((n, m)), rng.random((n, m)) > rng.uniform(0.1, 0.6)
        a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
        b *= (a.sum() if mass is None else 1.3) / b.sum()
        leaves = [torch.from_numpy(x).requires_grad_() for x in (cost, a, b)]
        result = otfew.solve(*leaves, mask=torch.from_numpy(mask), solver=solver, on_fail="ignore")
        if result.status != otfew.Status.OPTIMAL:
            continue
        result.value.backward()
        for_cost, for_a, for_b = (x.grad.numpy() for x in leaves)

        def value(c=cost, a=a, b=b, mask=mask):
            return float(otfew.solve(c, a, b, mask=mask, solver=solver, on_fail="ignore").value)

        np.testing.assert_allclose(for_cost, differences(lambda c: value(c=c), cost, 1e-6), atol=1e-6)
        assert not for_cost[~mask].any()
        if mass is not None:
            np.testing.assert_allclose(for_a, differences(lambda a: value(a=a), a, 1e-6), atol=1e-6)
            np.testing.assert_allclose(for_b, differences(lambda b: value(b=b), b, 1e-6), atol=1e-6)
        else:
            for given, gradient, keyword in ((a, for_a, "a"), (b, for_b, "b")):
                # From one node to another: the value may be infinite on one side, or have a kink.
                i, j = rng.choice(len(given), 2, replace=False)
                step = np.zeros_like(given)
                step[i], step[j] = 1e-6, -1e-6
                ends = [value(**{keyword: given + sign * step}) for sign in (1, -1)]
                one_sided = sorted([(ends[0] - value()) / 1e-6, (value() - ends[1]) / 1e-6])
                assert one_sided[0] - 1e-6 <= gradient[i] - gradient[j] <= one_sided[1] + 1e-6
        checked += 1


def test_gradients_are_finite_differences():
    by_differences("exact", 20, 0)
    by_differences("scipy", 3, 1)
    by_differences(otfew.Exact(mass=0.8), 10, 2, mass=0.8)


@pytest.mark.slow
def test_gradients_of_many_problems_are_finite_differences():
    by_differences("exact", 200, 3)
    by_differences(otfew.Exact(mass=0.8), 60, 4, mass=0.8)


BLOCKS = np.kron(np.eye(2), np.ones((2, 3))) > 0
"""Two problems of 2 x 3 that no allowed pair joins."""


@every
@pytest.mark.parametrize("weights", ["random", "uniform"])
def test_blocks_that_nothing_joins_are_problems_of_their_own(solver, weights):
    """Values add up, and each block has the gauge of a problem of its own."""
    pytest.importorskip(LIBRARIES.get(solver, "scipy"))
    rng = np.random.default_rng(0)
    mask = BLOCKS if weights == "random" else np.kron(np.eye(2), np.ones((3, 3))) > 0
    n, m = mask.shape[0] // 2, 3
    cost = 10 * rng.random(mask.shape)
    a, b = np.ones(2 * n), np.ones(2 * m) * n / m
    if weights == "random":
        a, b = rng.random(2 * n), rng.random(2 * m)
        b[:m], b[m:] = b[:m] * (a[:n].sum() / b[:m].sum()), b[m:] * (a[n:].sum() / b[m:].sum())
    whole = otfew.solve(cost, a, b, mask=mask, solver=solver)
    tolerance = 1e-9 if solver != "opencv" else 1e-4
    value = 0
    for k in range(2):
        rows, columns = slice(k * n, (k + 1) * n), slice(k * m, (k + 1) * m)
        part = otfew.solve(cost[rows, columns], a[rows], b[columns], solver=solver)
        value += part.value
        np.testing.assert_allclose(whole.plan[rows, columns], part.plan, atol=tolerance)
        g = whole.potentials[1][columns]
        np.testing.assert_allclose(g @ b[columns], 0, atol=tolerance)
        if weights == "random":
            for found, wanted in zip(whole.potentials, part.potentials, strict=True):
                np.testing.assert_allclose(
                    found[columns if found is whole.potentials[1] else rows], wanted, atol=tolerance
                )
    np.testing.assert_allclose(whole.value, value, atol=tolerance)


def test_a_set_that_must_be_served_by_its_own_columns_has_the_derivative_on_the_side_that_there_is():
    """Row 0 may use all of column 0 alone, which is just enough; row 1 may use both columns."""
    cost = np.array([[1.0, math.inf], [5.0, 2.0]])
    a, b = np.array([0.5, 0.5]), np.array([0.5, 0.5])
    result = otfew.solve(cost, a, b)
    f, g = result.potentials
    assert (f[:, None] + g <= cost + 1e-12).all()
    step = 1e-6
    other = otfew.solve(cost, a + step * np.array([-1, 1]), b).value
    np.testing.assert_allclose((other - result.value) / step, f[1] - f[0], atol=1e-6)
    assert otfew.solve(cost, a + step * np.array([1, -1]), b, on_fail="ignore").status == otfew.Status.INFEASIBLE


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 3)])
@every
def test_everything_forbidden(solver, shape):
    pytest.importorskip(LIBRARIES.get(solver, "scipy"))
    result = otfew.solve(np.ones(shape), mask=np.zeros(shape, np.bool_), solver=solver, on_fail="ignore")
    prove(result, np.full(shape, math.inf), np.full(shape[0], 1 / shape[0]), np.full(shape[1], 1 / shape[1]), math.inf)
    assert result.cut[0].all()
    assert not result.cut[1].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
@every
def test_a_single_row_or_column(solver, shape):
    pytest.importorskip(LIBRARIES.get(solver, "scipy"))
    cost = np.arange(1.0, 1 + math.prod(shape)).reshape(shape)
    whole = otfew.solve(cost, mask=np.ones(shape, np.bool_), solver=solver)
    np.testing.assert_allclose(whole.value, cost.mean(), rtol=1e-6)
    if math.prod(shape) > 1:
        mask = np.ones(shape, np.bool_)
        mask.flat[1] = False
        assert otfew.solve(cost, mask=mask, solver=solver, on_fail="ignore").status == otfew.Status.INFEASIBLE
        weights = np.full(max(shape), 1 / (max(shape) - 1))
        weights[1] = 0
        sides = (np.ones(1), weights) if shape[0] == 1 else (weights, np.ones(1))
        served = otfew.solve(cost, *sides, mask=mask, solver=solver)
        np.testing.assert_allclose(served.value, np.delete(cost, 1).mean(), rtol=1e-6)
        assert np.isfinite(np.concatenate(served.potentials)).all()


def test_assignment_problems_with_forbidden_pairs():
    """A permutation of least cost, or none: by brute force on small ones, by SciPy on larger ones."""
    scipy_optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(3)
    infeasible = 0
    for k in range(120):
        n = int(rng.integers(2, 40))
        cost = np.where(rng.random((n, n)) < rng.uniform(0.2, 0.97), math.inf, rng.random((n, n)))
        result = otfew.solve(cost, on_fail="ignore")
        try:
            rows, columns = scipy_optimize.linear_sum_assignment(cost)
        except ValueError:
            infeasible += 1
            prove(result, cost, np.full(n, 1 / n), np.full(n, 1 / n), math.inf)
            continue
        prove(result, cost, np.full(n, 1 / n), np.full(n, 1 / n), cost[rows, columns].mean())
        assert result.solver == "exact (shortest augmenting paths)", k
    assert 20 < infeasible < 100


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every
def test_blocks_that_balance_but_for_the_rounding_of_weights(solver, dtype):
    """0.1 + 0.2 against 0.3, and parts of a sum: a plan that misses no more than rounding, and no forbidden mass."""
    pytest.importorskip(LIBRARIES.get(solver, "scipy"))
    rng = np.random.default_rng(4)
    parts = rng.random((6, 3)).astype(dtype)
    parts /= parts.sum()
    cases = [
        (np.array([0.1, 0.2, 0.7], dtype), np.array([0.3, 0.7], dtype), np.array([[1, 0], [1, 0], [0, 1]]) > 0),
        (parts.sum(1), parts.ravel(), np.kron(np.eye(6), np.ones((1, 3))) > 0),
    ]
    for a, b, mask in cases:
        cost = rng.random(mask.shape)
        result = otfew.solve(cost, a, b, mask=mask, solver=solver)
        assert result.status == otfew.Status.OPTIMAL
        assert result.marginal_error <= (1e-6 if dtype == np.float32 or solver == "opencv" else 1e-9)
        assert not result.plan[~mask].any()
        assert max(abs(x).max() for x in result.potentials) < 10


def test_batches_broadcast_over_mask_cost_and_weights():
    rng = np.random.default_rng(5)
    cost, a, b = rng.random((3, 1, 4, 5)), rng.random((2, 4)) + 0.1, rng.random((1, 1, 5)) + 0.1
    b = b * np.ones((3, 1, 1))
    a /= a.sum(-1, keepdims=True)
    b /= b.sum(-1, keepdims=True)
    mask = rng.random((2, 4, 5)) > 0.2
    for given in (mask, torch.from_numpy(mask).mT.contiguous().mT, mask[:, ::-1, ::-1][:, ::-1, ::-1]):
        result = otfew.solve(cost, a, b, mask=given, on_fail="ignore")
        assert result.value.shape == (3, 2)
        for i in range(3):
            for j in range(2):
                one = otfew.solve(cost[i, 0], a[j], b[i, 0], mask=mask[j], on_fail="ignore")
                assert one.value.tobytes() == result.value[i, j].tobytes()
                assert one.plan.tobytes() == result.plan[i, j].tobytes()
                assert one.cut[0].tobytes() == result.cut[0][i, j].tobytes()
    read_only = np.broadcast_to(mask[0], (2, 4, 5))
    assert otfew.solve(cost[0, 0], a, b[0], mask=read_only, on_fail="ignore").value.shape == (2,)


def test_an_answer_does_not_depend_on_batch_mates_or_threads():
    rng = np.random.default_rng(6)
    cost = np.where(rng.random((30, 9, 9)) < 0.5, math.inf, rng.random((30, 9, 9)))
    cost[::3] = rng.random((10, 9, 9))
    a, b = rng.dirichlet(np.ones(9), 30), rng.dirichlet(np.ones(9), 30)
    whole = otfew.solve(cost, a, b, solver=otfew.Exact(threads=2), on_fail="ignore")
    assert {0, 5} == set(whole.status.tolist())
    for k in range(30):
        one = otfew.solve(cost[k], a[k], b[k], solver=otfew.Exact(threads=1), on_fail="ignore")
        for name in ("value", "gap", "plan", "marginal_error", "n_iter", "status"):
            assert getattr(one, name).tobytes() == getattr(whole, name)[k].tobytes(), name
        for pair in ("potentials", "cut"):
            for mine, theirs in zip(getattr(one, pair), getattr(whole, pair), strict=True):
                assert mine.tobytes() == theirs[k].tobytes()


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e300, 8e307])
def test_costs_of_any_size_beside_forbidden_pairs(scale):
    rng = np.random.default_rng(7)
    cost, mask = rng.random((8, 6, 6)), rng.random((8, 6, 6)) > 0.5
    mask[:, np.arange(6), np.arange(6)] = True
    wanted = otfew.solve(cost, mask=mask)
    found = otfew.solve(cost * scale, mask=mask)
    np.testing.assert_allclose(found.value / scale, wanted.value, rtol=1e-12)
    single = otfew.solve((cost * min(scale, 1e38)).astype(np.float32), mask=mask)
    np.testing.assert_allclose(single.value / min(scale, 1e38), wanted.value, rtol=1e-6)


def test_allowed_pairs_of_one_cost():
    for level in (0.0, -3.0, 1e6):
        cost = np.where(np.tri(5, dtype=bool), level, math.inf)
        result = otfew.solve(cost)
        np.testing.assert_allclose(result.value, level, rtol=1e-15)
        assert not result.plan[cost == math.inf].any()
        np.testing.assert_allclose(result.potentials[0], level, rtol=1e-12)


@pytest.mark.parametrize("how", ["mask", "masked_fill", "where", "constant"])
@pytest.mark.parametrize("loss", ["sum", "square", "log", "difference"])
def test_gradients_at_forbidden_pairs_are_zero_and_nothing_is_poisoned(how, loss):
    """One problem of three is infeasible: its gradients are zero, whatever infinity the loss sends back."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(3, 5, 5, generator=generator) > 0.3
    mask[:, range(5), range(5)] = True
    mask[1, 2] = False
    cost = torch.rand(3, 5, 5, generator=generator, dtype=torch.float64).requires_grad_()
    a, b = (torch.rand(3, 5, generator=generator, dtype=torch.float64).softmax(-1).requires_grad_() for _ in range(2))
    for weights in ((None, None), (a, None), (None, b)):
        for x in (cost, a, b):
            x.grad = None
        given = {
            "mask": lambda: {"cost": cost, "mask": mask},
            "masked_fill": lambda: {"cost": cost.masked_fill(~mask, math.inf)},
            "where": lambda: {"cost": torch.where(mask, cost, torch.tensor(math.inf, dtype=torch.float64))},
            "constant": lambda: {"cost": cost + torch.where(mask, 0, math.inf)},
        }[how]()
        value = otfew.solve(**given, a=weights[0], b=weights[1], on_fail="ignore").value
        losses = {
            "sum": value.sum(),
            "square": value.square().sum(),
            "log": value.log().sum(),
            "difference": (value - value.detach()).sum(),
        }
        losses[loss].backward()
        assert torch.isfinite(cost.grad).all()
        assert not cost.grad[~mask].any()
        assert not cost.grad[1].any()
        assert cost.grad[0].any()
        for x in weights:
            if x is not None:
                assert torch.isfinite(x.grad).all()
                assert not x.grad[1].any()


def test_nan_behind_a_mask_is_hidden():
    cost = np.random.default_rng(8).random((4, 4))
    mask = np.eye(4, dtype=bool) | (np.arange(4) == 0)
    cost[~mask] = np.nan
    for given in (cost, torch.from_numpy(cost), torch.from_numpy(cost).requires_grad_()):
        result = otfew.solve(given, mask=mask)
        np.testing.assert_allclose(
            float(torch.as_tensor(result.value).detach()), cost[np.arange(4), np.arange(4)].mean()
        )
    cost[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"^cost holds NaN or -inf$"):
        otfew.solve(cost, mask=mask)


@pytest.mark.parametrize("mass", [0.3, 0.9, "min"])
def test_part_of_the_mass_against_highs(mass):
    """Rows that cannot be served keep their mass; where less than ``mass`` can be moved, nothing is."""
    rng = np.random.default_rng(9)
    infeasible = 0
    for _ in range(60):
        cost, mask, a, b = draw(rng)
        b = b * rng.uniform(0.7, 1.5)
        least = min(a.sum(), b.sum())
        moved = least if mass == "min" else mass * least
        forbidden = np.where(mask, cost, math.inf)
        wanted = optimum(forbidden, a * (1 + 1e-12), b * (1 + 1e-12), moved)
        result = otfew.solve(
            cost, a, b, mask=mask, solver=otfew.Exact(mass="min" if mass == "min" else moved), on_fail="ignore"
        )
        rows, columns = result.cut
        if math.isfinite(wanted):
            assert result.status == otfew.Status.OPTIMAL
            np.testing.assert_allclose(result.value, wanted, atol=1e-6)
            np.testing.assert_allclose(result.plan.sum(), moved)
            assert not result.plan[~mask].any()
            assert abs(result.gap) < 1e-9
        else:
            infeasible += 1
            assert result.status == otfew.Status.INFEASIBLE
            assert a[~rows].sum() + b[columns].sum() < moved
            assert not (mask[rows] & ~columns).any()
            assert result.value == math.inf
            assert not any(part.any() for part in (result.plan, *result.potentials))
    assert 0 < infeasible < 55


def test_certificates_of_plans_with_forbidden_pairs():
    rng = np.random.default_rng(10)
    cost, mask = rng.random((3, 6, 6)), rng.random((3, 6, 6)) > 0.4
    mask[:, np.arange(6), np.arange(6)] = True
    result = otfew.solve(cost, mask=mask)
    for given in ({"cost": cost, "mask": mask}, {"cost": np.where(mask, cost, math.inf)}):
        proof = otfew.certify(result.plan, **given)
        np.testing.assert_allclose(proof.value, result.value)
        assert (proof.gap <= 1e-12).all()
        f, g = proof.potentials
        assert (f[..., None] + g[..., None, :] <= np.where(mask, cost, math.inf) + 1e-12).all()
    worse = np.broadcast_to(np.eye(6) / 6, (3, 6, 6))
    proof = otfew.certify(worse, cost, mask=mask)
    assert (proof.gap >= proof.value - result.value - 1e-12).all()
    product = otfew.certify(np.full((3, 6, 6), 1 / 36), cost, mask=mask)
    assert (product.value == math.inf).all()
    assert (product.gap == math.inf).all()
    assert (product.marginal_error < 1e-12).all()


def test_results_are_pickled_with_their_cuts():
    mask = np.ones((2, 3, 3), np.bool_)
    mask[1, 1] = False
    for lib in (np.asarray, torch.from_numpy):
        result = otfew.solve(lib(np.random.default_rng(11).random((2, 3, 3))), mask=mask, on_fail="ignore")
        for twin in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
            assert twin.cut[0].tolist() == result.cut[0].tolist() == [[False] * 3, [False, True, False]]
            assert twin.plan.tolist() == result.plan.tolist()
            assert twin.status.tolist() == [0, 5]


def test_a_plan_of_nothing_fits_any_dtype():
    cost = torch.full((2, 2, 2), math.inf)
    cost[0] = 1
    assert not otfew.solve(cost, on_fail="ignore").plan[1].any()


SENTENCE = (
    r"^exact: 2 of 3 problems are infeasible, first at batch index 1 \(INFEASIBLE\): its rows 0, 2 hold more than all "
    r"columns that are allowed for them; allow more pairs, or pass on_fail='ignore' and look at status and cut$"
)


def infeasible_batch():
    mask = np.ones((3, 4, 4), np.bool_)
    mask[1, [0, 2], 1:] = False
    mask[2] = False
    return np.random.default_rng(12).random((3, 4, 4)), mask


def test_infeasible_problems_are_reported():
    cost, mask = infeasible_batch()
    with pytest.raises(otfew.ConvergenceError, match=SENTENCE):
        otfew.solve(cost, mask=mask)
    with pytest.warns(otfew.ConvergenceWarning, match=SENTENCE):
        otfew.solve(cost, mask=mask, on_fail="warn")
    with pytest.raises(
        otfew.ConvergenceError, match=r"^exact: 1 of 1 problems are infeasible \(INFEASIBLE\): its row 2 holds"
    ):
        otfew.solve(cost[0], mask=np.arange(4)[:, None] != 2 * np.ones(4))
    with pytest.raises(otfew.ConvergenceError, match=r"first at batch index \(0, 1\)"):
        otfew.solve(cost[:2][None], mask=mask[:2])
    with pytest.raises(otfew.ConvergenceError, match=r"its rows 0, 1, 2, 3, 4, 5, 6, 7 and 2 more hold"):
        otfew.solve(np.full((10, 3), math.inf))


@pytest.mark.parametrize("solver", ["exact", "scipy"])
def test_without_validation_forbidden_pairs_are_forbidden_all_the_same(solver):
    cost, mask = infeasible_batch()
    for given in ({"cost": cost, "mask": mask}, {"cost": np.where(mask, cost, math.inf)}):
        result = otfew.solve(**given, solver=solver, validate=False, on_fail="ignore")
        assert result.status.tolist() == [0, 5, 5]


@pytest.mark.parametrize("solver", REFUSING)
def test_solvers_that_take_no_forbidden_pairs_say_so(solver):
    pytest.importorskip(LIBRARIES.get(solver, "numpy"))
    cost, mask = infeasible_batch()
    takes = rf"and {solver} takes no forbidden pairs: take one of exact, .*scipy$"
    with pytest.raises(ValueError, match=rf"^cost holds infinity at batch index 1, {takes}"):
        otfew.solve(np.where(mask, cost, math.inf), solver=solver)
    with pytest.raises(ValueError, match=rf"^mask forbids pairs at batch index 1, {takes}"):
        otfew.solve(cost, mask=mask, solver=solver, validate=False)
    allowed = otfew.solve(cost[:1], mask=mask[:1], solver=solver, on_fail="ignore")
    assert allowed.value == otfew.solve(cost[:1], solver=solver, on_fail="ignore").value


def test_the_registry_tells_who_takes_forbidden_pairs():
    takes = {row["name"]: row["forbids"] for row in otfew.solvers()}
    assert takes == {name: lookup(name).forbids for name in SOLVERS}
    assert takes["exact"]
    assert takes["scipy"]
    assert not takes["qpth"]


BAD = {
    "list": ([[True]], r"mask must be a torch tensor or a numpy array, got list"),
    "integers": (
        np.ones((6, 7, 5), int),
        r"mask must be bool, True where a pair is allowed, got int64; write mask > 0",
    ),
    "tensor of floats": (torch.ones(6, 7, 5), r"mask must be bool.*got torch.float32"),
    "transposed": (
        np.ones((6, 5, 7), bool),
        r"mask must be \(\*batch, 7, 5\) to fit cost \(6, 7, 5\), got \(6, 5, 7\)",
    ),
    "rows alone": (np.ones(7, bool), r"mask must be \(\*batch, 7, 5\) to fit cost \(6, 7, 5\), got \(7,\)"),
    "one column": (np.ones((7, 1), bool), r"mask must be \(\*batch, 7, 5\)"),
    "another batch": (np.ones((4, 7, 5), bool), r"batch shapes of cost and mask do not broadcast: \(6,\), \(4,\)"),
    "masked array": (np.ma.masked_array(np.ones((7, 5), bool)), r"mask is a masked array"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_masks(case, batch):
    mask, message = BAD[case]
    for call in (lambda: otfew.solve(*batch(), mask=mask), lambda: otfew.certify(np.ones((7, 5)), *batch(), mask=mask)):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_mask_without_a_cost(batch):
    mask = np.ones((7, 5), bool)
    with pytest.raises(ValueError, match="cost must be a torch tensor or a numpy array, got None"):
        otfew.solve(None, mask=mask)
    with pytest.raises(ValueError, match=r"cost must be float32 or float64, got torch\.int64"):
        otfew.solve(torch.ones(7, 5, dtype=torch.int64), mask=mask)
    with pytest.raises(ValueError, match=r"mask must be .* to fit cost \(5,\)"):
        otfew.solve(np.ones(5), mask=mask)
    with pytest.raises(ValueError, match="batch shapes of cost and weights do not broadcast"):
        otfew.solve(batch()[0][0], *batch()[1:], mask=np.ones((4, 7, 5), bool))
