import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from otfew import catalogue
from otfew.backbones.base import normalise
from otfew.backbones.conv4 import Conv4
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.nodes.fcn import FCN
from otfew.nodes.grid import Grid
from otfew.nodes.sampling import Sampling
from otfew.training import loop
from otfew.training.augmentation import Augment, Augmentation
from otfew.training.loop import Duties, Part
from otfew.training.metatrain import EpisodeTraining, Task
from otfew.training.progress import LAST, by_accuracy, kept_epoch, read_accuracy
from otfew.training.settings import MetatrainSettings
from otfew.training.views import Patches, WholeImages, read_all

SIDE, MEAN, STD = 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

CPU = torch.device("cpu")
SETTINGS = MetatrainSettings(epochs=2, episodes_per_epoch=4, accelerator="cpu", learning_rate=0.01)


@pytest.fixture(scope="module")
def sampler(train_images):
    images, _ = train_images
    return Sampler(Protocol("made", "", "train", 1, way=3, shot=2, query=4), images.labels, images.classes)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return Conv4(channels=6, last_pool=False)  # 2 x 2 nodes


@pytest.fixture
def make_task(train_images, sampler):
    def make(method="deepemd", extractor=None, views=None, **options):
        views = views or WholeImages(train_images[1], Augment(Augmentation(0.5, True, 0.2), SIDE))
        kind = catalogue.find(method)
        learned = {name: {"temperature": 1.0}.get(name, 0.0) for name in kind.learned}
        return Task(
            views, sampler, extractor or FCN(), lambda v: catalogue.build(method, **options, **v), learned, MEAN, STD
        )

    return make


def test_an_episode_against_a_loop(make_task, backbone, sampler, train_images):
    """The loss is the mean cross-entropy of the queries, each scored by itself, over images normalised in one batch."""
    task = make_task(extractor=FCN((1,)))
    settings = replace(SETTINGS, seed=5)
    objective = EpisodeTraining(copy.deepcopy(backbone), task, settings, 2)
    assert objective.steps == 2
    objective.train()
    outcome = objective.outcome(objective.module, Part(1, 1, 1, 2), CPU)

    number = (1 * 2 + 1) * 2 + 1
    episode = sampler(number, number + 1)
    order = [*episode.support[0].ravel(), *episode.query[0].ravel()]
    pixels = train_images[1][torch.tensor(order)].float() / 255
    images = normalise(Augment(Augmentation(0.5, True, 0.2), SIDE)(pixels, 5, 1, 1, 1), MEAN, STD)
    backbone.train()
    nodes = FCN((1,)).nodes(backbone(images)[:, None]).detach()
    support = nodes[:6].reshape(3, 2, *nodes.shape[1:])
    losses, right = [], 0
    for c in range(3):
        for k in range(4):
            query = nodes[6 + 4 * c + k]
            logits = catalogue.build("deepemd")(support[None], query[None, None])[0, 0]
            losses.append(-float(torch.log_softmax(logits, 0)[c]))
            right += int(logits.argmax() == c)
    assert float(outcome.loss.detach()) == pytest.approx(np.mean(losses), rel=1e-5)
    assert (outcome.correct, outcome.answers) == (right, 12)


def test_gradient_through_the_solver_and_its_weights_by_finite_differences(make_task, backbone):
    """End to end in float64: images -> nodes -> weights and costs -> linear program -> loss."""
    task = make_task(extractor=FCN((1,)), weight_gradient=True)
    objective = EpisodeTraining(backbone.double(), task, SETTINGS)

    def forward(images):
        maps, learned = objective.module(images.double())
        return maps, learned

    part = Part(0, 0, 0, 1)
    parameter = backbone.layers[8].weight
    objective.train()
    loss = objective.outcome(forward, part, CPU).loss
    (gradient,) = torch.autograd.grad(loss, parameter)
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).double()
    step = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter += sign * step * direction
            values.append(float(objective.outcome(forward, part, CPU).loss))
            parameter -= sign * step * direction
    slope = (values[0] - values[1]) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4)

    constant = EpisodeTraining(backbone, replace(task, method=lambda v: catalogue.build("deepemd", **v)), SETTINGS)
    (without,) = torch.autograd.grad(constant.outcome(forward, part, CPU).loss, parameter)
    assert not torch.allclose(gradient, without, rtol=1e-3)


@pytest.mark.parametrize("method", ["deepemd", "protonet", "matchingnet", "frn"])
def test_every_method_moves_the_backbone_and_what_it_learns(make_task, backbone, validation, tmp_path, method):
    before = copy.deepcopy(backbone.state_dict())
    task = make_task(method)
    duties = Duties(validation, read_accuracy, by_accuracy("cosine-centroid"), tmp_path / "state.pt", {}, initial=True)
    best, history = loop.run(lambda parts: EpisodeTraining(backbone, task, SETTINGS, parts), SETTINGS, duties)
    assert [record.epoch for record in history] == [0, 1, 2]
    assert (history[0].loss, history[0].train_accuracy) == (None, None)
    state = torch.load(tmp_path / "state.pt", weights_only=True)["module"]
    assert not torch.equal(state["backbone.layers.0.weight"], before["layers.0.weight"])
    assert not torch.equal(state["backbone.layers.1.running_mean"], before["layers.1.running_mean"])
    for name in catalogue.find(method).learned:
        assert float(state[f"learned.{name}"]) != task.learned[name]
        assert history[-1].learned[name] == float(state[f"learned.{name}"])
    if kept_epoch(history, by_accuracy("cosine-centroid")).epoch == 0:
        assert all(torch.equal(best[name], before[name]) for name in before)


