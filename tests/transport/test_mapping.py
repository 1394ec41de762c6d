"""Barycentric maps: POT's maps on single problems, laws, gradients by finite differences, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import otfew
from otfew.transport import movement
from otfew.transport.mapping_classes import class_plans

N, M, D = 8, 14, 3
LABELS = np.repeat(np.arange(4), 2)


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, N, D)), 1.5 * rng.normal(size=(3, M, D)) + 1
    a, b = rng.uniform(0.5, 1.5, (3, N)), rng.uniform(0.5, 1.5, (3, M))
    return x, y, a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)


def sinkhorn(reg=0.5, **more):
    return otfew.Sinkhorn(reg=reg, tol=1e-11, **more)


def squares(x, y):
    return ((x[:, None] - y) ** 2).sum(-1)


def test_exact_maps_are_pots(clouds):
    ot = pytest.importorskip("ot")
    x, y, _, _ = clouds
    moved = otfew.transport_map(x, y)
    new = np.random.default_rng(1).normal(size=(3, 5, D))
    carried = otfew.transport_map(x, y, points=new)
    for k in range(3):
        fitted = ot.da.EMDTransport().fit(Xs=x[k], Xt=y[k])
        np.testing.assert_allclose(moved[k], fitted.transform(Xs=x[k]), atol=1e-12)
        np.testing.assert_allclose(carried[k], fitted.transform(Xs=new[k]), atol=1e-12)


def test_entropic_and_unbalanced_maps_are_pots(clouds):
    ot = pytest.importorskip("ot")
    x, y, _, _ = clouds
    entropic = otfew.transport_map(x, y, solver=sinkhorn())
    soft = otfew.transport_map(x, y, solver=sinkhorn(unbalanced=(0.7, 1.3)))
    for k in range(3):
        fitted = ot.da.SinkhornTransport(reg_e=0.5, max_iter=10_000, tol=1e-13).fit(Xs=x[k], Xt=y[k])
        np.testing.assert_allclose(entropic[k], fitted.transform(Xs=x[k]), atol=1e-8)
        # The class of POT's prices both sides alike and penalises the entropy; its function does neither.
        plan = ot.unbalanced.sinkhorn_unbalanced(
            np.full(N, 1 / N), np.full(M, 1 / M), squares(x[k], y[k]), 0.5, (0.7, 1.3), reg_type="kl",
            numItermax=100_000, stopThr=1e-15,
        )  # fmt: skip
        np.testing.assert_allclose(soft[k], plan @ y[k] / plan.sum(1, keepdims=True), atol=1e-7)


def class_value(plan, cost, labels, reg, eta):
    groups = sum(np.linalg.norm(plan[labels == c], axis=0).sum() for c in np.unique(labels))
    return (plan * cost).sum() + reg * (plan * np.log(plan)).sum() + eta * groups


def test_class_regularised_plans_are_not_above_pots(clouds):
    """What POT's conditional gradient reaches, which may end short of the optimum, bounds it from above."""
    ot = pytest.importorskip("ot")
    x, y, a, b = clouds
    cost = np.stack([squares(*pair) for pair in zip(x, y, strict=True)])
    weights = torch.from_numpy(a), torch.from_numpy(b)
    found = class_plans(
        torch.from_numpy(cost), *weights, torch.from_numpy(LABELS), solver=otfew.Sinkhorn(reg=1.0), reg_classes=1.5
    )
    assert (found.status == 0).all()
    assert (found.divergence <= 1e-10).all()
    plan = found.plan.numpy()
    np.testing.assert_allclose(plan.sum(2), a, atol=1e-9)
    np.testing.assert_allclose(plan.sum(1), b, atol=1e-9)
    fitted = ot.da.sinkhorn_l1l2_gl(
        a[0], LABELS, b[0], cost[0], 1.0, 1.5, numItermax=100, numInnerItermax=1000, stopInnerThr=1e-10
    )
    ours, theirs = (class_value(p, cost[0], LABELS, 1.0, 1.5) for p in (plan[0], fitted))
    assert theirs - 1e-2 <= ours <= theirs + 1e-9
    np.testing.assert_allclose(plan[0], fitted, atol=5e-3)


