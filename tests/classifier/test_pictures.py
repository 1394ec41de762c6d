"""Images in any container go by position; anything that is one image, or none, is told apart in a sentence."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset

from otfew.classifier.pictures import count, in_order
from otfew.data.decoding.picture import decode_picture
from otfew.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
"""Four images of 5 x 6 pixels."""
CHANNELS_FIRST = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


class Endless(Dataset):
    """A data set of torch whose [] goes on behind its last item."""

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, i):
        return PIXELS[i % len(PIXELS)]


class Stream(IterableDataset):
    """A data set of torch without length."""

    def __iter__(self):
        return iter(PIXELS)


def pixels(images):
    return np.stack([decode_picture(image, i) for i, image in enumerate(in_order(images))])


@pytest.mark.parametrize(
    "images",
    [
        list(PIXELS),
        tuple(PIXELS),
        iter(PIXELS),
        (image for image in PIXELS),
        PIXELS,
        CHANNELS_FIRST,
        list(CHANNELS_FIRST),
        Endless(),
        Subset(Endless(), range(4)),
        Stream(),
        dict(enumerate(PIXELS)).values(),
        [Image.fromarray(image) for image in PIXELS],
    ],
    ids=lambda images: type(images).__name__,
)
def test_every_container_goes_by_position(images):
    np.testing.assert_array_equal(pixels(images), PIXELS)


def test_arrays_of_objects(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, PIXELS, strict=True):
        cv2.imwrite(str(path), image[:, :, ::-1])
    held = np.empty(4, object)
    held[:] = list(PIXELS)
    strings = [str(path) for path in paths]
    for images in (held, np.array(paths, object), np.array(strings), dict.fromkeys(strings).keys()):
        np.testing.assert_array_equal(pixels(images), PIXELS)


def test_pandas_goes_by_position_whatever_its_index(tmp_path):
    pd = pytest.importorskip("pandas")
    order = [2, 0, 3, 1]
    np.testing.assert_array_equal(pixels(pd.Series(list(PIXELS)).iloc[order]), PIXELS[order])
    np.testing.assert_array_equal(pixels(pd.Series(list(PIXELS))[[False, True, False, True]]), PIXELS[[1, 3]])
    np.testing.assert_array_equal(pixels(pd.Series(list(PIXELS), index=list("dcba"))), PIXELS)
    paths = []
    for i, image in enumerate(PIXELS):
        paths.append(str(tmp_path / f"{i}.png"))
        cv2.imwrite(paths[-1], image[:, :, ::-1])
    for images in (pd.Series(paths, index=order), pd.Series(paths, dtype="category"), pd.Index(paths), pd.array(paths)):
        np.testing.assert_array_equal(pixels(images), PIXELS)


@pytest.mark.parametrize("images", [[], (), iter([]), np.zeros((0, 8, 8, 3)), np.array([]), torch.zeros(0, 3, 8, 8)])
def test_nothing_is_no_image(images):
    assert list(in_order(images)) == []


def test_counting_touches_no_image():
    assert count([1, 2]) == count(torch.zeros(2, 3)) == 2
    assert count(iter([1])) is None
    assert count(Stream()) is None


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (PIXELS[0], r"shape \(5, 6, 3\)"),
        (PIXELS[0, :, :, 0], r"shape \(5, 6\)"),
        (CHANNELS_FIRST[0], r"shape \(3, 5, 6\)"),
        (PIXELS[:, :, :, 0], r"list\(images\) for a stack of grey ones"),
        (PIXELS[None], r"shape \(1, 4, 5, 6, 3\)"),
        (np.array(7), r"shape \(\)"),
        (torch.tensor(7), r"shape \(\)"),
        (np.array([["a.png"], ["b.png"]]), r"shape \(2, 1\)"),
        ("birds/one.jpg", "str 'birds/one.jpg'"),
        (Path("birds/one.jpg"), "birds/one.jpg"),
        (b"birds/one.jpg", "bytes"),
        (bytearray(b"x"), "bytearray"),
        (Image.new("RGB", (4, 4)), "Image"),
        (None, "None"),
        (3, "int 3"),
        ({"a.png": PIXELS[0]}, "no order"),
        ({"a.png", "b.png"}, "no order"),
        (np.ma.array(PIXELS, mask=PIXELS > 9), "mask"),
    ],
)
def test_what_is_no_list_of_images(images, said):
    with pytest.raises(UserError, match=said) as caught:
        list(in_order(images))
    assert "list" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_are_told_apart_from_columns():
    pd = pytest.importorskip("pandas")
    with pytest.raises(UserError, match=r"DataFrame, a table: .* one column"):
        in_order(pd.DataFrame({"path": ["a.png"]}))