def test_a_start_that_nothing_beats_is_kept(make_task, backbone, validation, tmp_path):
    before = copy.deepcopy(backbone.state_dict())

    class Falling:
        calls = 0

        def __call__(self, network, device, learned):
            Falling.calls += 1
            accuracies = validation(network, device, learned)
            return {name: replace(a, mean=100.0 - Falling.calls) for name, a in accuracies.items()}

    duties = Duties(Falling(), read_accuracy, by_accuracy("protonet"), tmp_path / "state.pt", {}, initial=True)
    best, history = loop.run(lambda parts: EpisodeTraining(backbone, make_task(), SETTINGS, parts), SETTINGS, duties)
    assert kept_epoch(history, by_accuracy("protonet")).epoch == 0
    assert all(torch.equal(best[name], before[name]) for name in before)


def test_the_last_epoch_is_kept_whatever_validation_says(make_task, backbone, validation, tmp_path):
    duties = Duties(validation, read_accuracy, by_accuracy(LAST), tmp_path / "state.pt", {}, initial=True)
    kept, history = loop.run(lambda parts: EpisodeTraining(backbone, make_task(), SETTINGS, parts), SETTINGS, duties)
    state = torch.load(tmp_path / "state.pt", weights_only=True)["module"]
    assert kept_epoch(history, by_accuracy(LAST)) is history[-1]
    assert all(torch.equal(tensor, state[f"backbone.{name}"]) for name, tensor in kept.items())


def test_frozen_batch_normalisation(make_task, backbone, validation, tmp_path):
    """Running statistics stay, scale and shift are trained, and images do not see each other."""
    before = copy.deepcopy(backbone.state_dict())
    settings = replace(SETTINGS, batchnorm="frozen")
    duties = Duties(validation, read_accuracy, by_accuracy("protonet"), tmp_path / "state.pt", {})
    loop.run(lambda parts: EpisodeTraining(backbone, make_task(), settings, parts), settings, duties)
    state = torch.load(tmp_path / "state.pt", weights_only=True)["module"]
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(state[f"backbone.layers.1.{name}"], before[f"layers.1.{name}"])
    assert not torch.equal(state["backbone.layers.1.weight"], before["layers.1.weight"])


@pytest.mark.parametrize("extractor", [Grid((1, 2)), Sampling(3)])
def test_patches_are_drawn_by_key(train_images, extractor):
    images, _ = train_images
    views = Patches(read_all(images), images.names, extractor, Preparation(8))
    chosen = torch.tensor([3, 70, 3])
    first = views(chosen, CPU, 1, 2)
    assert first.shape == (3, extractor.n_views, 3, 8, 8)
    assert torch.equal(first, views(chosen, CPU, 1, 2))
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first, views(chosen, CPU, 1, 3))
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


def test_patches_train(make_task, backbone, train_images, validation, tmp_path):
    images, _ = train_images
    extractor = Grid((1, 2))
    task = make_task(extractor=extractor, views=Patches(read_all(images), images.names, extractor, Preparation(SIDE)))
    duties = Duties(validation, read_accuracy, by_accuracy("protonet"), tmp_path / "state.pt", {})
    _, history = loop.run(lambda parts: EpisodeTraining(backbone, task, SETTINGS, parts), SETTINGS, duties)
    assert all(np.isfinite(record.loss) for record in history)


def test_it_learns(make_task, backbone, validation, tmp_path):
    settings = replace(SETTINGS, epochs=5, episodes_per_epoch=10, learning_rate=0.02)
    duties = Duties(validation, read_accuracy, by_accuracy("protonet"), tmp_path / "state.pt", {})
    _, history = loop.run(lambda parts: EpisodeTraining(backbone, make_task(), settings, parts), settings, duties)
    assert history[-1].loss < history[0].loss


def test_episodes_that_do_not_divide(make_task, backbone):
    with pytest.raises(UserError, match="`episodes_per_epoch` 4 can't be divided into 3"):
        EpisodeTraining(backbone, make_task(), SETTINGS, 3)
    with pytest.raises(UserError, match="`episodes_per_epoch`"):
        MetatrainSettings(episodes_per_epoch=0)


def test_only_batch_normalisation_is_frozen(make_task):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    objective = EpisodeTraining(network, make_task(), replace(SETTINGS, batchnorm="frozen"))
    objective.train()
    assert [module.training for module in network] == [True, False, True]
