"""Near-duplicates: copies are found, different photos are not; measured on real photos."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from otfew import FewShotClassifier
from otfew.classifier import duplicates
from otfew.classifier.duplicates import alike, groups, middle, print_of, probes, reaches
from otfew.data.decoding.image import read_image


def jpeg(pixels, quality):
    """Encode anew."""
    data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])


def resized(pixels, factor):
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def brighter(pixels, factor):
    return np.clip(pixels * factor, 0, 255).astype(np.uint8)


def cropped(pixels, share, seed):
    """A part of the picture, of a share of its sides, from a random place."""
    rng = np.random.default_rng(seed)
    height, width = (round(side * share) for side in pixels.shape[:2])
    top, left = (rng.integers(0, side - part + 1) for side, part in zip(pixels.shape, (height, width), strict=False))
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


COPIES = {
    "encoded anew": lambda pixels: jpeg(pixels, 20),
    "half as large": lambda pixels: resized(pixels, 0.5),
    "a third as large": lambda pixels: resized(pixels, 0.33),
    "brighter": lambda pixels: brighter(pixels, 1.2),
    "darker": lambda pixels: brighter(pixels, 0.8),
    "all of it": lambda pixels: jpeg(brighter(resized(pixels, 0.6), 0.9), 50),
}
"""Changes that the hash is to see through."""


@pytest.fixture(scope="module")
def pictures(photos):
    """The 48 labelled example photos, by class and file."""
    return {f"{path.parent.name}/{path.stem}": read_image(path) for path in sorted(photos.glob("labelled/*/*.jpg"))}


@pytest.mark.parametrize("change", COPIES)
def test_the_hash_sees_through_changes(pictures, change):
    prints = [print_of(each) for each in pictures.values()]
    changed = [print_of(COPIES[change](each)) for each in pictures.values()]
    found = alike([*prints, *changed])
    count = len(prints)
    hits = np.diagonal(found[:count, count:])
    assert hits.mean() >= {"brighter": 0.97}.get(change, 1)
    others = found[:count, count:] & ~np.eye(count, dtype=bool)
    assert not others.any()
    assert not (found[:count, :count] & ~np.eye(count, dtype=bool)).any()


def cub():
    """Some photos of each of the birds that are there."""
    root = os.environ.get("OTFEW_DATA")
    folder = Path(root or ".") / "CUB_200_2011" / "images"
    if not root or not folder.is_dir():
        pytest.skip("OTFEW_DATA is not set, or there is no CUB: no birds here")
    return [sorted(species.iterdir())[:16] for species in sorted(folder.iterdir())]


def omniglot():
    """Drawings, of which no two are copies."""
    folder = Path(os.environ.get("OTFEW_DATA") or ".") / "omniglot-py"
    if not folder.is_dir():
        pytest.skip("OTFEW_DATA is not set, or there is no Omniglot: no drawings here")
    return sorted(folder.rglob("*.png"))[:4000:2]


@pytest.mark.slow
def test_the_hash_takes_no_two_birds_for_copies():
    prints = [print_of(read_image(path)) for species in cub() for path in species]
    assert len(prints) > 1500
    found = alike(prints)
    assert (found.sum() - len(prints)) // 2 == 0  # of 1.3 million pairs


@pytest.mark.slow
def test_the_hash_takes_no_two_drawings_for_copies():
    prints = [print_of(read_image(path)) for path in omniglot()]
    assert alike(prints).sum() == len(prints)  # of 2 million pairs, though all are mostly white


def test_colour_tells_things_of_one_shape_apart(pictures):
    one = next(iter(pictures.values()))
    other = np.ascontiguousarray(np.roll(one, 1, axis=2))
    grey = np.repeat(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    found = alike([print_of(each) for each in (one, other, grey)])
    assert found.sum() == 3


def test_pictures_without_a_pattern_are_alike_to_nothing():
    flat = [np.full((40, 50, 3), value, np.uint8) for value in (0, 0, 200)]
    assert not alike([print_of(each) for each in flat]).any()
    assert groups(np.eye(3, dtype=np.float32), [print_of(each) for each in flat], np.full(3, 0.1)).tolist() == [0, 1, 2]


def test_bits_and_colours_count_as_they_say():
    """Against a plain loop."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, duplicates._BYTES + 2, dtype=np.uint8)
    prints = []
    for flips in range(14):
        table = np.unpackbits(base[:-2])
        table[rng.permutation(143)[:flips]] ^= 1
        prints.append(np.packbits(table).tobytes() + bytes([base[-2], (int(base[-1]) + 4 * (flips % 5)) % 256]))
    found = alike(prints)
    for i, one in enumerate(prints):
        for j, other in enumerate(prints):
            bits = sum(bin(a ^ b).count("1") for a, b in zip(one[:-2], other[:-2], strict=True))
            colour = max(abs(a - b) for a, b in zip(one[-2:], other[-2:], strict=True))
            assert found[i, j] == (bits <= duplicates.BITS and colour <= duplicates.COLOUR)
    np.testing.assert_array_equal(alike(prints, slice(3, 7)), found[3:7])


