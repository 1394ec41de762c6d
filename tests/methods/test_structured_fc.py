"""The structured FC against the published fit in plain loops, by hand against autograd, and its laws."""

from __future__ import annotations

import functools
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

import otfew
from otfew.errors import UserError
from otfew.methods import METHODS
from otfew.methods.structured_fc import StructuredFC
from otfew.scores.emd import EMDScore
from otfew.scores.node_weights import CrossReference, KMeans, Uniform

SCORE = EMDScore(otfew.Exact(), CrossReference())


FIELDS = {field.name for field in fields(StructuredFC)}


def sfc(**options):
    """Few steps unless asked for more; options of the layer and of the method."""
    layer = {name: options.pop(name) for name in FIELDS & set(options)}
    few = {} if "iterations" in layer else {"epochs": 3}
    return METHODS["deepemd-fcn"](shot_head=StructuredFC(**few | layer), **options)


def published_fit(score, support, batches):
    """Loop over the images and classes of one episode, support (way, shot, nodes, channels), and let torch do the rest.

    The released code's optimiser: SGD of step 100, momentum 0.9, dampening 0.9, on the mean over the mini-batch.
    """
    way, shot = support.shape[:2]
    images, labels = support.flatten(0, 1), torch.arange(way).repeat_interleave(shot)
    layer = support.mean(1).clone().requires_grad_()
    optimiser = torch.optim.SGD([layer], lr=100, momentum=0.9, dampening=0.9, weight_decay=0)
    for batch in batches:
        logits = torch.stack([torch.stack([score(images[i], v) for v in layer]) for i in batch])
        loss = cross_entropy(logits, labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return layer.detach()


def published_logits(score, support, query, batches):
    layers = [published_fit(score, episode, batches) for episode in support]
    return torch.stack(
        [
            torch.stack([torch.stack([score(u, v) for v in layer]) for u in queries])
            for layer, queries in zip(layers, query, strict=True)
        ]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_ten_full_batch_steps_are_those_of_the_published_code(dtype, episodes, plain_score):
    """With cv2.EMD, at its published size but for fewer nodes."""
    support, query = episodes(n=1, way=5, shot=5, nodes=9, n_query=4, channels=640)
    expected = published_logits(plain_score, support, query, [list(range(25))] * 10)
    method = sfc(batch_size=25, epochs=10)
    assert_close(method(support.to(dtype), query.to(dtype)).double(), expected, rtol=0, atol=1e-4)
    # The fit does something.
    assert (expected - METHODS["deepemd"]()(support, query)).abs().max() > 1e-2


def test_mini_batches_of_the_published_size(episodes, plain_score):
    support, query = episodes(n=1, way=5, shot=5, nodes=25, n_query=2, channels=640)
    batches = list(StructuredFC(iterations=4).batches(25))
    expected = published_logits(plain_score, support, query, batches)
    assert_close(sfc(iterations=4)(support.float(), query.float()).double(), expected, rtol=0, atol=1e-4)


def test_mini_batches_with_exact_flows(episodes, plain_score):
    """The same order, 4 images a step and the last of a pass with what is left.

    On few channels steps are large and cv2.EMD's plans differ from the cheapest, hence the exact ones.
    """
    support, query = episodes(n=2, n_query=2)
    batches = [batch.tolist() for batch in StructuredFC(epochs=4, seed=3).batches(9)]
    assert [len(batch) for batch in batches] == [4, 4, 1] * 4
    expected = published_logits(functools.partial(plain_score, flow="exact"), support, query, batches)
    assert_close(sfc(epochs=4, seed=3)(support, query), expected, rtol=0, atol=1e-7)


def both_ways(score, support, **options):
    """Fit by hand and by autograd through the differentiable solver."""
    layer = StructuredFC(**{"lr": 20, "epochs": 4} | options)
    way, shot = support.shape[1:3]
    labels = torch.arange(way).repeat_interleave(shot).expand(len(support), -1)
    autograd = layer.fit_by_autograd(support.flatten(1, 2), labels, support.mean(2), score, 12.5)
    return layer.fit(support, None, score, 12.5), autograd


@pytest.mark.parametrize("weight_gradient", [False, True])
@pytest.mark.parametrize("weights", [CrossReference(), Uniform()], ids=str)
@pytest.mark.parametrize("sizes", [{}, {"nodes": 1}, {"way": 2, "shot": 2, "nodes": 7}, {"channels": 6}], ids=str)
def test_the_gradient_by_hand_is_that_of_autograd(sizes, weights, weight_gradient, episodes):
    support, _ = episodes(**sizes)
    by_hand, by_autograd = both_ways(EMDScore(otfew.Exact(), weights, weight_gradient), support)
    assert_close(by_hand, by_autograd, rtol=0, atol=1e-9)
    assert (by_hand - support.mean(2)).abs().max() > 0.01


def test_signed_features_with_weights_at_their_floor(episodes):
    """Features that are not rectified give negative products, which weigh 1e-3 and have no gradient."""
    support, _ = episodes()
    support = support - 0.5
    assert_close(*both_ways(EMDScore(otfew.Exact(), CrossReference(), True), support), rtol=0, atol=1e-9)


def test_regularised_plans_are_constants_unless_the_weights_are_not(episodes):
    support, _ = episodes(n=1)
    solver = otfew.Sinkhorn(reg=0.1, tol=1e-10)
    constant = both_ways(EMDScore(solver, CrossReference()), support, epochs=2)
    assert_close(*constant, rtol=0, atol=1e-6)
    full = both_ways(EMDScore(solver, CrossReference(), weight_gradient=True), support, epochs=2)
    assert_close(*full)
    assert (constant[0] - full[0]).abs().max() > 1e-3


def test_single_precision_follows_double(episodes):
    support, query = episodes(nodes=9, channels=64)
    exact = sfc(epochs=10)(support, query)
    assert_close(sfc(epochs=10)(support.float(), query.float()).double(), exact, rtol=0, atol=1e-3)


def test_the_call_of_the_contract(episodes):
    support, query = episodes(n=1, way=5, shot=5)
    method = METHODS["deepemd-fcn"](
        solver="exact", temperature=12.5, shot_head=StructuredFC(lr=100, epochs=100, batch_size=4, seed=0)
    )
    logits = method(support, query)
    assert logits.shape == (1, 4, 5)
    assert logits.isfinite().all()
    assert torch.equal(logits, METHODS["deepemd"](shot_head="sfc")(support, query))
    assert len(list(method.shot_head.batches(25))) == 700


def test_the_fit_lowers_the_loss_on_the_support(episodes):
    support, _ = episodes(way=5, shot=4, channels=64)
    images, labels = support.flatten(1, 2), torch.arange(5).repeat_interleave(4).repeat(2)
    method = sfc(batch_size=20, epochs=100)
    before, after = (cross_entropy(m(support, images).flatten(0, 1), labels) for m in (METHODS["deepemd"](), method))
    assert after < 0.5 * before


# The random order.


def test_every_pass_shows_each_image_once_in_a_new_order():
    batches = list(StructuredFC(epochs=3, batch_size=4).batches(10))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    orders = [np.concatenate(batches[k : k + 3]).tolist() for k in (0, 3, 6)]
    assert [sorted(order) for order in orders] == [list(range(10))] * 3
    assert len({tuple(order) for order in orders}) == 3


def test_the_order_is_a_function_of_the_seed():
    def order(seed):
        return [batch.tolist() for batch in StructuredFC(epochs=2, seed=seed).batches(12)]

    assert order(1) == order(1)
    assert len({str(order(seed)) for seed in (-1, 0, 1, 2)}) == 4


def test_iterations_count_steps_in_place_of_passes():
    steps = list(StructuredFC(batch_size=5, iterations=100).batches(25))
    assert [len(step) for step in steps] == [5] * 100
    assert [s.tolist() for s in StructuredFC(epochs=20, batch_size=5).batches(25)] == [s.tolist() for s in steps]
    assert len(list(StructuredFC(iterations=1).batches(25))) == 1


# Laws.


@pytest.mark.parametrize("options", [{}, {"weight_gradient": True}, {"solver": otfew.Exact(threads=1)}], ids=str)
def test_an_episode_is_fitted_alike_in_any_company(options, episodes, monkeypatch):
    """Bit for bit: the order is the same for all episodes, and no arithmetic crosses them."""
    support, _ = episodes(n=5, dtype=torch.float32)
    score = sfc(**options).score
    layer = StructuredFC(epochs=20)
    whole = layer.fit(support, None, score, 12.5)
    for e in range(5):
        assert torch.equal(layer.fit(support[[e]], None, score, 12.5)[0], whole[e])
    assert torch.equal(layer.fit(support.flip(0), None, score, 12.5).flip(0), whole)
    monkeypatch.setattr("otfew.methods._sfc_descent._BYTES", 1)
    assert torch.equal(layer.fit(support, None, score, 12.5), whole)


def test_threads_change_nothing(episodes):
    support, _ = episodes(n=4, dtype=torch.float32)
    fits = [
        StructuredFC(epochs=10).fit(support[:n], None, EMDScore(otfew.Exact(threads=threads), CrossReference()), 12.5)[
            0
        ]
        for threads in (1, 3)
        for n in (1, 4)
    ]
    assert all(torch.equal(fit, fits[0]) for fit in fits)


def test_masked_shots_are_as_if_absent(episodes):
    support, query = episodes(shot=3)
    mask = torch.tensor([True, False, True]).expand(2, 3, 3)
    spoiled = support.clone()
    spoiled[:, :, 1] = torch.nan
    assert_close(sfc()(spoiled, query, support_mask=mask), sfc()(support[:, :, [0, 2]], query), rtol=0, atol=1e-12)
    assert_close(sfc()(support, query, support_mask=torch.ones_like(mask)), sfc()(support, query), rtol=0, atol=1e-12)


def test_uneven_shots_are_fitted_as_the_published_loop_would(episodes, plain_score):
    """Episodes with different numbers of images in one batch; each sees all its images at every step."""
    score = functools.partial(plain_score, flow="exact")
    support, query = episodes(n=3, shot=3, n_query=2)
    mask = torch.tensor(
        [[[1, 0, 0], [1, 1, 0], [0, 1, 1]], [[1, 1, 1], [0, 0, 1], [1, 0, 1]], [[0, 1, 1], [1, 0, 0], [1, 0, 1]]]
    ).bool()
    expected = []
    for nodes, kept, queries in zip(support, mask, query, strict=True):
        images, labels = nodes[kept], kept.nonzero()[:, 0]
        layer = torch.stack([nodes[c, kept[c]].mean(0) for c in range(3)]).requires_grad_()
        optimiser = torch.optim.SGD([layer], lr=100, momentum=0.9, dampening=0.9)
        for _ in range(3):
            logits = torch.stack([torch.stack([score(u, v) for v in layer]) for u in images])
            optimiser.zero_grad()
            cross_entropy(logits, labels).backward()
            optimiser.step()
        expected.append(torch.stack([torch.stack([score(u, v) for v in layer.detach()]) for u in queries]))
    logits = sfc(epochs=3, batch_size=9)(support, query, support_mask=mask)
    assert_close(logits, torch.stack(expected), rtol=0, atol=1e-7)


def test_place_of_masked_shots_does_not_matter(episodes):
    support, query = episodes(shot=3)
    mask = torch.tensor([[[1, 0, 0], [1, 1, 0], [0, 1, 1]], [[1, 1, 1], [0, 0, 1], [1, 0, 1]]]).bool()
    order = (~mask).int().argsort(dim=-1, stable=True)
    moved = support.gather(2, order[..., None, None].expand_as(support))
    logits = sfc()(moved, query, support_mask=mask.gather(2, order))
    assert_close(logits, sfc()(support, query, support_mask=mask), rtol=0, atol=1e-12)


def test_permutations(episodes):
    """Of nodes, always; of classes and shots where every step sees all images."""
    support, query = episodes()
    order = torch.tensor([4, 2, 0, 1, 3])
    assert_close(sfc()(support[:, :, :, order], query), sfc()(support, query), rtol=0, atol=1e-9)
    full = sfc(batch_size=9)
    whole = full(support, query)
    classes, shots = torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0])
    assert_close(full(support[:, classes], query), whole[:, :, classes], rtol=0, atol=1e-9)
    assert_close(full(support[:, :, shots], query), whole, rtol=0, atol=1e-9)
    queries = torch.tensor([3, 1, 0, 2])
    assert_close(sfc()(support, query[:, queries]), sfc()(support, query)[:, queries], rtol=0, atol=1e-12)


