"""Problems of different sizes in one batch: the same answers, to the bit where they can be, as each alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otfew

SIZES = [(5, 7), (3, 3), (9, 2), (1, 6), (6, 6), (30, 20), (1, 1)]


def draw(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    costs = [rng.random(size).astype(dtype) for size in SIZES]
    a, b = ([rng.random(k) + 0.05 for k in lengths] for lengths in zip(*SIZES, strict=True))
    return costs, a, [y * (x.sum() / y.sum()) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("given", ["both", "rows", "columns", "neither"])
def test_each_problem_is_solved_as_if_alone(given, dtype):
    costs, a, b = draw(dtype=dtype)
    a = a if given in ("both", "rows") else None
    b = b if given in ("both", "columns") else None
    padded = otfew.pad(costs, a, b)
    result = otfew.solve(padded.cost, padded.a, padded.b, mask=padded.mask)
    assert result.plan.dtype == dtype
    plans, potentials, cuts = (padded.crop(x) for x in (result.plan, result.potentials, result.cut))
    for k, cost in enumerate(costs):
        alone = otfew.solve(cost, None if a is None else a[k], None if b is None else b[k])
        # The sums that rows are centred by are taken in another order, so the last bits of potentials may differ.
        np.testing.assert_allclose(result.value[k], alone.value, rtol=1e-15)
        if given == "both" or a is not None:
            assert plans[k].tobytes() == alone.plan.tobytes()
        np.testing.assert_allclose(plans[k], alone.plan, rtol=0, atol=1e-7 if dtype == np.float32 else 1e-15)
        for found, wanted in zip(potentials[k], alone.potentials, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6 if dtype == np.float32 else 1e-14)
        assert not any(side.any() for side in cuts[k])
        n, m = cost.shape
        assert not result.plan[k, n:].any()
        assert not result.plan[k, :, m:].any()
        assert not result.potentials[0][k, n:].any()
        assert not result.potentials[1][k, m:].any()


@pytest.mark.parametrize("solver", ["pot", "scipy"])
def test_other_solvers_take_padded_batches(solver):
    pytest.importorskip({"pot": "ot"}.get(solver, solver))
    costs, a, b = draw(1)
    padded = otfew.pad(costs, a, b)
    found = otfew.solve(padded.cost, padded.a, padded.b, mask=padded.mask, solver=solver)
    alone = [otfew.solve(*problem, solver=solver).value for problem in zip(costs, a, b, strict=True)]
    np.testing.assert_allclose(found.value, alone, rtol=1e-12)


def test_gradients_reach_what_was_given():
    costs, a, b = ([torch.from_numpy(x).requires_grad_() for x in side] for side in draw(2))
    padded = otfew.pad(costs, a, b)
    result = otfew.solve(padded.cost, padded.a, padded.b, mask=padded.mask)
    result.value.sum().backward()
    for k, cost in enumerate(costs):
        leaves = [x[k].detach().clone().requires_grad_() for x in (costs, a, b)]
        otfew.solve(*leaves).value.backward()
        for found, wanted in zip((cost, a[k], b[k]), leaves, strict=True):
            torch.testing.assert_close(found.grad, wanted.grad)
    alone = otfew.pad(costs)
    assert alone.a.dtype == torch.float64
    assert alone.mask.dtype == torch.bool
    assert [tuple(plan.shape) for plan in padded.crop(result.plan)] == SIZES


def test_a_problem_may_have_a_mask_of_its_own():
    costs, a, b = draw(3)
    padded = otfew.pad(costs, a, b)
    mask = padded.mask & (np.random.default_rng(4).random(padded.mask.shape) > 0.3)
    result = otfew.solve(padded.cost, padded.a, padded.b, mask=mask, on_fail="ignore")
    for k, (own, (rows, columns)) in enumerate(zip(padded.crop(mask), padded.crop(result.cut), strict=True)):
        alone = otfew.solve(costs[k], a[k], b[k], mask=own, on_fail="ignore")
        np.testing.assert_allclose(result.value[k], alone.value, rtol=1e-14)
        assert rows.tolist() == alone.cut[0].tolist()
        assert columns.tolist() == alone.cut[1].tolist()


def test_costs_of_infinity_stay_forbidden():
    cost = np.array([[1.0, np.inf], [np.inf, 3.0]])
    padded = otfew.pad([cost, np.ones((3, 3))])
    assert otfew.solve(padded.cost, padded.a, padded.b, mask=padded.mask).value.tolist() == [2, 1]


COSTS, A, B = draw()
BAD = {
    "nothing": (([],), r"costs must be a list of tensors or arrays, one a problem, got an empty list"),
    "one array": ((COSTS[0],), r"costs must be a list of tensors or arrays, one a problem, got ndarray"),
    "a list of lists": (([[[1.0]]],), r"costs\[0\] must be a torch tensor or a numpy array, got list"),
    "None among them": (([*COSTS, None],), r"costs\[7\] must be a torch tensor or a numpy array, got None"),
    "a vector": (([COSTS[0], A[0]],), r"costs\[1\] must be \(n, m\) with at least one row .*, got shape \(5,\)"),
    "no rows": (([COSTS[0][:0]],), r"costs\[0\] must be \(n, m\) with at least one row .*, got shape \(0, 7\)"),
    "integers": (([np.ones((2, 2), int)],), r"costs\[0\] must be float32 or float64, got int64"),
    "two dtypes": (
        ([COSTS[0], COSTS[1].astype(np.float32)],),
        r"costs must be all tensors or all arrays.*: costs\[0\] is an array of torch.float64 on cpu, costs\[1\] is",
    ),
    "two libraries": (([COSTS[0], torch.ones(2, 2, dtype=torch.float64)],), r"costs\[1\] is a tensor of"),
    "few weights": ((COSTS, A[:2]), r"a must hold weights for each of 7 costs, got 2"),
    "weights of another size": ((COSTS, A, B[:1] * 7), r"b\[1\] must be \(3,\) to fit costs\[1\], got \(7,\)"),
    "a matrix of weights": ((COSTS, COSTS), r"a\[0\] must be one number a node, got shape \(5, 7\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message) as caught:
        otfew.pad(*arguments)
    assert "\n" not in str(caught.value)


def test_crop_refuses_what_is_not_of_the_batch():
    padded = otfew.pad(COSTS)
    with pytest.raises(ValueError, match=r"padded must be \(7, 30, 20\), got \(7, 2, 2\)"):
        padded.crop(np.ones((7, 2, 2)))
    with pytest.raises(
        ValueError, match=r"padded must be a pair of \(7, 30\) and \(7, 20\), got \(7, 30\) and \(7, 3\)"
    ):
        padded.crop((padded.a, padded.b[:, :3]))
