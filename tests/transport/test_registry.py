"""The table of solvers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import otfew
from otfew.transport.dense import solve_each
from otfew.transport.registry import SOLVERS, ArraySolver, lookup

EXACT = ("exact", "pot", "opencv", "scipy")


@pytest.fixture
def rows():
    return {row["name"]: row for row in otfew.solvers()}


def test_solvers_lists_what_there_is(rows):
    assert list(rows) == list(SOLVERS)
    assert {*EXACT, "pot-sinkhorn", "qpth"} <= set(rows)
    for name, row in rows.items():
        assert lookup(name).name == name
        assert row["kind"] in {"exact", "entropic", "quadratic"}
        assert row["input"] in {"dense cost", "points"}
        assert row["dtypes"]
        assert set(row["dtypes"]) <= {"float32", "float64"}
        assert {"cpu", "any"} & set(row["devices"])
        assert isinstance(row["batch_coupled"], bool)
        assert isinstance(row["installed"], bool)
        assert row["gradients"]


def test_solvers_tells_what_each_can_do(rows):
    for name in EXACT:
        assert rows[name]["kind"] == "exact"
        assert rows[name]["input"] == "dense cost"
        assert rows[name]["devices"] == (("cpu", "cuda") if name == "exact" else ("cpu",))
        assert rows[name]["gradients"] == "value in cost, a, b (envelope)"
    assert {name for name in EXACT if rows[name]["dtypes"] == ("float32",)} == {"opencv"}
    assert rows["pot-sinkhorn"]["kind"] == "entropic"
    assert rows["qpth"]["kind"] == "quadratic"
    assert "plan" in rows["qpth"]["gradients"]
    assert rows["qpth"]["batch_coupled"]
    assert not any(rows[name]["batch_coupled"] for name in (*EXACT, "pot-sinkhorn"))


def test_a_library_that_is_not_there_is_reported_not_raised(monkeypatch):
    monkeypatch.setattr(otfew.POT, "requires", "no_such_module_at_all")
    installed = {row["name"]: row["installed"] for row in otfew.solvers()}
    assert installed["pot"] is False
    assert installed["exact"] is True


@pytest.mark.parametrize("name", [name for name in SOLVERS if issubclass(lookup(name), ArraySolver)])
def test_a_name_means_its_defaults(name, batch):
    problem = batch(size=2)
    by_name, by_options = otfew.solve(*problem, solver=name), otfew.solve(*problem, solver=lookup(name)())
    assert by_name.value.tobytes() == by_options.value.tobytes()


@pytest.mark.parametrize("solver", [name for name in SOLVERS if lookup(name).input == "dense cost"])
def test_every_solver_answers_in_the_same_terms(solver, batch):
    """Shapes, dtypes, gauge, status and certificate of contract 1, whatever the backend."""
    cost, a, b = batch(size=3, n=5, m=4, mass=2.5)
    for dtype in (np.float64, np.float32):
        result = otfew.solve(cost.astype(dtype), a, b, solver=solver)
        assert [x.dtype for x in (result.plan, *result.potentials)] == [dtype] * 3
        for name in ("value", "value_linear", "gap", "marginal_error"):
            assert getattr(result, name).dtype == np.float64
            assert getattr(result, name).shape == (3,)
        assert result.plan.shape == (3, 5, 4)
        assert [p.shape for p in result.potentials] == [(3, 5), (3, 4)]
        assert (result.status == otfew.Status.OPTIMAL).all()
        assert (result.plan >= 0).all()
        assert (result.marginal_error <= 1e-5).all()
        assert (np.abs(result.plan.sum(-1) - a).max(-1) <= 2.5 * (result.marginal_error + 1e-6)).all()
        assert (np.abs(result.plan.sum(-2) - b).max(-1) <= 2.5 * (result.marginal_error + 1e-6)).all()
        assert (np.abs(result.gap) <= 1e-4).all()
        np.testing.assert_allclose((result.potentials[1] * b).sum(-1), 0, atol=1e-5)
        np.testing.assert_allclose(result.value_linear, (result.plan * cost).sum((1, 2)), rtol=1e-5)
        if lookup(solver).kind == "exact":
            np.testing.assert_array_equal(result.value, result.value_linear)
            f, g = result.potentials
            assert (f[..., None] + g[:, None] <= cost + 1e-6).all()
        else:
            assert (result.value >= otfew.solve(cost, a, b).value - 1e-6).all()


@pytest.mark.parametrize("method", ["highs", "highs-ds", "highs-ipm"])
def test_scipy_methods_agree(method, batch):
    problem = batch(size=2)
    found = otfew.solve(*problem, solver=otfew.SciPy(method=method)).value
    assert abs(found - otfew.solve(*problem).value).max() <= 1e-9


@dataclass(frozen=True)
class Assignment(ArraySolver):
    """Takes square problems of equal weights only."""

    name = "assignment"
    kind = "exact"
    requires = "scipy"

    def solve(self, problem):
        n, m = problem.shape
        if n != m:
            raise ValueError(f"assignment takes square problems, not {n} x {m}")

        def solve_one(cost, a, b):
            plan = np.zeros((n, n))
            plan[linear_sum_assignment(cost)] = a
            return plan, None, otfew.Status.OPTIMAL, n

        return solve_each(problem, solve_one, self.name)


@dataclass(frozen=True)
class Diagonal(Assignment):
    """Leaves all where it is, and says for the last problem of a batch that this is optimal."""

    def solve(self, problem):
        left = iter(range(len(problem)))

        def solve_one(cost, a, b):
            last = next(left) == len(problem) - 1
            return np.diag(a), None, otfew.Status.OPTIMAL if last else otfew.Status.MAX_ITER, 1

        return solve_each(problem, solve_one, self.name)


def test_a_solver_of_ones_own_needs_no_line():
    cost = np.random.default_rng(0).random((3, 5, 5))
    mine, ours = otfew.solve(cost, solver=Assignment()), otfew.solve(cost)
    np.testing.assert_allclose(mine.value, ours.value, rtol=1e-12)
    assert (mine.status == otfew.Status.OPTIMAL).all()
    assert (np.abs(mine.gap) <= 1e-9).all()
    with pytest.raises(ValueError, match="square problems, not 5 x 4"):
        otfew.solve(cost[..., :4], solver=Assignment())


def test_a_solver_that_stops_short_is_not_called_exact():
    """Nor one that says it is optimal and is not: its gap says by how much."""
    cost = np.random.default_rng(0).random((3, 5, 5))
    with pytest.raises(otfew.ConvergenceError, match="did not reach the optimum"):
        otfew.solve(cost, solver=Diagonal())
    found = otfew.solve(cost, solver=Diagonal(), on_fail="ignore")
    assert (found.status != otfew.Status.OPTIMAL).all()
    np.testing.assert_allclose(found.value, np.diagonal(cost, axis1=1, axis2=2).mean(-1))
    assert (found.value - found.gap <= otfew.solve(cost).value + 1e-12).all()
