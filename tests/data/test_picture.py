"""Whatever kind of image a user hands over gives the pixels that its file gives, or a sentence that names it."""

import io
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from otfew.data.decoding.image import decode_image, read_image
from otfew.data.decoding.picture import decode_picture
from otfew.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = np.arange(35, dtype=np.uint8).reshape(5, 7, 1)
RGBA = np.dstack([RGB, ALPHA])
GREY = np.repeat(RGB[:, :, :1], 3, axis=2)
FLOAT = (RGB / 255).astype(np.float32)


class Wrapped:
    """As a frame of some other library: an array, but without a shape."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def chw(array):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0)))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (RGB, RGB),
        (RGB[:, ::-1], RGB[:, ::-1]),
        (RGBA, RGB),
        (RGB[:, :, 0], GREY),
        (RGB[:, :, :1], GREY),
        (FLOAT, RGB),
        (FLOAT.astype(np.float64), RGB),
        (FLOAT.astype(np.float16)[:, :, :1], GREY),
        (np.dstack([FLOAT, ALPHA / 255]), RGB),
        (chw(RGB), RGB),
        (chw(RGBA), RGB),
        (chw(RGB)[0], GREY),
        (chw(RGB)[:1], GREY),
        (chw(FLOAT), RGB),
        (chw(FLOAT).requires_grad_(), RGB),
        (Wrapped(RGBA), RGB),
    ],
)
def test_arrays_and_tensors(image, expected):
    pixels = decode_picture(image, 0)
    assert pixels.shape == (5, 7, 3)
    assert pixels.flags.c_contiguous
    assert pixels.dtype in (np.uint8, np.float32)
    assert np.abs(pixels - expected.astype(float)).max() < 0.07  # half precision
    assert pixels.dtype == np.float32 or np.array_equal(pixels, expected)


def test_bfloat16_is_read():
    assert np.abs(decode_picture(chw(FLOAT).bfloat16(), 0) - RGB.astype(float)).max() < 1


@pytest.mark.parametrize(
    "mode", ["RGB", "RGBA", "RGBX", "L", "LA", "La", "RGBa", "P", "PA", "1", "CMYK", "YCbCr", "HSV"]
)
def test_modes_of_pil_are_converted_as_pil_does(mode):
    image = Image.fromarray(RGB)
    image = image.convert({"RGBa": "RGBA", "PA": "RGBA", "La": "LA"}.get(mode, mode)).convert(mode)
    straight = image.convert({"RGBa": "RGBA", "La": "LA"}.get(mode, mode))
    assert np.array_equal(decode_picture(image, 0), np.asarray(straight.convert("RGB")))


def test_a_palette_with_transparency_drops_it():
    image = Image.fromarray(RGB).quantize(16)
    image.info["transparency"] = 3
    assert np.array_equal(decode_picture(image, 0), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("order", "<>")
def test_sixteen_bits_and_floats_of_pil_are_scaled_as_files_are(order):
    wide = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1800
    raw = wide.astype(order + "u2").tobytes()
    image = Image.frombytes("I;16" if order == "<" else "I;16B", (7, 5), raw)
    expected = decode_image(cv2.imencode(".png", wide)[1].tobytes(), "a")
    assert np.array_equal(decode_picture(image, 0), expected)
    assert np.array_equal(decode_picture(Image.fromarray(FLOAT[:, :, 0]), 0), GREY)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_orientation_of_pil_images_is_that_of_their_files(tmp_path, turn, kind):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(RGB).resize((64, 48)).save(path, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
    expected = read_image(path)
    assert expected.shape == ((48, 64, 3) if turn < 5 else (64, 48, 3))
    with Image.open(path) as image:
        assert np.array_equal(decode_picture(image, 0), expected)
        assert np.array_equal(decode_picture(image, 0), expected)  # and a second time: nothing was changed in place


def test_bytes_of_a_file_and_paths(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(RGBA).save(path)
    for image in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), memoryview(path.read_bytes())):
        assert np.array_equal(decode_picture(image, 0), RGB)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "is None: give a path"),
        (7, "is of type int: give a path"),
        ([[1, 2], [3, 4]], "is of type list: give a path"),
        (io.BytesIO(b"x"), "is not a complete image"),
        (RGB.tolist, "is of type builtin_function_or_method: give a path"),
        (b"bytes", "is not a complete image"),
        (b"", "is not a complete image"),
        (np.stack([RGB, RGB]), r"has shape \(2, 5, 7, 3\)"),
        (np.moveaxis(RGB, -1, 0), r"has shape \(3, 5, 7\)"),
        (torch.from_numpy(RGB), r"has shape \(7, 3, 5\), channels last"),
        (RGB.astype(np.int64), "is int64"),
        (RGB > 100, "is bool"),
        (RGB.astype(object), "is object"),
        (np.array(["a"]), r"has shape \(1,\)"),
        (Wrapped(RGB[:0]), r"has shape \(0, 7, 3\)"),
        (np.where(FLOAT > 0.9, np.nan, FLOAT), "holds a NaN"),
        (FLOAT - 0.5, r"outside \[0, 1\]"),
        (torch.zeros(3, 4, 4, device="meta"), "without plain values"),
        (torch.zeros(4, 4).to_sparse(), "without plain values"),
        (torch.zeros(3, 4, 4, dtype=torch.complex64), "is complex64"),
        (Image.frombytes("LAB", (2, 2), bytes(12)), r"L\*a\*b\*"),
        (Image.fromarray(np.full((2, 2), 300, np.int32)), "whole numbers"),
        (Image.fromarray(np.full((2, 2), 300, np.float32)), "holds floats from 300 to 300"),
        (Image.new("RGB", (0, 4)), "has shape"),
    ],
)
def test_what_is_no_image_is_named(image, said):
    with pytest.raises(UserError, match=f"^image 4 .*{said}") as error:
        decode_picture(image, 4)
    assert "\n" not in str(error.value)


def test_a_masked_array_is_refused():
    with pytest.raises(UserError, match="image 4 has masked values"):
        decode_picture(np.ma.masked_greater(RGB, 100), 4)
    assert np.array_equal(decode_picture(np.ma.asarray(RGB), 4), RGB)


def test_a_cut_pil_image_and_a_large_one(monkeypatch):
    file = io.BytesIO()
    Image.fromarray(RGB).resize((200, 200)).save(file, "PNG")
    with pytest.raises(UserError, match=r"^image 4 is a PIL image that cannot be decoded"):
        decode_picture(Image.open(io.BytesIO(file.getvalue()[:3000])), 4)
    monkeypatch.setenv("OTFEW_MAX_PIXELS", "34")
    with pytest.raises(UserError, match=r"^image 4 would decode to 35 pixels"):
        decode_picture(Image.fromarray(RGB), 4)


def test_pil_is_not_needed(monkeypatch):
    for name in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    assert np.array_equal(decode_picture(RGB, 0), RGB)
    with pytest.raises(UserError, match="image 0 is None"):
        decode_picture(None, 0)
