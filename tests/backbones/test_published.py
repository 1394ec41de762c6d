"""Weights as other codebases publish them: recognised by names and shapes, and computing what theirs compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from otfew import backbones
from otfew.backbones import ARCHITECTURES, own_weights
from otfew.backbones.base import normalise
from otfew.backbones.layouts import DEEPEMD_MEAN, FEAT_MEAN, IMAGENET_MEAN, LAYOUTS
from otfew.errors import UserError
from otfew.methods import METHODS

from .published import (
    FILES,
    NARROW,
    CloserLookConv,
    CloserLookResNet,
    EasyResNet,
    FEATWide,
    Twelve,
    Wide,
    make,
    settle,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Put networks of few channels in place of the published ones; tests of the full sizes undo it."""
    for name, build in NARROW.items():
        monkeypatch.setitem(ARCHITECTURES, name, build)
    own_weights._wanted.cache_clear()
    yield
    own_weights._wanted.cache_clear()


FULL = (64, 128, 256, 512)


@pytest.mark.parametrize(
    ("build", "prefix", "architecture", "codebase"),
    [
        (lambda: Twelve((64, 160, 320, 640)), "params.encoder.", "resnet12", "deepemd"),
        (lambda: Wide(10), "state.module.", "wrn28_10", "s2m2"),
        (lambda: FEATWide(10), "params.encoder.", "wrn28_10-feat", "feat"),
        (lambda: CloserLookConv(6), "state.feature.", "conv6", "closerlook"),
        (lambda: CloserLookResNet((1, 1, 1, 1), FULL), "state.feature.", "resnet10", "closerlook"),
        (lambda: CloserLookResNet((3, 4, 6, 3), FULL), "state.feature.", "resnet34", "closerlook"),
        (lambda: EasyResNet((1, 1, 2, 1), (64, 160, 320, 640)), "", "resnet12-easyfsl", "easyfsl"),
        (lambda: EasyResNet((1, 1, 1, 1), FULL), "", "resnet10-small", "easyfsl"),
        (lambda: EasyResNet((3, 4, 6, 3), FULL, large=True), "", "resnet34", "torchvision"),
    ],
)
def test_the_published_sizes_are_known(build, prefix, architecture, codebase, monkeypatch):
    monkeypatch.undo()
    with torch.device("meta"):
        shapes = {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    fitted = own_weights._fitting(Path("x"), "", shapes)
    assert (fitted.layout.architecture, fitted.layout.codebase) == (architecture, codebase)
    assert fitted.match.prefix == prefix


def refusal(spec, **options):
    with pytest.raises(UserError) as caught:
        backbones.load(str(spec), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_is_known_and_computes_the_same(name, tmp_path):
    theirs, path = make(name, tmp_path)
    _, _, architecture, codebase = FILES[name]
    backbone = backbones.load(str(path))
    assert backbone.card.architecture == architecture
    assert f"in the layout of {codebase}" in backbone.notes[0]
    images = torch.rand(2, 3, 32, 32)
    normalised = normalise(images, backbone.card.mean, backbone.card.std)
    with torch.inference_mode():
        expected = theirs(normalised)
    # Every network has some thousand or million products a number; an exchanged pair of layers differs by more than 1.
    torch.testing.assert_close(backbone.maps(images), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_deepemds_own_file_gives_the_logits_of_the_same_weights_in_our_layout(tmp_path):
    theirs, path = make("deepemd_max_acc.pth", tmp_path)
    imported = backbones.load(str(path))
    # The same numbers, put into our module by hand, layer by layer.
    ours = ARCHITECTURES["resnet12"]().eval()
    for block, layer in zip(ours.blocks, (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), strict=True):
        pairs = zip(
            [m for m in block.layers if not isinstance(m, nn.LeakyReLU)],
            [layer[0].conv1, layer[0].bn1, layer[0].conv2, layer[0].bn2, layer[0].conv3, layer[0].bn3],
            strict=True,
        )
        for mine, other in (*pairs, *zip(block.shortcut, layer[0].downsample, strict=True)):
            mine.load_state_dict(other.state_dict())
    images = torch.randint(0, 256, (7, 3, 84, 84), dtype=torch.uint8)
    by_hand = backbones.Backbone(ours, imported.card, "by hand")
    method = METHODS["deepemd"]()

    def logits(backbone):
        nodes = backbone.maps(images).flatten(2).transpose(1, 2)
        return method(nodes[:5].reshape(1, 5, 1, 25, 80), nodes[5:].reshape(1, 2, 25, 80))

    found = logits(imported)
    assert found.shape == (1, 2, 5)
    assert torch.equal(found, logits(by_hand))
    # And with their own network, whose sums are made in another order.
    with torch.inference_mode():
        nodes = theirs(normalise(images, DEEPEMD_MEAN, imported.card.std)).flatten(2).transpose(1, 2)
    expected = method(nodes[:5].reshape(1, 5, 1, 25, 80), nodes[5:].reshape(1, 2, 25, 80))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("spec", "mean", "resolution"),
    [
        ("{}", DEEPEMD_MEAN, 84),
        ("deepemd@{}", DEEPEMD_MEAN, 84),
        ("feat@{}", FEAT_MEAN, 84),
        ("easyfsl@{}", IMAGENET_MEAN, 84),
        ("resnet12@{}", DEEPEMD_MEAN, 84),
    ],
)
def test_a_codebase_says_how_images_are_prepared(spec, mean, resolution, tmp_path):
    _, path = make("deepemd_max_acc.pth", tmp_path)
    backbone = backbones.load(spec.format(path))
    assert backbone.card.mean == mean
    assert backbone.card.resolution == resolution
    assert "max_acc.pth where they are" in backbone.notes[0]


def test_what_a_file_holds_beside_the_network_is_told(tmp_path):
    _, path = make("lst_best.tar", tmp_path)
    (note,) = own_weights.load(path, "lst").notes
    assert "lst_best.tar: 128 of 128 tensors matched" in note
    assert "the prefix 'state.' was stripped" in note
    assert "not used: state.linear.L.weight, state.linear.L.bias and 1 more" in note


def test_no_layout_names_two_tensors_alike():
    for layout in LAYOUTS:
        _, named, _ = own_weights._wanted(layout)
        assert len(set(named.values())) == len(named)


# Own weights.


@pytest.fixture
def conv4():
    torch.manual_seed(3)
    return settle(ARCHITECTURES["conv4"]())


@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 2}])
@pytest.mark.parametrize("prefix", ["", "module.", "net.backbone."])
def test_own_weights_whatever_stands_before_the_names(conv4, wrap, prefix, tmp_path):
    path = tmp_path / "own.pth"
    torch.save(wrap({f"{prefix}{k}": v for k, v in conv4.state_dict().items()}), path)
    backbone = backbones.load(f"conv4@{path}")
    assert torch.equal(backbone.module.layers[0].weight, conv4.layers[0].weight)
    assert torch.equal(backbone.module.layers[13].running_var, conv4.layers[13].running_var)
    assert "own.pth: 20 of 20 tensors matched" in backbone.notes[0]
    assert backbone.card.name == "conv4@own.pth"
    assert f"{prefix}' was stripped" in backbone.notes[0] or (wrap is dict and not prefix)