def test_one_shot_is_left_as_it_is(episodes):
    support, query = episodes(shot=1)
    assert torch.equal(sfc()(support, query), METHODS["deepemd"]()(support, query))
    several, query = episodes(shot=3)
    mask = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1]]).bool().expand(2, 3, 3)
    single = torch.stack([several[:, c, c] for c in range(3)], 1)[:, :, None]
    assert_close(sfc()(several, query, support_mask=mask), METHODS["deepemd"]()(single, query), rtol=0, atol=1e-12)


def test_scale_of_the_step_follows_that_of_the_features(episodes):
    """Cosines have gradients of the inverse scale: features c times as large take steps c^2 times as large."""
    support, query = episodes(channels=64)
    small = sfc(weights="uniform", lr=1)(support, query)
    assert_close(sfc(weights="uniform", lr=100)(10 * support, 10 * query), small, rtol=0, atol=1e-9)


# Robustness.


def test_calls_leave_no_trace(episodes):
    support, query = episodes()
    kept = support.clone()
    method = sfc()
    first = method(support, query)
    method(*episodes(seed=1))
    assert torch.equal(method(support, query), first)
    assert torch.equal(support, kept)


def test_gradients_flow_into_the_query_alone(episodes):
    support, query = (x.requires_grad_() for x in episodes())
    sfc()(support, query).sum().backward()
    assert support.grad is None
    assert query.grad.abs().max() > 0


