"""Losses of pairs and of the long tail, and weights of samples by transport, on a device."""

import dataclasses
from importlib.util import find_spec

import pytest
import torch

from otfew.baselines import metric_losses
from otfew.methods import BatchwiseOTLoss, OTReweighting, batchwise_pairs
from otfew.training.long_tail import losses

from .both import on_both

CHANNELS, CLASSES = 6, 4
HAS_PML = find_spec("pytorch_metric_learning") is not None
OURS = {"matched-pairs", "lifted-structure"}
PAIR_LOSSES = {**metric_losses.LOSSES, **batchwise_pairs.LOSSES}
needs_pml = pytest.mark.skipif(not HAS_PML, reason="pytorch-metric-learning is not installed")


def batches(n=8):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % CLASSES
    pair = [torch.randn(n, CHANNELS, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    return [pair[0], labels, pair[1], labels.roll(1)]


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_pair_losses(pretended, name):
    if name in metric_losses.LOSSES and name not in OURS and not HAS_PML:
        pytest.skip("pytorch-metric-learning is not installed")
    torch.manual_seed(0)
    loss = PAIR_LOSSES[name](CLASSES, CHANNELS).double()

    def work(loss, *inputs):
        value, figures = loss(*inputs)
        return value, {name: figure.detach() if isinstance(figure, torch.Tensor) else figure
                       for name, figure in figures.items()}  # fmt: skip

    on_both(pretended, f"pair loss, {name}", work, [loss, *batches()], tolerance=1e-4)


@pytest.mark.parametrize("plan_gradient", ["constant", "kernel", "implicit"])
@pytest.mark.parametrize("weighting", ["transport", "softmax", "balanced"])
def test_batchwise_transport(pretended, weighting, plan_gradient):
    loss = BatchwiseOTLoss(weighting=weighting, plan_gradient=plan_gradient)

    def work(x, x_labels, y, y_labels):
        return loss(x, x_labels), loss(x, x_labels, None, y, y_labels), loss(x.float(), x_labels)

    name = f"batch-wise transport, {weighting}, {plan_gradient}"
    on_both(pretended, name, work, batches(), tolerance=1e-4)


@needs_pml
def test_the_loss_of_pytorch_metric_learnings_shape(pretended):
    from otfew.compat.pml import BatchwiseOTLoss as Compatible

    def work(x, labels, *_):
        return Compatible()(x, labels)

    on_both(pretended, "batch-wise transport, compatible", work, batches(), tolerance=1e-4)


def long_tail(n=12):
    """Logits that want a gradient, labels, and the counts of the classes."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, CLASSES, generator=generator, dtype=torch.float64).requires_grad_()
    return [logits, torch.arange(n) % CLASSES, torch.tensor([100, 40, 10, 3])]


LONG_TAIL = {
    "cross-entropy": losses.cross_entropy,
    "focal": losses.focal,
    "balanced softmax": losses.balanced_softmax,
    "ldam": losses.ldam,
    "adjusted": lambda logits, labels, counts: losses.adjusted(logits, counts, 1.5),
    "inverse frequency": lambda logits, labels, counts: losses.inverse_frequency(labels, counts),
    "class-balanced": lambda logits, labels, counts: losses.class_balanced(labels, counts),
    "mixed within classes": lambda logits, labels, counts: losses.shuffled_within_classes(
        logits[:, 0].detach(), labels, 3
    ),
}


@pytest.mark.parametrize("stay", [False, True], ids=["counts there", "counts on the CPU"])
@pytest.mark.parametrize("name", LONG_TAIL)
def test_losses_of_the_long_tail(pretended, name, stay):
    inputs = long_tail()
    counts = inputs.pop()

    def work(logits, labels, *given):
        return LONG_TAIL[name](logits, labels, counts if stay else given[0])

    where = "counts on the CPU" if stay else "counts there"
    on_both(pretended, f"long tail, {name}, {where}", work, inputs if stay else [*inputs, counts])


@pytest.mark.parametrize("stay", [False, True], ids=["there", "on the CPU"])
def test_the_training_part_of_an_objective(pretended, stay):
    logits, labels, counts = long_tail()
    weights, index = torch.linspace(0.5, 2, 40), torch.arange(3, 39, 3)
    given = [counts, weights, index]

    def work(logits, labels, *there):
        counts, weights, index = given if stay else there
        objective = dataclasses.replace(losses.Objective(loss=losses.ldam), weights=weights)
        return objective.train_loss(logits, labels, counts, index, 0.5)

    name = f"long tail, training loss, weights {'on the CPU' if stay else 'there'}"
    on_both(pretended, name, work, [logits, labels] if stay else [logits, labels, *given], tolerance=1e-6)


@pytest.mark.parametrize("balanced", [False, True])
def test_orders_are_the_cpus(pretended, balanced):
    objective = losses.Objective(balanced=balanced)

    def work(labels):
        return objective.order(labels, torch.Generator().manual_seed(5))

    kind = "balanced" if balanced else "shuffled"
    on_both(pretended, f"long tail, order, {kind}", work, [long_tail()[1]], at_home=True)


def sets():
    """A long-tailed training set, and a balanced meta set."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(torch.tensor([14, 6, 3, 1]))
    meta_labels = torch.arange(4).repeat_interleave(2)
    centres = torch.randn(4, CHANNELS, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels) + len(meta_labels), CHANNELS, generator=generator, dtype=torch.float64)
    features = centres[labels] + noise[: len(labels)]
    return [features, labels, centres[meta_labels] + noise[len(labels) :], meta_labels]


REWEIGHTING = {
    "closed form": {},
    "whole meta set": {"meta": "whole", "cost": "feature"},
    "alternation": {"entropy": "product"},
    "weight net": {"parameters": "net", "hidden": 3, "max_iter": 2, "tol": 1e-2},
}


@pytest.mark.filterwarnings("ignore:.*the weights did not converge:otfew.ConvergenceWarning")
@pytest.mark.parametrize("name", REWEIGHTING)
def test_reweighting_by_transport(pretended, name):
    def work(*inputs):
        found = OTReweighting(**REWEIGHTING[name]).fit(*inputs)
        return found.weights, found.value, found.n_iter, found.gap

    on_both(pretended, f"re-weighting, {name}", work, sets(), tolerance=1e-3 if name == "weight net" else 1e-8)


def test_the_published_schedule_of_reweighting(pretended):
    def work(features, labels, meta_features, meta_labels):
        schedule = OTReweighting.published().schedule(features, labels, meta_features, meta_labels)
        return [schedule(torch.arange(first, first + 8, device=labels.device)) for first in (0, 8, 16)]

    on_both(pretended, "re-weighting, published schedule", work, sets())
