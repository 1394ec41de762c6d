"""Huge costs in place of forbidden pairs: right or not OPTIMAL, and the gap bounds the distance to the optimum."""

from __future__ import annotations

from fractions import Fraction

import networkx
import numpy as np
import pytest
import torch

import otfew

SCALES = [10**4, 10**6, 10**9, 10**12, 10**15, 10**17, 10**22, 10**30, int(np.finfo(np.float32).max)]
SMALL = np.array([[8.0, 6, 5], [2, 3, 0], [0, 0, 0]])
"""With the last pair forbidden the optimum is 2, that of the first pair and two that cost nothing less."""


def optimum(cost, a, b):
    """Least cost in exact integer arithmetic, by networkx's simplex; (n, m) of Python integers, weights (n,), (m,)."""
    graph = networkx.DiGraph()
    for i, weight in enumerate(a):
        graph.add_node(("row", i), demand=-int(weight))
    for j, weight in enumerate(b):
        graph.add_node(("column", j), demand=int(weight))
    for i, row in enumerate(cost):
        for j, price in enumerate(row):
            graph.add_edge(("row", i), ("column", j), weight=price)
    return networkx.network_simplex(graph)[0]


def draw(seed, big):
    """Integer costs of which some are of size ``big``, on one scale or two, and integer weights; several shapes."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 9, 2)
    kind = ("uniform", "integer", "blocks")[seed % 3]
    if kind == "uniform":
        m = n
    if kind == "blocks":
        n, m = 3 * (n // 2), 2 * (n // 2)
    cost = rng.integers(-5 if seed % 2 else 0, 30, (n, m)).astype(object)
    forbidden = rng.random((n, m)) < rng.choice([0.1, 0.5, 0.7])
    if kind == "blocks":
        forbidden = np.kron(np.eye(n // 3), np.ones((3, 2))) == 0
    high = 1000 * big if seed % 4 == 0 and big < 10**30 else big
    for i, j in zip(*np.nonzero(forbidden), strict=True):
        cost[i, j] = big if rng.random() < 0.5 else high
    if kind == "integer":
        a = rng.integers(1, 5, n) * int(m)
        b = np.full(m, a.sum() // m)
    else:
        a, b = np.full(n, m), np.full(m, n)
    return cost.tolist(), a, b


@pytest.mark.parametrize("big", SCALES, ids="{:.0e}".format)
@pytest.mark.parametrize("solver", ["exact", "pot", "scipy", "opencv"])
def test_against_integer_arithmetic(solver, big):
    pytest.importorskip({"pot": "ot", "opencv": "cv2"}.get(solver, "scipy"))
    precision = 1e-4 if solver == "opencv" else 1e-7
    for seed in range(30 if solver == "exact" else 12):
        cost, a, b = draw(seed, big)
        exactly = optimum(cost, a, b)
        result = otfew.solve(np.array(cost, float), a * 1.0, b * 1.0, solver=solver, on_fail="ignore")
        # The optimum of the costs as floats, which may differ from the integers where these are huge.
        allowed = precision * (abs(exactly) + 30 * int(a.sum()))
        if result.status == otfew.Status.OPTIMAL:
            assert abs(float(result.value) - exactly) <= allowed, (seed, solver)
        assert Fraction(float(result.value)) - exactly <= Fraction(float(result.gap)) + Fraction(abs(exactly)) / 2**50
        if solver == "exact" and big <= 10**12:
            assert result.status == otfew.Status.OPTIMAL, seed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weights", ["uniform", "random"])
def test_half_of_the_pairs_forbidden(weights, dtype):
    """The same problem with forbidden pairs at a cost that is high enough, and not higher."""
    rng = np.random.default_rng(0)
    cost = rng.random((40, 20, 20)).astype(dtype)
    forbidden = rng.random(cost.shape) < 0.5
    a, b = (None, None) if weights == "uniform" else rng.random((2, 40, 20)) + 0.5
    if b is not None:
        b *= a.sum(-1, keepdims=True) / b.sum(-1, keepdims=True)
    expected = otfew.solve(np.where(forbidden, 100, cost).astype(dtype), a, b)
    assert (expected.plan * forbidden).max() == 0
    for big in (1e3, 1e6, 1e10, 1e11, 1e12, 1e14, 1e17, 1e30, np.finfo(np.float32).max):
        found = otfew.solve(np.where(forbidden, big, cost).astype(dtype), a, b)
        np.testing.assert_allclose(found.value, expected.value, rtol=1e-12)
        assert (found.gap <= 1e-8).all()
        assert (found.plan * forbidden).max() == 0
        f, g = (x.astype(float) for x in found.potentials)
        assert (f[:, :, None] + g[:, None] <= np.where(forbidden, big, cost) + 1e-5).all()


def test_a_problem_does_not_depend_on_its_batch_mates():
    rng = np.random.default_rng(1)
    cost = np.where(rng.random((9, 12, 10)) < 0.4, 1e15, rng.random((9, 12, 10)))
    cost[::3] = rng.random((3, 12, 10))
    a, b = rng.dirichlet(np.ones(12), 9), rng.dirichlet(np.ones(10), 9)
    for solver in ("exact", "scipy"):
        whole = otfew.solve(cost, a, b, solver=solver)
        for k in range(9):
            one = otfew.solve(cost[k], a[k], b[k], solver=solver)
            for name in ("value", "gap", "plan", "marginal_error", "n_iter"):
                assert getattr(one, name).tobytes() == getattr(whole, name)[k].tobytes(), name
            assert one.potentials[0].tobytes() == whole.potentials[0][k].tobytes()


@pytest.mark.parametrize("big", [1e6, 1e12, 1e17, 1e30])
def test_part_of_the_mass(big):
    rng = np.random.default_rng(2)
    cost, forbidden = rng.random((20, 8, 6)), rng.random((20, 8, 6)) < 0.4
    a, b = rng.random((20, 8)), rng.random((20, 6))
    for mass in ("min", 0.5):
        solver = otfew.Exact(mass=mass)
        expected = otfew.solve(np.where(forbidden, 100, cost), a, b, solver=solver)
        free = (expected.plan * forbidden).max((1, 2)) == 0
        assert free.sum() > 5
        found = otfew.solve(np.where(forbidden, big, cost)[free], a[free], b[free], solver=solver)
        np.testing.assert_allclose(found.value, expected.value[free], rtol=1e-10)
        assert (np.abs(found.gap) <= 1e-9).all()


@pytest.mark.parametrize("huge", [1e9, -1e9, 1e30])
@pytest.mark.parametrize("solver", ["exact", "pot", "scipy"])
def test_huge_costs_of_nodes_without_mass(solver, huge):
    pytest.importorskip("ot")
    rng = np.random.default_rng(6)
    cost, a, b = rng.random((10, 5, 6)), rng.dirichlet(np.ones(5), 10), rng.dirichlet(np.ones(6), 10)
    b[:, 2] = 0
    b /= b.sum(-1, keepdims=True)
    expected = otfew.solve(cost, a, b).value
    cost[:, 1, 2] = huge
    found = otfew.solve(cost, a, b, solver=solver)
    np.testing.assert_allclose(found.value, expected, rtol=1e-8)


def test_points_far_away():
    """One point so far away that its squared distances are 1e16 times the others: it pays them whatever it does."""
    rng = np.random.default_rng(3)
    x, y = rng.random((2, 6, 2))
    result = otfew.solve_points(np.vstack([x, [[1e8, 0.0]]]), np.vstack([y, [[1e8, 0.0]]]), solver="exact")
    inner = otfew.solve_points(x, y, solver="exact")
    np.testing.assert_allclose(7 * result.value, 6 * inner.value, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1e-16, 1.0])
def test_pairs_that_cost_the_least_need_no_proof_in_other_units(value):
    """A diagonal of one cost, all other pairs huge: the value is that cost, and potentials prove it."""
    for big in (1.0, 1e12, 1e30):
        cost = np.full((5, 5), big)
        np.fill_diagonal(cost, value)
        a = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
        for weights in (None, a):
            result = otfew.solve(cost, weights, weights)
            np.testing.assert_allclose(result.value, value, rtol=1e-12)
            assert 0 <= result.gap <= max(1e-12 * value, 1e-14 * min(big, 1.0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weights", ["uniform", "random", "some zero"])
def test_a_set_against_itself_is_proven_by_the_kernel(weights, dtype, monkeypatch):
    """Every pair of the plan costs the least of all: no detour, and zero is proven to be zero."""
    monkeypatch.setattr(otfew.Exact, "_settle", None)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(6, 12, 3)).astype(dtype))
    a = torch.from_numpy(rng.uniform(0.1, 1, (6, 12)))
    a[:, :4] *= weights != "some zero"
    a = None if weights == "uniform" else a
    for offset in (0.0, -3.0, 1e6):
        result = otfew.solve(torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") + offset, a, a)
        total = 1.0 if a is None else a.sum(-1)
        assert (abs(result.value - offset * total) <= 1e-14 * abs(offset * total)).all()
        assert (result.gap >= 0).all()
        assert (result.gap <= 1e-14 * abs(offset * total)).all()
        f, g = result.potentials
        used = slice(4, None) if weights == "some zero" else slice(None)
        assert (f[:, used] == offset).all()
        assert not g[:, used].any()


def test_gradients_are_those_of_a_moderate_cost():
    rng = np.random.default_rng(4)
    forbidden = torch.from_numpy(rng.random((6, 9, 9)) < 0.4)
    a, b = (torch.from_numpy(rng.dirichlet(np.ones(9), 6)).requires_grad_() for _ in range(2))
    grads = []
    for big in (100.0, 1e14):
        cost = torch.from_numpy(np.random.default_rng(5).random((6, 9, 9))).requires_grad_()
        value = otfew.solve(cost.masked_fill(forbidden, big), a, b).value
        grads.append(torch.autograd.grad(value.sum(), [cost, a, b]))
    for found, expected in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_a_single_column_of_many_rows_in_float32():
    """``cv2.EMD`` loses 2e-5 of the mass of 2,000 rows, which is more than float32 explains."""
    pytest.importorskip("cv2")
    cost = np.random.default_rng(0).random((2000, 1))
    result = otfew.solve(cost, solver="opencv", on_fail="ignore")
    assert result.status != otfew.Status.OPTIMAL or abs(result.value - cost.mean()) <= 1e-5


@pytest.mark.parametrize("seed", range(5))
def test_no_flow_is_negative(seed):
    pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    cost, a, b = rng.random((20, 20)), 10.0 ** rng.uniform(-12, 12, 20), 10.0 ** rng.uniform(-12, 12, 20)
    b *= a.sum() / b.sum()
    result = otfew.solve(cost, a, b, solver="opencv", on_fail="ignore")
    assert (result.plan >= 0).all()
    if result.status == otfew.Status.OPTIMAL:
        np.testing.assert_allclose(result.value, otfew.solve(cost, a, b).value, rtol=1e-4)


@pytest.mark.parametrize("mass", [1e-36, 1e-38 * 1.2, 1e30])
@pytest.mark.parametrize("solver", ["exact", "sinkhorn", "pot"])
def test_small_masses_keep_their_plan_in_float32(solver, mass):
    cost = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    a, b = (torch.full((k,), mass / k, dtype=torch.float64) for k in (4, 5))
    plan = otfew.solve(cost, a, b, solver=solver).plan
    assert plan.dtype == torch.float32
    torch.testing.assert_close(plan.double().sum(1), a, rtol=1e-5, atol=0)


@pytest.mark.parametrize("mass", [1e-39, 1e-50, 1e-200, 1e39])
@pytest.mark.parametrize("solver", ["exact", "sinkhorn", "pot"])
def test_a_plan_that_float32_cannot_hold_is_refused(solver, mass):
    """Value and gradients are right all the same."""
    cost = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    a, b = (torch.full((3, k), 1.0 / k, dtype=torch.float64) for k in (4, 5))
    a[1], b[1] = a[1] * mass, b[1] * mass
    cost.requires_grad_()
    result = otfew.solve(cost, a, b, solver=solver)
    with pytest.raises(ValueError, match=r"plan of mass .* does not fit torch.float32 at batch index 1; give the cost"):
        _ = result.plan
    (grad,) = torch.autograd.grad(result.value[1] / mass, cost)
    torch.testing.assert_close(grad[1].sum(), torch.tensor(1.0))
    assert otfew.solve(cost.double(), a, b, solver=solver).plan[1].sum() > 0


def options_of(solver):
    """Options that are numbers, with values that are none of theirs."""
    wrong = {"count": (0, -1, 2.5, 2**63, float("nan"), float("inf"), True, "3", None),
             "number": (float("nan"), float("inf"), -1.0, True, "1")}  # fmt: skip
    for name, kind in NUMBERS[solver].items():
        for value in wrong[kind]:
            if not (value is None and solver == "Exact"):
                yield name, value


NUMBERS = {
    "Exact": {"tol": "number", "max_iter": "count", "threads": "count", "mass": "number"},
    "POT": {"max_iter": "count"},
    "POTSinkhorn": {"reg": "number", "tol": "number", "max_iter": "count"},
    "Sinkhorn": {"reg": "number", "tol": "number", "max_iter": "count"},
    "QPTH": {"reg": "number", "tol": "number", "max_iter": "count"},
    "KeOps": {"reg": "number", "tol": "number", "max_iter": "count", "scaling": "number"},
    "GeomLoss": {"reg": "number", "tol": "number", "scaling": "number"},
}


@pytest.mark.parametrize("solver", NUMBERS)
def test_options_that_are_no_numbers_of_their_range(solver):
    for name, value in options_of(solver):
        with pytest.raises(ValueError, match=f"{solver}: {name} must be .*got"):
            getattr(otfew, solver)(**{name: value})
