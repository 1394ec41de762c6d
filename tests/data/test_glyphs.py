import dataclasses
import hashlib
import itertools
import os
import stat
import unicodedata

import cv2
import numpy as np
import pytest

from otfew.data import DATASETS, glyphs, load
from otfew.data.base import DataOptions
from otfew.data.class_lists import class_lists
from otfew.data.glyph_drawing.atlas import SIDE, atlas
from otfew.data.glyph_drawing.choice import choose, look_alikes
from otfew.data.glyph_drawing.fonts import FONTS, covers, draw, fonts_of, mask
from otfew.data.glyph_drawing.paint import paint
from otfew.data.glyph_drawing.recipe import PIECES, RESOLUTION, recipes
from otfew.random.dice import Dice

CLASSES = class_lists("glyphs").classes
ALL = [glyphs.code_of(name) for names in CLASSES.values() for name in names]


def first(split, per_class, classes=None):
    """Labels and numbers of the first pictures of each class."""
    count = len(CLASSES[split]) if classes is None else classes
    return np.repeat(np.arange(count), per_class), np.tile(np.arange(per_class), count)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(glyphs, "PER_CLASS", {"train": 2, "val": 2, "test": 2})


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Where the user's caches are, for the time of a test."""
    folder = tmp_path / "caches"
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(folder))
    return folder


# --- the classes


def test_two_hundred_classes_in_disjoint_splits():
    assert len(ALL) == len(set(ALL)) >= 200
    assert len(CLASSES["train"]) >= 130
    assert len(CLASSES["val"]) >= 30
    assert len(CLASSES["test"]) >= 40


def test_class_names_are_those_of_unicode():
    for names in CLASSES.values():
        for name in names:
            code = glyphs.code_of(name)
            assert name == f"U+{code:04X} {unicodedata.name(chr(code))}"


def test_every_class_is_drawn_by_three_fonts_that_differ():
    for code in ALL:
        drawn = [mask(FONTS[font], code, SIDE) for font in fonts_of(code)]
        assert len({ink.tobytes() for ink in drawn}) >= 3, hex(code)
        assert all(ink.max() > 200 and max(ink.shape) in (SIDE - 2, SIDE - 1, SIDE) for ink in drawn)


def test_no_two_classes_are_the_cases_of_one_letter():
    assert len({chr(code).casefold() for code in ALL}) == len(ALL)


def overlap(codes):
    """Largest intersection over union of two glyphs' ink over turns and shifts: not the library's measure."""
    side, radius = 40, 9.0

    def ink(code, angle):
        shape = (mask(FONTS[fonts_of(code)[0]], code, 64) >= 128).astype(np.float32)
        shape = np.pad(shape, 60)
        m = cv2.moments(shape, binaryImage=True)
        x, y = m["m10"] / m["m00"], m["m01"] / m["m00"]
        turn = cv2.getRotationMatrix2D((x, y), angle, radius / np.sqrt((m["mu20"] + m["mu02"]) / m["m00"]))
        turn[:, 2] += (side - 1) / 2 - np.array([x, y])
        return (cv2.warpAffine(shape, turn, (side, side)) > 0.5).astype(np.float32)

    upright = np.stack([ink(code, 0).ravel() for code in codes])
    best = np.zeros((len(codes), len(codes)), dtype=np.float32)
    for angle in range(0, 360, 15):
        turned = np.stack([ink(code, angle) for code in codes])
        for shift in [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]:
            moved = np.roll(turned, shift, (1, 2)).reshape(len(codes), -1)
            both = upright @ moved.T
            best = np.maximum(best, both / (upright.sum(1)[:, None] + moved.sum(1) - both))
    best = np.maximum(best, best.T)
    np.fill_diagonal(best, 0)
    return best


def test_no_two_classes_look_alike():
    for a, b in ["AΑ", "AА", "cC", "oO", "pd", "nu", "69", "sS", "zZ", "bq", "←→", "↑→", "ШЩ"]:
        assert overlap([ord(a), ord(b)])[0, 1] > 0.69, a + b
    found = overlap(ALL)
    worst = np.unravel_index(found.argmax(), found.shape)
    assert found.max() < 0.69, "".join(chr(ALL[place]) for place in worst)


