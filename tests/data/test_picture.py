"""Whatever kind of image a user hands over gives the pixels that its file gives, or a sentence that names it."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from otfew.data.picture import decode_picture
from otfew.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
"""Four images of 5 x 6 pixels."""


class Exploding:
    """Says that it is an array, and is none."""

    def __array__(self, *_, **__):
        raise RuntimeError("gone")


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "image 3 is None"),
        (b"bytes", "image 3 is of type bytes"),
        (7, "image 3 is of type int"),
        (float("nan"), "image 3 is of type float"),
        ({"image": 1}, "image 3 is of type dict"),
        ((PIXELS[0], 1), "image 3 is of type tuple"),
        (Exploding(), "image 3 is"),
        (object, "image 3 is"),
        (["a.png"], "image 3 is of type list"),
        ([[1, 2], [3, 4]], "image 3 is int64"),
        (np.zeros((4, 4, 3), object), "image 3 is object"),
        (np.zeros((4, 4, 3), bool), "image 3 is bool"),
        (np.zeros((4, 4, 3), complex), "image 3 is complex128"),
        (np.zeros((4, 4, 4), np.uint8), r"image 3 has shape \(4, 4, 4\)"),
        (np.uint8(7), r"image 3 has shape \(\)"),
        (torch.zeros(4, 4, 3), r"image 3 has shape \(4, 4, 3\)"),
        (np.ma.array(PIXELS[0], mask=PIXELS[0] > 9), "image 3 is a masked array"),
        (Image.new("I", (4, 4)), "image 3 is int32"),
        (TensorDataset(torch.zeros(2, 3, 4, 4))[0], r"image 3 (is of type tuple|has shape)"),
    ],
)
def test_what_is_no_image_is_named(image, said):
    with pytest.raises(UserError, match=said) as caught:
        decode_picture(image, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_precision(dtype):
    image = torch.full((3, 2, 2), 0.5, dtype=dtype, requires_grad=True)
    assert decode_picture(image, 0).tolist() == np.full((2, 2, 3), 127.5).tolist()


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
            np.testing.assert_array_equal(decode_picture(given, 0), decode_picture(path, 0), err_msg=image.mode)


def test_pil_images_of_other_colours_are_converted():
    rgb = Image.fromarray(PIXELS[0])
    for mode in ("CMYK", "YCbCr", "HSV", "LAB", "RGBX"):
        np.testing.assert_array_equal(
            decode_picture(rgb.convert(mode), 0), np.asarray(rgb.convert(mode).convert("RGB"))
        )


def test_a_broken_pil_image_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match="image 5, of PIL's mode RGB, cannot be read"):
        decode_picture(Image.open(path), 5)
    closed = Image.fromarray(PIXELS[0])
    closed.close()
    with pytest.raises(UserError, match="image 6, of PIL's mode RGB, cannot be read"):
        decode_picture(closed, 6)
