import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from otfew.backbones.conv4 import Conv4
from otfew.data.base import ImageSet
from otfew.errors import UserError
from otfew.training import validation
from otfew.training.augmentation import Augmentation
from otfew.training.pretrain import Settings, Task, Watcher, pretrain

SIDE = 16


def made_images(split, classes, each, seed):
    """Noisy fields, one colour a class: easy, so that a few steps already learn something."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(40, 216, (classes, 3))
    labels = np.repeat(np.arange(classes), each)
    pixels = np.clip(colours[labels][:, :, None, None] + rng.normal(0, 40, (len(labels), 3, SIDE, SIDE)), 0, 255)
    names = tuple(f"{split}/{i}" for i in range(len(labels)))
    members = tuple(f"{split}{c}" for c in range(classes))
    images = ImageSet("made", split, "", members, labels, names, lambda _: None, "", classes)
    return images, torch.from_numpy(pixels.astype(np.uint8))


def build():
    return Conv4(channels=6)


@pytest.fixture(scope="module")
def task():
    images, pixels = made_images("train", 4, 20, 0)
    return Task(
        pixels,
        torch.from_numpy(images.labels),
        4,
        SIDE,
        (0.5, 0.5, 0.5),
        (0.25, 0.25, 0.25),
        Augmentation(0.5, True, 0.2),
        {"data": images.digest},
    )


@pytest.fixture(scope="module")
def val():
    images, pixels = made_images("val", 6, 8, 1)
    return validation.prepare(images, pixels, 20)


class KilledError(Exception):
    pass


class KillAt(Watcher):
    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def on_batch(self, epoch, batch, batches, loss):
        if (epoch, batch) == self.at:
            raise KilledError


def weights_of(path):
    return torch.load(path, weights_only=True)


SETTINGS = Settings(epochs=3, batch_size=16, accelerator="cpu")


@pytest.fixture(scope="module")
def straight(task, val, tmp_path_factory):
    path = tmp_path_factory.mktemp("straight") / "state.pt"
    best, history = pretrain(build, task, val, SETTINGS, path)
    return path, best, history


# KilledError in the middle of epoch 2 after a save at its first batch; right after epoch 1; before anything was saved.
@pytest.mark.parametrize(("epoch", "batch", "save_every"), [(2, 3, 0.0), (2, 1, 1e9), (1, 2, 1e9)])
def test_a_killed_run_goes_on_bit_for_bit(task, val, straight, tmp_path, epoch, batch, save_every):
    path = tmp_path / "state.pt"
    with pytest.raises(KilledError):
        pretrain(build, task, val, SETTINGS, path, KillAt(epoch, batch), save_every)
    # What happens in between must not matter.
    torch.manual_seed(12345)
    torch.rand(17)
    best, history = pretrain(build, task, val, SETTINGS, path)
    expected_path, expected_best, expected_history = straight
    assert [(h.loss, h.train_accuracy, h.val_accuracy) for h in history] == [
        (h.loss, h.train_accuracy, h.val_accuracy) for h in expected_history
    ]
    for name, tensor in expected_best.items():
        assert torch.equal(best[name], tensor)
    state, expected = weights_of(path), weights_of(expected_path)
    for name, tensor in expected["classifier"].items():
        assert torch.equal(state["classifier"][name], tensor)
    for key, momenta in expected["optimizer"]["state"].items():
        assert torch.equal(state["optimizer"]["state"][key]["momentum_buffer"], momenta["momentum_buffer"])


def test_a_finished_run_is_not_trained_again(task, val, straight):
    path, best, history = straight
    before = path.read_bytes()
    again, same = pretrain(build, task, val, SETTINGS, path)
    assert same == history
    assert path.read_bytes() == before
    assert all(torch.equal(again[name], best[name]) for name in best)


def test_the_best_epoch_is_kept(task, val, tmp_path):
    seen = []

    class Copy(Watcher):
        def on_epoch(self, history, best):
            state = weights_of(tmp_path / "state.pt")["classifier"]
            seen.append((history[-1].val_accuracy, copy.deepcopy(state), best is not None))

    best, _ = pretrain(build, task, val, SETTINGS, tmp_path / "state.pt", Copy())
    accuracies = [accuracy for accuracy, _, _ in seen]
    first_of_best = accuracies.index(max(accuracies))
    for name, tensor in best.items():
        assert torch.equal(tensor, seen[first_of_best][1][f"backbone.{name}"])
    for index, (accuracy, _, improved) in enumerate(seen):
        assert improved == all(accuracy > earlier for earlier in accuracies[:index])


def test_it_learns(task, val, tmp_path):
    settings = Settings(epochs=8, batch_size=16, accelerator="cpu", learning_rate=0.05)
    _, history = pretrain(build, task, val, settings, tmp_path / "state.pt")
    assert history[-1].train_accuracy > 60  # chance is 25
    assert history[-1].loss < history[0].loss


def test_one_step_against_nesterov_by_hand(val, tmp_path):
    """One batch of an even image, which no crop changes: the new weights follow from the formula."""
    pixels = torch.full((2, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    labels = torch.tensor([1, 1])
    task = Task(pixels, labels, 3, SIDE, (0.5,) * 3, (0.25,) * 3, Augmentation(1.0, False), {})

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, images):
            return images * self.scale.view(1, 3, 1, 1)

    settings = Settings(epochs=1, batch_size=2, accelerator="cpu", learning_rate=0.3, momentum=0.8, weight_decay=0.01)

    pretrain(Mean, task, val, settings, tmp_path / "state.pt")
    state = weights_of(tmp_path / "state.pt")
    # Undo the step from its momentum buffer: weight_new = weight - lr * (grad + momentum * grad), grad with decay.
    weight = state["classifier"]["head.weight"].double()
    grad = state["optimizer"]["state"][1]["momentum_buffer"].double()
    before = weight + 0.3 * (1 + 0.8) * grad
    bias = state["classifier"]["head.bias"].double()
    grad_bias = state["optimizer"]["state"][2]["momentum_buffer"].double()
    bias_before = bias + 0.3 * 1.8 * grad_bias
    vector = torch.full((3,), (128 / 255 - 0.5) / 0.25, dtype=torch.float64)
    probability = torch.softmax(before @ vector + bias_before, 0)
    expected = torch.outer(probability - torch.tensor([0.0, 1.0, 0.0]), vector) + 0.01 * before
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)


def test_other_settings_or_data_do_not_resume(task, val, straight):
    path, _, _ = straight
    from dataclasses import replace

    for other_task, settings in (
        (task, replace(SETTINGS, epochs=4)),
        (replace(task, identity={"data": "other"}), SETTINGS),
        (replace(task, augmentation=Augmentation(0.9)), SETTINGS),
    ):
        with pytest.raises(UserError, match="another --output"):
            pretrain(build, other_task, val, settings, path)


@pytest.mark.parametrize("kept", [0, 10, 1000, -1])
def test_a_damaged_state_is_refused(task, val, straight, tmp_path, kept):
    path = tmp_path / "state.pt"
    path.write_bytes(straight[0].read_bytes()[:kept])
    with pytest.raises(UserError, match="damaged"):
        pretrain(build, task, val, SETTINGS, path)


def test_a_state_cannot_run_code(task, val, tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"fingerprint": Harm()}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="damaged"):
        pretrain(build, task, val, SETTINGS, tmp_path / "state.pt")
    assert not (tmp_path / "harm").exists()


def test_too_few_images_for_a_batch(task, val, tmp_path):
    with pytest.raises(UserError, match="--batch-size 128"):
        pretrain(build, task, val, Settings(epochs=1), tmp_path / "state.pt")


def test_a_loss_that_explodes(task, val, tmp_path):
    settings = Settings(epochs=3, batch_size=16, accelerator="cpu", learning_rate=1e30)
    with pytest.raises(UserError, match="lower --learning-rate"):
        pretrain(build, task, val, settings, tmp_path / "state.pt")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
    ],
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)).replace("_", "-")):
        Settings(**wrong)
