"""What happens when a solver stops before the optimum."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import otfew


def one_pivot_problems(batch):
    """Make problems 1 and 3 of a batch easy: constant costs need no pivot."""
    cost, a, b = batch(size=5, n=12, m=12)
    cost[[1, 3]] = 0.25
    return cost, a, b


def test_an_exact_solver_that_stops_early_raises(batch):
    with pytest.raises(otfew.ConvergenceError, match=r"3 of 5 problems, first at batch index 0 .*MAX_ITER") as caught:
        otfew.solve(*one_pivot_problems(batch), solver=otfew.Exact(max_iter=1))
    assert isinstance(caught.value, RuntimeError)


def test_on_fail_warn(batch):
    with pytest.warns(otfew.ConvergenceWarning, match="3 of 5 problems") as caught:
        otfew.solve(*one_pivot_problems(batch), solver=otfew.Exact(max_iter=1), on_fail="warn")
    assert caught[0].filename == __file__


def test_on_fail_must_be_known(batch):
    with pytest.raises(ValueError, match=r"on_fail must be 'raise', 'warn', 'ignore' or None, got 'explode'"):
        otfew.solve(*batch(), on_fail="explode")


def test_on_fail_ignore_keeps_status_and_the_other_problems(batch):
    problem = one_pivot_problems(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = otfew.solve(*problem, solver=otfew.Exact(max_iter=1), on_fail="ignore")
    expected = otfew.solve(*problem)
    good = [1, 3]
    np.testing.assert_array_equal(result.status, [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(result.value[good], expected.value[good])
    # What stopped early is feasible, above the optimum by no more than it says.
    assert (result.value >= expected.value).all()
    assert (result.value - expected.value <= result.gap + 1e-12).all()
    assert (result.marginal_error <= 1e-12).all()
    np.testing.assert_allclose(result.plan.sum(-1), problem[1], atol=1e-12)


@pytest.mark.parametrize(("solver", "options"), [("pot", {"max_iter": 1})])
def test_other_exact_backends_raise_too(solver, options, batch):
    with pytest.raises(otfew.ConvergenceError, match=f"{solver} did not reach the optimum"):
        otfew.solve(*batch(n=12, m=12), solver=otfew.POT(**options))


def test_numbers_that_overflow_are_never_called_optimal():
    huge = [[-1.7e308, 1.7e308], [1.7e308, -1.7e308]]
    cost = torch.tensor([huge, [[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    # Differences of costs overflow, but nothing that is asked for; with twice the mass the value does.
    assert otfew.solve(cost, validate=False).value.tolist() == [-1.7e308, 0]
    weights = torch.ones(2, dtype=torch.float64)
    result = otfew.solve(cost, weights, weights, on_fail="ignore", validate=False)
    assert result.status.tolist() == [otfew.Status.FAILED, otfew.Status.OPTIMAL]
    assert result.value[1] == 0
    with pytest.raises(otfew.ConvergenceError, match="batch index 0"):
        otfew.solve(cost, weights, weights, validate=False)


@pytest.mark.parametrize("option", ["max_iter", "threads"])
def test_options_out_of_range_are_named(option):
    with pytest.raises(ValueError, match=option):
        otfew.Exact(**{option: 0})
