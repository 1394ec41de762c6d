"""Images in any container go by position; anything that is one image, or none, is told apart in a sentence."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from otfew.errors import UserError
from otfew.pictures import count, decode, in_order

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
    return np.stack([decode(image, i) for i, image in enumerate(in_order(images))])


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


class Exploding:
    """Says that it is an array, and is none."""

    def __array__(self, *_, **__):
        raise RuntimeError("gone")


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "image 3 is None"),
        (b"bytes", "image 3 is bytes b'bytes'"),
        (7, "image 3 is int 7"),
        (float("nan"), "image 3 is float nan"),
        ({"image": 1}, "image 3 is dict"),
        ((PIXELS[0], 1), "image 3 is a tuple"),
        (Exploding(), "image 3 is"),
        (object, "image 3 is"),
        (["a.png"], "image 3 is list"),
        ([[1, 2], [3, 4]], "image 3 is int64"),
        (np.zeros((4, 4, 3), object), "image 3 is object"),
        (np.zeros((4, 4, 3), bool), "image 3 is bool"),
        (np.zeros((4, 4, 3), complex), "image 3 is complex128"),
        (np.zeros((4, 4, 4), np.uint8), r"image 3 has shape \(4, 4, 4\)"),
        (np.uint8(7), r"image 3 has shape \(\)"),
        (torch.zeros(4, 4, 3), r"image 3 has shape \(4, 4, 3\)"),
        (np.ma.array(PIXELS[0], mask=PIXELS[0] > 9), "image 3 is a masked array"),
        (Image.new("I", (4, 4)), "image 3 is int32"),
        (TensorDataset(torch.zeros(2, 3, 4, 4))[0], r"image 3 (is a tuple|has shape)"),
    ],
)
def test_what_is_no_image_is_named(image, said):
    with pytest.raises(UserError, match=said) as caught:
        decode(image, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_precision(dtype):
    image = torch.full((3, 2, 2), 0.5, dtype=dtype, requires_grad=True)
    assert decode(image, 0).tolist() == np.full((2, 2, 3), 127.5).tolist()


def test_pil_gives_what_its_file_gives(tmp_path):
    rgb = Image.fromarray(PIXELS[0])
    alpha = Image.fromarray(np.dstack([PIXELS[0], PIXELS[1, :, :, 0]]))
    deep = Image.fromarray(PIXELS[0, :, :, 0].astype(np.uint16) * 257 + 100)
    images = [rgb, rgb.convert("L"), alpha, rgb.convert("LA"), rgb.convert("P"), rgb.convert("1"), deep]
    assert [image.mode for image in images] == ["RGB", "L", "RGBA", "LA", "P", "1", "I;16"]
    for image in images:
        path = tmp_path / f"{image.mode.replace(';', '-')}.png"
        image.save(path)
        for given in (image, Image.open(path)):
            np.testing.assert_array_equal(decode(given, 0), decode(path, 0), err_msg=image.mode)


def test_pil_images_of_other_colours_are_converted():
    rgb = Image.fromarray(PIXELS[0])
    for mode in ("CMYK", "YCbCr", "HSV", "LAB", "RGBX"):
        np.testing.assert_array_equal(decode(rgb.convert(mode), 0), np.asarray(rgb.convert(mode).convert("RGB")))


def test_a_broken_pil_image_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match="image 5, of PIL's mode RGB, cannot be read"):
        decode(Image.open(path), 5)
    closed = Image.fromarray(PIXELS[0])
    closed.close()
    with pytest.raises(UserError, match="image 6, of PIL's mode RGB, cannot be read"):
        decode(closed, 6)
