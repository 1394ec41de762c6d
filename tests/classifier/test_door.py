"""The door by which images come: every kind of picture, and of what is none, in one clear sentence or left out."""

import gzip
import io
import os
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from otfew import FewShotClassifier
from otfew.classifier import find_photos
from otfew.classifier.door import Door
from otfew.classifier.places import labelled_photos
from otfew.data.decoding import heic
from otfew.errors import UserError

SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8), (64, 48))


def encoded(suffix, pixels=SMOOTH):
    """The bytes of an image file."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height):
    """A PNG that claims a size and holds one row."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(3 * min(width, 1000) + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def npy(array):
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def zipped():
    """A ZIP with a picture in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", encoded(".png"))
    return file.getvalue()


def cut_pil():
    """A PIL image whose file ends too early."""
    return Image.open(io.BytesIO(encoded(".jpg")[:-300]))


def lab_tiff():
    """A TIFF in L*a*b*."""
    file = io.BytesIO()
    Image.frombytes("LAB", (4, 4), bytes(48)).save(file, "TIFF")
    return file.getvalue()


def huge_jpeg():
    """A JPEG that claims 60,000 x 60,000 pixels."""
    data = bytearray(encoded(".jpg"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


class Failing(io.RawIOBase):
    """A file on a disk that went away."""

    def readable(self):
        return True

    def read(self, size=-1):
        raise OSError(5, "Input/output error")


def closed():
    """A file that was closed."""
    file = io.BytesIO(encoded(".png"))
    file.close()
    return file


def exhausted():
    """A file that was read to its end."""
    file = io.BytesIO(encoded(".png"))
    file.read()
    return file


FILES = {
    "empty.jpg": b"",
    "text.jpg": b"Dear all,\nplease find my holidays attached.\n",
    "page.jpg": b"<!DOCTYPE html><title>404 Not Found</title>",
    "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "paper.jpg": b"%PDF-1.7\n" + bytes(100),
    "archive.jpg": zipped(),
    "packed.png": gzip.compress(encoded(".png")),
    "film.jpg": b"\0\0\0\x18ftypqt  " + bytes(50),
    "new.jpg": b"\0\0\0\x18ftypavif" + bytes(50),
    "phone.jpg": b"\0\0\0\x18ftypheic" + bytes(50),
    "jxl.jpg": b"\xff\x0a" + bytes(50),
    "jp2.jpg": b"\0\0\0\x0cjP  " + bytes(50),
    "layers.jpg": b"8BPS" + bytes(50),
    "half.jpg": encoded(".jpg")[:400],
    "endless.jpg": encoded(".jpg")[:-2],
    "half.png": encoded(".png")[:500],
    "half.webp": encoded(".webp")[:10],
    "half.tif": encoded(".tiff")[:100],
    "half.bmp": encoded(".bmp")[:20],
    "lab.tif": lab_tiff(),
    "bomb.png": png(60_000, 60_000),
    "bomb.jpg": huge_jpeg(),
    "nothing.png": png(0, 0),
    "objects.npy": npy(np.array([[{}, None]], object)),
    "words.npy": npy(np.array([["a", "b"]])),
    "nan.npy": npy(np.full((4, 4, 3), np.nan)),
    "bright.npy": npy(np.full((4, 4, 3), 200.0)),
    "channels.npy": npy(np.zeros((4, 4, 7), np.uint8)),
    "cut.npy": npy(np.zeros((4, 4, 3), np.uint8))[:100],
    "several.npy": zipped(),
}
"""Files that are no picture, or none that can be used, by name."""

THINGS = {
    "none": lambda: None,
    "number": lambda: 3,
    "list": lambda: [[1, 2], [3, 4]],
    "dictionary": lambda: {"image": SMOOTH},
    "function": lambda: encoded,
    "no bytes": lambda: b"",
    "wrong bytes": lambda: b"GIF89a but not quite",
    "wrong memory": lambda: memoryview(b"what is this"),
    "array of NaN": lambda: np.full((8, 8, 3), np.nan),
    "array of 0 to 255 as floats": lambda: SMOOTH.astype(float),
    "negative array": lambda: np.full((8, 8, 3), -0.5),
    "array of whole numbers": lambda: SMOOTH.astype(np.int64),
    "array of flags": lambda: np.zeros((8, 8), bool),
    "array of complex numbers": lambda: np.zeros((8, 8, 3), complex),
    "array of objects": lambda: np.full((8, 8, 3), None, object),
    "array of text": lambda: np.array([["a.jpg"]]),
    "array of seven channels": lambda: np.zeros((8, 8, 7), np.uint8),
    "array without pixels": lambda: np.zeros((0, 8, 3), np.uint8),
    "row of numbers": lambda: np.zeros(8, np.uint8),
    "several images": lambda: np.zeros((2, 8, 8, 3), np.uint8),
    "masked array": lambda: np.ma.array(SMOOTH, mask=SMOOTH > 9),
    "tensor with channels last": lambda: torch.zeros(8, 9, 3),
    "tensor of infinities": lambda: torch.full((3, 8, 8), torch.inf),
    "tensor on no device": lambda: torch.zeros(3, 8, 8, device="meta"),
    "sparse tensor": lambda: torch.zeros(8, 8).to_sparse(),
    "PIL image that ends too early": cut_pil,
    "PIL image in L*a*b*": lambda: Image.frombytes("LAB", (2, 2), bytes(12)),
    "PIL image without pixels": lambda: Image.new("RGB", (0, 4)),
    "PIL image of great depth": lambda: Image.fromarray(np.full((2, 2), 300, np.int32)),
    "closed file": closed,
    "file at its end": exhausted,
    "file of text": lambda: io.StringIO("not a picture"),
    "file that fails": Failing,
    "file of something else": lambda: io.BytesIO(b"not a picture"),
}
"""What people hold in memory that is no picture, or none that can be used."""


def linked(path, target):
    """A link to something."""
    path.symlink_to(target)
    return path


def made(path, make):
    """What a function makes of a path."""
    make(path)
    return path


def bound(path):
    """Leave a socket behind."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()


