import math

import numpy as np
import pytest
import torch

from otfew.errors import UserError
from otfew.methods import _otrw_published as published
from otfew.methods._otrw_costs import feature_costs, prototypes
from otfew.methods._otrw_solve import by_gradient, closed_form, transport_cost
from otfew.methods.ot_reweighting import OTReweighting
from otfew.transport import ConvergenceWarning

COUNTS = (9, 5, 2)


def drawn(seed=0, channels=6, meta=4, spread=0.7):
    """Long-tailed features about three centres, and a balanced meta set."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(3, channels, generator=generator)
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    meta_labels = torch.arange(3).repeat_interleave(meta)

    def around(which):
        return centres[which] + spread * torch.randn(len(which), channels, generator=generator)

    return around(labels), labels, around(meta_labels), meta_labels


@pytest.mark.parametrize("distance", ["zero-one", "euclidean"])
@pytest.mark.parametrize("meta", ["prototypes", "whole"])
def test_label_cost_without_regularisation_is_inverse_frequency(distance, meta):
    features, labels, meta_features, meta_labels = drawn()
    method = OTReweighting("label", label_distance=distance, meta=meta, reg=0.01)
    weights = method.fit(features, labels, meta_features, meta_labels).weights
    expected = 1 / (3 * torch.tensor(COUNTS).double()[labels])
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=0)


def test_label_cost_at_any_regularisation_by_hand():
    features, labels, meta_features, meta_labels = drawn()
    found = OTReweighting("label", label_coefficient=0.3, reg=0.2).fit(features, labels, meta_features, meta_labels)
    other = math.exp(-0.3 / 0.2)
    for i, label in enumerate(labels.tolist()):
        share = 0.0
        for k in range(3):
            total = sum(1.0 if c == k else other for c in labels.tolist())
            share += (1.0 if label == k else other) / total / 3
        assert float(found.weights[i]) == pytest.approx(share, rel=1e-12)


def test_published_scale_of_the_label_cost_does_not_balance():
    """Half of 2 / K at reg 0.1 and K = 100 is e^-0.1: the released label cost is all but constant."""
    labels = torch.repeat_interleave(torch.arange(2), torch.tensor([100, 2]))
    method = OTReweighting("label", label_coefficient=0.01, reg=0.1)
    weights = method.fit(torch.ones(102, 1), labels, torch.ones(2, 1), torch.arange(2)).weights
    assert float(weights[-1] / weights[0]) < 1.11


def simplex(count, seed=0):
    weights = torch.rand(count, generator=torch.Generator().manual_seed(seed)).double() + 0.1
    return weights / weights.sum()


@pytest.mark.parametrize("entropy", ["plan", "product"])
def test_gradient_in_the_weights(entropy):
    """By finite differences along the simplex; for "product" it is the dual potential, centred by the weights."""
    features, labels, meta_features, meta_labels = drawn()
    cost = OTReweighting(meta="whole").costs(features, labels, meta_features, meta_labels)
    reg, weights = 0.4, simplex(len(labels)).requires_grad_()
    value = transport_cost(cost, weights, reg, entropy)
    (grad,) = torch.autograd.grad(value, weights)
    direction = torch.randn(len(labels), generator=torch.Generator().manual_seed(1)).double()
    direction -= direction.mean()
    step = 1e-5
    ahead, behind = (transport_cost(cost, (weights + s * step * direction).detach(), reg, entropy) for s in (1, -1))
    assert float(grad @ direction) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-6)
    if entropy == "product":
        potential = plain_potential(cost.numpy(), weights.detach().numpy(), reg)
        np.testing.assert_allclose(grad, potential - potential @ weights.detach().numpy(), rtol=0, atol=1e-7)


def plain_potential(cost, weights, reg):
    """Column potential of entropic transport by Sinkhorn's scaling in plain loops."""
    rows, columns = cost.shape
    u, v = [1.0] * rows, [1.0] * columns
    for _ in range(2000):
        for j in range(rows):
            u[j] = 1 / sum(weights[i] * math.exp(-cost[j, i] / reg) * v[i] for i in range(columns))
        for i in range(columns):
            v[i] = 1 / sum(math.exp(-cost[j, i] / reg) * u[j] / rows for j in range(rows))
    return reg * np.log(v)


