import numpy as np
import pytest

from otfew.data import DataOptions, load
from otfew.data.class_lists import class_lists
from otfew.errors import UserError

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