# --- how the classes were chosen


def test_the_measure_of_the_choice_knows_look_alikes():
    codes = [ord(letter) for letter in "AΑАcCpdbЖñ5"]
    alike = look_alikes(codes)
    names = {letter: place for place, letter in enumerate("AΑАcCpdbЖñ5")}
    for a, b in ["AΑ", "ΑА", "cC", "pd", "db"]:
        assert alike[names[a], names[b]], a + b
    for a, b in itertools.combinations("AcЖ5", 2):
        assert not alike[names[a], names[b]], a + b
    assert not alike.diagonal().any()
    assert (alike == alike.T).all()


def test_the_choice_keeps_one_of_each_kind():
    codes = [ord(letter) for letter in "AΑcCpdЖ☠"]
    chosen = "".join(chr(code) for code in choose(codes, look_alikes(codes)))
    assert len(set(chosen) & set("AΑ")) == len(set(chosen) & set("cC")) == len(set(chosen) & set("pd")) == 1
    assert {"Ж", "☠"} <= set(chosen)


# --- random bits


def test_dice_are_philox_keyed_by_the_identity():
    key = int.from_bytes(hashlib.sha256(b"b").digest()[:16], "little")
    expected = np.random.Philox(key=key).random_raw(5)
    dice = Dice(["a", "b"], 5)
    assert (dice.below(10, 2)[1] == expected[:2] % 10).all()
    assert (dice.below(np.array([[7], [9]]))[1] == expected[2] % 9).all()
    colour = int(expected[3]) & 0xFFFFFF
    assert dice.colours()[1].tolist() == [[colour >> 16, colour >> 8 & 255, colour & 255]]
    with pytest.raises(ValueError, match="left"):
        dice.below(2, 2)


def test_dice_are_the_same_on_every_machine():
    assert Dice(["otfew"], 4).below(1000, 4).tolist() == [[942, 127, 21, 766]]


# --- the pictures


def test_a_picture_depends_on_its_class_and_number_only():
    classes = CLASSES["test"]
    labels, numbers = first("test", 3)
    whole = glyphs.generate(classes, labels, numbers)
    assert whole.images.shape == (len(labels), RESOLUTION, RESOLUTION, 3)
    assert whole.images.dtype == np.uint8
    again = glyphs.generate(classes, labels, numbers)
    assert again.digest == whole.digest
    order = np.random.default_rng(0).permutation(len(labels))[:20]
    some = glyphs.generate(classes, labels[order], numbers[order])
    assert (some.images == whole.images[order]).all()
    assert (some.boxes == whole.boxes[order]).all()
    assert len({image.tobytes() for image in whole.images}) == len(labels)


def bare(split, per_class):
    """Recipes of a split and their targets alone, white on black."""
    masks = atlas([glyphs.code_of(name) for name in CLASSES[split]])
    labels, numbers = first(split, per_class)
    full = recipes(CLASSES[split], labels, numbers, masks)
    which, colour = full.mask.copy(), full.colour.copy()
    which[:, :-1], colour[:, -1] = -1, 255
    alone = dataclasses.replace(full, mask=which, colour=colour, corners=np.zeros_like(full.corners))
    return full, alone, masks


def test_the_box_is_that_of_the_targets_ink():
    full, alone, masks = bare("val", 6)
    _, boxes = paint(full, masks)
    images, _ = paint(alone, masks)
    for image, box in zip(images, boxes, strict=True):
        rows, columns = np.flatnonzero(image.any(axis=(1, 2))), np.flatnonzero(image.any(axis=(0, 2)))
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert boxes.min() >= 0
    assert boxes.max() <= RESOLUTION
    longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert longest.min() >= 0.3 * RESOLUTION  # 35 % of the side, but corners of a turned glyph may be empty
    assert longest.max() <= 0.7 * RESOLUTION * 1.33 + 3  # a square turned by 25 degrees


