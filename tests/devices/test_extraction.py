"""Features on the pretended device: every network and kind of nodes, nobody waits, and a CPU's cache stays its own."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

from otfew import devices, nodes
from otfew.backbones import ARCHITECTURES, efficientnet_lite0, foreign
from otfew.backbones.base import Backbone, Card, Normalisation, digest, normalise
from otfew.data.base import ImageSet
from otfew.data.preparation import Preparation
from otfew.features.cache import Entry
from otfew.features.extract import base_mean, embed, extract

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 40, 36, 3), dtype=np.uint8)
SET = ImageSet("toy", "test", "", ("a", "b"), np.arange(6) % 2, tuple("abcdef"), lambda i: IMAGES[i], "1", 2)
# Name -> side of its images, and operations of one call of ``Backbone.maps``.
NETWORKS = {
    "conv4": (32, 50),
    "lenet5": (32, 30),
    "lenet5-wide": (32, 30),
    "resnet12-quarter": (32, 110),
    "resnet32": (32, 200),
    "wrn16_2": (32, 100),
    efficientnet_lite0.NAME: (64, 500),
}


@pytest.fixture
def readable(monkeypatch):
    """Read files outside the pretence, which safetensors does not know."""
    read = Entry._read

    def outside(entry):
        with _disable_current_modes():
            return read(entry)

    monkeypatch.setattr(Entry, "_read", outside)


def network(name):
    if name == efficientnet_lite0.NAME:
        if not efficientnet_lite0.installed():
            pytest.skip("needs the pretrained extra")
        return efficientnet_lite0.load().module
    torch.manual_seed(0)
    return ARCHITECTURES[name]()


def backbone(module):
    card = Card("x", "x", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    return Backbone(module, card, digest(module, card))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_map_there(name, pretended):
    side, operations = NETWORKS[name]
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, side, side), dtype=np.uint8))
    made = backbone(network(name))
    expected = made.maps(images)
    with pretended() as machine:
        made.to(machine.device)
        machine.clear()
        found = made.maps(images)
        assert (machine.waits, machine.uploads, machine.draws) == (0, 0, 0), machine.report()
        assert machine.operations <= operations, machine.report()
        assert found.device == made.device == machine.device
        assert torch.equal(machine.home(found), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_networks_there(name, pretended):
    side, _ = NETWORKS[name]
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    module = network(name).eval()
    module.requires_grad_(True)
    module(images).square().mean().backward()
    expected = [parameter.grad for parameter in module.parameters()]
    with pretended() as machine:
        module.zero_grad()
        module.to(machine.device)
        machine.clear()
        module(machine.away(images)).square().mean().backward()
        assert (machine.waits, machine.uploads) == (0, 0), machine.report()
        for parameter, gradient in zip(module.parameters(), expected, strict=True):
            assert (parameter.grad is None) == (gradient is None)
            assert gradient is None or torch.equal(machine.home(parameter.grad), gradient)


def test_vectors_from_elsewhere_are_maps_there_too(pretended):
    torch.manual_seed(0)
    made = foreign.of_module(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 5)))
    images = torch.rand(2, 3, 8, 8)
    expected = made.maps(images)
    with pretended() as machine:
        assert torch.equal(machine.home(made.to(machine.device).maps(images)), expected)


@pytest.mark.parametrize("spec", ["fcn", "fcn:2,1", "grid:2,3", "sampling:4"])
def test_nodes_are_made_there_and_a_batch_waits_once(spec, pretended, readable, tmp_path):
    """For its nodes, which are written to a file."""
    extractor, preparation = nodes.parse(spec), Preparation(32)
    views = torch.from_numpy(np.stack([extractor.views(IMAGES[i], preparation, str(i)) for i in range(6)]))
    made = backbone(network("resnet12-quarter"))
    expected = embed(views, made, extractor)
    kept = extract(SET, made, extractor, preparation, tmp_path).nodes
    with pretended() as machine:
        made.to(machine.device)
        machine.clear()
        found = embed(views, made, extractor)
        assert (machine.waits, machine.uploads) == (0, 0), machine.report()
        assert found.device == machine.device
        assert torch.equal(machine.home(found), expected)
        machine.clear()
        features = extract(SET, made, extractor, preparation, tmp_path)
        assert machine.waits == 1, machine.report()
        assert machine.uploads == 0, machine.report()
    assert torch.equal(features.nodes, kept)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_processors_key_is_what_it_was_and_a_devices_names_its_kind(pretended, readable, tmp_path):
    made = backbone(network("lenet5"))
    extract(SET, made, nodes.parse("fcn"), Preparation(32), tmp_path)
    with pretended() as machine:
        extract(SET, made.to(machine.device), nodes.parse("fcn"), Preparation(32), tmp_path)
        mean = base_mean(SET, made, nodes.parse("fcn"), Preparation(32), tmp_path / "base")
    requests = [json.loads(path.read_text())["request"] for path in tmp_path.glob("*.json")]
    here, there = sorted(requests, key=len)
    assert sorted(here) == [
        "backbone", "crop", "fingerprint", "format", "images", "nodes", "resolution", "versions"
    ]  # fmt: skip
    assert there == here | {"device": ["meta", "float32"]}
    assert mean.device.type == "cpu"


def settings():
    kinds = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
    return [kind.fp32_precision for kind in kinds]


needs_settings = pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="before torch 2.9 there is one setting"
)


@needs_settings
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_networks_multiply_in_full_float32_and_settings_are_put_back(precision, monkeypatch):
    seen = []

    class Looks(torch.nn.Module):
        def forward(self, images):
            seen.append(settings())
            if len(seen) > 1:
                raise ZeroDivisionError
            return images

    views = torch.zeros(1, 1, 4, 4, 3)
    was = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        before = settings()
        assert "tf32" in before  # torch's own choice for convolutions
        embed(views, backbone(Looks()), nodes.parse("fcn"))
        assert settings() == before
        with pytest.raises(ZeroDivisionError):
            embed(views, backbone(Looks()), nodes.parse("fcn"))
        assert settings() == before
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (True, precision)
    finally:
        torch.set_float32_matmul_precision(was)
    assert seen == [["ieee"] * 3] * 2


def test_older_torch_has_one_setting_for_each(monkeypatch):
    cudnn = SimpleNamespace(allow_tf32=True)
    for name, library in (("cudnn", cudnn), ("cuda", SimpleNamespace(matmul=1)), ("mkldnn", SimpleNamespace())):
        monkeypatch.setattr(torch.backends, name, library)
    products = ["high"]
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: products[-1])
    monkeypatch.setattr(torch, "set_float32_matmul_precision", products.append)
    with devices.full_float32():
        assert (cudnn.allow_tf32, products[-1]) == (False, "highest")
    assert (cudnn.allow_tf32, products) == (True, ["high", "highest", "high"])


def test_mean_and_deviation_lie_there_and_in_no_state(pretended):
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    expected = normalise(images, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    by_hand = (images.float() / 255 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor(
        [0.2, 0.3, 0.4]
    )[:, None, None]  # fmt: skip
    assert torch.equal(expected, by_hand)
    module = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert not module.state_dict()
    assert torch.equal(module(images), expected)
    with pretended() as machine:
        module.to(machine.device)
        machine.clear()
        assert torch.equal(machine.home(module(machine.away(images))), expected)
        assert (machine.waits, machine.uploads) == (0, 0)


def test_what_is_sent_waits_for_nothing(pretended):
    x = torch.arange(6.0).view(2, 3).T
    assert devices.send(x, "cpu") is x
    with pretended() as machine:
        there = devices.send(x, machine.device)
        assert devices.send(there, machine.device) is there
        assert (machine.waits, machine.uploads) == (0, 0)
        assert (there.device, there.stride()) == (machine.device, x.stride())
        assert torch.equal(machine.home(there), x)


def test_free_memory_counts_what_torch_keeps(monkeypatch):
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    assert devices.room(device) == 130
    assert devices.room(torch.device("cpu")) is None