def test_own_weights_as_safetensors_without_a_card(conv4, tmp_path):
    path = tmp_path / "own.safetensors"
    save_file({f"m.{k}": v for k, v in conv4.state_dict().items()}, path)
    assert torch.equal(backbones.load(f"conv4@{path}").module.layers[4].weight, conv4.layers[4].weight)
    # Without a name before it, a .safetensors file is one of ours and needs its card.
    assert "resnet12@own.safetensors" in refusal(path)


def test_old_files_without_counts_of_batches(conv4, tmp_path):
    path = tmp_path / "old.pth"
    torch.save({k: v for k, v in conv4.state_dict().items() if "num_batches" not in k}, path)
    assert "20 of 20" in backbones.load(f"conv4@{path}").notes[0]


def test_what_does_not_fit_is_named(conv4, tmp_path):
    path = tmp_path / "own.pth"
    state = conv4.state_dict()

    def saved(**changes):
        torch.save({k: v for k, v in {**state, **changes}.items() if v is not None}, path)
        return f"conv4@{path}"

    lacks = refusal(saved(**{"layers.5.weight": None}))
    assert "19 of 20 tensors match; it lacks 'layers.5.weight'" in lacks
    shaped = refusal(saved(**{"layers.4.weight": torch.zeros(32, 64, 3, 3)}))
    assert "has shape (32, 64, 3, 3), but 'layers.4.weight' needs (64, 64, 3, 3)" in shaped
    biased = refusal(saved(**{"layers.4.bias": torch.zeros(64)}))
    assert "it has 'layers.4.bias', which that network does not have" in biased
    assert "NaN or infinite values in 'layers.1.bias'" in refusal(
        saved(**{"layers.1.bias": torch.full((64,), torch.nan)})
    )
    other = refusal(f"resnet12@{saved()}".replace("conv4@", ""))
    assert "does not fit resnet12" in other
    torch.save({"a": torch.zeros(3)}, path)
    assert "does not fit any network that is known here" in refusal(path)


@pytest.mark.parametrize("name", ["resnet13", "otfew"])
def test_unknown_names_before_a_file(name, conv4, tmp_path):
    path = tmp_path / "own.pth"
    torch.save(conv4.state_dict(), path)
    message = refusal(f"{name}@{path}")
    assert "unknown network" in message
    assert "deepemd" in message
    assert "conv4" in message


def test_a_folder_with_an_at_sign_is_no_network(tmp_path):
    assert "there is no checkpoint" in refusal(tmp_path / "a@b" / "x.safetensors")
    assert "there are no weights at" in refusal(tmp_path / "a@b.pth")


def test_imported_weights_are_kept_in_our_own_form(tmp_path):
    from otfew.backbones import weights

    _, path = make("deepemd_max_acc.pth", tmp_path)
    imported = backbones.load(str(path), trained_on="miniimagenet")
    weights.save(tmp_path / "kept.safetensors", imported.module, imported.card)
    kept = backbones.load(str(tmp_path / "kept.safetensors"))
    assert kept.digest == imported.digest
    assert kept.card.training_classes == imported.card.training_classes


def test_twelve_is_the_published_size():
    # 12.42 million parameters, as the paper counts.
    assert sum(p.numel() for p in Twelve((64, 160, 320, 640)).parameters()) == pytest.approx(12.42e6, rel=1e-3)
