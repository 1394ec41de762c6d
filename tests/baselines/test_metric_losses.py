"""Losses of pytorch-metric-learning behind the training loop's interface."""

from __future__ import annotations

import pytest
import torch

from otfew.baselines._lifted_structure import LiftedStructure
from otfew.baselines.metric_losses import LOSSES
from otfew.errors import UserError
from otfew.experiments.metric_learning.losses import LOSSES as ALL
from otfew.experiments.metric_learning.losses import parse_loss

pytest.importorskip("pytorch_metric_learning")


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(12, 6, generator=generator, requires_grad=True) for _ in range(2))
    return first, torch.arange(12) % 4, second, torch.arange(12) // 3


@pytest.mark.parametrize("name", ALL)
def test_each_has_a_finite_gradient_in_both_batches(name):
    torch.manual_seed(0)
    first, first_labels, second, second_labels = batch()
    loss = ALL[name](4, 6)
    value, figures = loss(first, first_labels, second, second_labels)
    value.backward()
    assert value.ndim == 0
    assert float(value.detach()) > 0
    for side in (first, second):
        assert bool(side.grad.isfinite().all())
        assert bool(side.grad.any())
    assert all(isinstance(figure, float) for figure in figures.values())
    again, _ = loss(first, first_labels, second, second_labels)
    assert float(again.detach()) == float(value.detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
def test_half_precision_is_computed_as_float32_inside_autocast_and_outside(name, dtype):
    torch.manual_seed(0)
    loss = ALL[name](4, 6)
    halves = [side.detach().to(dtype) if side.is_floating_point() else side for side in batch()]

    def found(cast, enabled):
        first, second = (side.detach().to(cast).clone().requires_grad_() for side in (halves[0], halves[2]))
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            value, _ = loss(first, halves[1], second, halves[3])
        value.backward()
        return value.detach(), first.grad, second.grad

    expected = found(torch.float32, False)
    assert torch.equal(found(torch.float32, True)[0], expected[0])
    for enabled in (False, True):
        value, *gradients = found(dtype, enabled)
        assert torch.equal(value, expected[0])
        for gradient, right in zip(gradients, expected[1:], strict=True):
            assert gradient.dtype == dtype
            torch.testing.assert_close(gradient, right.to(dtype))


def test_losses_of_one_batch_see_both_together():
    from pytorch_metric_learning import losses, miners

    first, first_labels, second, second_labels = batch()
    embeddings, labels = torch.cat([first, second]), torch.cat([first_labels, second_labels])
    for name, theirs in (
        ("contrastive", losses.ContrastiveLoss()),
        ("multi-similarity", losses.MultiSimilarityLoss()),
        ("lifted-structure", losses.LiftedStructureLoss()),
        ("snr", losses.SignalToNoiseRatioContrastiveLoss()),
    ):
        value, _ = LOSSES[name](4, 6)(first, first_labels, second, second_labels)
        torch.testing.assert_close(value, theirs(embeddings, labels), msg=name)
    mined = miners.BatchHardMiner()(embeddings, labels)
    value, _ = LOSSES["triplet-batch-hard"](4, 6, margin=0.5)(first, first_labels, second, second_labels)
    torch.testing.assert_close(value, losses.TripletMarginLoss(margin=0.5)(embeddings, labels, mined))


def test_n_pair_is_softmax_over_inner_products_plus_squared_norms():
    """For each class its first item is an anchor and its second the positive; embeddings keep their lengths."""
    first, _, second, _ = batch()
    first, second = (2 * side[:4].detach() for side in (first, second))
    labels = torch.arange(4)
    for options, weight in (({}, 2e-4), ({"regularisation": 0.1}, 0.1)):
        value, _ = LOSSES["n-pair"](4, 6, **options)(first, labels, second, labels)
        softmax = torch.nn.functional.cross_entropy(first @ second.T, labels)
        squared = torch.cat([first, second]).square().sum(1).mean()
        torch.testing.assert_close(value, softmax + weight * squared)


def test_lifted_structure_is_pytorch_metric_learnings_with_its_gradient():
    from pytorch_metric_learning import losses

    first, first_labels, second, second_labels = batch(3)
    gradients = []
    for loss in (LiftedStructure(neg_margin=1.2, pos_margin=0.1), losses.LiftedStructureLoss(1.2, 0.1)):
        embeddings = torch.cat([first, second]).detach().requires_grad_()
        loss(embeddings, torch.cat([first_labels, second_labels])).backward()
        gradients.append(embeddings.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_lifted_structure_without_positives_or_negatives_or_with_twins():
    loss = LiftedStructure()
    for labels, twins in (([0, 1, 2], False), ([0, 0, 0], False), ([0, 0, 1], True)):
        embeddings = torch.ones(3, 4) if twins else torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
        embeddings.requires_grad_()
        value = loss(embeddings, torch.tensor(labels))
        value.backward()
        assert bool(embeddings.grad.isfinite().all())
        assert (float(value.detach()) > 0) is twins
    with pytest.raises(ValueError, match="give no miner"):
        loss(embeddings, torch.tensor([0, 0, 1]), (torch.tensor([0]),) * 4)


def test_matched_pairs_by_a_loop():
    first, first_labels, second, second_labels = batch()
    value, _ = LOSSES["matched-pairs"](4, 6, margin=9.0)(first, first_labels, second, second_labels)
    total = 0.0
    for i in range(12):
        squared = float(((first[i] - second[i]).detach() ** 2).sum())
        total += squared if first_labels[i] == second_labels[i] else max(0.0, 9.0 - squared)
    assert float(value.detach()) == pytest.approx(total / 12 / 2)
    with pytest.raises(ValueError, match="batches of one length"):
        LOSSES["matched-pairs"](4, 6)(first, first_labels, second[:5], second_labels[:5])


def test_losses_with_class_vectors_have_parameters():
    for name in ("normalised-softmax", "soft-triple", "arcface"):
        assert sum(p.numel() for p in LOSSES[name](4, 6).parameters()) >= 24


def test_batchwise_between_and_joined():
    from otfew.methods.batchwise_ot import BatchwiseOTLoss

    first, first_labels, second, second_labels = batch()
    between, figures = ALL["batchwise-ot"](4, 6, reg_inverse=5)(first, first_labels, second, second_labels)
    loss = BatchwiseOTLoss(reg_inverse=5)
    torch.testing.assert_close(between, loss(first, first_labels, ref_emb=second, ref_labels=second_labels))
    joined, _ = ALL["batchwise-ot"](4, 6, reg_inverse=5, joined=True)(first, first_labels, second, second_labels)
    torch.testing.assert_close(joined, loss(torch.cat([first, second]), torch.cat([first_labels, second_labels])))
    found = loss.transport(first, first_labels, ref_emb=second, ref_labels=second_labels)
    assert figures == {
        "entropy": found.entropy,
        "violating_mass": found.violating_mass,
        "violating_pairs": found.violating_pairs,
        "positive_mass": found.positive_mass,
    }
    uniform, figures = ALL["all-pairs"](4, 6)(first, first_labels, second, second_labels)
    torch.testing.assert_close(
        uniform, BatchwiseOTLoss(reg_inverse=0)(first, first_labels, ref_emb=second, ref_labels=second_labels)
    )
    assert figures["entropy"] == pytest.approx(1)


def test_names_on_the_command_line():
    spec = parse_loss("batchwise-ot:reg_inverse=5,joined=True,distance=euclidean")
    assert spec.name == "batchwise-ot:distance=euclidean,joined=True,reg_inverse=5"
    assert parse_loss(spec.name) == spec
    assert spec.build(4, 6).loss.reg_inverse == 5
    assert parse_loss("all-pairs").name == "all-pairs"
    for text, message in (
        ("batchwise_ot", "unknown loss 'batchwise_ot': did you mean batchwise-ot"),
        ("xyz", "unknown loss 'xyz': choose from batchwise-ot, all-pairs"),
        ("all-pairs:margin", "options are written NAME=VALUE"),
    ):
        with pytest.raises(UserError, match=message):
            parse_loss(text)
    for text, message in (
        ("batchwise-ot:magin=5", "no option 'magin'; it takes margin, gamma"),
        ("batchwise-ot:margin=-5", "`margin` must be a number of at least 0"),
        ("contrastive:foo=1", "foo"),
    ):
        with pytest.raises(UserError, match=message):
            parse_loss(text).build(4, 6)