def test_painting_a_glyph_is_an_affine_warp():
    _, alone, masks = bare("val", 2)
    images, _ = paint(alone, masks)
    for picture, image in enumerate(images):
        which, step = alone.mask[picture, -1], alone.step[picture, -1] / 65536
        width, height = masks.sizes[which]
        turn = np.array([[step[0], step[1]], [-step[1], step[0]]])
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        centre = alone.centre[picture, -1] / 256 - 0.5
        matrix = np.column_stack([turn, middle - turn @ centre])
        expected = cv2.warpAffine(
            masks.masks[which].astype(np.float32), matrix, (64, 64), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        assert np.abs(image[:, :, 0] - expected).max() <= 12  # OpenCV rounds places to 1/32 pixel
        assert np.abs(image[:, :, 0] - expected).mean() < 0.5


def test_clutter_is_pieces_of_other_glyphs_of_the_split():
    full, _, masks = bare("val", 6)
    labels, _ = first("val", 6)
    owner = np.repeat(np.arange(len(masks.first)), masks.count)
    pieces = full.mask[:, :-1]
    used = pieces >= 0
    assert set(used.sum(axis=1).tolist()) == set(range(PIECES[0], PIECES[1] + 1))
    assert not (used & (owner[pieces] == labels[:, None])).any()
    window = full.window[:, :-1]
    size = masks.sizes[pieces]
    cut = (window[..., 2:] - window[..., :2]).max(axis=-1)
    assert (cut <= 0.62 * size.max(axis=-1))[used].all()
    assert (window[..., :2] >= 0).all()
    assert (window[..., 2:] <= size)[used].all()


def test_the_target_stands_out_from_the_background():
    full, _, _ = bare("train", 2)
    weights = np.array([0.299, 0.587, 0.114])
    target, back = full.colour[:, -1] @ weights, full.corners.mean(axis=1) @ weights
    assert np.abs(target - back).min() > 50
    assert full.colour[:, -1].std(axis=0).min() > 60


def test_pixels_alone_do_not_solve_the_task():
    classes = CLASSES["test"]
    labels, numbers = first("test", 24)
    made = glyphs.generate(classes, labels, numbers)
    small = np.stack([cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA) for image in made.images])
    small = small.reshape(len(classes), 24, -1).astype(np.float64)
    centroids, queries = small[:, :12].mean(axis=1), small[:, 12:].reshape(-1, small.shape[-1])
    distance = ((queries[:, None] - centroids[None]) ** 2).sum(axis=-1)
    right = (distance.argmin(axis=1) == np.repeat(np.arange(len(classes)), 12)).mean()
    assert right < 4 / len(classes)


# --- masks


def test_masks_are_cropped_and_blank_glyphs_are_refused():
    ink = mask("DejaVuSans", ord("Ж"), SIDE)
    assert ink[0].any()
    assert ink[-1].any()
    assert ink[:, 0].any()
    assert ink[:, -1].any()
    assert not ink.flags.writeable
    assert draw("DejaVuSans", ord(" "), 32.0).shape == (0, 0)
    with pytest.raises(ValueError, match=r"U\+0020"):
        mask("DejaVuSans", ord(" "), SIDE)
    with pytest.raises(ValueError, match=r"U\+4E00"):
        mask("DejaVuSans", 0x4E00, SIDE)


def test_computer_modern_counts_for_plain_letters_only():
    assert covers("cmr10", ord("A"))
    assert not covers("cmr10", ord("Ω"))


# --- loading and the cache


