"""What a user says weights were trained on makes the guard work; otherwise it is said to be unknown."""

from __future__ import annotations

import pytest
import torch

import otfew
from otfew import backbones
from otfew.backbones import ARCHITECTURES, classes_seen
from otfew.backbones.cards import IMAGENET
from otfew.data.class_lists import class_lists
from otfew.errors import UserError


@pytest.fixture
def own(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "own.pth"
    torch.save(ARCHITECTURES["conv4"]().state_dict(), path)
    return f"conv4@{path}"


def refusal(spec, trained_on):
    with pytest.raises(UserError) as caught:
        backbones.load(spec, trained_on=trained_on)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("stated", "listed", "splits", "dataset"),
    [
        ("miniimagenet", "miniimagenet", ["train"], "miniimagenet"),
        ("cub", "cub-feat", ["train"], "cub"),
        ("cub-closerlook:train+val", "cub-closerlook", ["train", "val"], "cub"),
        ("cifar-fs:test", "cifar-fs", ["test"], "cifar-fs"),
        ("omniglot", "omniglot-vinyals", ["train"], "omniglot"),
    ],
)
def test_a_data_set_and_its_splits(own, stated, listed, splits, dataset):
    card = backbones.load(own, trained_on=stated).card
    lists = class_lists(listed).classes
    assert card.training_classes == tuple(name for split in splits for name in lists[split])
    assert card.dataset == dataset
    assert not card.external
    assert card.training_data.startswith(f"{stated} (as its user states")
    expected = sum(split in splits for split in ("test",)) * len(lists["test"])
    assert classes_seen(card, lists["test"], dataset=dataset) == (expected, len(lists["test"]))


def test_weights_on_one_split_of_cub_have_seen_test_classes_of_another(own):
    # Counted in the split lists themselves: 24 of 50.
    card = backbones.load(own, trained_on="cub").card
    test = class_lists("cub-closerlook").classes["test"]
    by_hand = len(set(test) & set(class_lists("cub-feat").classes["train"]))
    assert classes_seen(card, test, dataset="cub") == (by_hand, 50)
    assert by_hand > 20


def test_a_file_of_names_and_several(own, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("Brown_Pelican\n\nIndigo Bunting\nBrown_Pelican\n")
    card = backbones.load(own, trained_on=f"{names}, cifar-fs").card
    assert card.training_classes[:2] == ("Brown_Pelican", "Indigo Bunting")
    assert card.dataset == ""
    assert "classes.txt, cifar-fs" in card.training_data
    assert str(tmp_path) not in card.training_data
    assert classes_seen(card, ["100.Brown_Pelican", "x"]) == (1, 2)


def test_imagenet_is_external(own):
    card = backbones.load(own, trained_on="imagenet").card
    assert (card.training_data, card.external) == (IMAGENET, True)


def test_what_is_no_statement(own, tmp_path):
    assert "neither a file of class names nor one of cub" in refusal(own, "birdies")
    assert "names the split 'tests'" in refusal(own, "cub:tests")
    assert "is empty" in refusal(own, " , ")
    (tmp_path / "none.txt").write_text("\n")
    assert "no class names" in refusal(own, str(tmp_path / "none.txt"))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    assert "UTF-8" in refusal(own, str(tmp_path / "bytes.txt"))
    assert "leave it out" in refusal("glyphs-resnet12-quarter", "cub")


def test_features_do_not_depend_on_what_is_stated(own):
    assert backbones.load(own, trained_on="cub").digest == backbones.load(own).digest


def test_the_evaluator_refuses_what_was_stated_and_says_what_was_not(own, tmp_path, monkeypatch):
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path))
    terms = {"methods": ["cosine-centroid"], "backbone": own, "episodes": 2, "query": 2, "resolution": 32}
    unknown = otfew.compare("glyphs", **terms)
    lines = " ".join(unknown.lines)
    assert "test classes seen in pretraining: unknown" in lines
    with pytest.raises(UserError, match="was trained on 41 of the 41 classes"):
        otfew.compare("glyphs", **terms, trained_on="glyphs:test")
    fine = otfew.compare("glyphs", **terms, trained_on="glyphs")
    assert "as its user states" in " ".join(fine.lines)
    leak = otfew.compare("glyphs", **terms, trained_on="glyphs:test", allow_overlap=True)
    assert "LEAK" in " ".join(leak.lines)
