import numpy as np
import pytest

from otfew.data import SPLITS, DataOptions, load
from otfew.data.image_folder import draw_split
from otfew.errors import UserError

NAMES = [f"class{i:02d}" for i in range(25)]


def test_drawn_split_is_disjoint_complete_and_close_to_60_20_20():
    for count in (15, 16, 20, 25, 50, 101, 200):
        names = [f"c{i}" for i in range(count)]
        split = draw_split(names, seed=3)
        assert sorted(sum(split.values(), ())) == sorted(names)
        assert min(len(part) for part in split.values()) >= 5
        if count >= 25:
            assert abs(len(split["test"]) - count / 5) <= 0.5
            assert len(split["val"]) == len(split["test"])


def test_drawn_split_is_the_same_everywhere():
    # Frozen: another machine, order of names or release must draw the same classes.
    split = draw_split(NAMES, seed=0)
    assert split == draw_split(NAMES[::-1], seed=0)
    assert split["test"] == ("class04", "class07", "class12", "class21", "class24")
    assert split["val"] == ("class09", "class10", "class11", "class15", "class16")
    assert draw_split(NAMES, seed=1) != split


def test_few_classes_all_go_to_test():
    assert draw_split(NAMES[:14], seed=0) == {"train": (), "val": (), "test": tuple(NAMES[:14])}


def test_folder_of_class_folders(tmp_path, class_folders):
    class_folders(tmp_path, NAMES)
    (tmp_path / "labels.txt").write_text("")
    found = {split: load("image-folder", split, tmp_path, DataOptions(split_seed=4)) for split in SPLITS}
    assert {split: images.classes for split, images in found.items()} == draw_split(NAMES, 4)
    for images in found.values():
        assert images.variant == "seed4"
        assert np.bincount(images.labels).tolist() == [2] * len(images.classes)
        assert images.published_classes == len(images.classes)
        assert images.notes == ("class split drawn from 25 classes with seed 4",)
        assert images.names[:2] == (f"{images.classes[0]}/0.png", f"{images.classes[0]}/1.png")


def test_too_few_classes_to_split(tmp_path, class_folders):
    class_folders(tmp_path, NAMES[:6])
    images = load("image-folder", "test", tmp_path)
    assert len(images.classes) == 6
    assert images.variant == ""
    assert images.notes == ("all 6 classes are in test: too few to draw a class split",)
    for split in ("train", "val"):
        with pytest.raises(UserError, match="6 classes, too few"):
            load("image-folder", split, tmp_path)


def test_given_splits(tmp_path, class_folders):
    class_folders(tmp_path / "train", ["a", "b", "c"])
    class_folders(tmp_path / "test", ["c", "d"], images=3)
    images = load("image-folder", "test", tmp_path)
    assert images.classes == ("c", "d")
    assert images.names[0] == "test/c/0.png"
    assert images.notes == ("test and train share 1 class names",)
    with pytest.raises(UserError, match="no folder val"):
        load("image-folder", "val", tmp_path)


def test_a_class_may_be_called_test(tmp_path, class_folders):
    class_folders(tmp_path, ["test", "b", "c"])
    assert load("image-folder", "test", tmp_path).classes == ("b", "c", "test")


def test_folders_without_images_are_said(tmp_path, class_folders):
    class_folders(tmp_path, ["a", "b"])
    (tmp_path / "gifs").mkdir()
    (tmp_path / "gifs" / "0.gif").write_bytes(b"GIF89a")
    images = load("image-folder", "test", tmp_path)
    assert images.classes == ("a", "b")
    assert images.notes[1] == "1 folders without images are left out, such as gifs"


def test_no_class_folders(tmp_path, write):
    with pytest.raises(UserError, match="no class folders"):
        load("image-folder", "test", tmp_path)
    write(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        load("image-folder", "test", tmp_path)