@pytest.mark.parametrize("solver", [sinkhorn(), sinkhorn(unbalanced=(0.8, None))], ids=["hard", "soft"])
def test_class_regularised_plans_are_stationary(solver, clouds):
    """At the optimum no direction that keeps the marginals changes the value; derivatives are taken numerically."""
    x, y, a, b = (part[0] for part in clouds)
    cost = squares(x, y)
    tensors = [torch.from_numpy(part) for part in (cost, a, b, LABELS)]
    plan = class_plans(*tensors, solver=solver, reg_classes=0.7).plan.numpy()

    def value(p):
        own = class_value(p, cost, LABELS, 0.5, 0.7) - 0.5 * (p * np.log(a[:, None] * b)).sum() - 0.5 * p.sum()
        if solver.unbalanced is not None:
            rows = p.sum(1)
            own += 0.8 * (rows * np.log(rows / a) - rows).sum()
        return own

    rng = np.random.default_rng(2)
    for _ in range(5):
        way = plan * rng.normal(size=plan.shape)
        if solver.unbalanced is None:
            # A circle: what leaves an entry of a row comes back in another, and so for its columns.
            (i, k), (j, m) = rng.choice(N, 2, replace=False), rng.choice(M, 2, replace=False)
            way = np.zeros_like(plan)
            size = min(plan[i, j], plan[k, m], plan[i, m], plan[k, j])
            way[i, j], way[k, m], way[i, m], way[k, j] = size, size, -size, -size
        else:
            way -= plan * (way.sum(0) / plan.sum(0))
        step = 1e-4
        slope = (value(plan + step * way) - value(plan - step * way)) / (2 * step)
        assert abs(slope) <= 1e-5 * np.abs(way).sum() + 1e-9


def test_of_one_image_a_class_the_plan_is_the_entropic_one(clouds):
    x, y, a, b = clouds
    labels = np.arange(N)
    regularised = otfew.transport_map(x, y, a, b, labels=labels, solver=sinkhorn(), reg_classes=2.0)
    np.testing.assert_allclose(regularised, otfew.transport_map(x, y, a, b, solver=sinkhorn()), atol=1e-4)
    others = otfew.transport_map(x, y, a, b, labels=LABELS, solver=sinkhorn(), reg_classes=2.0)
    assert np.abs(regularised - others).max() > 0.01


def test_without_weight_the_class_term_changes_nothing(clouds):
    x, y, a, b = (torch.from_numpy(part) for part in clouds)
    cost = otfew.costs.sqeuclidean(x, y)
    found = class_plans(cost, a, b, torch.from_numpy(LABELS), solver=sinkhorn(), reg_classes=0.0)
    assert_close(found.plan, otfew.solve(cost, a, b, solver=sinkhorn()).plan, rtol=0, atol=1e-7)


def test_points_of_a_class_send_alike_the_dearer_it_is_that_they_do_not(clouds):
    """Columns have fixed sums, so the norms are least where a class's points share what they send evenly."""
    x, y, _, _ = (torch.from_numpy(part) for part in clouds)
    cost = otfew.costs.sqeuclidean(x, y)
    uneven = []
    for eta in (0.0, 1.0, 4.0):
        plan = class_plans(cost, None, None, torch.from_numpy(LABELS), solver=otfew.Sinkhorn(reg=2.0), reg_classes=eta)
        of_classes = plan.plan.reshape(3, 4, 2, M)
        uneven.append(float((of_classes.amax(2) / of_classes.sum(2)).mean()))
    assert uneven[0] - 0.02 > uneven[1] > uneven[2] + 0.02


def test_problems_do_not_depend_on_their_batch(clouds):
    x, y, a, b = clouds
    for options in ({}, {"solver": sinkhorn()}, {"solver": sinkhorn(), "labels": LABELS, "reg_classes": 1.0}):
        together = otfew.transport_map(x, y, a, b, **options)
        alone = [otfew.transport_map(x[k], y[k], a[k], b[k], **options) for k in range(3)]
        np.testing.assert_allclose(together, alone, atol=1e-9)
    nested = otfew.transport_map(x.reshape(3, 1, N, D), y, a[0])
    assert nested.shape == (3, 3, N, D)
    np.testing.assert_allclose(nested[1, 1], otfew.transport_map(x[1], y[1], a[0]), atol=1e-12)


def test_new_points_are_carried_in_a_batch_that_only_another_argument_has(clouds):
    x, y, a, _ = clouds
    new = np.random.default_rng(1).normal(size=(2, D))
    for given in ((x[0], y), (x[0], y[0], a)):
        together = otfew.transport_map(*given, points=new)
        assert together.shape == (3, 2, D)
        for k in range(3):
            alone = [part if part.ndim == 2 and part.shape[-1] == D else part[k] for part in given]
            np.testing.assert_allclose(together[k], otfew.transport_map(*alone, points=new), atol=1e-12)


