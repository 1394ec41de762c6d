import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from otfew.data import DataOptions, find, load
from otfew.data.halves import load_half
from otfew.data.image_folder import draw_split
from otfew.data.parts import subset
from otfew.errors import UserError


@pytest.fixture
def photos(write, picture):
    """(folder, class names, images of each) -> CLASS/K.png, each another picture; returns (path, class) pairs."""

    def make(folder, names, images=2):
        rows = [(f"{name}/{i}.png", name) for name in names for i in range(images)]
        for k, (path, _) in enumerate(rows):
            write(folder / path, picture(k))
        return rows

    return make


def listing(path: Path, rows, head="image,label", encoding="utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join([head, *rows, ""]).encode(encoding))
    return path


def names_of(images):
    """Image name -> class name."""
    return dict(zip(images.names, (images.classes[label] for label in images.labels), strict=True))


def test_labels_and_pixels_are_those_of_the_rows(tmp_path, photos, picture):
    rows = photos(tmp_path, ["wren", "robin", "crow"])
    path = listing(tmp_path / "birds.csv", [f"{image},{label}" for image, label in rows])
    images = load(str(path), "test")
    assert (images.dataset, images.split, images.variant) == ("birds.csv", "test", "")
    assert images.classes == ("crow", "robin", "wren")
    assert names_of(images) == dict(rows)
    order = [image for image, _ in rows]
    for i, name in enumerate(images.names):
        assert np.array_equal(images.read(i), picture(order.index(name)))
    assert images.notes == ("all 3 classes are in test: too few to draw a class split",)
    assert images.domains == ()
    # The order of the rows is not the order of the images.
    backwards = listing(tmp_path / "back.csv", [f"{image},{label}" for image, label in reversed(rows)])
    assert load(str(backwards), "test").digest == images.digest


def test_the_columns_may_stand_in_any_order_and_have_space_and_quotes(tmp_path, photos):
    photos(tmp_path, ["a", "b, c"])
    path = listing(
        tmp_path / "list.csv",
        ['wild , a,"photo",a/0.png', "", ' ,"b, c", sketch, "b, c/1.png"', ",,,"],
        head="﻿ Domain,LABEL,note,Image",
    )
    images = load(str(path), "test")
    assert names_of(images) == {"a/0.png": "a", "b, c/1.png": "b, c"}
    assert images.domains == ("wild", "")
    assert "columns of list.csv that are not read: note" in images.notes


@pytest.mark.parametrize("separator", [";", "\t"])
def test_what_spreadsheets_write_in_place_of_commas(tmp_path, photos, separator):
    rows = photos(tmp_path, ["a", "b"])
    path = listing(tmp_path / "l.csv", [separator.join(row) for row in rows], head=separator.join(("image", "label")))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert names_of(load(str(path), "test")) == dict(rows)


def test_given_splits(tmp_path, photos):
    photos(tmp_path, ["a", "b", "c"], images=3)
    rows = ["a/0.png,a,train", "a/1.png,a,TEST", "b/0.png,b,train", "c/0.png,c,test", "c/2.png,c,test"]
    path = listing(tmp_path / "l.csv", rows, head="image,label,split")
    assert names_of(load(str(path), "train")) == {"a/0.png": "a", "b/0.png": "b"}
    test = load(str(path), "test")
    assert names_of(test) == {"a/1.png": "a", "c/0.png": "c", "c/2.png": "c"}
    assert test.notes == ("test and train share 1 class names",)
    with pytest.raises(UserError, match=r"^l\.csv has images of train and test but none whose split is val: add some"):
        load(str(path), "val")
    whole = load_half(str(path), "all", None, DataOptions())
    assert len(whole) == 5
    assert whole.classes == ("a", "b", "c")
    assert whole.published_classes == 3
    assert (whole.dataset, whole.split) == ("l.csv", "all")


def test_a_class_split_is_drawn_by_the_same_rule_as_of_folders(tmp_path, photos):
    classes = [f"c{i:02}" for i in range(20)]
    rows = photos(tmp_path, classes, images=1)
    path = str(listing(tmp_path / "l.csv", [f"{image},{label}" for image, label in rows]))
    expected = draw_split(classes, 3)
    parts = {split: load(path, split, options=DataOptions(split_seed=3)) for split in ("train", "val", "test")}
    assert {split: images.classes for split, images in parts.items()} == expected
    assert all(images.notes == ("class split drawn from 20 classes with seed 3",) for images in parts.values())
    assert all(images.variant == "seed3" for images in parts.values())
    together = load(path, "test", options=DataOptions(all_classes=True))
    assert together.classes == tuple(classes)
    assert together.variant == "all"
    whole = load_half(path, "all", None, DataOptions())
    assert whole.digest == together.digest
    assert whole.notes == ("all the 20 classes that are there",)
    few = str(listing(tmp_path / "few.csv", [f"{image},{label}" for image, label in rows[:14]]))
    with pytest.raises(UserError, match=r"few\.csv has no column split, and its 14 classes are too few to draw a"):
        load(few, "train")


def test_domains_go_with_their_images(tmp_path, photos):
    rows = photos(tmp_path, ["b", "a"], images=3)
    domain = {image: f"d{k}" for k, (image, _) in enumerate(rows)}
    listed = [f"{image},{label},{domain[image]}" for image, label in rows]
    path = str(listing(tmp_path / "l.csv", listed, head="image,label,domain"))
    images = load(path, "test")
    assert images.domains == tuple(domain[name] for name in images.names)
    part = subset(images, [4, 1])
    assert part.domains == tuple(domain[name] for name in part.names)
    half = load_half(path, "second-half", None, DataOptions())
    assert half.classes == ("b",)
    assert half.domains == tuple(domain[name] for name in half.names)
    plain = listing(tmp_path / "plain.csv", [f"{image},{label}" for image, label in rows])
    # Domains are no part of what tells images apart: episodes and caches stay the same.
    assert images.digest == load(str(plain), "test").digest


def test_where_paths_lead(tmp_path, photos, monkeypatch):
    rows = photos(tmp_path / "photos", ["a", "b"])
    elsewhere = tmp_path / "lists"
    relative = listing(elsewhere / "l.csv", [f"{image},{label}" for image, label in rows])
    with pytest.raises(UserError, match=r"l\.csv, line 2: a/0\.png is not in .*lists, nor are those of 3 more lines"):
        load(str(relative), "test")
    expected = load(str(relative), "test", tmp_path / "photos")
    assert names_of(expected) == dict(rows)
    absolute = listing(elsewhere / "abs.csv", [f"{tmp_path / 'photos' / image},{label}" for image, label in rows])
    with pytest.raises(
        UserError, match=r"abs\.csv, line 2: .*a/0\.png is not inside .*lists; write a path .* give as `data_root`"
    ):
        load(str(absolute), "test")
    assert load(str(absolute), "test", tmp_path / "photos").digest == expected.digest
    # By way of a link, too.
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert load(str(absolute), "test", tmp_path / "link").digest == expected.digest
    windows = listing(elsewhere / "win.csv", ["a\\0.png,a", "b\\1.png,b"])
    assert names_of(load(str(windows), "test", tmp_path / "photos")) == {"a/0.png": "a", "b/1.png": "b"}
    # The list itself may be named from where one stands, or lie in the root.
    monkeypatch.chdir(elsewhere)
    assert load("l.csv", "test", tmp_path / "photos").digest == expected.digest
    shutil.copy(relative, tmp_path / "photos" / "inside.csv")
    assert len(load("inside.csv", "test", tmp_path / "photos")) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a/0.png,a\na/1.png\n", r"line 3: 1 columns, too few for the 2 of the first line \(image, label\)"),
        ("a/0.png,a\na/1.png,b,c\n", "line 3: 3 columns, too many for the 2"),
        ("a/0.png,a\n,a\n", "line 3: the image is empty; name its image"),
        ("a/0.png,a\n\na/1.png, \n", "line 4: the label is empty; name its label"),
        ("a/0.png,a\na/1.png,b\na/0.png,a\n", r"line 4: a/0\.png is listed in line 2 already; remove one"),
        ("a/0.png,a\n./a//0.png,b\n", r"line 3: a/0\.png is listed in line 2 already"),
        ("a/0.png,a\n../secret.png,b\n", r"line 3: \.\./secret\.png is not inside"),
        ("a/0.png,a\n/etc/passwd,b\n", "line 3: /etc/passwd is not inside"),
        ("a/0.png,a\nC:\\photos\\a.png,b\n", "line 3: C:.* is not inside"),
        ("a/0.png,a\na/9.png,a\n", r"line 3: a/9\.png is not in .*; put it there, correct the path, or give"),
        ("a/0.png,a\na,b\n", "line 3: a is a folder; list the files in it"),
        ('a/0.png,"a\nb"\na/1.png,"b\n', r"line 4: the quotes are wrong"),
        ("a/0.png,a\na/1.png,b\0\n", "line 3: there is a NUL character"),
        ("", "lists no image"),
    ],
)
def test_mistakes_in_rows_are_one_sentence_with_the_line(tmp_path, photos, text, said):
    photos(tmp_path, ["a"])
    path = tmp_path / "l.csv"
    path.write_text(f"image,label\n{text}")
    with pytest.raises(UserError, match=said) as error:
        load(str(path), "test")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("file,label", "line 1: the first line names no column image; name the columns there: image,label"),
        ("image,labels", "line 1: there is a column 'labels' and none called label; rename it"),
        ("image,label,splits", "there is a column 'splits' and none called split; rename it"),
        ("image,label,image", "two columns are called image"),
        ("a/0.png,a", "names no column image"),
    ],
)
def test_mistakes_in_the_first_line(tmp_path, photos, head, said):
    photos(tmp_path, ["a"])
    path = listing(tmp_path / "l.csv", ["a/0.png,a"], head=head)
    with pytest.raises(UserError, match=said):
        load(str(path), "test")