def test_a_split_as_every_data_set_hands_it_over(small, elsewhere, tmp_path):
    assert DATASETS["glyphs"] is glyphs.DATASET
    assert not glyphs.DATASET.needs_root
    split = glyphs.DATASET.load(tmp_path, "val", DataOptions())
    assert split.classes == CLASSES["val"]
    assert split.published_classes == len(split.classes)
    assert len(split) == 2 * len(split.classes) == len(set(split.names)) == len(split.labels) == len(split.boxes)
    assert np.bincount(split.labels).tolist() == [2] * len(split.classes)
    assert any("never evidence" in note for note in split.notes)
    pixels = np.stack([split.read(place) for place in range(len(split))])
    assert split.fingerprint == hashlib.sha256(pixels.tobytes()).hexdigest()
    split.read(0)[:] = 0
    assert (split.read(0) == pixels[0]).all()


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The folder of pictures below $OTFEW_CACHE."""
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "glyphs"


def test_the_second_load_reads_the_file_of_the_first(small, elsewhere, kept, tmp_path, monkeypatch):
    made = glyphs.load(tmp_path, "val", DataOptions())
    (path,) = kept.iterdir()
    monkeypatch.setattr(glyphs, "generate", None)
    read = glyphs.load(tmp_path, "val", DataOptions())
    assert read.fingerprint == made.fingerprint
    assert (read.boxes == made.boxes).all()
    assert path.name.startswith("val-")
    assert not elsewhere.exists()


def test_nothing_is_written_into_the_data_root(small, elsewhere, kept, tmp_path, monkeypatch):
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("OTFEW_DATA", str(root))
    load("glyphs", "val")
    load("glyphs", "val", root)
    assert not list(root.iterdir())
    assert list(kept.iterdir())


def test_pictures_that_the_user_has_already_are_not_made_again(small, elsewhere, kept, tmp_path, monkeypatch):
    monkeypatch.delenv("OTFEW_CACHE")
    made = glyphs.load(tmp_path, "val", DataOptions())
    assert list((elsewhere / "glyphs").iterdir())
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(glyphs, "generate", None)
    assert glyphs.load(tmp_path, "val", DataOptions()).fingerprint == made.fingerprint
    assert not kept.exists()


def damage_middle(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize(
    "damage",
    [damage_middle, lambda data: data[:-1], lambda data: data[:100], lambda data: b"", lambda data: data[:-3] + b"abc"],
    ids=["a bit", "last byte lost", "truncated", "empty", "boxes"],
)
def test_a_damaged_file_is_made_again(small, elsewhere, kept, tmp_path, damage):
    made = glyphs.load(tmp_path, "val", DataOptions())
    (path,) = kept.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = glyphs.load(tmp_path, "val", DataOptions())
    assert again.fingerprint == made.fingerprint
    assert (again.boxes == made.boxes).all()
    assert path.read_bytes() == whole
    assert [entry.name for entry in kept.iterdir()] == [path.name]


def test_a_missing_root_is_not_made(small, elsewhere, kept, tmp_path):
    glyphs.load(tmp_path / "slip", "val", DataOptions())
    assert not (tmp_path / "slip").exists()


def test_where_nothing_can_be_kept_pictures_are_made_all_the_same(small, elsewhere, kept, tmp_path):
    kept.parent.mkdir()
    kept.write_text("a file in the way")
    elsewhere.write_text("another one")
    split = glyphs.load(tmp_path, "val", DataOptions())
    assert len(split) == 2 * len(CLASSES["val"])
    assert kept.read_text() == "a file in the way"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions stop")
def test_a_cache_that_cannot_be_written_is_passed_over(small, elsewhere, kept, tmp_path):
    kept.parent.mkdir()
    kept.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    glyphs.load(tmp_path, "val", DataOptions())
    assert list((elsewhere / "glyphs").iterdir())


def test_other_pictures_have_another_file(small, elsewhere, kept, tmp_path, monkeypatch):
    glyphs.load(tmp_path, "val", DataOptions())
    monkeypatch.setattr(glyphs, "VERSION", -1)
    glyphs.load(tmp_path, "val", DataOptions())
    monkeypatch.setattr(glyphs, "versions", lambda: {"matplotlib": "0"})
    glyphs.load(tmp_path, "val", DataOptions())
    assert len(list(kept.iterdir())) == 3