def test_equal_sets_change_nothing(clouds):
    x = clouds[0]
    order = np.random.default_rng(3).permutation(N)
    np.testing.assert_allclose(otfew.transport_map(x, x[:, order]), x, atol=1e-12)


@pytest.mark.parametrize("solver", ["exact", sinkhorn()], ids=["exact", "entropic"])
def test_a_shift_is_followed(solver, clouds):
    """For squared distances the plan of hard marginals does not see a shift of a domain."""
    x, y, a, b = clouds
    shift = np.array([3.0, -1.0, 2.0])
    moved = otfew.transport_map(x, y, a, b, solver=solver)
    np.testing.assert_allclose(otfew.transport_map(x, y + shift, a, b, solver=solver), moved + shift, atol=1e-6)
    np.testing.assert_allclose(otfew.transport_map(x + shift, y, a, b, solver=solver), moved, atol=1e-6)
    np.testing.assert_allclose(np.einsum("kn,knd->kd", a, moved), np.einsum("kn,knd->kd", b, y), atol=1e-9)


def test_order_does_not_matter(clouds):
    x, y, a, b = clouds
    rows, columns = np.random.default_rng(4).permutation(N), np.random.default_rng(5).permutation(M)
    for options in ({}, {"solver": sinkhorn(), "labels": LABELS, "reg_classes": 1.0}):
        moved = otfew.transport_map(x, y, a, b, **options)
        mixed = {**options, "labels": LABELS[rows]} if options else {}
        found = otfew.transport_map(x[:, rows], y[:, columns], a[:, rows], b[:, columns], **mixed)
        np.testing.assert_allclose(found, moved[:, rows], atol=1e-7)


def test_what_is_not_sent_stays(clouds):
    x, y, a, _ = clouds
    a = a.copy()
    a[:, 2] = 0
    assert np.array_equal(otfew.transport_map(x, y, a)[:, 2], x[:, 2])
    far = otfew.transport_map(x, y + 1e4, solver=sinkhorn(unbalanced=(1.0, 1.0)), on_fail="ignore")
    np.testing.assert_array_equal(far, x)


def test_kinds_and_precision(clouds):
    x, y, a, _ = clouds
    single = otfew.transport_map(x.astype(np.float32), y.astype(np.float32), a, solver=sinkhorn(1.0))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, otfew.transport_map(x, y, a, solver=sinkhorn(1.0)), atol=1e-4)
    tensors = [torch.from_numpy(part) for part in (x, y, a)]
    assert_close(otfew.transport_map(*tensors), torch.from_numpy(otfew.transport_map(x, y, a)))
    halves = [part.bfloat16() for part in tensors[:2]]
    assert otfew.transport_map(*halves).dtype == torch.float32


@pytest.mark.parametrize("unbalanced", [None, (0.8, None), (0.8, 0.5)], ids=str)
def test_gradients_through_entropic_plans(unbalanced, clouds):
    x, y = (torch.from_numpy(part[:1, :3, :2]).requires_grad_() for part in clouds[:2])
    a, b = (torch.from_numpy(part[:1, :3]).requires_grad_() for part in clouds[2:])
    solver = sinkhorn(1.0, unbalanced=unbalanced)

    def moved(x, y, a, b):
        return otfew.transport_map(x, y, a, b / b.sum(-1, keepdim=True) * a.sum(-1, keepdim=True), solver=solver)

    assert torch.autograd.gradcheck(moved, (x, y, a, b), eps=1e-5, atol=1e-4, fast_mode=True)


def test_gradients_of_exact_maps_reach_the_target(clouds):
    """The plan is constant in points that move little, so nothing reaches the source: finite differences agree."""
    x, y = (torch.from_numpy(part[:1]).requires_grad_() for part in clouds[:2])
    assert torch.autograd.gradcheck(otfew.transport_map, (x, y), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(5, 40), (25, 40), (12, 7)])
@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
def test_without_a_shift_a_movement_is_the_same_between_and_within(weighted, n, m):
    """Whatever the sizes, in expectation: of 600 draws, to three standard errors of the paired difference."""
    rng = np.random.default_rng(6)
    x, y, a = rng.normal(size=(600, n, 2)), rng.normal(size=(600, m, 2)), rng.uniform(0, 1, (600, n)) ** 2
    found = movement(x, y, a if weighted else None)
    excess = found.between - found.within
    assert abs(excess.mean()) < 3 * excess.std() / 600**0.5
    # What the test can see is small beside what is moved.
    assert excess.std() / 600**0.5 < 0.06 * found.within.mean()


