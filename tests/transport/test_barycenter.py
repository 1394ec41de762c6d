"""Free-support barycentres against POT's from the same start, and their laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import otfew
from otfew.transport import barycenter_api, barycenter_iteration

COSTS = ("sqeuclidean", "cosine")
each_cost = pytest.mark.parametrize("cost", COSTS)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def simplex(*shape, seed=1):
    weights = draw(*shape, seed=seed).abs() + 0.1
    return weights / weights.sum(-1, keepdim=True)


def objective(found, points, weights=None, masses=None, cost="sqeuclidean"):
    """F by separate solves, from the points alone."""
    costs = otfew.costs.pairwise(cost, found.points[..., None, :, :], points)
    sets = points.shape[-3]
    b = found.masses.double()[..., None, :].expand(*costs.shape[:-1])
    values = otfew.solve(costs, b, masses).value
    return (values * (1 / sets if weights is None else weights)).sum(-1)


def as_a_set(points, other):
    """Compare two node sets whatever their order: the least cost of an assignment between them."""
    return otfew.solve(otfew.costs.sqeuclidean(points, other)).value.max().item()


@pytest.mark.parametrize("masses", [False, True], ids=["alike", "masses"])
@pytest.mark.parametrize("n", [7, 5])
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_each_iteration_is_pots(masses, n, steps):
    """From the same start, after the same number of updates: the same nodes, and at the end the same value."""
    ot = pytest.importorskip("ot")
    points, weights = draw(4, 3, 7, 2), simplex(4, 3)
    a = simplex(4, 3, 7, seed=2) if masses else torch.full((4, 3, 7), 1 / 7, dtype=torch.float64)
    b = simplex(4, n, seed=3) if masses else torch.full((4, n), 1 / n, dtype=torch.float64)
    start = draw(4, n, 2, seed=4)
    given = {"masses": a, "node_masses": b} if masses else {}
    found = otfew.barycenter(points, weights, init=start, n_iter=steps, tol=0.0, **given)
    for k in range(4):
        nodes = ot.lp.free_support_barycenter(
            list(points[k].numpy()), list(a[k].numpy()), start[k].numpy(), b=b[k].numpy(), weights=weights[k].numpy(),
            numItermax=steps, stopThr=1e-20,
        )  # fmt: skip
        assert_close(found.points[k], torch.from_numpy(nodes), rtol=0, atol=1e-9)
    assert_close(found.value, objective(found, points, weights, a))
    if steps == 100:
        assert (found.status == otfew.Status.OPTIMAL).all()
        assert (found.n_iter < 100).all()
    else:
        assert (found.n_iter <= steps).all()


@each_cost
@pytest.mark.parametrize("masses", [False, True], ids=["alike", "masses"])
def test_value_never_rises_and_ends_at_a_fixed_point(cost, masses):
    points = draw(6, 4, 8, 3)
    a = simplex(6, 4, 8) if masses else None
    start = draw(6, 8, 3, seed=5)
    values = []
    for steps in range(1, 12):
        found = otfew.barycenter(points, masses=a, cost=cost, init=start, n_iter=steps, tol=0.0)
        assert_close(found.value, objective(found, points, masses=a, cost=cost))
        values.append(found.value)
    drops = -torch.stack(values).diff(dim=0)
    assert (drops >= -1e-12).all()
    assert drops[0].max() > 1e-3
    again = otfew.barycenter(points, masses=a, cost=cost, init=found.points)
    ended = found.status == otfew.Status.OPTIMAL
    assert ended.any()
    assert_close(again.points[ended], found.points[ended])


@each_cost
def test_nodes_are_the_best_for_their_plans(cost):
    """No direction lowers the cost under the plans: what an update promises."""
    points = draw(3, 4, 6, 5)
    found = otfew.barycenter(points, cost=cost)
    moved = found.points + 1e-3 * draw(200, 3, 6, 5, seed=6)
    costs = otfew.costs.pairwise(cost, moved[:, :, None], points)
    assert ((found.plans * costs).sum((-2, -1)).mean(-1) >= found.value - 1e-12).all()
    assert_close(found.plans.sum(-1), found.masses[:, None].expand(3, 4, 6))


@each_cost
@pytest.mark.parametrize("masses", [False, True], ids=["alike", "masses"])
def test_one_set_and_equal_sets_are_their_own_barycentre(cost, masses):
    x = draw(3, 1, 6, 4)
    x = x / x.norm(dim=-1, keepdim=True) if cost == "cosine" else x
    a = simplex(3, 1, 6) if masses else None
    for copies in (1, 4):
        every = None if a is None else a.expand(3, copies, 6)
        found = otfew.barycenter(x.expand(3, copies, 6, 4), masses=every, cost=cost)
        assert_close(found.points, x[:, 0])
        assert_close(found.value, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
        assert (found.n_iter == 1).all()
        if a is not None:
            assert_close(found.masses, a[:, 0])


@each_cost
def test_order_of_sets_and_nodes_does_not_matter(cost):
    points, weights = draw(3, 4, 6, 3), simplex(3, 4)
    found = otfew.barycenter(points, weights, cost=cost)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = torch.stack([points[:, s][:, torch.randperm(6)] for s in order], 1)
    other = otfew.barycenter(shuffled, weights[:, order], cost=cost)
    assert_close(other.value, found.value)
    assert as_a_set(other.points, found.points) < 1e-20


def test_translation_and_scale():
    points, weights = draw(3, 4, 6, 3), simplex(3, 4)
    found = otfew.barycenter(points, weights)
    moved = otfew.barycenter(3 * points + 1000, weights)
    assert_close(moved.points, 3 * found.points + 1000)
    assert_close(moved.value, 9 * found.value)


def test_two_sets_of_one_node_are_averaged():
    points = draw(5, 2, 1, 3)
    weights = simplex(5, 2)
    found = otfew.barycenter(points, weights)
    assert_close(found.points, (weights[..., None, None] * points).sum(1))
    assert_close(found.value, weights.prod(-1) * (points[:, 0, 0] - points[:, 1, 0]).square().sum(-1))
    towards = otfew.barycenter(points, weights, cost="cosine").points
    mean = (weights[..., None, None] * points / points.norm(dim=-1, keepdim=True)).sum(1)
    assert_close(towards, mean / mean.norm(dim=-1, keepdim=True))


def test_opposite_directions_leave_a_node_without_one():
    points = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]], dtype=torch.float64)
    found = otfew.barycenter(points, cost="cosine")
    assert_close(found.value, torch.ones((), dtype=torch.float64))
    assert found.points.isfinite().all()


@each_cost
def test_a_set_without_weight_or_masked_does_not_count(cost):
    points = draw(3, 4, 6, 3)
    mask = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]]).bool()
    spoiled = points.masked_fill(~mask[..., None, None], torch.nan)
    found = otfew.barycenter(spoiled, mask=mask, cost=cost)
    for k, kept in enumerate(mask):
        alone = otfew.barycenter(points[k, kept], cost=cost)
        assert_close(found.points[k], alone.points)
        assert_close(found.value[k], alone.value)
        assert not found.plans[k, ~kept].any()
    weighed = otfew.barycenter(spoiled, mask / mask.sum(-1, keepdim=True), mask=mask, cost=cost)
    assert_close(weighed.points, found.points)


@each_cost
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masses", [False, True], ids=["alike", "masses"])
def test_answers_do_not_depend_on_batch_mates(cost, dtype, masses):
    points, a = draw(6, 3, 8, 5, dtype=dtype), simplex(6, 3, 8) if masses else None
    together = otfew.barycenter(points, masses=a, cost=cost)
    assert together.points.dtype == dtype
    for k in range(6):
        alone = otfew.barycenter(points[k], masses=None if a is None else a[k], cost=cost)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        assert_close(together.points[k], alone.points, rtol=0, atol=tolerance)
        assert together.n_iter[k] == alone.n_iter
    exact = otfew.barycenter(points.double(), masses=a, cost=cost)
    assert_close(together.value, exact.value, rtol=1e-5, atol=1e-6)


@each_cost
@pytest.mark.parametrize("ahead", [True, False], ids=["products", "points"])
def test_the_compiled_iteration_is_the_plain_one(cost, ahead, monkeypatch):
    """Also where products are not computed ahead; from anywhere, and from one of the sets."""
    points, weights = draw(8, 4, 9, 3), simplex(8, 4)
    weights = (weights * torch.tensor([1, 1, 0, 1])) / weights[:, [0, 1, 3]].sum(-1, keepdim=True)
    for start in (draw(8, 9, 3, seed=7), None):
        found = otfew.barycenter(points, weights, cost=cost, init=start)
        with monkeypatch.context() as patch:
            patch.setattr(barycenter_api, "ASSIGNMENT", 0)
            if not ahead:
                patch.setattr(barycenter_iteration, "PRODUCTS_AHEAD", 0)
                patch.setattr(barycenter_iteration, "FEW_POINTS", 0)
            plain = otfew.barycenter(points, weights, cost=cost, init=start)
        assert_close(found.points, plain.points)
        assert_close(found.value, plain.value)
        assert torch.equal(found.n_iter, plain.n_iter)
        assert_close(found.plans, plain.plans)


@pytest.mark.parametrize("n_nodes", [1, 4, 12])
@each_cost
def test_another_number_of_nodes(n_nodes, cost):
    points = draw(3, 3, 6, 2)
    found = otfew.barycenter(points, n_nodes=n_nodes, cost=cost)
    assert found.points.shape == (3, n_nodes, 2)
    assert_close(found.value, objective(found, points, cost=cost))
    shuffled = otfew.barycenter(points[:, [2, 0, 1]].flip(2), n_nodes=n_nodes, cost=cost)
    assert_close(shuffled.value, found.value)
    if n_nodes == 1 and cost == "sqeuclidean":
        assert_close(found.points[:, 0], points.mean((1, 2)))


def test_more_nodes_are_nearer():
    points = draw(5, 3, 6, 2)
    values = [otfew.barycenter(points, n_nodes=n).value.mean() for n in (1, 3, 6)]
    assert values[0] > values[1] > values[2]


def test_numpy_batches_and_half_precision():
    points = draw(2, 3, 4, 5, 6)
    found = otfew.barycenter(points.numpy())
    assert isinstance(found.points, np.ndarray)
    assert found.points.shape == (2, 3, 5, 6)
    assert found.plans.shape == (2, 3, 4, 5, 5)
    assert found.value.shape == found.n_iter.shape == found.status.shape == (2, 3)
    assert_close(torch.from_numpy(found.points[1, 2]), otfew.barycenter(points[1, 2]).points)
    assert otfew.barycenter(points.bfloat16()).points.dtype == torch.float32


@each_cost
@pytest.mark.parametrize("masses", [False, True], ids=["alike", "masses"])
def test_gradients_are_those_of_finite_differences(cost, masses):
    """Of value and nodes in the points, of the value in the weights: plans stay as they are nearby."""
    points, a = draw(3, 4, 3, seed=8).requires_grad_(), simplex(3, 4, seed=9) if masses else None
    logits = draw(3, seed=10).requires_grad_()
    start = draw(4, 3, seed=11) if masses else None

    def of(points, logits):
        found = otfew.barycenter(points, logits.softmax(-1), masses=a, cost=cost, init=start, tol=0.0)
        assert found.status == otfew.Status.OPTIMAL
        return found.value, found.points

    assert torch.autograd.gradcheck(of, (points, logits), eps=1e-6, atol=1e-6)
    plain = of(points.detach(), logits.detach())
    assert torch.equal(of(points, logits)[0].detach(), plain[0])


@each_cost
def test_values_of_near_duplicates_keep_their_digits_in_double(cost):
    x = draw(6, 3)
    points = torch.stack([x, x + 1e-5 * draw(6, 3, seed=12)])
    found = otfew.barycenter(points, cost=cost)
    assert_close(found.value, objective(found, points, cost=cost), rtol=1e-3, atol=0)


BAD = [
    (torch.zeros(4, 3), {}, r"points must be \(\*batch, sets, nodes, d\).*a single set needs an axis"),
    (torch.zeros(2, 0, 3), {}, "at least one of each"),
    (torch.zeros(2, 4, 3).long(), {}, "points must be float32 or float64"),
    (torch.full((3, 2, 4, 3), torch.nan), {}, "points hold NaN or infinity at batch index 0"),
    (torch.full((2, 4, 3), torch.inf), {}, "points hold NaN or infinity"),
    (torch.full((2, 4, 3), 1e30), {}, None),
    (torch.zeros(2, 4, 3), {"weights": torch.tensor([0.5, 0.6])}, "weights have a total other than 1"),
    (torch.zeros(2, 4, 3), {"weights": torch.tensor([1.5, -0.5])}, "weights hold a negative weight"),
    (torch.zeros(2, 4, 3), {"weights": torch.tensor([torch.nan, 1.0])}, "weights hold a negative weight, NaN"),
    (torch.zeros(2, 4, 3), {"weights": torch.ones(3) / 3}, r"weights must be \(2,\) to fit points, got \(3,\)"),
    (torch.zeros(2, 4, 3), {"masses": torch.ones(2, 4)}, "masses have a total other than 1"),
    (torch.zeros(2, 4, 3), {"masses": torch.tensor([[2.0, -1.0, 0, 0], [1, 0, 0, 0]])}, "masses hold a negative"),
    (torch.zeros(2, 4, 3), {"masses": torch.ones(4) / 4}, r"masses must be \(2, 4\)"),
    (torch.zeros(2, 4, 3), {"node_masses": torch.tensor([1.0, 0, 0, 0])}, "node_masses hold a node without mass"),
    (torch.zeros(2, 4, 3), {"mask": torch.zeros(2).bool()}, "mask hold no set that counts"),
    (torch.zeros(2, 4, 3), {"mask": torch.ones(2)}, "mask must be bool"),
    (torch.zeros(2, 4, 3), {"init": torch.zeros(4, 2)}, r"init must be \(4, 3\)"),
    (torch.zeros(2, 4, 3), {"init": torch.zeros(3, 3), "n_nodes": 4}, r"init must be \(\*batch, 4, 3\)"),
    (torch.zeros(2, 4, 3), {"init": torch.full((4, 3), torch.nan)}, "init hold NaN"),
    (torch.zeros(2, 4, 3), {"n_nodes": 9}, "n_nodes is 9, but the sets of a problem have 8 nodes: give init"),
    (torch.zeros(2, 4, 3), {"n_nodes": 0}, "n_nodes must be a whole number"),
    (torch.zeros(2, 4, 3), {"n_iter": 2.0}, "n_iter must be a whole number"),
    (torch.zeros(2, 4, 3), {"n_iter": True}, "n_iter must be a whole number"),
    (torch.zeros(2, 4, 3), {"n_nodes": np.float64(4)}, "n_nodes must be a whole number"),
    (torch.zeros(2, 4, 3), {"tol": -1.0}, "tol must be"),
    (torch.zeros(2, 4, 3), {"tol": True}, "tol must be"),
    (torch.zeros(2, 4, 3), {"tol": np.float32(np.nan)}, "tol must be"),
    (torch.zeros(2, 4, 3), {"cost": "euclidean"}, "cost must be 'sqeuclidean' or 'cosine'"),
    (torch.zeros(2, 4, 3), {"solver": "sinkhorn"}, "solver must be an exact one"),
    (torch.zeros(2, 4, 3), {"solver": otfew.Exact(mass=0.5)}, "solver must be an exact one"),
    ([[1.0]], {}, "points must be a torch tensor or a numpy array"),
]


@pytest.mark.parametrize(("points", "options", "said"), BAD)
def test_errors_say_what_is_wrong(points, options, said):
    if said is None:
        said = "points hold numbers whose squares overflow"
        points = points * torch.tensor([1.0, -1.0])[:, None, None]
    with pytest.raises(ValueError, match=said):
        otfew.barycenter(points, **options)


def test_numbers_of_numpy_are_numbers():
    points = draw(2, 3, 4, 2)
    found = otfew.barycenter(points, n_nodes=np.int64(3), n_iter=np.int32(5), tol=np.float32(0))
    plain = otfew.barycenter(points, n_nodes=3, n_iter=5, tol=0)
    assert torch.equal(found.points, plain.points)
    assert torch.equal(found.n_iter, plain.n_iter)
