import pickle

import numpy as np
import pytest

from otfew import data
from otfew.data.preparation import resize_square
from otfew.data.shifts import SEVERITIES, SHIFTS, Shift, parse, shifted
from otfew.data.shifts.rectangles import covering
from otfew.errors import UserError
from otfew.features.extract import subset
from otfew.random.draws import uniforms


def photo(side=64, seed=0):
    """Smooth colours with a bright disc: something of everything that shifts work on."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    waves = np.stack([np.sin(5 * x + seed), np.cos(4 * y), np.sin(6 * x * y)], 2)
    image = 100 + 70 * waves
    image[(x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.06] = (250, 240, 40)
    return image.astype(np.uint8)


def other(number):
    return np.full((20, 30, 3), int(255 * number), np.uint8)


@pytest.fixture(scope="module")
def glyphs():
    return data.load("glyphs", "test")


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_pure_seeded_and_in_shape(name, severity):
    shift, image = SHIFTS[name], photo()[:, :50]
    before = image.copy()
    found = shift.apply(image, severity, "a/1.jpg", other)
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    assert np.array_equal(image, before)
    assert np.array_equal(found, shift.apply(image, severity, "a/1.jpg", other))
    assert not np.array_equal(found, image)
    random = name not in {"blur", "edges"}
    assert np.array_equal(found, shift.apply(image, severity, "a/2.jpg", other)) is not random


@pytest.mark.parametrize("name", SHIFTS)
def test_harder_is_farther_from_the_image(name):
    image = photo()
    far = [
        np.mean(
            [np.abs(SHIFTS[name].apply(image, s, str(key), other).astype(float) - image).mean() for key in range(8)]
        )
        for s in SEVERITIES
    ]
    assert far == sorted(far)
    assert far[2] > 1.5 * far[0]


@pytest.mark.parametrize("name", ["blur", "edges", "scale", "occlusion", "clutter"])
def test_the_same_at_every_size(name):
    """What is drawn is the same, so that a large image is changed as a small one: reduced, they are alike."""
    for severity in SEVERITIES:
        small, large = (SHIFTS[name].apply(photo(n), severity, "x", other) for n in (32, 224))
        # A tenth of the change beside what reduction makes of the image itself, whose disc has other borders.
        reduced = np.abs(resize_square(photo(224), 32).astype(float) - photo(32)).mean()
        difference = np.abs(resize_square(large, 32).astype(float) - small).mean()
        unlike = np.abs(photo(32).astype(float) - small).mean()
        assert difference < 0.25 * unlike + reduced + 1


def test_noise_of_the_dark_is_as_strong_at_every_size():
    """Black stays black but for the noise that is above it; a grey shows it whole."""
    deviations = []
    for side in (32, 224):
        found = SHIFTS["dark"].apply(np.full((side, side, 3), 200, np.uint8), 2, "x")
        deviations.append(resize_square(found, 32)[..., 0].astype(float).std())
        assert abs(found.mean() - 0.35 * 200) < 1
    assert abs(deviations[0] - 4) < 0.5
    assert abs(deviations[1] - deviations[0]) < 0.1


def test_blur_is_a_gaussian_of_its_width():
    image = np.zeros((101, 101, 3), np.uint8)
    image[:, 50:] = 200
    row = SHIFTS["blur"].apply(image, 3, "x")[50, :, 0].astype(float)
    slope = np.diff(row)
    at = np.arange(100) + 0.5
    mean = (slope * at).sum() / slope.sum()
    deviation = ((slope * (at - mean) ** 2).sum() / slope.sum()) ** 0.5
    assert abs(deviation - 0.05 * 101) < 0.25


def test_edges_show_outlines_and_no_surfaces():
    image = np.full((64, 64, 3), 30, np.uint8)
    image[16:48, 16:48] = 220
    found = SHIFTS["edges"].apply(image, 3, "x").astype(float)
    faded = 0.25 * image
    assert np.abs(found - faded)[24:40, 24:40].max() <= 1
    assert (found - faded)[30, 14:18].max() > 150


@pytest.mark.parametrize(("name", "shares"), [("occlusion", (0.1, 0.25, 0.4)), ("clutter", (0.1, 0.25, 0.4))])
def test_covered_share_of_the_area(name, shares):
    image = np.full((90, 120, 3), 7, np.uint8)
    for severity, share in zip(SEVERITIES, shares, strict=True):
        covered = [
            (SHIFTS[name].apply(image, severity, str(key), lambda _: other(0.5)) != 7).any(2).mean()
            for key in range(10)
        ]
        assert share - 0.03 < np.mean(covered) < share + 0.02


def test_rectangles_stay_inside_and_do_not_cover_more():
    for key in range(20):
        boxes = covering(37, 53, 0.3, uniforms("boxes", key))
        covered = np.zeros((37, 53), bool)
        for top, left, bottom, right in boxes:
            assert 0 <= top < bottom <= 37
            assert 0 <= left < right <= 53
            covered[top:bottom, left:right] = True
        assert 0.27 < covered.mean() < 0.32


def test_farther_away_is_the_whole_image_smaller():
    image = photo(60)
    found = SHIFTS["scale"].apply(image, 3, "x")
    plain = np.rint(image.reshape(-1, 3).mean(0)).astype(np.uint8)
    rows, columns = np.nonzero((found != plain).any(2))
    inside = found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert inside.shape[:2] == (30, 30)
    assert np.array_equal(inside, resize_square(image, 30))


def test_a_view_keeps_names_and_says_what_it_is(glyphs):
    seen = shifted(glyphs, "blur:2")
    assert seen.names == glyphs.names
    assert seen.view == "blur:2"
    assert np.array_equal(seen.labels, glyphs.labels)
    assert np.array_equal(seen.read(7), SHIFTS["blur"].apply(glyphs.read(7), 2, glyphs.names[7]))
    twice = shifted(seen, "dark:1")
    assert twice.view == "blur:2+dark:1"
    others = [glyphs, seen, twice, shifted(glyphs, "blur:3"), shifted(glyphs, "dark:2")]
    assert len({images.digest for images in others}) == len({images.fingerprint for images in others}) == 5
    assert np.array_equal(pickle.loads(pickle.dumps(seen)).read(3), seen.read(3))
    # An image is changed in the same way whatever stands beside it.
    assert np.array_equal(shifted(subset(glyphs, [9, 7]), "dark:3").read(1), shifted(glyphs, "dark:3").read(7))


def test_clutter_is_of_other_classes(glyphs):
    images = subset(glyphs, [i for c in (0, 1, 4) for i in np.flatnonzero(glyphs.labels == c)[:5].tolist()])
    asked = []
    watched = type(images)(**{**vars(images), "read": lambda i: (asked.append(i), images.read(i))[1]})
    seen = shifted(watched, "clutter:3")
    for i in range(len(images)):
        asked.clear()
        seen.read(i)
        own, *donors = asked
        assert own == i
        assert donors
        assert all(images.labels[d] != images.labels[i] for d in donors)
    with pytest.raises(UserError, match="are of one: choose another"):
        shifted(subset(glyphs, np.flatnonzero(glyphs.labels == 2)[:5].tolist()), "clutter:1")


def test_a_shift_of_ones_own(monkeypatch, tmp_path):
    (tmp_path / "own_shifts.py").write_text(
        "from otfew.data.shifts import Shift\n"
        "def less(image, strength, draws, others):\n"
        "    return image // int(strength)\n"
        "LESS = Shift('less', 'less', (2, 4, 8), less)\n"
        "NONE = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shift, severity = parse("own_shifts:LESS:3")
    assert (shift.name, severity) == ("own_shifts:LESS", 3)
    assert shift.apply(np.full((2, 2, 3), 80, np.uint8), 3, "x").max() == 10
    with pytest.raises(UserError, match="of type int"):
        parse("own_shifts:NONE:1")
    with pytest.raises(UserError, match="no severity: give own_shifts:LESS:1"):
        parse("own_shifts:LESS")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("blur", "has no severity: give blur:1"),
        ("blurr:2", "did you mean blur"),
        ("fog:1", "give edges, blur, dark"),
        ("blur:4", "must be 1"),
        ("blur:x", "must be 1"),
        ("", "unknown view"),
    ],
)
def test_what_is_no_view(spec, message):
    with pytest.raises(UserError, match=message):
        parse(spec)


def test_mistakes_of_programs():
    with pytest.raises(ValueError, match="needs other images"):
        SHIFTS["clutter"].apply(photo(), 1, "x")
    with pytest.raises(ValueError, match="must be uint8"):
        SHIFTS["blur"].apply(photo().astype(float), 1, "x")
    with pytest.raises(UserError, match="severity 0"):
        SHIFTS["blur"].apply(photo(), 0, "x")
    careless = Shift("careless", "", (1, 2, 3), lambda image, strength, draws, others: others(0.5))
    with pytest.raises(ValueError, match="takes_others"):
        careless.apply(photo(), 1, "x")
