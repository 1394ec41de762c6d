import numpy as np
import pytest

from otfew.data import DataOptions, load
from otfew.data.class_lists import class_lists
from otfew.errors import UserError

ROTATED = "omniglot-rotated"
OFFLINE = DataOptions(download=False)
LISTS = class_lists("omniglot-vinyals").classes


@pytest.fixture
def omniglot(tmp_path, write):
    drawing = np.full((105, 105), 255, np.uint8)
    drawing[20:30, 40:45] = 0
    for part in ("background", "evaluation"):
        (tmp_path / "omniglot-py" / f"images_{part}").mkdir(parents=True)
    for name in LISTS["train"][:2] + LISTS["val"][:3] + LISTS["test"][:4]:
        for k in range(20):
            write(tmp_path / "omniglot-py" / f"images_{name}" / f"1_{k:02d}.png", drawing)
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_characters_are_the_classes_and_rotations_are_not(omniglot, inside):
    images = load("omniglot", "val", omniglot / "omniglot-py" if inside else omniglot, OFFLINE)
    assert images.classes == LISTS["val"][:3]
    assert np.bincount(images.labels).tolist() == [20, 20, 20]
    assert images.notes[0] == "partial: 3 of 172 classes, 60 images"
    assert "rotated copies are not" in images.notes[1]
    assert images.names[0] == f"images_{LISTS['val'][0]}/1_00.png"
    drawing = images.read(0)
    assert drawing.shape == (105, 105, 3)
    assert np.unique(drawing).tolist() == [0, 255]
    assert (drawing == 0).sum() == 3 * 50


def test_each_turn_of_a_character_is_a_class(omniglot):
    drawn, turned = (load(name, "val", omniglot, OFFLINE) for name in ("omniglot", ROTATED))
    first = LISTS["val"][0]
    assert turned.dataset == ROTATED
    assert turned.classes[:5] == (first, f"{first}@90", f"{first}@180", f"{first}@270", LISTS["val"][1])
    assert turned.labels.tolist() == [label for label in range(12) for _ in range(20)]
    assert turned.published_classes == 4 * 172
    assert turned.notes[0] == "partial: 12 of 688 classes, 240 images"
    assert "four classes" in turned.notes[1]
    assert turned.units == tuple(name.partition("@")[0] for name in turned.classes)
    assert len(set(turned.units)) == 3
    assert drawn.units == ()
    assert len(set(turned.names)) == len(turned) == 240
    assert turned.names[0] == drawn.names[0]
    assert turned.names[20 + 3] == f"{drawn.names[3]}@90"
    assert turned.names[80] == drawn.names[20]
    assert turned.fingerprint != drawn.fingerprint
    assert turned.digest != drawn.digest


def test_turns_go_counter_clockwise(omniglot):
    """The upper edge of the drawing, seen from the left, is at its left after one quarter, below after two."""
    images = load(ROTATED, "test", omniglot, OFFLINE)
    upright, *others = (images.read(20 * quarter) for quarter in range(4))
    assert (upright[20:30, 40:45] == 0).all()
    corners = [((60, 20), (65, 30)), ((75, 60), (85, 65)), ((40, 75), (45, 85))]
    for image, (first, last) in zip(others, corners, strict=True):
        dark = np.argwhere(image[:, :, 0] == 0)
        assert (tuple(dark.min(0)), tuple(dark.max(0) + 1)) == (first, last)
        assert image.flags.c_contiguous


def test_all_turns_of_a_character_are_in_one_split(omniglot):
    characters = [
        {name.partition("@")[0] for name in load(ROTATED, split, omniglot, OFFLINE).classes}
        for split in ("train", "val", "test")
    ]
    assert [len(names) for names in characters] == [2, 3, 4]
    assert len(set.union(*characters)) == 9


def test_one_of_the_two_folders_is_missing(omniglot):
    (omniglot / "omniglot-py" / "images_evaluation").rename(omniglot / "elsewhere")
    with pytest.raises(UserError, match="images_background and images_evaluation"):
        load("omniglot", "train", omniglot, OFFLINE)


def test_an_empty_root(tmp_path):
    with pytest.raises(UserError, match="omniglot-py"):
        load("omniglot", "test", tmp_path, OFFLINE)


def test_real_drawings(otdata):
    total = 0
    for split, size in (("train", 1028), ("val", 172), ("test", 423)):
        images = load("omniglot", split, otdata, OFFLINE)
        assert np.bincount(images.labels).tolist() == [20] * size
        assert len(images.notes) == 1
        total += len(images)
    assert total == 32_460
    drawing = images.read(0)
    assert drawing.shape == (105, 105, 3)
    assert drawing[0, 0].tolist() == [255] * 3
    assert 0.8 < (drawing == 255).mean() < 1