SPECIAL = {
    "folder": lambda folder: made(folder / "a.jpg", os.mkdir),
    "broken link": lambda folder: linked(folder / "a.jpg", folder / "nowhere.jpg"),
    "circle of links": lambda folder: linked(folder / "a.jpg", folder / "a.jpg"),
    "device": lambda folder: linked(folder / "a.jpg", "/dev/zero"),
    "pipe": lambda folder: made(folder / "a.jpg", os.mkfifo),
    "socket": lambda folder: made(folder / "a.jpg", bound),
    "missing": lambda folder: folder / "a.jpg",
    "long name": lambda folder: folder / f"{'a' * 300}.jpg",
    "name with a NUL": lambda folder: f"{folder}/a\0b.jpg",
    "pattern": lambda folder: str(folder / "*.jpg"),
    "home of nobody": lambda folder: "~no-such-user/a.jpg",
    "empty name": lambda folder: "",
}
"""What is no regular file, or can be none."""


def bad(folder, kind):
    """Make one bad input."""
    if kind in THINGS:
        return THINGS[kind]()
    if kind in FILES:
        (folder / kind).write_bytes(FILES[kind])
        return folder / kind
    return SPECIAL[kind](folder)


BAD = [*FILES, *THINGS, *SPECIAL]


@pytest.fixture(scope="module")
def fitted(pools):
    images, labels = pools.deck(1)
    return FewShotClassifier(pools.network(), method="cosine-centroid").fit(images, labels)


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_is_one_sentence_or_left_out(fitted, pools, tmp_path, kind):
    good = [pools.picture("red", 50), pools.picture("blue", 51)]
    classifier = FewShotClassifier(pools.network(), method="cosine-centroid", on_error="skip")
    with pytest.raises(UserError) as caught:
        fitted.predict([good[0], bad(tmp_path, kind), good[1]])
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    assert "image 1" in said or str(tmp_path) in said or "no-such-user" in said
    (tmp_path / "again").mkdir()  # pipes and sockets cannot be made twice
    again = bad(tmp_path / "again", kind)
    with pytest.warns(UserWarning, match="1 of 3 images cannot be used and are left out"):
        classifier.fit([good[0], again, good[1]], ["red", "red", "blue"])
    assert len(classifier.labelled_) == 2
    (skipped,) = classifier.skipped_
    assert skipped.place == 1
    assert "\n" not in skipped.reason


def test_there_are_more_than_forty_kinds():
    assert len(BAD) == len(set(BAD)) > 70


