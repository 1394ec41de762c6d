from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from otfew.backbones.conv4 import Conv4
from otfew.backbones.wide_resnet import WideResNet
from otfew.errors import UserError
from otfew.training import loop
from otfew.training.augmentation import Augmentation
from otfew.training.loop import Duties, Part
from otfew.training.pretrain import Task
from otfew.training.progress import by_accuracy, read_accuracy
from otfew.training.s2m2 import S2M2
from otfew.training.settings import PretrainSettings

SIDE, MEAN, STD = 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def build():
    return Conv4(channels=6)


CPU = torch.device("cpu")
SETTINGS = PretrainSettings(
    epochs=3, batch_size=16, recipe="s2m2", mixup_epochs=1, accelerator="cpu", learning_rate=0.02
)


def wide(dropout=0.0):
    return WideResNet(depth=10, width=1, dropout=dropout)


@pytest.fixture(scope="module")
def task(train_images):
    images, pixels = train_images
    return Task(pixels, torch.from_numpy(images.labels), 4, SIDE, MEAN, STD, Augmentation(0.5, True, 0.0))


@pytest.fixture
def objective(task):
    torch.manual_seed(0)
    made = S2M2(wide, task, SETTINGS)
    made.module.eval()  # images by themselves, so that a loop can take them one at a time
    return made


def loss_of_turns(objective, images, labels):
    total = 0.0
    for image, label in zip(images, labels, strict=True):
        for quarters in range(4):
            vector = objective.network(torch.rot90(image, quarters, (1, 2))[None]).mean((2, 3))[0]
            head = objective.module.head
            cosines = torch.stack([functional.cosine_similarity(vector, w, dim=0) for w in head.weight])
            class_log = torch.log_softmax(2 * head.weight.norm(dim=1) * cosines, 0)
            turn_log = torch.log_softmax(objective.module.turn_head(vector), 0)
            total -= float((class_log[label] + turn_log[quarters]).detach()) / 2
    return total / (4 * len(images))


def test_first_stage_against_a_loop(objective):
    part = Part(1, 2, 0, 1)
    images, labels, _ = objective.batch(part, CPU)
    outcome = objective.outcome(objective.module, part, CPU)
    assert outcome.answers == 64
    assert float(outcome.loss.detach()) == pytest.approx(loss_of_turns(objective, images, labels), rel=1e-4)


def test_second_stage_adds_the_mixture_to_turns_of_a_quarter(objective):
    seen = []

    def spy(images, mixing=None):
        seen.append((images, mixing))
        return objective.module(images, mixing)

    part = Part(2, 1, 0, 1)
    images, labels, _ = objective.batch(part, CPU)
    outcome = objective.outcome(spy, part, CPU)
    (whole, mixing), (quarter, none) = seen
    assert torch.equal(whole, images)
    assert none is None
    assert len(quarter) == 16
    upright = quarter[:4]
    places = [next(i for i in range(16) if torch.equal(images[i], image)) for image in upright]
    assert len(set(places)) == 4
    expected = loss_of_turns(objective, upright, labels[places])
    logits = objective.module(images, mixing)[0].detach()
    log = torch.log_softmax(logits, 1)
    for i in range(16):
        partner = labels[mixing.permutation[i]]
        expected -= float(mixing.share * log[i, labels[i]] + (1 - mixing.share) * log[i, partner]) / 16
    assert float(outcome.loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_it_learns_and_resumes_with_dropout(task, validation, tmp_path, weights_of):
    settings = replace(SETTINGS, optimizer="adam", learning_rate=1e-3)

    class KilledError(Exception):
        pass

    class Kill(loop.Watcher):
        def on_step(self, step):
            if (step.epoch, step.step) == (3, 2):
                raise KilledError

    def plan(name):
        return Duties(validation, read_accuracy, by_accuracy("protonet"), tmp_path / name, {}, save_every=0.0)

    def run(name, watcher=None):
        return loop.run(lambda parts: S2M2(lambda: wide(0.5), task, settings, parts), settings, plan(name), watcher)

    _, history = run("straight.pt")
    assert history[1].loss < history[0].loss
    with pytest.raises(KilledError):
        run("killed.pt", Kill())
    torch.rand(7)
    run("killed.pt")
    states = [weights_of(tmp_path / name)["module"] for name in ("straight.pt", "killed.pt")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_both_stages_run_in_mixed_precision(task, tmp_path):
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        settings = replace(SETTINGS, epochs=2, learning_rate=1e-4, precision=precision)
        duties = Duties(lambda *_: {"none": 0.0}, float, None, tmp_path / precision, {})
        _, history = loop.run(lambda parts, s=settings: S2M2(wide, task, s, parts), settings, duties)
        losses.append([record.loss for record in history])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


def test_training_leaves_the_generator_alone(task, validation, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    settings = replace(SETTINGS, epochs=1)
    loop.run(
        lambda parts: S2M2(wide, task, settings, parts),
        settings,
        Duties(validation, read_accuracy, by_accuracy("protonet"), tmp_path / "s", {}),
    )
    assert torch.equal(torch.rand(2), expected)


def test_mistakes(task):
    with pytest.raises(UserError, match="wrn28_10"):
        S2M2(build, task, SETTINGS)
    with pytest.raises(UserError, match="raise `batch_size` to 32"):
        S2M2(wide, task, SETTINGS, 8)
    with pytest.raises(UserError, match="`mixup_epochs`"):
        replace(SETTINGS, mixup_epochs=4)
    with pytest.raises(UserError, match="`mixup_alpha`"):
        replace(SETTINGS, mixup_alpha=0.0)
