"""Batch-wise OT loss: against loops with POT's Sinkhorn, finite differences, laws, and clear refusals."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from otfew.errors import UserError
from otfew.methods.batchwise_ot import PUBLISHED, BatchwiseOTLoss

N, M, CHANNELS = 7, 9, 3


def batches(seed=0, spread=0.6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x, y = (spread * torch.randn(n, CHANNELS, generator=generator, dtype=torch.float64) for n in (N, M))
    labels = [torch.tensor([0, 1, 2, 0, 1, 2, 0]), torch.tensor([0, 1, 2, 2, 1, 0, 0, 1, 2])]
    return x.to(dtype), labels[0], y.to(dtype), labels[1]


def looped_ground(loss, x, x_labels, y, y_labels):
    """GM, one pair at a time, in plain Python."""
    ground = np.zeros((len(x), len(y)))
    for i, u in enumerate(x):
        for j, v in enumerate(y):
            d = sum((a - b) ** 2 for a, b in zip(u, v, strict=True))
            d = d if loss.distance == "sqeuclidean" else math.sqrt(d)
            hinge = d - loss.positive_margin if x_labels[i] == y_labels[j] else loss.margin - d
            ground[i, j] = max(0.0, hinge) ** loss.pair_power
    return ground


def pot_plan(loss, ground, alone):
    """POT's plan for the hardness cost, with a diagonal that cannot carry mass where self-pairs are out."""
    ot = pytest.importorskip("ot")
    n, m = ground.shape
    cost, reg = np.exp(-loss.gamma * ground), 1 / loss.reg_inverse if loss.reg_inverse else 1.0
    cost = cost if loss.reg_inverse else np.zeros_like(cost)
    if alone and loss.exclude_self:
        np.fill_diagonal(cost, 1e4 * abs(reg))
    return ot.sinkhorn(np.full(n, 1 / n), np.full(m, 1 / m), cost, reg, stopThr=1e-14, numItermax=100_000)


def oracle(loss, x, x_labels, y, y_labels, alone, plan=None):
    """The loss and its plan."""
    ground = looped_ground(loss, x, x_labels, y, y_labels)
    plan = pot_plan(loss, ground, alone) if plan is None else plan
    total = sum(
        plan[i, j] * ground[i, j] ** loss.loss_power
        for i in range(len(x))
        for j in range(len(y))
        if not (alone and loss.exclude_self and i == j)
    )
    return loss.scale * total, plan