@pytest.mark.parametrize("options", [{}, {"weights": KMeans(2)}], ids=["by hand", "by autograd"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_mode_of_autograd_does_not_matter(mode, options, episodes):
    support, query = episodes()
    expected = sfc(iterations=2, **options)(support, query)
    with mode():
        logits = sfc(iterations=2, **options)(support + 0, query + 0)
    assert_close(logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"weights": KMeans(5)}], ids=["by hand", "by autograd"])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_nodes_without_direction_stay_where_they_are(value, options, episodes):
    """One node of a class that is the same number in all channels, in all its images; KMeans(5) is uniform here."""
    support, query = episodes()
    support[0, 1, :, 2] = value
    method = sfc(**options)
    layer = method.shot_head.fit(support, None, method.score, 12.5)
    assert_close(layer[0, 1, 2], torch.full((16,), value, dtype=torch.float64), rtol=0, atol=1e-12)
    assert method(support, query).isfinite().all()


def test_a_dead_class_is_finite(episodes):
    support, query = episodes()
    support[0, 1] = 0
    assert sfc(epochs=20)(support, query).isfinite().all()


@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [("pot", 1e-7), ("scipy", 1e-7), ("opencv", 1e-3), (otfew.Sinkhorn(reg=0.002), 0.1), ("pot-sinkhorn", None)],
    ids=str,
)
def test_any_solver_of_dense_costs(solver, tolerance, episodes):
    support, query = episodes(n=1)
    logits = sfc(solver=solver, iterations=3)(support, query)
    assert logits.isfinite().all()
    if tolerance:
        assert_close(logits, sfc(iterations=3)(support, query), rtol=0, atol=tolerance)


