"""Episodes on the pretended device: features go there once, and a method's answer is the one thing waited for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

import otfew
from otfew import api, catalogue, devices
from otfew.backbones import ARCHITECTURES
from otfew.baselines.protonet import ProtoNet
from otfew.classifier import FewShotClassifier, embedder
from otfew.evaluation import placement
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.placement import gathered, placed
from otfew.evaluation.run import BLOCK, Ready, evaluate
from otfew.features.extract import FeatureSet
from otfew.features.material import FileMaterial

WAY, SHOT, QUERY = 3, 2, 3
LABELS = np.repeat(np.arange(5), 8)
METHODS = ("protonet", "cosine-centroid", "cosine-nodes")


def features(nodes=4):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 1, 6))
    values = centres[LABELS] + 0.7 * rng.normal(size=(len(LABELS), nodes, 6))
    return FeatureSet(torch.from_numpy(values).float(), LABELS, tuple("abcde"))


def ready(found, names=METHODS, **options):
    return [Ready(name, catalogue.build(name), found, **options) for name in names]


def sampler():
    return Sampler(Protocol("made", "", "file", 1, WAY, SHOT, QUERY), LABELS, tuple("abcde"))


def run(entries, device="cpu", episodes=BLOCK + 10):
    return evaluate(entries, sampler(), episodes, device=device)


def test_answers_are_the_processors_and_only_they_are_waited_for(pretended):
    expected = run(ready(features()))
    with pretended() as machine:
        found = run(ready(features()), machine.device)
    for name in METHODS:
        np.testing.assert_array_equal(found[name].correct, expected[name].correct)
    # Two blocks of three methods, each asked once more for warming up; the features.
    assert machine.waits == 3 * len(METHODS), machine.report()
    assert machine.uploads == 1, machine.report()
    assert machine.operations <= 400, machine.report()


def test_features_that_do_not_fit_go_there_episode_by_episode(pretended, monkeypatch):
    expected = run(ready(features()))
    sizes = []
    bytes_of_all = features().nodes.nbytes

    def gather(nodes, *others):
        sizes.append(nodes.device.type)
        return gathered(nodes, *others)

    monkeypatch.setattr("otfew.evaluation.run.gathered", gather)
    for free, where in ((bytes_of_all / placement.SHARE, "meta"), (bytes_of_all / placement.SHARE - 1, "cpu")):
        monkeypatch.setattr(placement, "room", lambda device, free=free: free)
        sizes.clear()
        with pretended() as machine:
            found = run(ready(features()), machine.device)
        assert set(sizes) == {where}
        assert machine.uploads == (where == "meta"), machine.report()
        for name in METHODS:
            np.testing.assert_array_equal(found[name].correct, expected[name].correct)


def test_processes_that_share_a_device_share_its_memory(monkeypatch, pretended):
    nodes = features().nodes
    monkeypatch.setattr(placement, "room", lambda device: nodes.nbytes / placement.SHARE)
    with pretended() as machine:
        assert placed(nodes, machine.device).device == machine.device
        assert placed(nodes, machine.device, processes=2) is nodes


@pytest.mark.parametrize("where", ["here", "there"])
def test_gathered_are_the_images_asked_for(where, pretended):
    nodes, indices = features().nodes, np.array([[3, 1, 3], [0, 39, 2]])
    with pretended() as machine:
        given = machine.away(nodes) if where == "there" else nodes
        found = gathered(given, indices, machine.device)
        assert (found.device, machine.waits, machine.uploads) == (machine.device, 0, 0)
        assert torch.equal(machine.home(found), nodes[indices])
    assert torch.equal(gathered(nodes, indices, torch.device("cpu")), nodes[indices])


def test_features_that_lie_there_already_stay(pretended):
    """As those of a validation do; and are pooled there."""
    expected = run(ready(features().pooled))
    with pretended() as machine:
        there = FeatureSet(machine.away(features().nodes), LABELS, tuple("abcde"))
        machine.clear()
        found = run(ready(there.pooled), machine.device)
    assert machine.uploads == 0, machine.report()
    for name in METHODS:
        np.testing.assert_array_equal(found[name].correct, expected[name].correct)


class Told(ProtoNet):
    """Keeps what it is told of the classes' shares."""

    transductive = True

    def __init__(self):
        super().__init__()
        self.priors = []

    def __call__(self, support, query, *, class_prior, **options):
        self.priors.append(class_prior)
        return super().__call__(support, query, **options)


def test_what_transductive_methods_are_told_does_not_wait(pretended):
    method = Told()
    with pretended() as machine:
        evaluate([Ready("told", method, features(), class_prior="true")], sampler(), 3, device=machine.device)
        (prior, dtype), *_ = [(machine.home(prior), prior.dtype) for prior in method.priors[1:]]
        assert all(prior.device == machine.device for prior in method.priors)
    assert machine.uploads == 1, machine.report()
    assert dtype == torch.float32
    torch.testing.assert_close(prior, torch.full((3, WAY), 1 / WAY))


def test_a_clock_starts_when_the_device_is_done(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    devices.settle(torch.device("cuda", 1))
    devices.settle(torch.device("cpu"))
    assert asked == [torch.device("cuda", 1)]


def test_compare_runs_there(pretended, monkeypatch, tmp_path):
    file = tmp_path / "features.npz"
    np.savez(file, nodes=features().nodes.numpy(), labels=LABELS)
    options = {"way": WAY, "shot": SHOT, "query": QUERY, "episodes": 8}
    expected = otfew.compare(methods=list(METHODS), features=file, device="cpu", **options)
    material = FileMaterial(file)
    with pretended() as machine:
        monkeypatch.setattr(api, "pick_device", lambda name: "meta")
        found = otfew.compare(methods=list(METHODS), features=material, **options)
        assert machine.waits == 2 * len(METHODS), machine.report()
    for name in METHODS:
        np.testing.assert_array_equal(found.episodes[name], expected.episodes[name])


def test_a_classifier_of_ones_own_pictures_runs_there(pretended, monkeypatch):
    def outside(module):  # the pretence makes no storages
        with _disable_current_modes():
            return copy(module)

    copy = embedder.copy.deepcopy
    monkeypatch.setattr(embedder, "copy", SimpleNamespace(deepcopy=outside))
    torch.manual_seed(0)
    module = ARCHITECTURES["resnet12-quarter"]()
    pictures = [np.full((32, 32, 3), 40 * i, np.uint8) for i in range(6)]
    labels = ["dark", "dark", "dark", "light", "light", "light"]

    def answers(device):
        options = {"backbone": module, "method": "deepemd-fcn", "resolution": 32, "device": device}
        return FewShotClassifier(**options).fit(pictures, labels).decision_function(pictures[::2])

    expected = answers("cpu")
    with pretended() as machine:
        found = answers(machine.device)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Whether features and logits are numbers, what the kernel says, the answers; how far each photo is from its middle.
    assert machine.waits <= 8 + len(pictures), machine.report()