LOSSES = {
    "default": BatchwiseOTLoss(),
    "all-pairs": BatchwiseOTLoss(reg_inverse=0),
    "narrow": BatchwiseOTLoss(margin=1.0, gamma=2.0, reg_inverse=5.0),
    **{code: BatchwiseOTLoss.published(code) for code in PUBLISHED},
    "3d-near": BatchwiseOTLoss.published("3d", margin=2.0, positive_margin=0.5),
}


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_plan_equal_loops_with_pot(name, alone):
    loss = LOSSES[name]
    x, x_labels, y, y_labels = batches()
    if alone:
        y, y_labels = x, x_labels
        found = loss.transport(x, x_labels)
    else:
        found = loss.transport(x, x_labels, ref_emb=y, ref_labels=y_labels)
    expected, plan = oracle(loss, x.tolist(), x_labels, y.tolist(), y_labels, alone)
    assert float(found.loss) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(found.plan, plan, atol=1e-6)
    if not alone:
        assert float(loss(x, x_labels, None, y, y_labels)) == float(found.loss)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("plan_gradient", ["constant", "kernel", "implicit"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_oracle_by_finite_differences(name, plan_gradient, alone):
    loss = LOSSES[name]
    loss = BatchwiseOTLoss(**{**options_of(loss), "gamma": 1.0, "plan_gradient": plan_gradient})
    x, x_labels, y, y_labels = batches()
    if alone:
        y, y_labels = x, x_labels
    x.requires_grad_()
    pair = () if alone else (None, y, y_labels)
    loss(x, x_labels, *pair).backward()
    base = looped_ground(loss, x.tolist(), x_labels, (x if alone else y).tolist(), y_labels)
    base_plan = pot_plan(loss, base, alone)

    def moved(i, c, step):
        shifted = x.detach().clone()
        shifted[i, c] += step
        other = shifted if alone else y
        sides = (shifted.tolist(), x_labels, other.tolist(), y_labels)
        plan = {"constant": base_plan, "implicit": None}.get(plan_gradient)
        if plan_gradient == "kernel":
            hardness = [np.exp(-loss.gamma * ground) for ground in (base, looped_ground(loss, *sides))]
            plan = base_plan * np.exp(loss.reg_inverse * (hardness[0] - hardness[1]))
        return oracle(loss, *sides, alone, plan)[0]

    step = 1e-4
    for i, c in ((0, 0), (3, 1), (6, 2)):
        numeric = (moved(i, c, step) - moved(i, c, -step)) / (2 * step)
        assert float(x.grad[i, c]) == pytest.approx(numeric, rel=2e-4, abs=2e-6)


def options_of(loss):
    names = (
        "margin",
        "reg_inverse",
        "positive_margin",
        "distance",
        "pair_power",
        "loss_power",
        "scale",
        "exclude_self",
    )
    return {name: getattr(loss, name) for name in names}


def test_gradient_with_a_constant_plan_in_closed_form():
    x, x_labels, y, y_labels = batches()
    x.requires_grad_()
    loss = BatchwiseOTLoss(margin=1.0)
    found = loss.transport(x, x_labels, ref_emb=y, ref_labels=y_labels)
    found.loss.backward()
    difference = x.detach()[:, None] - y[None]
    near = difference.square().sum(-1) < loss.margin
    sign = torch.where(found.same, 1.0, -near.double())
    expected = ((found.plan * sign)[..., None] * difference).sum(1)
    torch.testing.assert_close(x.grad, expected)


def test_uniform_marginals_and_self_pairs_left_out():
    x, labels, _, _ = batches()
    for reg_inverse in (-3.0, 0.0, 0.01, 10.0, 200.0):
        plan = BatchwiseOTLoss(reg_inverse=reg_inverse).transport(x, labels).plan
        torch.testing.assert_close(plan.sum(1), torch.full((N,), 1 / N, dtype=plan.dtype), atol=1e-5, rtol=0)
        torch.testing.assert_close(plan.sum(0), torch.full((N,), 1 / N, dtype=plan.dtype), atol=1e-5, rtol=0)
        assert float(plan.diagonal().sum()) < 1e-10
    uniform = BatchwiseOTLoss(reg_inverse=0).transport(x, labels)
    off = ~torch.eye(N, dtype=torch.bool)
    torch.testing.assert_close(uniform.plan[off], torch.full((N * (N - 1),), 1 / N / (N - 1), dtype=uniform.plan.dtype))


def test_a_batch_given_as_its_own_reference_has_no_self_pairs():
    x, labels, _, _ = batches()
    loss = BatchwiseOTLoss(margin=1.0)
    found, alone = loss.transport(x, labels, None, x, labels), loss.transport(x, labels)
    assert not found.counted.diagonal().any()
    assert torch.equal(found.plan, alone.plan)
    assert torch.equal(found.loss, alone.loss)
    # A copy is another batch, whose items happen to be equal.
    copied = loss.transport(x, labels, None, x.clone(), labels)
    assert copied.counted.all()
    assert float(copied.plan.diagonal().sum()) > 1e-3


@pytest.mark.parametrize("reg_inverse", [1.0, 40.0, 200.0, -200.0])
def test_left_out_pairs_stay_empty_where_the_others_cost_lambda_twice(reg_inverse):
    """Marginals leave two plans: through the pair that is left out, or through two others at once."""
    loss = BatchwiseOTLoss(gamma=1.0, reg_inverse=reg_inverse)
    near, far = 0.0, 50.0
    distances = torch.tensor([[far, near], [near, far]], dtype=torch.float64)
    same = torch.ones(2, 2, dtype=torch.bool)
    same[1, 1] = reg_inverse > 0
    if reg_inverse < 0:
        # Easy pairs are cheap here: the one that is kept from being used beside the one that is left out.
        distances = torch.tensor([[near, far], [far, far]], dtype=torch.float64)
    counted = torch.tensor([[False, True], [True, True]])
    same[0, 0] = False
    plan = loss.of_distances(distances, same, counted).plan
    # By symmetry its mass is the geometric mean of exp(-30) and nothing: exp(-15) / 4.
    assert float(plan[0, 0]) < 1e-6
    torch.testing.assert_close(plan.sum(1), torch.full((2,), 0.5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_a_larger_lambda_moves_mass_to_harder_pairs_and_a_negative_one_to_easier():
    x, x_labels, y, y_labels = batches(spread=1.0)
    mean_costs = []
    for reg_inverse in (-5.0, 0.0, 0.01, 5.0, 20.0):
        found = BatchwiseOTLoss(margin=1.0, reg_inverse=reg_inverse).transport(x, x_labels, None, y, y_labels)
        mean_costs.append(float((found.plan * (-10 * found.ground).exp()).sum()))
    assert mean_costs == sorted(mean_costs, reverse=True)
    assert mean_costs[0] > 1.2 * mean_costs[1] > 1.5 * mean_costs[-1]


def test_the_2d_and_3d_codes_are_uniform_to_two_percent():
    x, x_labels, y, y_labels = batches()
    for code, uniform in (("2d", True), ("3d", True), ("shrec", False)):
        plan = BatchwiseOTLoss.published(code).transport(x, x_labels, None, y, y_labels).plan * N * M
        assert (float((plan - 1).abs().max()) < 0.02) is uniform


def test_permutations_and_swapped_batches_leave_the_loss_alone():
    loss = BatchwiseOTLoss(margin=1.0)
    x, x_labels, y, y_labels = batches()
    value = float(loss(x, x_labels, None, y, y_labels))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    assert float(loss(x[order], x_labels[order], None, y, y_labels)) == pytest.approx(value, rel=1e-5)
    assert float(loss(y, y_labels, None, x, x_labels)) == pytest.approx(value, rel=1e-5)
    assert float(loss(x + 3, x_labels, None, y + 3, y_labels)) == pytest.approx(value, rel=1e-5)


def test_normalize_is_normalising_first():
    x, x_labels, y, y_labels = batches()
    unit = [torch.nn.functional.normalize(side, dim=1) for side in (x, y)]
    found = BatchwiseOTLoss(margin=1.0, normalize=True)(x, x_labels, None, y, y_labels)
    torch.testing.assert_close(found, BatchwiseOTLoss(margin=1.0)(unit[0], x_labels, None, unit[1], y_labels))


def test_softmax_weights_are_the_control_without_marginals():
    x, x_labels, y, y_labels = batches()
    loss = BatchwiseOTLoss(margin=1.0, weighting="softmax")
    ground = torch.from_numpy(looped_ground(loss, x.tolist(), x_labels, y.tolist(), y_labels))
    kernel = (-loss.reg_inverse * (-loss.gamma * ground).exp()).exp()
    found = loss.transport(x, x_labels, None, y, y_labels)
    torch.testing.assert_close(found.plan, kernel / kernel.sum())
    torch.testing.assert_close(found.loss, (kernel * ground).sum() / kernel.sum() / 2)


def test_balanced_weights_know_only_which_pairs_are_of_one_class():
    x, x_labels, y, y_labels = batches()
    loss = BatchwiseOTLoss(margin=1.0, weighting="balanced")
    ground = looped_ground(loss, x.tolist(), x_labels, y.tolist(), y_labels)
    kinds = {kind: [] for kind in (True, False)}
    for i in range(len(x)):
        for j in range(len(y)):
            kinds[bool(x_labels[i] == y_labels[j])].append(ground[i, j])
    expected = sum(sum(values) / len(values) for values in kinds.values()) / 2
    found = loss.transport(x, x_labels, None, y, y_labels)
    assert float(found.loss) == pytest.approx(expected / 2)
    assert float(found.plan.sum()) == pytest.approx(1)
    # Where all pairs that count are of one kind, they have everything.
    only = (
        torch.tensor([0]),
        torch.tensor([1]),
        torch.tensor([], dtype=torch.long),
        torch.tensor([], dtype=torch.long),
    )
    assert float(loss.transport(x, x_labels, only, y, y_labels).plan[0, 1]) == pytest.approx(1)


def test_mined_pairs_are_the_only_ones_that_count():
    x, x_labels, y, y_labels = batches()
    a1, p, a2, n = torch.tensor([0, 1, 3]), torch.tensor([0, 1, 5]), torch.tensor([0, 2]), torch.tensor([1, 3])
    loss = BatchwiseOTLoss(reg_inverse=0)
    found = loss.transport(x, x_labels, (a1, p, a2, n), y, y_labels)
    chosen = {(0, 0), (1, 1), (3, 5), (0, 1), (2, 3)}
    assert {tuple(pair) for pair in found.counted.nonzero().tolist()} == chosen
    ground = looped_ground(loss, x.tolist(), x_labels, y.tolist(), y_labels)
    assert float(found.loss) == pytest.approx(sum(float(found.plan[i, j]) * ground[i, j] for i, j in chosen) / 2)
    # Rows 0, 1 and 3 and their columns could carry all they hold on chosen pairs; row 2 too.
    assert float(found.plan[1].sum() - found.plan[1, 1]) < float(found.plan[1, 1])
    anchors, positives, negatives = torch.tensor([0, 1]), torch.tensor([0, 4]), torch.tensor([1, 2])
    triplets = loss.transport(x, x_labels, (anchors, positives, negatives), y, y_labels)
    assert {tuple(pair) for pair in triplets.counted.nonzero().tolist()} == {(0, 0), (1, 4), (0, 1), (1, 2)}


def test_a_miner_of_pytorch_metric_learning_fits():
    miners = pytest.importorskip("pytorch_metric_learning.miners")
    x, x_labels, y, y_labels = batches(dtype=torch.float32)
    pairs = miners.MultiSimilarityMiner()(x, x_labels, y, y_labels)
    x.requires_grad_()
    BatchwiseOTLoss()(x, x_labels, pairs, y, y_labels).backward()
    assert bool(x.grad.isfinite().all())


def test_diagnostics():
    x, x_labels, y, y_labels = batches()
    found = BatchwiseOTLoss(margin=1.0, reg_inverse=0).transport(x, x_labels, None, y, y_labels)
    assert found.entropy == pytest.approx(1)
    assert found.violating_mass == pytest.approx(found.violating_pairs)
    assert found.positive_mass == pytest.approx(float(found.same.double().mean()))
    violating = sum(
        1 for i in range(N) for j in range(M)
        if x_labels[i] != y_labels[j] and float((x[i] - y[j]).square().sum()) < 1
    )  # fmt: skip
    assert found.violating_pairs == pytest.approx(violating / N / M)
    assert BatchwiseOTLoss(margin=1.0).transport(x, x_labels, None, y, y_labels).entropy < 1


def test_float32_agrees_with_float64():
    wide, narrow = (BatchwiseOTLoss()(*[*batches(dtype=d)[:2], None, *batches(dtype=d)[2:]])
                    for d in (torch.float64, torch.float32))  # fmt: skip
    assert narrow.dtype == torch.float32
    assert float(narrow) == pytest.approx(float(wide), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_as_float32_inside_autocast_and_outside(name, dtype):
    x, x_labels, y, y_labels = batches(dtype=dtype)
    loss = LOSSES[name]

    def found(x, y):
        """Alone, alone as its own reference, and against another batch; values, and the gradient of their sum."""
        x = x.clone().requires_grad_()
        values = [loss(x, x_labels), loss(x, x_labels, None, x, x_labels), loss(x, x_labels, None, y, y_labels)]
        torch.stack(values).sum().backward()
        return torch.stack(values).detach(), x.grad

    values, gradient = found(x.float(), y.float())
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            assert torch.equal(found(x.float(), y.float())[0], values)
            half_values, half_gradient = found(x, y)
        assert torch.equal(half_values, values)
        assert half_gradient.dtype == dtype
        # One rounding of each of three gradients.
        torch.testing.assert_close(half_gradient.float(), gradient, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("weighting", ["transport", "softmax", "balanced"])
def test_batches_without_anything_to_compare_have_no_loss_and_no_gradient_which_is_said_once(weighting):
    x, labels, y, _ = batches()
    none = torch.zeros(0, dtype=torch.long)
    for arguments, said in (
        ((x, torch.zeros(N, dtype=torch.int64)), "one class only"),
        ((x, torch.zeros(N, dtype=torch.int64), None, y, torch.zeros(M, dtype=torch.int64)), "one class only"),
        ((x[:1], labels[:1]), "no pair to compare|one class only"),
        ((x[:0], labels[:0]), "no pair to compare"),
        ((x, labels, (none,) * 3), "no pair to compare"),
        ((x, labels, (none,) * 4), "no pair to compare"),
        ((x, None, (none,) * 4), "no pair to compare"),
        ((x, None, (none,) * 4, y, None), "no pair to compare"),
    ):
        loss = BatchwiseOTLoss(weighting=weighting)
        given = arguments[0].clone().requires_grad_()
        with pytest.warns(UserWarning, match=said) as told:
            found = loss.transport(given, *arguments[1:])
        assert told[0].filename == __file__
        found.loss.backward()
        assert float(found.loss.detach()) == 0
        assert not given.grad.any()
        assert found.violating_mass == found.violating_pairs == found.positive_mass == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert float(loss(*arguments)) == 0
            assert float(loss(x, labels)) > 0


def test_without_labels_pairs_say_which_are_of_one_class():
    x, x_labels, y, y_labels = batches()
    positives, negatives = ((x_labels[:, None] == y_labels) == kind for kind in (True, False))
    pairs = (*positives.nonzero(as_tuple=True), *negatives.nonzero(as_tuple=True))
    loss = BatchwiseOTLoss(margin=1.0)
    assert float(loss(x, None, pairs, y)) == float(loss(x, x_labels, None, y, y_labels))
    some = tuple(indices[::2] for indices in pairs)
    assert float(loss(x, None, some, y)) == float(loss(x, x_labels, some, y, y_labels))


def test_a_single_embedding_is_compared_with_others():
    x, x_labels, y, y_labels = batches()
    loss = BatchwiseOTLoss(margin=1.0)
    ground = looped_ground(loss, x[:1].tolist(), x_labels[:1], y.tolist(), y_labels)
    assert float(loss(x[:1], x_labels[:1], None, y, y_labels)) == pytest.approx(ground.mean() / 2)
    assert float(loss(y, y_labels, None, x[:1], x_labels[:1])) == pytest.approx(ground.mean() / 2)


def test_the_loss_is_the_mean_over_its_items():
    x, x_labels, y, y_labels = batches()
    found = BatchwiseOTLoss(margin=1.0).transport(x, x_labels, None, y, y_labels)
    torch.testing.assert_close(found.per_item, N * (found.plan * found.ground).sum(1) / 2)
    torch.testing.assert_close(found.per_item.mean(), found.loss)


def test_coincident_embeddings_have_finite_gradients():
    for code in PUBLISHED:
        x = torch.zeros(4, 3, requires_grad=True)
        BatchwiseOTLoss.published(code)(x, torch.tensor([0, 0, 1, 1])).backward()
        assert bool(x.grad.isfinite().all()), code


def test_bad_input_is_refused_in_one_sentence():
    loss = BatchwiseOTLoss()
    x, labels, y, y_labels = batches()
    broken = x.clone()
    broken[4, 1] = math.nan
    for arguments, message in (
        ((broken, labels), r"embeddings\[4\] holds NaN or infinity"),
        ((x, labels, None, broken, labels), r"ref_emb\[4\] holds NaN or infinity"),
        ((x, labels[:-1]), r"labels must be a tensor \(7,\), one for each of embeddings, not \(6,\)"),
        ((x, None), "give labels, or indices_tuple"),
        ((x, labels.tolist()), r"labels must be a tensor \(7,\), one for each of embeddings, not list"),
        ((x, None, None, None, labels), "give ref_emb and ref_labels together"),
        ((x, labels, None, y, labels), r"ref_labels must be a tensor \(9,\)"),
        ((x, labels, None, y), "give labels and ref_labels together"),
        ((x, None, (labels,) * 4, y, y_labels), "give labels and ref_labels together"),
        ((x, labels, None, y[:, :2], y_labels), "embeddings have 3 channels and ref_emb 2"),
        ((x.long(), labels), "floating-point"),
        ((x, labels, (labels, labels)), "3 tensors .* or 4"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    for options, message in (
        ({"margin": -1.0}, "`margin` must be a number of at least 0"),
        ({"reg_inverse": math.nan}, "reg_inverse"),
        ({"distance": "manhattan"}, "unknown `distance` 'manhattan'; there are: sqeuclidean, euclidean"),
        ({"plan_gradient": "envelope"}, "unknown `plan_gradient`"),
        ({"pair_power": 0}, "`pair_power` must be a number of at least 1"),
        ({"exclude_self": "no"}, "`exclude_self` must be True or False"),
    ):
        with pytest.raises(UserError, match=message):
            BatchwiseOTLoss(**options)
    with pytest.raises(ValueError, match="unknown code '4d'; there are: 2d, shrec, 3d"):
        BatchwiseOTLoss.published("4d")
