"""POT's exact core: what its codes mean, and answers that failed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otfew
from otfew.transport.dense import solve_each
from otfew.transport.problem import Status, build, check_shapes

pytest.importorskip("ot")


def test_an_early_stop_is_reported_with_an_honest_gap(batch):
    cost, a, b = batch(size=5, n=12, m=12)
    best = otfew.solve(cost, a, b)
    for max_iter in (1, 5, 20):
        result = otfew.solve(cost, a, b, solver=otfew.POT(max_iter=max_iter), on_fail="ignore")
        done = result.status == otfew.Status.OPTIMAL
        assert (result.status[~done] == otfew.Status.MAX_ITER).all()
        # What it hands back then misses sums: it says by how much, and the bound holds up to that.
        worst = np.maximum(np.abs(result.plan.sum(-1) - a).max(-1), np.abs(result.plan.sum(-2) - b).max(-1))
        np.testing.assert_allclose(result.marginal_error, worst, atol=1e-14)
        assert (result.value - best.value <= result.gap + 1e-12).all()
        np.testing.assert_allclose(result.value[done], best.value[done], atol=1e-13)
    assert not done.all()


@pytest.mark.parametrize("code", [0, 2])
def test_other_codes_are_failures(code, batch, monkeypatch):
    from ot.lp import emd_wrap

    emd_c = emd_wrap.emd_c
    calls = iter(range(10))

    def third_fails(*args):
        found = list(emd_c(*args))
        if next(calls) == 2:
            found[4] = code
        return found

    monkeypatch.setattr(emd_wrap, "emd_c", third_fails)
    result = otfew.solve(*batch(size=5), solver="pot", on_fail="ignore")
    np.testing.assert_array_equal(result.status, [0, 0, 2, 0, 0])


@pytest.mark.parametrize("spoiled", [0, 3])
def test_numbers_that_are_none_become_the_product_coupling(spoiled, batch, monkeypatch):
    """A plan or potential that is not finite has failed; what is handed back is feasible and bounded all the same."""
    from ot.lp import emd_wrap

    emd_c = emd_wrap.emd_c
    calls = iter(range(10))

    def second_breaks(*args):
        found = list(emd_c(*args))
        if next(calls) == 1:
            found[spoiled] = found[spoiled] * np.nan
        return found

    cost, a, b = batch(size=4, mass=2.0)
    best = otfew.solve(cost, a, b)
    monkeypatch.setattr(emd_wrap, "emd_c", second_breaks)
    result = otfew.solve(cost, a, b, solver="pot", on_fail="ignore")
    np.testing.assert_array_equal(result.status, [0, 2, 0, 0])
    np.testing.assert_allclose(result.plan[1], np.outer(a[1], b[1]) / 2)
    assert 0 < result.value[1] - best.value[1] <= result.gap[1]
    np.testing.assert_allclose(np.delete(result.value, 1), np.delete(best.value, 1), rtol=1e-12)


def test_potentials_may_be_missing(batch):
    """Then they are recovered from the plans, and prove the same."""
    tensors = [torch.from_numpy(x) for x in batch(mass=2.0)]
    problem = build(*tensors, check_shapes(*tensors))
    best = otfew.solve(*tensors)

    def from_the_plans(cost, a, b):
        return otfew.solve(cost, a, b).plan, None, Status.OPTIMAL, 0

    found = solve_each(problem, from_the_plans, "test")
    assert np.abs(found.gap).max() <= 1e-13
    np.testing.assert_allclose(found.f, best.potentials[0], atol=1e-12)
    np.testing.assert_allclose(found.g, best.potentials[1], atol=1e-12)
