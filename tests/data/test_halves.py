"""Halves of all classes, whatever split lists say of them."""

import numpy as np
import pytest

from otfew.data import SPLITS, DataOptions, load
from otfew.data.halves import ALL, HALVES, load_half
from otfew.errors import UserError

NAMES = [f"class{i:02d}" for i in range(25)]
FIRST, SECOND = HALVES


def test_halves_are_disjoint_complete_and_in_order(tmp_path, class_folders):
    class_folders(tmp_path, NAMES, images=3)
    first, second = (load_half("image-folder", half, tmp_path, DataOptions()) for half in HALVES)
    assert first.classes == tuple(NAMES[:12])
    assert second.classes == tuple(NAMES[12:])
    assert (first.published_classes, second.published_classes) == (12, 13)
    for images in (first, second):
        assert np.bincount(images.labels).tolist() == [3] * len(images.classes)
        assert images.notes == (f"the {images.split.replace('-', ' ')}, by name, of the 25 classes that are there",)
        assert list(images.names) == [f"{name}/{i}.png" for name in images.classes for i in range(3)]


def test_split_lists_play_no_part(tmp_path, class_folders):
    class_folders(tmp_path, NAMES)
    one, two = (load_half("image-folder", SECOND, tmp_path, DataOptions(split_seed=seed)) for seed in (0, 1))
    assert (one.digest, one.notes) == (two.digest, two.notes)


def test_images_are_those_of_the_splits(tmp_path, write, picture):
    """Every picture is another: a name must read its own."""
    for seed, name in enumerate(NAMES):
        write(tmp_path / name / "0.png", picture(seed))
    by_name = {}
    for split in SPLITS:
        part = load("image-folder", split, tmp_path)
        by_name |= {name: part.read(i) for i, name in enumerate(part.names)}
    assert len(by_name) == 25
    for half in HALVES:
        images = load_half("image-folder", half, tmp_path, DataOptions())
        for i, name in enumerate(images.names):
            np.testing.assert_array_equal(images.read(i), by_name.pop(name))
    assert not by_name


def test_all_classes_together(tmp_path, class_folders):
    class_folders(tmp_path / "drawn", NAMES)
    drawn = load_half("image-folder", ALL, tmp_path / "drawn", DataOptions(split_seed=3))
    assert drawn.classes == tuple(NAMES)
    assert (drawn.split, drawn.published_classes) == ("all", 25)
    assert drawn.notes == ("all the 25 classes that are there",)
    class_folders(tmp_path / "given" / "train", NAMES[3:6])
    class_folders(tmp_path / "given" / "test", NAMES[:4])
    given = load_half("image-folder", ALL, tmp_path / "given", DataOptions())
    assert given.classes == tuple(NAMES[:6])
    # The class that both have is one, with the images of both.
    assert np.bincount(given.labels).tolist() == [2, 2, 2, 4, 2, 2]
    assert given.published_classes == 6
    assert not any(note.startswith("partial") for note in given.notes)
    class_folders(tmp_path / "one", NAMES[:1])
    assert load_half("image-folder", ALL, tmp_path / "one", DataOptions()).classes == ("class00",)


def test_missing_splits_are_named(tmp_path, class_folders):
    class_folders(tmp_path / "test", NAMES[:5])
    images = load_half("image-folder", SECOND, tmp_path, DataOptions())
    assert images.classes == tuple(NAMES[2:5])
    assert images.notes[1:] == ("no train split was found to be joined", "no val split was found to be joined")


def test_changed_files_change_the_fingerprint(tmp_path, class_folders, write, picture):
    class_folders(tmp_path, NAMES)
    before = [load_half("image-folder", half, tmp_path, DataOptions()).fingerprint for half in HALVES]
    write(tmp_path / NAMES[0] / "0.png", picture(5, 30, 40))
    after = [load_half("image-folder", half, tmp_path, DataOptions()).fingerprint for half in HALVES]
    assert len({*before, *after}) == 4


def test_what_has_no_halves_is_refused(tmp_path, class_folders):
    with pytest.raises(UserError, match="no class folders"):
        load_half("image-folder", FIRST, tmp_path, DataOptions())
    class_folders(tmp_path, NAMES[:1])
    with pytest.raises(UserError, match="a single class, 'class00'"):
        load_half("image-folder", FIRST, tmp_path, DataOptions())
    with pytest.raises(UserError, match="unknown half 'third-half'"):
        load_half("image-folder", "third-half", tmp_path, DataOptions())


def test_real_birds(otdata):
    """The 100 species at hand: 1 to 89 and 90 to 200, says the subset."""
    first, second = (load_half("cub", half, otdata, DataOptions(download=False)) for half in HALVES)
    assert (len(first.classes), len(second.classes)) == (50, 50)
    assert max(first.classes) < min(second.classes)
    assert len(first) + len(second) == 5902
    assert len(set(second.names)) == len(second)
    assert "partial: 100 of 200 classes are there; the halves are not those of the whole set" in second.notes
