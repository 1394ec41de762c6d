import inspect
import os
import pickle
import sys

import numpy as np
import pytest

from otfew.data.files import image_set, images_in, subfolders
from otfew.errors import UserError


def build(base, published=("a", "b", "c")):
    entries = [(path.parent.name, path.relative_to(base)) for path in images_in(base)]
    return image_set("some", "test", base, entries, published)


def test_finds_images_of_any_case_and_no_hidden_files(tmp_path, write):
    for name in ("b.PNG", "a.jpeg", "deep/er/c.WebP", ".hidden.png", ".git/d.png", "._a.jpg"):
        write(tmp_path / name)
    (tmp_path / "readme.txt").write_text("no image")
    assert [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)] == [
        "a.jpeg",
        "b.PNG",
        "deep/er/c.WebP",
    ]


def test_loops_of_links_end_and_other_links_are_followed(tmp_path, write):
    root = tmp_path / "root"
    write(root / "a" / "0.png")
    write(tmp_path / "elsewhere" / "1.png")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "out").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert [path.relative_to(root).as_posix() for path in images_in(root / "a")] == ["a/0.png", "a/out/1.png"]
    assert [path.name for path in subfolders(root)] == ["a", "loop"]
    assert images_in(root / "loop") == []


def test_labels_follow_the_published_order_and_names_are_sorted(tmp_path, write):
    for name in ("c/1.png", "a/2.png", "a/10.png", "x/9.png"):
        write(tmp_path / name)
    images = build(tmp_path, ("c", "b", "a"))
    assert images.classes == ("c", "a")
    assert images.names == ("c/1.png", "a/10.png", "a/2.png")
    assert images.labels.tolist() == [0, 1, 1]
    assert images.labels.dtype == np.int64
    assert images.published_classes == 3
    assert images.notes == ("partial: 2 of 3 classes, 3 images",)


def test_listed_files_that_are_missing_are_counted(tmp_path, class_folders):
    class_folders(tmp_path, "abc", images=3)
    entries = [(path.parent.name, path.relative_to(tmp_path)) for path in images_in(tmp_path)]
    (tmp_path / "b" / "1.png").unlink()
    images = image_set("some", "test", tmp_path, entries, ("a", "b", "c"))
    assert images.notes == ("partial: 3 of 3 classes, 8 of 9 images",)


def test_nothing_that_matches(tmp_path, class_folders):
    class_folders(tmp_path, "xyz")
    with pytest.raises(UserError, match="3 test classes of some"):
        build(tmp_path)


def test_fingerprint_follows_the_files_and_digest_the_names(tmp_path, class_folders, write, picture):
    class_folders(tmp_path, "abc")
    first, again = build(tmp_path), build(tmp_path)
    assert (first.fingerprint, first.digest) == (again.fingerprint, again.digest)
    os.utime(tmp_path / "a" / "0.png", ns=(1, 1))
    touched = build(tmp_path)
    assert touched.fingerprint != first.fingerprint
    write(tmp_path / "a" / "0.png", picture(1, 30, 30))
    os.utime(tmp_path / "a" / "0.png", ns=(1, 1))
    assert build(tmp_path).fingerprint not in (first.fingerprint, touched.fingerprint)
    assert build(tmp_path).digest == first.digest
    write(tmp_path / "a" / "2.png")
    assert build(tmp_path).digest != first.digest


def test_the_reader_can_be_sent_to_another_process(tmp_path, write, picture):
    write(tmp_path / "a" / "0.png", picture(5))
    images = build(tmp_path)
    assert np.array_equal(pickle.loads(pickle.dumps(images)).read(0), picture(5))


def test_names_are_the_same_for_composed_and_decomposed_accents(tmp_path, write):
    write(tmp_path / "decomposed" / "a" / "e\u0301.png")
    write(tmp_path / "composed" / "a" / "\u00e9.png")
    names = [build(tmp_path / folder).names for folder in ("decomposed", "composed")]
    assert names == [("a/\u00e9.png",)] * 2


def test_a_name_that_is_not_utf8(tmp_path, picture, write):
    source = write(tmp_path / "a" / "0.png", picture(2))
    source.rename(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff.png"))
    images = build(tmp_path)
    assert images.names == ("a/\ufffd.png",)
    assert images.digest
    assert np.array_equal(images.read(0), picture(2))


def test_folders_may_nest_deeper_than_calls(tmp_path, write):
    # Few calls rather than many folders: trees that deep cannot be removed after the test.
    path = tmp_path.joinpath(*"d" * 200, "a.png")
    write(path)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        found = images_in(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert found == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is readable to root")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path):
    (tmp_path / "a").mkdir(mode=0)
    with pytest.raises(UserError, match=r"cannot list the folder .*a: Permission denied"):
        images_in(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot list the folder .*missing: No such file"):
        images_in(tmp_path / "missing")