@pytest.mark.parametrize(("value", "said"), [("valid", r"'valid' \(did you mean val\?\)"), ("x", "'x'; write train,")])
def test_unknown_splits(tmp_path, photos, value, said):
    photos(tmp_path, ["a"])
    path = listing(tmp_path / "l.csv", ["a/0.png,a,train", f"a/1.png,a,{value}"], head="image,label,split")
    with pytest.raises(UserError, match=f"line 3: unknown split {said}"):
        load(str(path), "train")
    listing(path, ["a/0.png,a,train", "a/1.png,a,"], head="image,label,split")
    with pytest.raises(UserError, match="line 3: the split is empty; write train, val or test"):
        load(str(path), "train")


def test_encodings(tmp_path, photos):
    photos(tmp_path, ["a"])
    path = listing(tmp_path / "l.csv", ["a/0.png,a", "a/1.png,Möwe"], encoding="latin-1")
    with pytest.raises(UserError, match=r"line 3: the text is not UTF-8; save it as .CSV UTF-8."):
        load(str(path), "test")
    listing(path, ["a/0.png,a"], encoding="utf-16")
    with pytest.raises(UserError, match="line 1: the text is UTF-16"):
        load(str(path), "test")
    # One class, in whichever way its accent is written.
    listing(path, ["a/0.png,Mo\u0308we", "a/1.png,M\u00f6we"])
    assert load(str(path), "test").classes == ("M\u00f6we",)


def test_no_such_list(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"nowhere/l\.csv is not there: give the path of a \.csv file"):
        load(str(tmp_path / "nowhere" / "l.csv"), "test")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(UserError, match="`data_root`"):
        load(str(tmp_path / "l.csv"), "test", tmp_path / "slip")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="is a folder, not a regular file"):
        load(str(tmp_path / "folder.csv"), "test")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find("~/l.csv").home == tmp_path


def test_a_list_is_found_by_its_ending(tmp_path):
    found = find(str(tmp_path / "Birds.CSV"))
    assert (found.name, found.home, found.drawn) == ("Birds.CSV", tmp_path, False)
    with pytest.raises(UserError, match=r"unknown data set 'birds\.txt'; .*a \.csv file of images and labels"):
        find("birds.txt")


@pytest.mark.skipif(os.name == "nt", reason="names on Windows are not bytes")
def test_nothing_that_is_wrong_in_a_file_reads_further(tmp_path, photos):
    """A pipe has no end: it is refused before it is read."""
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match="is a pipe, not a regular file"):
        load(str(tmp_path / "pipe.csv"), "test")
