import pickle
import re
import shutil

import numpy as np
import pytest

from otfew import data
from otfew.data import DataOptions
from otfew.data.domains import across
from otfew.data.halves import ALL, load_half
from otfew.data.shifts import shifted
from otfew.errors import UserError

OPTIONS = DataOptions()


def folder(root, write, classes, images=3, first=0):
    """One-coloured pictures; each is another grey."""
    for k, name in enumerate(classes):
        for i in range(images):
            write(root / name / f"{i}.png", np.full((6, 6 + k, 3), first + 5 * i, np.uint8))
    return root


def opened(root):
    return data.load("image-folder", "test", root, OPTIONS)


def never(path):
    raise AssertionError(path)


@pytest.fixture
def photos(tmp_path, write):
    return opened(folder(tmp_path / "photos", write, "abcde"))


def test_a_view_is_the_same_images(photos):
    found = across(photos, None, "blur:2", never)
    assert found.same
    assert found.names == ("as they are", "blur:2")
    assert found.support is photos
    assert found.query.digest == shifted(photos, "blur:2").digest
    joined = pickle.loads(pickle.dumps(found.joined))
    assert len(joined) == 30
    assert len(set(joined.names)) == 30
    assert joined.names[15] == f"{photos.names[0]} [blur:2]"
    assert joined.labels.tolist() == 2 * photos.labels.tolist()
    assert np.array_equal(joined.read(4), photos.read(4))
    assert np.array_equal(joined.read(19), found.query.read(4))
    assert len({photos.digest, joined.digest, across(photos, None, "blur:1", never).joined.digest}) == 3
    assert across(photos, "dark:1", None, never).names == ("dark:1", "as they are")
    assert across(photos, "dark:1", "edges:3", never).names == ("dark:1", "edges:3")


def test_a_folder_of_the_same_classes_in_any_order(photos, tmp_path, write):
    there = folder(tmp_path / "drawn", write, "edcba", images=4, first=100)
    found = across(photos, None, str(there), opened)
    assert not found.same
    assert found.names == ("as they are", "drawn")
    assert found.query.classes == photos.classes
    assert len(found.query) == 20
    for i, label in enumerate(found.query.labels.tolist()):
        assert found.query.names[i].startswith(f"{photos.classes[label]}/")


def test_copies_are_left_out(photos, tmp_path, write):
    there = folder(tmp_path / "drawn", write, "abcde", images=4, first=100)
    shutil.copy(tmp_path / "photos" / "a" / "1.png", there / "b" / "copy.png")
    found = across(photos, None, str(there), opened)
    assert "b/copy.png" not in found.query.names
    assert "1 images of 'drawn' are in the other domain too and are left out" in found.joined.notes
    with pytest.raises(UserError, match="all images of folder 'photos' are in the other domain too"):
        across(photos, None, str(tmp_path / "photos"), opened)


def test_a_folder_beside_another_data_set_may_have_more_classes(tmp_path, write):
    glyphs = data.load("glyphs", "test")
    there = folder(tmp_path / "drawn", write, [*glyphs.classes, "zebra"])

    def whole(root):
        return load_half("image-folder", ALL, root, OPTIONS)

    found = across(glyphs, None, str(there), whole)
    assert found.query.classes == glyphs.classes
    assert len(found.query) == 3 * len(glyphs.classes)
    shutil.rmtree(there / glyphs.classes[3])
    with pytest.raises(UserError, match=re.escape(f"has {glyphs.classes[3]}: give both the same")):
        across(glyphs, None, str(there), whole)


def listed(root, write, rows, header="image,label,domain"):
    lines = [header]
    for i, row in enumerate(rows):
        write(root / f"{i}.png", np.full((6, 6, 3), i, np.uint8))
        lines.append(",".join([f"{i}.png", *row]))
    (root / "photos.csv").write_text("\n".join(lines) + "\n")
    return data.load(str(root / "photos.csv"), "test", None, OPTIONS)


def test_a_column_divides_images(tmp_path, write):
    images = listed(tmp_path, write, [(c, d) for c in "abcde" for d in ("photo", "sketch", "photo")])
    for support, query in (("photo", None), (None, "sketch"), ("photo", "sketch")):
        found = across(images, support, query, never)
        assert found.names == ("photo", "sketch")
        assert not found.same
        assert not set(found.support.names) & set(found.query.names)
        assert (len(found.support), len(found.query)) == (10, 5)
        assert set(found.query.domains) == {"sketch"}
    assert across(images, None, "photo", never).names == ("sketch", "photo")
    assert across(images, None, "dark:1", never).same


@pytest.mark.parametrize(
    ("rows", "support", "query", "message"),
    [
        ([(c, d) for c in "abc" for d in "xyz"], None, "z", "images of x, y, z: give `support_domain` beside .* 'z'"),
        ([(c, d) for c in "abc" for d in "xyz"], "x", "w", "`query_domain` 'w' is no domain of 'photos.csv'"),
        ([(c, d) for c in "abc" for d in "xy"], "x", "x", "both 'x'"),
        ([(c, "x") for c in "abc"], None, "x", "all images of 'photos.csv' are of domain 'x'"),
        ([(c, d) for c in "abc" for d in "xy"], None, "sketch", r"nothing .* is called so: give a value .* \(x, y\)"),
        ([*((c, "x") for c in "abcd"), *((c, "y") for c in "abe")], "x", "y",
         "different classes: only 'x' has c, d; only 'y' has e"),
        ([*((c, "x") for c in "abcd"), ("a", "y")], "x", "y", "domain 'y' of 'photos.csv' has one image: add more"),
    ],
)  # fmt: skip
def test_what_a_column_does_not_divide(tmp_path, write, rows, support, query, message):
    with pytest.raises(UserError, match=message):
        across(listed(tmp_path, write, rows), support, query, never)


def test_a_list_without_the_column(tmp_path, write):
    images = listed(tmp_path, write, [(c,) for c in "aabb"], "image,label")
    with pytest.raises(
        UserError, match=r"'sketch' is no view and no folder that is there, and photos.csv has no column"
    ):
        across(images, None, "sketch", never)


def test_what_is_no_domain(photos, tmp_path, write):
    with pytest.raises(UserError, match="did you mean blur"):
        across(photos, None, "blurr:1", never)
    with pytest.raises(UserError, match="no view and no folder that is there, and nothing of 'image-folder'"):
        across(photos, None, "sketches", never)
    with pytest.raises(UserError, match=r"`support_domain` .* is a folder: give it as `data_root`"):
        across(photos, str(tmp_path), None, never)
    with pytest.raises(UserError, match="are both 'blur:1'"):
        across(photos, "blur:1", "blur:1", never)
    other = folder(tmp_path / "drawn", write, "abcxy", first=100)
    with pytest.raises(UserError, match="only 'as they are' has d, e; only 'drawn' has x, y: give both the same"):
        across(photos, None, str(other), opened)
    one = folder(tmp_path / "one", write, "a", images=1, first=100)
    with pytest.raises(UserError, match="different classes"):
        across(photos, None, str(one), opened)