def test_answers_keep_their_places(fitted, pools):
    images = [pools.picture("red", 60), None, pools.picture("blue", 61), np.full((8, 8, 3), np.nan)]
    fitted = FewShotClassifier(pools.network(), method="cosine-centroid", on_error="skip").fit(*pools.deck(2))
    with pytest.warns(UserWarning, match="2 of 4 images"):
        assert fitted.predict(images).tolist() == ["red", None, "blue", None]
    assert [(each.place, each.name) for each in fitted.skipped_] == [(1, "image 1"), (3, "image 3")]
    assert "image 3 holds a NaN" in str(fitted.skipped_[1])
    with pytest.warns(UserWarning, match="2 of 4 images"):
        scores = fitted.decision_function(images)
    assert np.isnan(scores[[1, 3]]).all()
    np.testing.assert_array_equal(scores[[0, 2]], fitted.decision_function([images[0], images[2]]))
    assert fitted.skipped_ == ()


def test_a_transductive_method_skips_too(pools):
    images, labels = pools.deck(2)
    classifier = FewShotClassifier(pools.network(), method="tim", on_error="skip", batch_size=2).fit(images, labels)
    new = [pools.picture("red", 60), None, pools.picture("blue", 61), pools.picture("green", 62)]
    with pytest.warns(UserWarning, match="1 of 4 images"):
        assert classifier.predict(new).tolist() == ["red", None, "blue", "green"]


def test_all_may_be_skipped_but_no_class_may_vanish(pools):
    classifier = FewShotClassifier(pools.network(), method="cosine-centroid", on_error="skip").fit(*pools.deck(1))
    with pytest.warns(UserWarning, match="2 of 2 images"):
        assert classifier.predict([None, None]).tolist() == [None, None]
    with pytest.raises(UserError, match=r"no image of class blue can be used; the first: image 2 is None"):
        classifier.fit([pools.picture("red", 0), pools.picture("red", 1), None], ["red", "red", "blue"])


def test_features_that_are_not_finite_are_skipped_too(pools):
    module = torch.nn.AdaptiveAvgPool2d(1)
    module.register_forward_hook(lambda _, __, out: torch.where(out > 0.9, torch.inf, out))
    backbone = pools.network()
    backbone.module = module
    classifier = FewShotClassifier(backbone, method="cosine-centroid", on_error="skip")
    white = np.full((8, 8, 3), 255, np.uint8)
    with pytest.warns(UserWarning, match="1 of 3 images"):
        classifier.fit([pools.picture("red", 0), white, pools.picture("blue", 1)], ["a", "a", "b"])
    assert len(classifier.labelled_) == 2
    with pytest.raises(UserError, match="features of image 1 are not finite"):
        classifier.set_params(on_error="raise").predict([pools.picture("red", 0), white])


def test_an_image_too_small_for_its_patches_is_skipped(pools):
    classifier = FewShotClassifier(pools.network(), method="fusion", nodes="grid:2,11", on_error="skip")
    images = [pools.picture("red", 0, 30, 30), pools.picture("red", 1), pools.picture("blue", 2, 30, 30)]
    with pytest.warns(UserWarning, match="12 x 10 pixels"):
        classifier.fit(images, ["a", "a", "b"])
    assert [each.place for each in classifier.skipped_] == [1]


@pytest.mark.parametrize("given", ["ignore", None, True, "Raise"])
def test_what_to_do_with_errors_is_one_of_two(pools, given):
    with pytest.raises(UserError, match=r"`on_error` is .*'raise' or 'skip'"):
        FewShotClassifier(pools.network(), method="protonet", on_error=given).fit(*pools.deck(1))


def test_open_files_are_read_from_where_they_stand_and_stay_there(pools, tmp_path):
    data = encoded(".png", pools.picture("red", 3))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    behind = io.BytesIO(b"12345" + data)
    behind.seek(5)
    with path.open("rb") as file, zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.png", data)
        with archive.open("a.png") as member:
            shown = list(Door().read([path, file, io.BytesIO(data), behind, member, bytearray(data)]))
        assert file.tell() == 0
    assert behind.tell() == 5
    for each in shown[1:]:
        np.testing.assert_array_equal(each.pixels, shown[0].pixels)
    assert [each.name for each in shown] == [str(path), str(path), "image 2", "image 3", "a.png", "image 5"]
    assert [each.path for each in shown] == [path, None, None, None, None, None]


def test_one_open_file_is_no_list(fitted):
    with pytest.raises(UserError, match="list of images"):
        fitted.predict(io.BytesIO(encoded(".png")))


