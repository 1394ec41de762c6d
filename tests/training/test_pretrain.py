from dataclasses import replace

import pytest
import torch
from torch import nn

from otfew.backbones.conv4 import Conv4
from otfew.errors import UserError
from otfew.training import loop
from otfew.training.augmentation import Augmentation
from otfew.training.loop import Duties, Part
from otfew.training.pretrain import Classification, Task, turned
from otfew.training.progress import by_accuracy, read_accuracy
from otfew.training.settings import PretrainSettings

SIDE, MEAN, STD = 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def build():
    return Conv4(channels=6)


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task(train_images):
    images, pixels = train_images
    return Task(pixels, torch.from_numpy(images.labels), 4, SIDE, MEAN, STD, Augmentation(0.5, True, 0.2))


def test_it_learns(task, validation, tmp_path):
    settings = PretrainSettings(epochs=8, batch_size=16, accelerator="cpu", learning_rate=0.05)
    duties = Duties(validation, read_accuracy, by_accuracy("protonet"), tmp_path / "state.pt", {})
    _, history = loop.run(lambda parts: Classification(build, task, settings, parts), settings, duties)
    assert history[-1].train_accuracy > 60  # chance is 25
    assert history[-1].loss < history[0].loss


def test_one_step_against_nesterov_by_hand(validation, tmp_path, weights_of):
    """One batch of an even image, which no crop changes: the new weights follow from the formula."""
    pixels = torch.full((2, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    task = Task(pixels, torch.tensor([1, 1]), 3, SIDE, (0.5,) * 3, (0.25,) * 3, Augmentation(1.0, False))

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, images):
            return images * self.scale.view(1, 3, 1, 1)

    settings = PretrainSettings(
        epochs=1, batch_size=2, accelerator="cpu", learning_rate=0.3, momentum=0.8, weight_decay=0.01
    )
    duties = Duties(validation, read_accuracy, by_accuracy("protonet"), tmp_path / "state.pt", {})
    loop.run(lambda parts: Classification(Mean, task, settings, parts), settings, duties)
    state = weights_of(tmp_path / "state.pt")
    # Undo the step from its momentum buffer: weight_new = weight - lr * (grad + momentum * grad), grad with decay.
    weight = state["module"]["head.weight"].double()
    grad = state["optimizer"]["state"][1]["momentum_buffer"].double()
    before = weight + 0.3 * (1 + 0.8) * grad
    bias = state["module"]["head.bias"].double()
    grad_bias = state["optimizer"]["state"][2]["momentum_buffer"].double()
    bias_before = bias + 0.3 * 1.8 * grad_bias
    vector = torch.full((3,), (128 / 255 - 0.5) / 0.25, dtype=torch.float64)
    probability = torch.softmax(before @ vector + bias_before, 0)
    expected = torch.outer(probability - torch.tensor([0.0, 1.0, 0.0]), vector) + 0.01 * before
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)


def test_turns_against_a_loop():
    torch.manual_seed(0)
    images = torch.rand(9, 3, 5, 5)
    turns = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0, 1])
    result = turned(images, turns)
    for i, quarters in enumerate(turns.tolist()):
        assert torch.equal(result[i], torch.rot90(images[i], quarters, (1, 2)))


def test_rotation_as_a_second_task(task):
    """The loss is cross-entropy over classes plus the weighted one over turns, on the very images of the batch."""
    torch.manual_seed(0)
    settings = PretrainSettings(batch_size=16, rotation="self-supervised", rotation_weight=0.3)
    objective = Classification(build, task, settings)
    assert objective.module.turn_head.out_features == 4
    objective.module.eval()
    part = Part(0, 1, 0, 1)
    images, labels, turns = objective.batch(part, CPU)
    assert set(turns.tolist()) == {0, 1, 2, 3}
    vectors = objective.network(images).mean((2, 3)).detach()
    expected = 0.0
    for i in range(16):
        class_log = torch.log_softmax(objective.module.head(vectors[i]).detach(), 0)
        turn_log = torch.log_softmax(objective.module.turn_head(vectors[i]).detach(), 0)
        expected -= float(class_log[labels[i]] + 0.3 * turn_log[turns[i]]) / 16
    outcome = objective.outcome(objective.module, part, CPU)
    assert float(outcome.loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_rotation_turns_the_same_crops(task):
    """Beside turning them, rotation leaves the batch as it is."""
    torch.manual_seed(0)
    plain = Classification(build, task, PretrainSettings(batch_size=16))
    rotated = Classification(build, task, PretrainSettings(batch_size=16, rotation="augment"))
    assert rotated.module.turn_head is None
    images, labels, _ = plain.batch(Part(1, 2, 0, 1), CPU)
    again, same, turns = rotated.batch(Part(1, 2, 0, 1), CPU)
    assert torch.equal(turned(images, turns), again)
    assert torch.equal(labels, same)


def test_parts_share_a_batch_out(task):
    torch.manual_seed(0)
    objective = Classification(
        build, replace(task, augmentation=Augmentation(1.0, False)), PretrainSettings(batch_size=16), 4
    )
    _, whole, _ = objective.batch(Part(0, 2, 0, 1), CPU)
    parts = [objective.batch(Part(0, 2, index, 4), CPU)[1] for index in range(4)]
    assert torch.equal(torch.cat(parts), whole)


def test_every_image_once_an_epoch(task):
    numbered = replace(task, labels=torch.arange(80), classes=80)
    objective = Classification(build, numbered, PretrainSettings(batch_size=16))
    orders = [torch.cat([objective.batch(Part(e, s, 0, 1), CPU)[1] for s in range(5)]) for e in (0, 1)]
    assert all(torch.equal(order.sort().values, torch.arange(80)) for order in orders)
    assert not torch.equal(*orders)


def test_too_few_images_for_a_batch(task):
    with pytest.raises(UserError, match="`batch_size` 128"):
        Classification(build, task, PretrainSettings(epochs=1))


@pytest.mark.parametrize("wrong", [{"batch_size": -1}, {"rotation_weight": -0.1}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=f"`{next(iter(wrong))}`"):
        PretrainSettings(**wrong)