@pytest.mark.parametrize("meta", ["prototypes", "whole"])
def test_gradient_descent_finds_the_closed_form(meta):
    features, labels, meta_features, meta_labels = drawn()
    method = OTReweighting(meta=meta, reg=0.3)
    found = method.fit(features, labels, meta_features, meta_labels)
    theta = torch.nn.Parameter(torch.zeros(len(labels)).double())
    descended = by_gradient(found.cost, 0.3, "plan", lambda: theta, [theta], 1e-9, 500)
    torch.testing.assert_close(descended.weights, found.weights, rtol=1e-4, atol=1e-7)
    assert found.value - 1e-12 < descended.value < found.value + 1e-7
    assert 0 <= descended.gap < 1e-4
    # The plan behind the closed form has the learned weights as its margin, so the core finds the same plan.
    plan = torch.softmax(-found.cost / 0.3, -1) / len(found.cost)
    torch.testing.assert_close(found.plan(), plan, rtol=1e-5, atol=1e-9)


def test_closed_form_in_parts_of_rows():
    cost = torch.rand(7, 11, generator=torch.Generator().manual_seed(0)).double()
    whole, parts = closed_form(cost, 0.1), closed_form(cost, 0.1, rows_at_once=2)
    torch.testing.assert_close(whole.weights, parts.weights, rtol=1e-12, atol=0)
    assert whole.value == pytest.approx(parts.value, rel=1e-12)


def test_product_entropy_is_solved_to_its_certificate():
    features, labels, meta_features, meta_labels = drawn()
    method = OTReweighting(entropy="product", reg=0.3, tol=1e-7, max_iter=100_000)
    found = method.fit(features, labels, meta_features, meta_labels)
    assert found.gap <= 1e-7
    assert float(found.weights.sum()) == pytest.approx(1, abs=1e-12)
    at_weights = transport_cost(found.cost, found.weights, 0.3, "product")
    assert found.value == pytest.approx(float(at_weights), abs=1e-6)
    for seed in range(5):
        mixed = 0.9 * found.weights + 0.1 * simplex(len(labels), seed)
        assert float(transport_cost(found.cost, mixed, 0.3, "product")) > found.value - 1e-7
    plan = OTReweighting(reg=0.3).fit(features, labels, meta_features, meta_labels)
    assert (found.weights > 1e-4).sum() < (plan.weights > 1e-4).sum()


def test_running_out_of_turns_warns():
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        OTReweighting(entropy="product", tol=1e-12, max_iter=2).fit(*drawn())


def test_a_weight_net_comes_near_the_closed_form():
    data = drawn()
    best = OTReweighting(reg=0.3).fit(*data)
    net = OTReweighting(reg=0.3, parameters="net", hidden=8).fit(*data)
    again = OTReweighting(reg=0.3, parameters="net", hidden=8).fit(*data)
    uniform = torch.full_like(best.weights, 1 / len(best.weights))
    start = float(transport_cost(best.cost, uniform, 0.3, "plan"))
    assert best.value <= net.value + 1e-9
    assert net.value - best.value < 0.1 * (start - best.value)
    assert torch.equal(net.weights, again.weights)


@pytest.mark.parametrize(
    "options",
    [{}, {"cost": "feature"}, {"meta": "whole"}, {"entropy": "product", "reg": 0.3}],
)
def test_order_does_not_matter(options):
    features, labels, meta_features, meta_labels = drawn()
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(len(labels), generator=generator)
    meta_order = torch.randperm(len(meta_labels), generator=generator)
    method = OTReweighting(**options)
    weights = method.fit(features, labels, meta_features, meta_labels).weights
    moved = method.fit(features[order], labels[order], meta_features[meta_order], meta_labels[meta_order]).weights
    torch.testing.assert_close(moved, weights[order], rtol=1e-9, atol=1e-12)