@pytest.fixture
def album(pools, tmp_path):
    """A folder of pictures, below a home folder."""
    folder = tmp_path / "home" / "album"
    (folder / "deep" / "er").mkdir(parents=True)
    for i, (place, colour) in enumerate([("b.png", "red"), ("a.png", "blue"), ("deep/er/c.PNG", "green")]):
        (folder / place).write_bytes(encoded(".png", pools.picture(colour, 70 + i)[:, :, ::-1]))
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(encoded(".png"))
    (folder / "Thumbs.db").write_bytes(b"")
    return folder


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_folders_and_patterns_name_their_images(album, monkeypatch):
    monkeypatch.setenv("HOME", str(album.parent))
    monkeypatch.chdir(album)
    everything = ["a.png", "b.png", "deep/er/c.PNG"]
    assert names(find_photos(album), album) == everything
    assert names(find_photos("~/album"), album) == everything
    assert names(find_photos(str(album / "*.png")), album) == everything[:2]
    assert names(find_photos("~/album/**/*.PNG"), album) == everything[2:]
    assert names(find_photos(album / "b.png", album / "[ab].png", album), album) == ["b.png", "a.png", "deep/er/c.PNG"]
    assert names(find_photos(album / "d*"), album) == everything[2:]
    assert find_photos("notes.txt") == [Path("notes.txt")]  # whoever names a file means it
    assert find_photos() == []


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("none/*.jpg", "no image fits the pattern"),
        ("*.txt", "no image fits the pattern"),
        ("nowhere", "is not there"),
        ("void", "holds no images"),
        ("", "is no path"),
        ("a\0b", "is no path"),
        (None, "is no path"),
        (3, "is no path"),
    ],
)
def test_places_without_images(album, monkeypatch, place, said):
    monkeypatch.chdir(album)
    (album / "void").mkdir()
    with pytest.raises(UserError, match=said):
        find_photos(place)


def test_a_folder_by_name_stands_for_its_images(pools, album, monkeypatch):
    monkeypatch.setenv("HOME", str(album.parent))
    classifier = FewShotClassifier(pools.network(), method="cosine-centroid")
    classifier.fit(str(album), ["blue", "red", "green"])
    assert [photo.name for photo in classifier.labelled_.photos] == [str(path) for path in find_photos(album)]
    for place in (album, "~/album", album / "**/*.[pP]*"):
        assert classifier.predict(place).tolist() == ["blue", "red", "green"]
    assert classifier.predict(["~/album/a.png"]).tolist() == ["blue"]
    with pytest.raises(UserError, match="3 images but 2 labels"):
        classifier.fit(album, ["blue", "red"])
    for place in (album / "a.png", "~/album/a.png", album / "missing"):
        with pytest.raises(UserError, match="give a list of images"):
            classifier.predict(place)


def test_classes_at_a_depth(pools, tmp_path):
    for colour in ("red", "green", "blue"):
        folder = tmp_path / "colours" / "plain" / colour
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(encoded(".png", pools.picture(colour, 5)[:, :, ::-1]))
    classifier = FewShotClassifier(pools.network(), method="cosine-centroid").fit_folder(tmp_path / "colours", depth=2)
    assert classifier.classes_.tolist() == ["plain/blue", "plain/green", "plain/red"]
    assert classifier.predict([pools.picture("green", 9)]).tolist() == ["plain/green"]
    with pytest.raises(UserError, match="class"):
        FewShotClassifier(pools.network()).fit_folder(tmp_path / "colours")
    with pytest.raises(UserError, match="`depth` is 0"):
        FewShotClassifier(pools.network()).fit_folder(tmp_path / "colours", depth=0)


def test_heic_says_what_to_install(fitted, monkeypatch):
    monkeypatch.setattr(heic, "installed", lambda: False)
    with pytest.raises(UserError, match=r'image 0 holds HEIC data: run pip install "otfew\[heic\]"'):
        fitted.predict([b"\0\0\0\x18ftypheic" + bytes(50)])


def test_loose_photos_are_told_to_want_a_folder_for_each_class(tmp_path):
    for name in ("1.png", "2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.raises(UserError, match=r"holds 2 images, such as 1\.png, and no folders of them"):
        labelled_photos(tmp_path)


@pytest.mark.parametrize(("names", "warned"), [(("red beet", "Red-Beet"), True), (("beet", "beets"), False)])
def test_labels_that_differ_in_case_or_hyphens_are_pointed_out(tmp_path, names, warned):
    for name in names:
        (tmp_path / "all" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "all" / name / "1.png")
    rows = "".join(f"all/{name}/1.png,{name}\n" for name in names)
    (tmp_path / "list.csv").write_text(f"image,label\n{rows}")
    for place in (tmp_path / "all", tmp_path / "list.csv"):
        _, labels, notes = labelled_photos(place)
        assert sorted(labels) == sorted(names)
        assert any("are different classes" in note for note in notes) == warned
