import os
import re

import numpy as np
import pytest

from otfew.data import SPLITS, DataOptions, load, long_tail_sources
from otfew.data.class_folders import class_folders as class_folders_of
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


def test_empty_folders_are_said(tmp_path, class_folders):
    class_folders(tmp_path, ["a", "b"])
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "Thumbs.db").write_bytes(b"")
    images = load("image-folder", "test", tmp_path)
    assert images.classes == ("a", "b")
    assert images.notes[1] == "1 folders without images are left out, such as none"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["0.heic", "1.HEIC", "0.mov"], r"c has files \(2 \.heic, 1 \.mov\) .* convert them to JPEG or PNG"),
        (["deep/down/0.gif"], r"c has files \(1 \.gif\) .* convert them"),
        (["labels.txt", "README"], r"c has files \(1 without a suffix, 1 \.txt\) .* put images there \(bmp, jpeg"),
    ],
)
@pytest.mark.parametrize("below", ["", "test"])
@pytest.mark.usefixtures("without_heic")
def test_a_class_without_readable_images_is_refused(tmp_path, class_folders, files, says, below):
    class_folders(tmp_path / below, ["a", "b"])
    for file in files:
        path = tmp_path / below / "c" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(UserError, match=says):
        load("image-folder", "test", tmp_path)


@pytest.mark.usefixtures("without_heic")
def test_pictures_that_are_left_out_of_a_class_are_said(tmp_path, class_folders):
    class_folders(tmp_path, ["a", "b"])
    for name in ("a/0.heic", "a/1.HEIC", "b/0.avif", "b/notes.txt"):
        (tmp_path / name).write_bytes(b"")
    images = load("image-folder", "test", tmp_path)
    assert len(images) == 4
    assert images.notes[1].startswith("pictures of formats that are not read are left out: 1 .avif, 2 .heic;")


@pytest.mark.parametrize(
    "pair", [("caf\xe9".encode(), "cafe\u0301".encode()), (b"caf\xe9", b"caf\xe8"), (b"caf\xff", "caf\ufffd".encode())]
)
@pytest.mark.parametrize("below", ["", "train", "test"])
def test_two_folders_of_one_name_are_refused(tmp_path, class_folders, pair, below):
    class_folders(tmp_path / below, ["a"])
    for name in pair:
        class_folders(tmp_path / below, [os.fsdecode(name)])
    with pytest.raises(UserError, match="one name") as error:
        load("image-folder", "test", tmp_path)
    for name in pair:
        assert ascii(os.fsdecode(name)) in str(error.value)
    str(error.value).encode()  # can be printed


def test_two_files_of_one_name_are_refused(tmp_path, class_folders, write):
    class_folders(tmp_path, ["a", "b"])
    write(tmp_path / "a" / "\xe9.png")
    write(tmp_path / "a" / "e\u0301.png")
    with pytest.raises(UserError, match="one name") as error:
        load("image-folder", "test", tmp_path)
    assert "e\\u0301.png" in str(error.value)


def test_invalid_names_alone_are_read(tmp_path, class_folders):
    class_folders(tmp_path, ["a", os.fsdecode(b"caf\xe9")])
    assert load("image-folder", "test", tmp_path).classes == ("a", "caf\ufffd")
    train, test = long_tail_sources.load("image-folder", tmp_path)
    assert train.classes == test.classes == ("a", "caf\ufffd")


@pytest.mark.parametrize("target", ["nowhere.png", "1.png"])
def test_links_that_lead_nowhere_are_named(tmp_path, class_folders, target):
    class_folders(tmp_path, ["a", "b"], images=1)
    (tmp_path / "a" / "1.png").symlink_to(target)  # the second is a link to itself
    with pytest.raises(UserError, match=r"a/1\.png is a link that leads nowhere"):
        load("image-folder", "test", tmp_path)


def test_a_pipe_among_the_images_is_refused_when_it_is_read(tmp_path, class_folders):
    class_folders(tmp_path, ["a", "b"])
    os.mkfifo(tmp_path / "a" / "1.jpg")
    images = load("image-folder", "test", tmp_path)
    with pytest.raises(UserError, match=r"a/1\.jpg is a pipe"):
        images.read(images.names.index("a/1.jpg"))


def test_no_class_folders(tmp_path, write):
    with pytest.raises(UserError, match="no class folders"):
        load("image-folder", "test", tmp_path)
    write(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        load("image-folder", "test", tmp_path)


def test_classes_below_groups(tmp_path, class_folders, write):
    class_folders(tmp_path / "fruit", ["apple", "pear"])
    class_folders(tmp_path / "roots", ["apple", "beet"], 3)
    write(tmp_path / "roots" / "beet" / "deeper" / "9.png")
    write(tmp_path / "fruit" / "cover.png")
    (tmp_path / "fruit" / "notes.txt").write_text("no image")
    images = load("image-folder", "test", tmp_path, DataOptions(depth=2))
    assert images.classes == ("fruit/apple", "fruit/pear", "roots/apple", "roots/beet")
    assert np.bincount(images.labels).tolist() == [2, 2, 3, 4]
    assert images.names[-1] == "roots/beet/deeper/9.png"
    assert re.search(
        r"^1 images that lie above the class folders are left out, such as .*cover\.png$", images.notes[-1]
    )
    assert load("image-folder", "test", tmp_path).classes == ("fruit", "roots")
    assert class_folders_of(tmp_path, 3).images.keys() == {"roots/beet/deeper"}
    assert len(class_folders_of(tmp_path, 3).notes[-1].split()) > 5


def test_splits_of_grouped_classes(tmp_path, class_folders):
    for split in ("train", "test"):
        class_folders(tmp_path / split / "fruit", [f"{split}-a", f"{split}-b"])
    assert load("image-folder", "test", tmp_path, DataOptions(depth=2)).classes == ("fruit/test-a", "fruit/test-b")


@pytest.mark.parametrize("depth", [0, -1, 1.0, True, "2", None])
def test_depth_is_a_number_of_levels(tmp_path, depth):
    with pytest.raises(UserError, match="`depth` is"):
        class_folders_of(tmp_path, depth)
