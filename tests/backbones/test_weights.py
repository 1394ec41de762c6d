import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from otfew import backbones
from otfew.backbones import classes_seen, weights
from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.base import digest
from otfew.backbones.cards import CHECKSUM, Card
from otfew.errors import UserError

CARD = Card(
    name="tiny",
    architecture="conv4",
    options={"channels": 4},
    resolution=32,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.25),
    training_data="made",
    dataset="made",
    training_classes=("Ä", "b"),
    protocol={"epochs": 2, "val_accuracy": 50.0},
)


def make():
    torch.manual_seed(0)
    return ARCHITECTURES["conv4"](channels=4).eval()


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "tiny.safetensors"
    weights.save(path, make(), CARD)
    return path


def restamp(path):
    """Make the card agree with changed weights, so that later checks are reached."""
    import hashlib

    beside = path.with_suffix(".json")
    card = json.loads(beside.read_text())
    card.pop(CHECKSUM, None)
    card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    beside.write_text(json.dumps(card))


def rewrite(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    restamp(path)


def edit_card(path, **changes):
    """Change a card as by hand; its checksum goes, since it would be wrong."""
    beside = path.with_suffix(".json")
    card = {**json.loads(beside.read_text()), **changes}
    card.pop(CHECKSUM, None)
    beside.write_text(json.dumps(card))


def refusal(path):
    with pytest.raises(UserError) as caught:
        weights.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert path.stem in message
    return message


def test_round_trip(checkpoint):
    loaded = weights.load(checkpoint)
    written = make().state_dict()
    for name, tensor in loaded.module.state_dict().items():
        assert torch.equal(tensor, written[name])
    assert loaded.card.training_classes == ("Ä", "b")
    assert loaded.card.mean == (0.4, 0.5, 0.6)
    assert loaded.card.protocol == CARD.protocol
    assert not loaded.module.training
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = make()((images.double() / 255 - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)).float()
                      / torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)).detach()  # fmt: skip
    torch.testing.assert_close(loaded.maps(images), expected, rtol=1e-4, atol=1e-5)
    assert [p.name for p in sorted(checkpoint.parent.iterdir())] == ["tiny.json", "tiny.safetensors"]


def test_half_precision_is_nearly_the_same_and_half_as_large(tmp_path, checkpoint):
    path = tmp_path / "half.safetensors"
    module = make()
    module.layers[1].running_var.fill_(1e6)  # beyond half's range: must survive
    weights.save(path, module, CARD, half=True)
    loaded = weights.load(path).module
    assert float(loaded.layers[1].running_var[0]) == 1e6
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == module.state_dict()[name].dtype
        torch.testing.assert_close(tensor, module.state_dict()[name], rtol=1e-3, atol=1e-6)
    kernels = {name: tensor for name, tensor in load_file(path).items() if tensor.ndim > 1}
    assert all(tensor.dtype == torch.float16 for tensor in kernels.values())


def test_what_overflows_is_refused_on_writing(tmp_path):
    module = make()
    with torch.no_grad():
        module.layers[0].weight[0, 0, 0, 0] = 1e6
    with pytest.raises(ValueError, match="not finite"):
        weights.save(tmp_path / "x.safetensors", module, CARD, half=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated(checkpoint, kept):
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    assert "truncated" in refusal(checkpoint)


def test_a_flipped_bit(checkpoint):
    data = bytearray(checkpoint.read_bytes())
    data[-5] ^= 1
    checkpoint.write_bytes(bytes(data))
    assert "sha256" in refusal(checkpoint)


def test_missing_weights(tmp_path):
    assert "no checkpoint" in refusal(tmp_path / "none.safetensors")


def test_missing_card(checkpoint):
    checkpoint.with_suffix(".json").unlink()
    assert "no card" in refusal(checkpoint)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"x"',
        '{"name": "x"}',
        '{"name": "x", "architecture": "conv4", "y": 1}',
        "[" * 200_000,
        '{"protocol": ' * 200_000,
        "\0",
        '{"name": ' + "9" * 5000 + "}",
        '{"name": "x", "architecture": "conv4", "classes_known": true}',
    ],
)
def test_a_card_that_is_none(checkpoint, text):
    checkpoint.with_suffix(".json").write_text(text)
    assert "card" in refusal(checkpoint)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [0.5]},
        {"mean": "abc"},
        {"std": [0.0, 1.0, 1.0]},
        {"std": ["a", "b", "c"]},
        {"std": [1.0, 1.0, float("inf")]},
        {"std": [1.0, float("nan"), 1.0]},
        {"std": [1.0, -1.0, 1.0]},
        {"std": [1.0, 1e-60, 1.0]},
        {"std": [1.0, True, 1.0]},
        {"std": [1.0, 1.0]},
        {"std": [1.0, 1.0, 1.0, 1.0]},
        {"std": []},
        {"mean": [0.5, float("nan"), 0.5]},
        {"mean": [0.5, float("-inf"), 0.5]},
        {"mean": [0.5, -0.5, 0.5]},
        {"mean": [127.5, 127.5, 127.5]},
        {"mean": [0.5, 0.5, 0.5, 0.5]},
        {"mean": [0.5, [0.5], 0.5]},
        {"external": "no"},
        {"resolution": "84"},
        {"resolution": 84.0},
        {"resolution": True},
        {"resolution": 0},
        {"resolution": 10**12},
        {"protocol": {"learned": 3}},
        {"protocol": {"learned": {"frn": 3}}},
        {"protocol": {"learned": {"frn": {"alpha": float("nan")}}}},
        {"protocol": {"learned": {"frn": {"alpha": "x"}}}},
        {"training_classes": [1]},
        {"options": []},
        {"name": 3},
    ],
)
def test_a_card_with_a_wrong_value(checkpoint, changes):
    edit_card(checkpoint, **changes)
    assert "field" in refusal(checkpoint)


