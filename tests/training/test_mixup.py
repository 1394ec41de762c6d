import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from otfew.backbones.wide_resnet import WideResNet
from otfew.training.mixup import Mixing, draw_mixing, mixed_maps


@pytest.fixture
def mixing():
    return Mixing(0, 0.3, torch.tensor([2, 0, 1, 3]))


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (4, 7)])
def test_images_and_maps_are_mixed_pair_by_pair(shape, mixing):
    values = torch.randn(shape)
    mixed = mixing.mix(values)
    for i, partner in enumerate([2, 0, 1, 3]):
        assert_close(mixed[i], 0.3 * values[i] + 0.7 * values[partner])


@pytest.mark.parametrize(("share", "same"), [(1.0, lambda x, p: x), (0.0, lambda x, p: x[p])])
def test_the_ends_mix_nothing(share, same, mixing):
    values = torch.randn(4, 6)
    assert_close(Mixing(0, share, mixing.permutation).mix(values), same(values, mixing.permutation))


def test_loss_and_hits_weigh_both_labels(mixing):
    logits, labels = torch.randn(4, 5), torch.tensor([1, 4, 0, 1])
    loss = hits = 0.0
    for i, partner in enumerate([2, 0, 1, 3]):
        log_p = [float(x) - math.log(sum(math.exp(y) for y in logits[i])) for x in logits[i]]
        loss -= (0.3 * log_p[labels[i]] + 0.7 * log_p[labels[partner]]) / 4
        answer = int(logits[i].argmax())
        hits += 0.3 * (answer == labels[i]) + 0.7 * (answer == labels[partner])
    assert float(mixing.cross_entropy(logits, labels)) == pytest.approx(loss, rel=1e-5)
    assert float(mixing.correct(logits, labels)) == pytest.approx(float(hits), rel=1e-5)


def test_draws_are_a_function_of_their_key():
    first = draw_mixing(16, 2.0, 3, 1, 2, 3)
    torch.manual_seed(5)
    again, other = draw_mixing(16, 2.0, 3, 1, 2, 3), draw_mixing(16, 2.0, 3, 1, 2, 4)
    assert (first.stage, first.share, first.permutation.tolist()) == (
        again.stage,
        again.share,
        again.permutation.tolist(),
    )
    assert first.share != other.share
    assert first.permutation.tolist() != other.permutation.tolist()


def test_draws_have_their_distributions():
    draws = [draw_mixing(3, 2.0, 3, i) for i in range(2000)]
    shares = np.array([d.share for d in draws])
    # Beta(2, 2): mean 1/2, variance 1/20.
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 0.05) < 0.005
    stages = np.bincount([d.stage for d in draws], minlength=4)
    assert len(stages) == 4
    assert stages.min() > 400
    firsts = np.bincount([int(d.permutation[0]) for d in draws])
    assert firsts.min() > 550
    assert all(sorted(d.permutation.tolist()) == [0, 1, 2] for d in draws)


@pytest.mark.parametrize("stage", range(5))
def test_mixing_takes_place_after_its_stage(stage):
    torch.manual_seed(0)
    module = WideResNet(10, 1).eval()
    images = torch.randn(4, 3, 8, 8)
    mixing = Mixing(stage, 0.3, torch.tensor([2, 0, 1, 3]))
    with torch.inference_mode():
        before = module.stages[:stage](images)
        expected = module.stages[stage:](
            torch.stack([0.3 * before[i] + 0.7 * before[p] for i, p in enumerate([2, 0, 1, 3])])
        )
        assert_close(mixed_maps(module.stages, images, mixing), expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_layers_before_and_after():
    module = WideResNet(10, 1)
    head = nn.Linear(64, 3)
    mixing = Mixing(2, 0.3, torch.tensor([1, 0]))
    maps = mixed_maps(module.stages, torch.randn(2, 3, 8, 8), mixing)
    mixing.cross_entropy(head(maps.mean((2, 3))), torch.tensor([0, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert module.stages[0][0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan])
def test_shares_without_a_distribution_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be above 0"):
        draw_mixing(4, alpha, 3, 1)


def test_stages_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="last_stage"):
        draw_mixing(4, 2.0, -1, 1)
    with pytest.raises(ValueError, match="can't mix after stage 5: there are 4"):
        mixed_maps(WideResNet(10, 1).stages, torch.zeros(2, 3, 8, 8), Mixing(5, 0.5, torch.tensor([1, 0])))
