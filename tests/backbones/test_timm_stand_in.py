"""timm's networks by name, with a stand-in for timm: what is asked of it, and what is said where it is not there.

The real one is tested in an environment of its own (tox -e timm, tests/timm).
"""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from otfew import backbones
from otfew.backbones import timm_networks
from otfew.backbones.cards import IMAGENET
from otfew.errors import UserError


def refusal(spec):
    with pytest.raises(UserError) as caught:
        backbones.load(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Network(nn.Conv2d):
    """A network of five channels, with timm's way to take its head off."""

    def __init__(self, name):
        super().__init__(3, 5, 1)
        self.pretrained_cfg = {"tag": name.partition(".")[2], "license": "mit"}
        if name.endswith("last"):
            self.output_fmt = "NHWC"
        self.headless = False

    def reset_classifier(self, num_classes, global_pool):
        assert (num_classes, global_pool) == (0, "")
        self.headless = True

    def forward(self, images):
        assert self.headless
        maps = super().forward(images)
        return maps.permute(0, 2, 3, 1) if getattr(self, "output_fmt", "") == "NHWC" else maps


@pytest.fixture
def timm(monkeypatch):
    made = types.ModuleType("timm")
    made.is_model = lambda name: name == "resnet18"
    made.list_models = lambda: ["resnet18"]
    made.asked = []
    made.data = types.SimpleNamespace(
        resolve_model_data_config=lambda _: {"input_size": (3, 96, 96), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    )

    def create_model(name, pretrained, dynamic_img_size=None):
        made.asked.append(pretrained)
        if dynamic_img_size is not None:
            raise TypeError("unexpected keyword argument 'dynamic_img_size'")
        if name.endswith("offline"):
            raise OSError("no\nnetwork")
        return Network(name)

    made.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", made)
    monkeypatch.setattr(timm_networks, "find_spec", lambda _: made)
    return made


def test_timm_missing(monkeypatch):
    monkeypatch.setattr(timm_networks, "find_spec", lambda _: None)
    assert 'pip install "otfew[timm]"' in refusal("timm:resnet18")


def test_timm_that_does_not_import(monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    message = refusal("timm:resnet18")
    assert "operator torchvision::nms does not exist" in message
    assert "belong together" in message


@pytest.mark.usefixtures("timm")
def test_timm_takes_its_own_normalisation():
    backbone = backbones.load("timm:resnet18.a1_in1k")
    assert backbone.card.mean == (0.1, 0.2, 0.3)
    assert backbone.card.std == (0.4, 0.5, 0.6)
    assert backbone.card.resolution == 96
    assert backbone.card.external
    assert backbone.notes == ("weights of timm:resnet18.a1_in1k: licence mit",)
    assert backbone.maps(torch.rand(2, 3, 8, 8)).shape == (2, 5, 8, 8)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("side", [8, 5])
def test_timm_says_where_its_channels_are(side):
    # At 5 pixels the shape alone would not tell.
    assert backbones.load("timm:resnet18.last").maps(torch.rand(2, 3, side, side)).shape == (2, 5, side, side)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("tag", "known"),
    [("a1_in1k", True), ("in1k", True), ("fb_swsl_ig1b_ft_in1k", False), ("openai", False), ("", False)],
)
def test_timm_weights_count_as_imagenet_only_where_their_tag_says_so(tag, known):
    card = backbones.load(f"timm:resnet18.{tag}").card
    assert (card.training_data == IMAGENET) == known


@pytest.mark.usefixtures("timm")
def test_timm_without_network_or_name():
    assert "no network" in refusal("timm:resnet18.offline")
    assert "did you mean timm:resnet18?" in refusal("timm:resnet19")


def test_own_weights_for_timms_network(timm, tmp_path):
    own, path = Network("resnet18"), tmp_path / "own.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in own.state_dict().items()} | {"fc": torch.ones(2)}}, path)
    backbone = backbones.load(f"timm:resnet18@{path}")
    assert timm.asked == [False, False]
    assert torch.equal(backbone.module.network.weight, own.weight)
    assert backbone.card.name == "timm:resnet18@own.pth"
    assert backbone.card.training_data == "unknown (external)"
    assert "2 of 2 tensors matched" in backbone.notes[0]
    assert "not used: state_dict.fc" in backbone.notes[0]
    torch.save({"weight": torch.ones(4, 3, 1, 1), "bias": torch.ones(5)}, path)
    assert "has shape (4, 3, 1, 1), but 'weight' needs (5, 3, 1, 1)" in refusal(f"timm:resnet18@{path}")
