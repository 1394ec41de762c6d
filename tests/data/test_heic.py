"""HEIC, as phones keep photos: read like any other picture where pillow-heif is installed."""

import io

import numpy as np
import pytest
from PIL import Image

from otfew.data.class_folders import class_folders
from otfew.data.decoding.image import decode_image, read_image
from otfew.data.decoding.picture import decode_picture
from otfew.errors import UserError

pillow_heif = pytest.importorskip("pillow_heif")


def encoded(image, exif=b""):
    """The bytes of a HEIC file of an RGB array or a PIL image; a turn in its EXIF becomes one of the file's own."""
    made = pillow_heif.from_pillow(Image.fromarray(image) if isinstance(image, np.ndarray) else image)
    if exif:
        made[0].info["exif"] = exif
    file = io.BytesIO()
    made.save(file, quality=95)
    return file.getvalue()


def test_pixels_come_back(tmp_path, picture):
    smooth = picture(0, 48, 64)
    (tmp_path / "a.HEIC").write_bytes(encoded(smooth))
    found = read_image(tmp_path / "a.HEIC")
    assert found.dtype == np.uint8
    assert found.shape == (48, 64, 3)
    assert np.abs(found.astype(int) - smooth).mean() < 3
    np.testing.assert_array_equal(decode_picture((tmp_path / "a.HEIC").read_bytes(), 0), found)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_other_modes_become_rgb(picture, mode):
    image = Image.fromarray(picture(1, 48, 64)).convert(mode)
    found = decode_image(encoded(image), "a")
    assert np.abs(found.astype(int) - np.asarray(image.convert("RGB"))).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_stands_upright(picture, orientation):
    # Of the turn that a phone declares, the same JPEG is the oracle.
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(picture(2, 48, 64)).save(file, "JPEG", quality=95, exif=exif)
    expected = decode_image(file.getvalue(), "a")
    found = decode_image(encoded(picture(2, 48, 64), exif.tobytes()), "a")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 4


def test_ten_bits_become_eight(picture):
    smooth = picture(3, 48, 64)
    deep = pillow_heif.from_bytes("RGB;16", (64, 48), (smooth.astype(np.uint16) << 8).tobytes())
    file = io.BytesIO()
    deep.save(file, quality=95)
    assert np.abs(decode_image(file.getvalue(), "a").astype(int) - smooth).mean() < 4


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.99])
def test_a_cut_file_is_named(picture, share):
    data = encoded(picture(0, 128, 128))
    with pytest.raises(UserError, match=r"^a\.heic is not a complete HEIC image") as caught:
        decode_image(data[: int(share * len(data))], "a.heic")
    assert "\n" not in str(caught.value)


def test_too_many_pixels_are_refused_before_they_are_decoded(picture):
    with pytest.raises(UserError, match="would decode to 16,384 pixels"):
        decode_image(encoded(picture(0, 128, 128)), "a", max_pixels=16_383)


def test_they_count_as_images_of_a_class(tmp_path, picture):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.heic").write_bytes(encoded(picture()))
    assert {name: len(paths) for name, paths in class_folders(tmp_path).images.items()} == {"a": 1, "b": 1}
