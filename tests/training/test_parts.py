import math

import numpy as np
import pytest
import torch

from otfew.data.base import ImageSet
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.nodes.sampling import Sampling
from otfew.random.keys import hashed
from otfew.training.augmentation import Augment, Augmentation
from otfew.training.images import decode, statistics
from otfew.training.schedule import learning_rate


def test_cosine_is_torchs_cosine():
    epochs, batches = 4, 5
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    for step in range(epochs * batches):
        expected = optimizer.param_groups[0]["lr"]
        got = learning_rate("cosine", 0.3, step // batches, (step % batches) / batches, epochs)
        assert got == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_step_is_torchs_step():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.2)
    for epoch in range(10):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate("step", 0.1, epoch, 0.4, 10, 3, 0.2) == pytest.approx(expected)
        optimizer.step()
        scheduler.step()


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(0)
    return torch.rand(6, 3, 20, 20)


def test_augmentation_is_a_function_of_its_key(images):
    augment = Augment(Augmentation(0.3, True, 0.4), 16)
    first = augment(images, 1, 2, 3)
    augment(images, 9, 9, 9)
    torch.manual_seed(77)
    assert torch.equal(augment(images, 1, 2, 3), first)
    assert not torch.equal(augment(images, 1, 2, 4), first)
    assert first.shape == (6, 3, 16, 16)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


def test_augmentation_leaves_the_generator_alone(images):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Augment(Augmentation(), 16)(images, 1)
    assert torch.equal(torch.rand(3), expected)


def test_crops_keep_their_share_of_the_area():
    """The coordinates themselves as channels: the spread of what comes out is the crop's size."""
    side = 64
    ramp = torch.linspace(0, 1, side)
    image = torch.stack([ramp.expand(side, side), ramp.view(-1, 1).expand(side, side), torch.zeros(side, side)])
    crops = Augment(Augmentation(0.25, False), side)(image.expand(200, 3, side, side), 1)
    width = crops[:, 0].amax((1, 2)) - crops[:, 0].amin((1, 2))
    height = crops[:, 1].amax((1, 2)) - crops[:, 1].amin((1, 2))
    area = width * height
    assert float(area.min()) > 0.2
    assert float(area.max()) <= 1
    assert float(area.max() - area.min()) > 0.4
    # Without flips, coordinates still grow from left to right.
    assert bool((crops[:, 0, 0, -1] > crops[:, 0, 0, 0]).all())


def test_flips_are_half():
    ramp = torch.linspace(0, 1, 32).expand(400, 3, 32, 32)
    crops = Augment(Augmentation(0.5, True), 32)(ramp, 1)
    flipped = (crops[:, 0, 0, -1] < crops[:, 0, 0, 0]).float().mean()
    assert 0.4 < float(flipped) < 0.6


@pytest.mark.parametrize("wrong", [{"min_scale": 0.0}, {"min_scale": 1.5}, {"colour": -0.1}, {"colour": math.nan}])
def test_augmentations_that_make_no_sense(wrong):
    with pytest.raises(UserError):
        Augmentation(**wrong)


def test_hashed_seeds_differ():
    seeds = {hashed(1, epoch, batch) for epoch in range(30) for batch in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert hashed(1, 23) != hashed(12, 3)


def test_decode_and_statistics():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (5 + i, 9, 3), dtype=np.uint8) for i in range(10)]
    images = ImageSet(
        "made",
        "train",
        "",
        ("a",),
        np.zeros(10, dtype=np.int64),
        tuple(map(str, range(10))),
        pictures.__getitem__,
        "",
        1,
    )
    calls = []
    pixels = decode(images, Preparation(6), lambda: calls.append(1))
    assert pixels.shape == (10, 1, 3, 6, 6)
    pixels = pixels[:, 0]
    assert pixels.dtype == torch.uint8
    assert len(calls) == 10
    for index, picture in enumerate(pictures):
        assert np.array_equal(pixels[index].numpy().transpose(1, 2, 0), Preparation(6)(picture))
    crops = Sampling(2)
    views = decode(images, Preparation(6), extractor=crops)
    assert views.shape == (10, 2, 3, 6, 6)
    for index, picture in enumerate(pictures):
        expected = crops.views(picture, Preparation(6), str(index))
        assert np.array_equal(views[index].numpy().transpose(0, 2, 3, 1), expected)
    mean, std = statistics(pixels, block=3)
    flat = pixels.numpy().transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(mean, flat.mean(1), atol=6e-5)
    np.testing.assert_allclose(std, flat.std(1), atol=6e-5)
