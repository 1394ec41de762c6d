"""The real timm: nodes and shapes of five networks, with random weights that go through a user's own file."""

from __future__ import annotations

import pytest
import torch

from otfew import backbones
from otfew.errors import UserError

timm = pytest.importorskip("timm")


@pytest.fixture
def made(tmp_path):
    """Build one of timm's networks with random weights, and save them as a user would."""

    def make(name):
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False).eval()
        path = tmp_path / "own.pth"
        torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
        return network, path

    return make


@pytest.fixture
def random(monkeypatch):
    """Let timm's own weights be random ones; keeps each network that was built."""
    build, built = timm.create_model, []

    def create_model(name, pretrained, **options):
        assert pretrained
        built.append(build(name, pretrained=False, **random_options, **options))
        return built[-1]

    random_options: dict[str, int] = {}
    monkeypatch.setattr(timm, "create_model", create_model)
    return built, random_options


MODELS = [
    # name, blocks where fewer than its own are enough, own resolution, channels, side at 224 pixels, tokens before them
    ("resnet18", None, 224, 512, 7, None),
    ("convnext_tiny", None, 224, 768, 7, None),
    ("swin_tiny_patch4_window7_224", None, 224, 768, 7, None),
    ("vit_small_patch14_dinov2", None, 518, 384, 16, 1),
    ("vit_small_patch14_reg4_dinov2", 1, 518, 384, 16, 5),
    ("vit_base_patch16_clip_224", None, 224, 768, 14, 1),
    ("vit_base_patch16_siglip_224", 1, 224, 768, 14, 0),
]


@pytest.mark.parametrize(("name", "depth", "resolution", "channels", "side", "prefix"), MODELS)
def test_nodes_of_timms_networks(name, depth, resolution, channels, side, prefix, random):
    built, options = random
    if depth is not None:
        options["depth"] = depth
    torch.manual_seed(0)
    backbone = backbones.load(f"timm:{name}")
    (network,) = built
    data = timm.data.resolve_model_data_config(network)
    assert (backbone.card.resolution, backbone.card.mean) == (resolution, tuple(data["mean"]))
    assert backbone.card.std == tuple(data["std"])
    assert "licence" in backbone.notes[0]
    images = torch.rand(1, 3, 224, 224)
    maps = backbone.maps(images)
    assert maps.shape == (1, channels, side, side)
    # An oracle: timm's own features before its head, whose tokens nobody has laid out.
    mean, std = torch.tensor(data["mean"]).view(3, 1, 1), torch.tensor(data["std"]).view(3, 1, 1)
    with torch.inference_mode():
        features = network.forward_features((images - mean) / std)
    if prefix is not None:
        assert network.num_prefix_tokens == prefix
        assert features.shape[1] == prefix + side * side
        # Node by node: row r, column c is token prefix + r * side + c.
        nodes = maps.flatten(2).transpose(1, 2)
        for row, column in ((0, 0), (0, side - 1), (side - 1, 0), (3, 5)):
            token = features[:, prefix + row * side + column]
            torch.testing.assert_close(nodes[:, row * side + column], token, rtol=1e-3, atol=1e-4)
    elif name.startswith("swin"):
        torch.testing.assert_close(maps, features.permute(0, 3, 1, 2), rtol=1e-3, atol=1e-4)
    elif name == "resnet18":
        torch.testing.assert_close(maps, features, rtol=1e-3, atol=1e-4)


def test_transformers_take_other_resolutions(random):
    random[1]["depth"] = 1
    backbone = backbones.load("timm:vit_small_patch14_dinov2")
    assert backbone.maps(torch.rand(1, 3, 98, 98)).shape == (1, 384, 7, 7)
    with pytest.raises(UserError, match="fails on images of shape"):
        backbone.maps(torch.rand(1, 3, 100, 100))


def test_tokens_go_through_a_users_own_file(tmp_path, random):
    random[1]["depth"] = 1
    pretrained = backbones.load("timm:vit_small_patch14_dinov2")
    state = random[0][0].state_dict()
    torch.save({"model": {k: v for k, v in state.items()}}, tmp_path / "own.pth")
    with pytest.MonkeyPatch.context() as patch:
        random_create = timm.create_model
        patch.setattr(timm, "create_model", lambda name, pretrained, **o: random_create(name, not pretrained, **o))
        own = backbones.load(f"timm:vit_small_patch14_dinov2@{tmp_path / 'own.pth'}")
    images = torch.rand(1, 3, 70, 70)
    assert torch.equal(own.maps(images), pretrained.maps(images))


def test_weights_that_do_not_fit_are_named(made):
    _, path = made("resnet18")
    with pytest.raises(UserError, match="does not fit timm:resnet34: 100 of 180 tensors match"):
        backbones.load(f"timm:resnet34@{path}")
    (note,) = backbones.load(f"timm:resnet18@{path}").notes
    assert "own.pth: 100 of 100 tensors matched; the prefix 'state_dict.module.' was stripped" in note
    assert "not used: state_dict.module.fc.weight, state_dict.module.fc.bias" in note


def test_a_name_that_timm_does_not_have():
    with pytest.raises(UserError, match="did you mean timm:resnet18"):
        backbones.load("timm:resnet18x")


def test_the_names_of_imagenets_classes_come_from_timm_too():
    from otfew.backbones.seen import imagenet, synsets

    table = synsets()
    assert table is not None
    assert len(table) == 1000
    assert ("indigo", "bunting") in (imagenet() or ())
