import struct

import cv2
import numpy as np
import pytest

from otfew.data import read_image
from otfew.errors import UserError

UNCOMPRESSED = [cv2.IMWRITE_TIFF_COMPRESSION, 1]  # OpenCV 4's default for floats is lossy


def is_image(array):
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".TIFF"])
def test_lossless_formats_give_back_the_pixels_in_rgb_order(tmp_path, write, picture, suffix):
    rgb = picture(3)
    assert np.array_equal(read_image(write(tmp_path / f"ümlaut ✓{suffix}", rgb)), rgb)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".webp"])
def test_lossy_formats_come_close(tmp_path, write, picture, suffix):
    rgb = picture(4, 48, 64)
    image = read_image(write(tmp_path / f"a{suffix}", rgb))
    assert is_image(image)
    assert np.abs(image.astype(int) - rgb).mean() < 6


def test_grey_becomes_three_equal_channels(tmp_path, write, picture):
    grey = picture()[:, :, 0]
    image = read_image(write(tmp_path / "a.png", grey))
    assert np.array_equal(image, np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_dropped(tmp_path, picture, suffix):
    bgra = np.dstack([picture(5)[:, :, ::-1], np.arange(192, dtype=np.uint8).reshape(12, 16)])
    cv2.imwrite(str(tmp_path / f"a{suffix}"), bgra)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), picture(5))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_rounded_to_the_nearest_of_eight(tmp_path, suffix):
    wide = np.arange(0, 65536, 8, dtype=np.uint16).reshape(64, 128)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), wide)
    image = read_image(tmp_path / f"a{suffix}")
    assert is_image(image)
    assert np.array_equal(image[:, :, 1], np.floor(wide * (255 / 65535) + 0.5).astype(np.uint8))


def test_exif_orientation_is_applied(tmp_path, write, picture):
    plain = write(tmp_path / "a.jpg", picture(6, 16, 32)).read_bytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # one entry: orientation 6
    body = b"Exif\0\0" + tiff
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
    (tmp_path / "b.jpg").write_bytes(turned)
    upright, image = read_image(tmp_path / "a.jpg"), read_image(tmp_path / "b.jpg")
    assert np.array_equal(image, np.rot90(upright, -1))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.float16])
def test_npy_arrays(tmp_path, shape, dtype):
    values = np.random.default_rng(0).integers(0, 256, shape)
    np.save(tmp_path / "a.npy", values.astype(np.uint8) if dtype == np.uint8 else (values / 255).astype(dtype))
    image = read_image(tmp_path / "a.npy")
    assert is_image(image)
    expected = values.reshape(5, 7, -1)[:, :, :3]
    assert np.array_equal(image, np.broadcast_to(expected, (5, 7, 3)))


@pytest.mark.parametrize("grey", [False, True])
def test_float_tiff(tmp_path, picture, grey):
    rgb = picture(7)[:, :, 0] if grey else picture(7)
    values = rgb.astype(np.float32) / 255
    cv2.imwrite(str(tmp_path / "a.tiff"), values if grey else values[:, :, ::-1], UNCOMPRESSED)
    assert np.array_equal(read_image(tmp_path / "a.tiff"), np.stack([rgb] * 3, axis=2) if grey else rgb)


@pytest.mark.parametrize(
    ("value", "says"),
    [(np.nan, "NaN"), (np.inf, "NaN or infinite"), (-0.01, "scale"), (1.5, "scale"), (200.0, "scale")],
)
@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_bad_floats_are_refused(tmp_path, value, says, name):
    values = np.full((4, 4, 3), 0.5, np.float32)
    values[2, 1, 0] = value
    if name == "a.npy":
        np.save(tmp_path / name, values)
    else:
        cv2.imwrite(str(tmp_path / name), values, UNCOMPRESSED)
    with pytest.raises(UserError, match=says) as error:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif", ".npy"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, -2])
def test_truncated_files_are_refused(tmp_path, write, picture, suffix, kept):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, picture(8, 64, 64))
    else:
        write(path, picture(8, 64, 64))
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept < 0 else int(kept * len(data))])
    with pytest.raises(UserError) as error:
        read_image(path)
    assert str(path) in str(error.value)


def test_a_thumbnail_does_not_hide_truncation(tmp_path, write, picture):
    data = write(tmp_path / "a.jpg", picture(9, 64, 64)).read_bytes()
    segment = b"Exif\0\0" + data
    whole = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert np.array_equal(read_image(tmp_path / "whole.jpg"), read_image(tmp_path / "a.jpg"))
    (tmp_path / "cut.jpg").write_bytes(whole[:-40])
    with pytest.raises(UserError, match="not a complete image"):
        read_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3), np.int64), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)])
def test_npy_that_is_no_image(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=r"a\.npy"):
        read_image(tmp_path / "a.npy")


def test_npy_with_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy"):
        read_image(tmp_path / "a.npy")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_image(tmp_path / "a.png")


def test_silence(tmp_path, capfd):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(40))
    with pytest.raises(UserError):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")