def test_a_card_that_was_changed_after_it_was_written(checkpoint):
    """Hiding a training class from the guard is noticed, however the file is laid out again."""
    beside = checkpoint.with_suffix(".json")
    card = json.loads(beside.read_text())
    beside.write_text(json.dumps(dict(sorted(card.items())), indent=7))
    assert weights.load_card(checkpoint).classes_known
    for changes in ({"training_classes": ["b"]}, {"external": True}, {"sha256": "0"}, {CHECKSUM: "0"}, {CHECKSUM: 3}):
        beside.write_text(json.dumps({**card, **changes}))
        assert "checksum differs" in refusal(checkpoint)


def test_a_card_without_a_checksum_vouches_for_no_class(checkpoint, tmp_path):
    """What it lists was seen; whether more was, nobody knows; and no checkpoint that goes on from it knows more."""
    edit_card(checkpoint, training_classes=["b"])
    backbone = weights.load(checkpoint)
    assert not backbone.card.classes_known
    assert classes_seen(backbone.card, ("b", "c"), dataset="made") == (1, 2)
    assert classes_seen(backbone.card, ("c", "d"), dataset="made") == (None, 2)
    weights.save(tmp_path / "further.safetensors", backbone.module, replace(backbone.card, name="further"))
    assert CHECKSUM not in json.loads((tmp_path / "further.json").read_text())
    assert not weights.load_card(tmp_path / "further.safetensors").classes_known


def test_every_card_of_ours_vouches_for_its_classes():
    assert all(card.classes_known and card.training_classes for card in backbones.loading.zoo().values())


@pytest.mark.parametrize("what", ["weights", "card"])
def test_folders_and_pipes_in_the_place_of_a_checkpoint(checkpoint, what):
    path = checkpoint if what == "weights" else checkpoint.with_suffix(".json")
    for make in (Path.mkdir, os.mkfifo):
        path.unlink()
        make(path)
        refusal(checkpoint)
        path.rename(path.with_name(f"{make.__name__}-away"))
        path.write_bytes(b"")


@pytest.mark.parametrize("spec", ["x" * 5000, "a/" * 4000 + "b.safetensors", "a\0b", "a\0b.safetensors"])
def test_names_that_no_checkpoint_can_have(spec):
    with pytest.raises(UserError):
        backbones.load(spec)


@pytest.mark.parametrize("options", [{"channels": 0}, {"channels": -3}, {"channels": "x"}, {"colour": 3}])
def test_options_that_the_architecture_refuses(checkpoint, options):
    edit_card(checkpoint, options=options)
    refusal(checkpoint)


def test_a_card_cannot_call_functions(checkpoint, tmp_path):
    victim = tmp_path / "made-by-card"
    edit_card(checkpoint, architecture="pathlib:Path.mkdir", options={"self": str(victim)})
    assert "none of" in refusal(checkpoint)
    assert not victim.exists()


def test_a_missing_tensor(checkpoint):
    rewrite(checkpoint, lambda tensors: tensors.pop("layers.0.weight"))
    assert "lacks the tensor 'layers.0.weight'" in refusal(checkpoint)


def test_an_unexpected_tensor(checkpoint):
    rewrite(checkpoint, lambda tensors: tensors.update(extra=torch.zeros(1)))
    assert "holds the tensor 'extra'" in refusal(checkpoint)


def test_a_wrong_shape(checkpoint):
    rewrite(checkpoint, lambda tensors: tensors.update({"layers.0.weight": torch.zeros(4, 3, 5, 5)}))
    assert "(4, 3, 5, 5)" in refusal(checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(checkpoint, value):
    rewrite(checkpoint, lambda tensors: tensors["layers.1.bias"].fill_(value))
    assert "NaN" in refusal(checkpoint)


def test_a_failed_write_leaves_the_old_file(checkpoint, monkeypatch):
    before = checkpoint.read_bytes()

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr("otfew.runs.files.os.fsync", full)
    with pytest.raises(UserError, match="disk full"):
        weights.save(checkpoint, make(), CARD)
    assert checkpoint.read_bytes() == before
    assert len(list(checkpoint.parent.iterdir())) == 2


def test_digest_changes_with_weights_layers_and_normalisation():
    from dataclasses import replace

    base = digest(make(), CARD)
    assert digest(make(), CARD) == base
    assert digest(make(), replace(CARD, name="other")) == base
    assert digest(make(), replace(CARD, mean=(0.1, 0.2, 0.3))) != base
    other = make()
    other.layers[1].running_mean[0] += 1e-3
    assert digest(other, CARD) != base
    # Pooling has no weights, but other maps come out.
    assert digest(ARCHITECTURES["conv4"](channels=4, last_pool=False), CARD) != digest(make(), CARD)
