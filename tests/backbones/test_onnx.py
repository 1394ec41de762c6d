"""onnxruntime in place of torch: the same maps, another key, and torch where it cannot be."""

import copy

import pytest
import torch
from torch import nn

from otfew import backbones
from otfew.backbones import loading, onnx
from otfew.backbones.foreign import of_module
from otfew.classifier.kept_backbone import fingerprint, goes_along
from otfew.errors import UserError


def network(seed=0):
    """Strides, padding, batch statistics and a residual, as in networks of use."""
    torch.manual_seed(seed)
    first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.same = first, nn.Conv2d(8, 8, 3, padding=1, groups=8)

        def forward(self, x):
            y = self.first(x)
            return y + self.same(y)

    module = Residual()
    module.first[1].running_mean.normal_()
    return of_module(module)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path))
    return tmp_path / "onnx"


def needs_onnx():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")


def test_maps_are_those_of_torch_under_a_key_of_their_own(cache):
    needs_onnx()
    plain = network()
    made = onnx.from_network(plain)
    assert isinstance(made, onnx.OnnxBackbone)
    assert made.digest != plain.digest
    assert made.digest == onnx.from_network(plain).digest
    assert fingerprint(made) == fingerprint(plain)
    for images in (torch.rand(5, 3, 84, 84), torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)):
        expected = plain.maps(images)
        found = made.maps(images)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # A file for each size, and onnxruntime it is that computes.
    assert len(list(cache.glob("*.onnx"))) == 3 - (plain.card.resolution == 84)
    with torch.no_grad():
        for parameter in plain.module.parameters():
            parameter.zero_()
    assert (made.maps(images) - plain.maps(images)).abs().max() > 1e-3


def test_a_damaged_file_is_made_again(cache):
    needs_onnx()
    plain = network()
    onnx.from_network(plain)
    (file,) = cache.glob("*.onnx")
    whole = file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], onnx.OnnxBackbone(network(1))._exported((84, 84))):
        file.write_bytes(damaged)
        made = onnx.from_network(plain)
        assert isinstance(made, onnx.OnnxBackbone)
        assert file.read_bytes() == whole


def test_copies_and_cards_go_on():
    needs_onnx()
    made, images = onnx.from_network(network()), torch.rand(2, 3, 84, 84)
    torch.testing.assert_close(copy.deepcopy(made).maps(images), made.maps(images), rtol=0, atol=0)
    named = made.with_card(made.card)
    assert isinstance(named, onnx.OnnxBackbone)
    assert named.digest == made.digest


class Noisy(nn.Module):
    """Computes another thing each time."""

    def forward(self, x):
        return x + torch.rand_like(x)


class Unknown(nn.Module):
    """Uses what has no operator there."""

    def forward(self, x):
        return torch.special.i1e(x)


@pytest.mark.parametrize(
    ("module", "said"), [(Noisy(), "maps differ from torch's by"), (Unknown(), "cannot be exported for onnxruntime")]
)
def test_torch_computes_what_onnxruntime_does_not(module, said, cache):
    needs_onnx()
    plain = of_module(module)
    made = onnx.from_network(plain)
    assert type(made) is backbones.Backbone
    assert made.digest == plain.digest
    (note,) = made.notes[len(plain.notes) :]
    assert said in note
    assert note.endswith(": torch computes the maps.")
    assert not list(cache.glob("*.onnx"))


def test_what_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(onnx, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r'needs onnxruntime: run pip install "otfew\[onnx\]"'):
        onnx.from_network(network())


def test_the_name_before_a_name(monkeypatch):
    named, given = [], network()
    monkeypatch.setattr(loading, "_loaded", lambda name: named.append(name) or given)
    monkeypatch.setattr(onnx, "from_network", lambda backbone: ("by onnxruntime", backbone))
    assert backbones.load("onnx:package.module:factory") == ("by onnxruntime", given)
    assert backbones.load("package.module:factory") is given
    assert named == ["package.module:factory"] * 2
    # It makes no network of one's own of it.
    assert not goes_along("onnx:efficientnet-lite0", given)


def test_an_unknown_name_behind_it():
    with pytest.raises(UserError, match="unknown backbone 'nobody'"):
        backbones.load("onnx:nobody")