def test_groups_are_chains_numbered_by_their_first_photo(monkeypatch):
    none = [bytes(duplicates._BYTES + 2)] * 6
    angles = np.radians([0, 90, 8, 200, 16, 95])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    expected = [0, 1, 0, 2, 0, 1]
    reach = np.full(6, 1 - np.cos(np.radians(10)))
    assert groups(vectors, none, reach).tolist() == expected
    monkeypatch.setattr(duplicates, "_ROWS", 2)
    assert groups(3 * vectors, none, reach).tolist() == expected
    reach[2] = 0.001  # what is between the ends of the chain
    assert groups(vectors, none, reach).tolist() == [0, 1, 2, 3, 4, 1]
    assert groups(vectors, none, np.zeros(6)).tolist() == list(range(6))
    assert groups(vectors[:0], [], reach[:0]).shape == (0,)


def test_a_hash_and_a_feature_together_make_one_chain(pictures):
    one, other, third = list(pictures.values())[:3]
    prints = [print_of(each) for each in (one, resized(one, 0.5), other, third)]
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0.01], [0, 0, 1]], np.float32)
    assert groups(vectors, prints, np.full(4, 0.01)).tolist() == [0, 0, 0, 1]


def test_what_counts_as_one_scene(monkeypatch):
    angles = np.radians([0, 20, 80, 100])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    labels = np.array([0, 0, 1, 1])
    near, far = 1 - np.cos(np.radians(60)), 1 - np.cos(np.radians(80))
    for rows in (512, 3):
        monkeypatch.setattr(duplicates, "_ROWS", rows)
        np.testing.assert_allclose(reaches(vectors, labels, [0.01, 0.02, 0.5]), 2 * 0.02)
        np.testing.assert_allclose(reaches(vectors, labels, [0.9]), 0.6 * np.array([far, near, near, far]), rtol=1e-5)
        assert not reaches(vectors, labels, []).any()


def test_probes_are_a_function_of_the_photos(pictures):
    prints = [print_of(each) for each in pictures.values()]
    chosen = {prints[i] for i in probes(prints)}
    assert len(chosen) == duplicates.PROBES
    assert {prints[::-1][i] for i in probes(prints[::-1])} == chosen
    assert sorted(probes(prints[:3])) == [0, 1, 2]


def test_the_middle():
    pixels = np.arange(20 * 10 * 3, dtype=np.uint8).reshape(20, 10, 3)
    np.testing.assert_array_equal(middle(pixels), pixels[1:19, 0:9])
    assert middle(pixels[:1, :1]).shape == (1, 1, 3)


def test_what_is_found_among_the_example_photos(on_photos):
    known = on_photos.labelled_
    found = {}
    for number, photo in zip(known.groups, known.photos, strict=True):
        found.setdefault(int(number), []).append(photo.title.removesuffix(".jpg"))
    assert [each for each in found.values() if len(each) > 1] == [
        ["Garlic/4", "Garlic/5"],
        ["Ginger/1", "Ginger/5"],
        ["Kiwi/3", "Kiwi/6"],
        ["Passion-Fruit/1", "Passion-Fruit/3"],
        ["Red-Beet/1", "Red-Beet/2", "Red-Beet/4"],
    ]  # each looked at: one scene, taken again from a step aside
    assert on_photos.groups_.shape == (1, 8, 6)
    assert np.bincount(on_photos.groups_.ravel()).max() == 3


def test_a_cropped_copy_is_found_by_its_features(lite0, pictures):
    chosen = [name for name in pictures if name.split("/")[1] in "16"][::2]
    images = [pictures[name] for name in chosen]
    labels = [name.split("/")[0] for name in chosen]
    copies = [cropped(each, 0.95, seed) for seed, each in enumerate(images)]
    classifier = FewShotClassifier(lite0, method="cosine-centroid").fit([*images, *copies], labels * 2)
    numbers = classifier.labelled_.groups
    assert (numbers[: len(images)] == numbers[len(images) :]).all()
    assert len(set(numbers[: len(images)].tolist())) == len(images)
    hashes = alike([photo.print for photo in classifier.labelled_.photos])
    assert not np.diagonal(hashes[: len(images), len(images) :]).all()  # the hash alone does not find them


@pytest.mark.slow
def test_birds_are_told_apart_by_their_features(lite0):
    species = [paths for paths in cub() if "Conte_Sparrow" in paths[0].name or "Parakeet_Auklet" in paths[0].name]
    species += cub()[::10]
    files = [path for paths in species for path in paths[:12]]
    labels = [path.parent.name for path in files]
    known = FewShotClassifier(lite0, method="cosine-centroid").fit(files, labels).labelled_
    pairs = {
        tuple(sorted((a.title, b.title)))
        for a, m in zip(known.photos, known.groups, strict=True)
        for b, n in zip(known.photos, known.groups, strict=True)
        if a is not b and m == n
    }
    # Two bursts, looked at, and nothing else of some 10,000 pairs.
    assert {tuple(name.split("/")[1] for name in pair) for pair in pairs} == {
        ("Le_Conte_Sparrow_0005.jpg", "Le_Conte_Sparrow_0011.jpg"),
        ("Parakeet_Auklet_0004.jpg", "Parakeet_Auklet_0005.jpg"),
    }


def test_a_network_that_tells_nothing_groups_nothing_but_copies(pools, pictures):
    torch.manual_seed(0)
    images = [each for name, each in pictures.items() if name[:2] in ("Ki", "Re")]
    labels = [name[:2] for name in pictures if name[:2] in ("Ki", "Re")]
    backbone = pools.network(1)
    backbone.module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(3, 5, 1))
    classifier = FewShotClassifier(backbone, method="cosine-centroid")
    numbers = classifier.fit([*images, resized(images[0], 0.5)], [*labels, labels[0]]).labelled_.groups
    assert numbers[-1] == numbers[0]
    assert len(set(numbers.tolist())) > len(images) / 2