def test_costs_add_up_with_their_coefficients():
    features, labels, meta_features, meta_labels = drawn()
    method = OTReweighting("combined", label_coefficient=0.7, feature_coefficient=1.5, label_distance="euclidean")
    cost = method.costs(features, labels, meta_features, meta_labels)
    for j in (0, 5, 11):
        for i in (0, 10, 15):
            a, b = meta_features[j].double(), features[i].double()
            cosine = float(a @ b / (a.norm() * b.norm()))
            different = math.sqrt(2) if meta_labels[j] != labels[i] else 0.0
            assert float(cost[j, i]) == pytest.approx(0.7 * different + 1.5 * (1 - cosine), rel=1e-6)


def test_prototypes_are_means_by_class():
    _, _, meta_features, meta_labels = drawn()
    means, labels = prototypes(meta_features, meta_labels)
    assert labels.tolist() == [0, 1, 2]
    torch.testing.assert_close(means[1], meta_features[4:8].double().mean(0))
    pictures = torch.rand(4, 3, 2, 2)
    assert prototypes(pictures, torch.tensor([1, 0, 1, 0]))[0].shape == (2, 3, 2, 2)


def test_factors_have_mean_one():
    found = OTReweighting().fit(*drawn())
    assert float(found.mean_one().mean()) == pytest.approx(1, rel=1e-6)


def published_step(weights, features, labels, protos, proto_labels, classes):
    """One published update in plain loops and numpy, its gradient by finite differences in float64."""

    def loss(w):
        rows, columns = len(protos), len(w)
        nu = np.exp(w) / np.exp(w).sum()
        cost = np.zeros((rows, columns))
        for j in range(rows):
            for i in range(columns):
                a, b = protos[j], features[i]
                onehots = np.eye(classes)
                label = np.mean((onehots[proto_labels[j]] - onehots[labels[i]]) ** 2)
                cost[j, i] = 0.5 * (1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)) + 0.5 * label
        u, v = np.zeros(rows), np.zeros(columns)
        for turn in range(200):  # noqa: B007
            before = u.copy()
            for j in range(rows):
                u[j] = 0.1 * (math.log(1 / rows + 1e-8) - math.log(np.exp((v - cost[j]) / 0.1).sum()))
            for i in range(columns):
                v[i] = 0.1 * (math.log(nu[i] + 1e-8) - math.log(np.exp((u - cost[:, i]) / 0.1).sum()))
            if np.abs(u - before).sum() < 0.1:
                break
        return (np.exp((u[:, None] + v - cost) / 0.1) * cost).sum(), turn

    step = 1e-6
    grad = np.array([(loss(w)[0] - loss(x)[0]) / (2 * step) for w, x in nudged(weights, step)])
    return weights - 0.01 * (grad + 5e-4 * weights), loss(weights)[1]


def nudged(weights, step):
    for i in range(len(weights)):
        change = np.eye(len(weights))[i] * step
        yield weights + change, weights - change