@pytest.mark.parametrize("weights", ["uniform", "kmeans", "meanshift"])
def test_any_weights(weights, episodes):
    support, query = episodes(n=1, channels=8)
    fitted = sfc(weights=weights, iterations=3)(support, query)
    start = METHODS["deepemd"](weights=weights)(support, query)
    assert fitted.isfinite().all()
    assert (fitted - start).abs().max() > 1e-3


def test_a_support_of_one_class_cannot_be_fitted(episodes):
    support, query = episodes(way=1)
    with pytest.raises(ValueError, match=r"the support has 1 class; give at least two, or take shot_head='mean'"):
        sfc()(support, query)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "fast", True])
def test_a_step_size_that_is_not_positive_is_an_error(value):
    with pytest.raises(UserError, match=f"StructuredFC: `lr` must be a number above 0, not {value!r}"):
        StructuredFC(lr=value)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "iterations"])
@pytest.mark.parametrize("value", [0, -3, 2.5, 2.0])
def test_counts_below_one_are_errors(name, value):
    with pytest.raises(UserError, match=f"`{name}` must be a whole number of at least 1, not {value}"):
        StructuredFC(**{name: value})


def test_epochs_beside_iterations_have_no_effect_and_are_refused():
    with pytest.raises(UserError, match="`epochs` has no effect beside `iterations`"):
        StructuredFC(epochs=100, iterations=100)
    assert len(list(StructuredFC().batches(25))) == 700


def test_nan_in_the_support_is_an_error(episodes):
    support, query = episodes()
    support[0, 1, 2, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        sfc()(support, query)