def test_a_shift_raises_the_movement_between_alone():
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(300, 25, 2)), rng.normal(size=(300, 40, 2))
    same, shifted = movement(x, y), movement(x + 3, y)
    np.testing.assert_array_equal(same.within, shifted.within)
    # Means lie 3 apart in each of two dimensions: 18 more, but for what the means of samples differ by.
    assert abs((shifted.between - same.between).mean() - 18) < 0.5


def test_a_movement_has_the_batch_of_all_its_arguments():
    x, y = torch.randn(5, 4), torch.randn(7, 4)
    for given in ((x, y.expand(3, 7, 4)), (x.expand(3, 5, 4), y), (x, y, torch.ones(3, 5)), (x.half(), y.half())):
        found = movement(*given)
        shape = () if given[0].dtype == torch.half else (3,)
        assert found.between.shape == found.within.shape == shape
        assert found.between.dtype == found.within.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": np.full((2, 3), np.nan)}, "source holds NaN"),
        ({"target": np.full((2, 3), np.inf)}, "target holds NaN or infinity"),
        ({"target": np.zeros((2, 4))}, "source and target must have points of one dimension"),
        ({"target": np.zeros((2, 3), np.float32)}, "source and target must have one dtype"),
        ({"source": np.zeros((0, 3))}, "source must be"),
        ({"a": np.array([1.0, -1.0])}, "a "),
        ({"a": np.zeros(2)}, "a "),
        ({"b": np.ones(3)}, "b must be"),
        ({"a": np.ones(2), "b": np.ones(2) * 2}, "totals of a and b disagree"),
        ({"labels": np.array([0, 1, 2]), "reg_classes": 1.0, "solver": "sinkhorn"}, "labels must be"),
        ({"labels": np.array([0.0, 1.0]), "reg_classes": 1.0, "solver": "sinkhorn"}, "labels must be a tensor or an"),
        ({"reg_classes": 1.0, "solver": "sinkhorn"}, "reg_classes needs labels"),
        ({"labels": np.array([0, 1])}, "^`labels` have no effect without `reg_classes`: give a weight above 0, or"),
        ({"labels": np.array([0, 1]), "solver": "sinkhorn"}, "^`labels` have no effect without `reg_classes`"),
        ({"labels": np.array([0, 1]), "source": np.zeros((0, 3))}, "^`labels` have no effect without `reg_classes`"),
        ({"reg_classes": 1j, "solver": "sinkhorn"}, "reg_classes must be a finite number"),
        ({"labels": np.array([0, 1]), "reg_classes": 1.0}, "reg_classes needs an entropic plan"),
        ({"labels": np.array([0, 1]), "reg_classes": -1.0, "solver": "sinkhorn"}, "reg_classes must be"),
        ({"cost": "manhattan"}, "cost must be"),
        ({"solver": "nothing"}, "nothing"),
        ({"points": np.zeros((1, 2))}, "points must be"),
        ({"points": np.full((1, 3), np.nan)}, "points holds NaN"),
        ({"points": np.zeros((1, 3), np.float32)}, "points and source must have one dtype"),
    ],
)
def test_refusals(change, message):
    given = {"source": np.eye(2, 3), "target": np.eye(2, 3), **change}
    with pytest.raises(ValueError, match=message):
        otfew.transport_map(**given)


def test_other_refusals(clouds):
    x, y, _, _ = clouds
    with pytest.raises(ValueError, match="at least 2 points"):
        movement(x[0], y[0, :1])
    with pytest.raises(ValueError, match="a leaves no weight to 2 of the 8 source points"):
        movement(x[0], y[0, :4], np.eye(N)[0])
    with pytest.raises(ValueError, match="target holds NaN"):
        movement(x[0], y[0] * np.nan)
    with pytest.raises(ValueError, match="as a matrix"):
        otfew.transport_map(x, y, solver=otfew.KeOps())


def test_class_terms_that_do_not_converge_say_so(clouds):
    x, y, _, _ = clouds
    options = {"labels": LABELS, "reg_classes": 5.0, "solver": otfew.Sinkhorn(reg=0.05, max_iter=3)}
    with pytest.warns(otfew.ConvergenceWarning, match="3 class-regularised problems did not converge in 3 steps"):
        otfew.transport_map(x, y, **options)
    with pytest.raises(otfew.ConvergenceError):
        otfew.transport_map(x, y, on_fail="raise", **options)