def test_the_published_preset_is_the_published_update():
    features, labels, meta_features, meta_labels = drawn()
    method = OTReweighting.published()
    assert vars(method) == vars(OTReweighting(preset="published"))
    schedule = method.schedule(features, labels, meta_features, meta_labels)
    effective = (1 - 0.9999) / (1 - 0.9999 ** np.array(COUNTS))
    buffer = (3 * effective / effective.sum())[labels.numpy()]
    np.testing.assert_allclose(schedule.weights, buffer, rtol=1e-6)
    protos, proto_labels = prototypes(meta_features, meta_labels)
    arrays = features.double().numpy(), labels.numpy()
    turns = []
    for index in ([0, 9, 14, 3], [15, 1, 2, 10], [0, 1, 9, 15]):
        expected, turn = published_step(
            buffer[index], arrays[0][index], arrays[1][index], protos.numpy(), proto_labels.numpy(), 3
        )
        before = schedule.weights.clone()
        got = schedule(torch.tensor(index))
        # Moves are of the order of 1e-4: compare them, not the weights.
        np.testing.assert_allclose((got - before[index]).double(), expected - buffer[index], rtol=2e-2, atol=2e-7)
        buffer[index] = expected
        turns.append(turn)
    assert max(turns) < 10
    untouched = [i for i in range(len(labels)) if i not in {0, 9, 14, 3, 15, 1, 2, 10}]
    np.testing.assert_array_equal(schedule.weights[untouched], published.initial_weights(labels, 3)[untouched])


def test_the_published_preset_hardly_moves():
    """What the released schedule learns, to 2 %, is class-balanced weights."""
    data = drawn()
    found = OTReweighting(preset="published").fit(*data)
    start = published.initial_weights(data[1], 3).double()
    torch.testing.assert_close(found.weights, start / start.sum(), rtol=0.02, atol=0)
    assert found.n_iter == 90
    with pytest.raises(ValueError, match="a plan for each batch"):
        found.plan()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f, y, m, k: (f, y, m[:8], k[:8]), "class 2 has training samples but none in the meta set"),
        (lambda f, y, m, k: (f[:14], y[:14], m, k), "class 2 is in the meta set but has no training sample"),
        (lambda f, y, m, k: (f.clone().index_fill_(0, torch.tensor([4]), math.nan), y, m, k), "NaN.* row 4"),
        (lambda f, y, m, k: (f, y, m.clone().index_fill_(0, torch.tensor([2]), math.inf), k), "meta_features.* row 2"),
        (lambda f, y, m, k: (f, y[:-1], m, k), r"labels must be int64 \(16,\)"),
        (lambda f, y, m, k: (f, y.float(), m, k), "labels must be int64"),
        (lambda f, y, m, k: (f[:, :, None], y, m, k), "features must be floating point"),
        (lambda f, y, m, k: (f, y, m[:, :5], k), "6 channels, meta_features 5"),
        (lambda f, y, m, k: (f[:0], y[:0], m, k), "features must be floating point"),
    ],
)
@pytest.mark.parametrize("preset", ["converged", "published"])
def test_bad_input(change, said, preset):
    with pytest.raises(ValueError, match=said):
        OTReweighting(preset=preset).fit(*change(*drawn()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cost": "labels"}, "unknown `cost` 'labels'; there are: label, feature, combined"),
        ({"reg": 0.0}, "`reg` must be a number above 0"),
        ({"reg": math.nan}, "`reg` must be a number above 0"),
        ({"label_coefficient": -1.0}, "`label_coefficient` must be a number of at least 0"),
        ({"feature_coefficient": math.inf}, "`feature_coefficient`"),
        ({"meta": "all"}, "unknown `meta`"),
        ({"label_distance": "hamming"}, "unknown `label_distance`"),
        ({"entropy": "none"}, "unknown `entropy`"),
        ({"parameters": "tree"}, "unknown `parameters`"),
        ({"preset": "paper"}, "unknown `preset`"),
        ({"hidden": 2.5}, "`hidden` must be a whole number of at least 1"),
        ({"preset": "published", "reg": 0.2}, "`reg` has no effect with `preset` 'published'"),
        ({"preset": "published", "cost": "label"}, "`cost` has no effect with `preset` 'published'"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(UserError, match=f"^OTReweighting: {said}"):
        OTReweighting(**options)


def test_features_of_length_zero_are_far_from_everything():
    costs = feature_costs(torch.ones(1, 2), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    torch.testing.assert_close(costs, torch.tensor([[1.0, 0.0]]).double())
