import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from otfew.data import read_image
from otfew.data.decoding.header import image_header
from otfew.data.decoding.image import decode_image
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


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, before=(), after=()):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(min(height, 100) * (1 + 3 * min(width, 100)))))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + pixels + b"".join(after) + chunk(b"IEND", b"")


def bmp(width, height):
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def webp(kind, body):
    return b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBP" + kind + struct.pack("<I", len(body)) + body


def patched_jpeg(write, path, width, height):
    data = bytearray(write(path).read_bytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS = {
    "a.png": lambda *_: png(30000, 30000),
    "b.png": lambda *_: png(2**31 - 1, 2**31 - 1),
    "a.jpg": lambda write, path: patched_jpeg(write, path, 65000, 65000),
    "a.bmp": lambda *_: bmp(40000, 40000),
    "b.bmp": lambda *_: bmp(40000, -40000),
    "c.bmp": lambda *_: bmp(-(2**31), -(2**31)),
    "a.gif.png": lambda *_: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";",
    "a.webp": lambda *_: webp(b"VP8L", b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + bytes(9)),
    "b.webp": lambda *_: webp(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(9)),
    "c.webp": lambda *_: webp(b"VP8X", bytes(4) + b"\xff\xff\x00\xff\xff\x00"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_too_many_pixels_are_refused_by_the_header(tmp_path, write, monkeypatch, name):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it is decoded"))
    path = tmp_path / name
    path.write_bytes(BOMBS[name](write, path.with_name("small.jpg")))
    with pytest.raises(UserError, match=r"would decode to [0-9,]+ pixels, more than the 100,000,000") as error:
        read_image(path)
    assert "OTFEW_MAX_PIXELS to at least" in str(error.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif", ".npy"])
def test_the_limit_is_that_of_the_caller_then_of_the_environment(tmp_path, write, picture, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, picture())
    else:
        write(path, picture())  # 12 x 16 pixels
    assert read_image(path, max_pixels=192).shape == (12, 16, 3)
    with pytest.raises(UserError, match="would decode to 192 pixels, more than the 191 allowed"):
        read_image(path, max_pixels=191)
    monkeypatch.setenv("OTFEW_MAX_PIXELS", "191")
    assert read_image(path, max_pixels=192).shape == (12, 16, 3)
    with pytest.raises(UserError, match="OTFEW_MAX_PIXELS to at least 192"):
        read_image(path)
    monkeypatch.setenv("OTFEW_MAX_PIXELS", "192")
    assert read_image(path).shape == (12, 16, 3)


@pytest.mark.parametrize("value", ["0", "-1", "1e9", "all", "1" * 5000, "２"])
def test_a_limit_that_is_no_number_is_said(tmp_path, write, monkeypatch, value):
    monkeypatch.setenv("OTFEW_MAX_PIXELS", value)
    with pytest.raises(UserError, match=r"OTFEW_MAX_PIXELS=.* is not a number of pixels"):
        read_image(write(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ((99999, 99999, 3), "|u1", "would decode to 9,999,800,001 pixels"),
        ((2, 2, 10**9), "|u1", "has shape"),
        ((2,) * 40, "|u1", "has shape"),
        ((2, 2), "|V900000000", "it holds"),
        ((9999, 9999), "<f8", "not a complete .npy"),
        ((10**30, 2), "|u1", "would decode"),
        ((-1, -(10**9)), "|u1", r"\.npy"),
    ],
)
def test_a_npy_is_judged_by_its_header(tmp_path, shape, dtype, says):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        file.write(bytes(12))
    with pytest.raises(UserError, match=says):
        read_image(path)


def test_a_sparse_giant_and_a_pipe_are_refused(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.write(b"\xff\xd8")
        file.truncate(2**41)
    with pytest.raises(UserError, match="raise the environment variable OTFEW_MAX_PIXELS"):
        read_image(tmp_path / "a.jpg")
    for suffix in ("png", "npy"):
        (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
        with pytest.raises(UserError, match="is a device"):
            read_image(tmp_path / f"zero.{suffix}")


@pytest.mark.parametrize("extra", [[chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))], [b"\0\0\0\xff"]])
def test_a_png_with_chunks_out_of_order_is_refused(tmp_path, extra):
    (tmp_path / "a.png").write_bytes(png(8, 8, before=extra))
    with pytest.raises(UserError, match="not a complete image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif"])
def test_what_follows_an_image_does_no_harm(tmp_path, write, picture, suffix):
    path = write(tmp_path / f"a{suffix}", picture())
    expected = read_image(path)
    path.write_bytes(path.read_bytes() + np.random.default_rng(0).bytes(100_000))
    assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            b"\0\0\0\x18ftypheic" + bytes(50),
            r'holds HEIC data: run pip install "otfew\[heic\]", or convert it to JPEG or PNG',
        ),
        (b"\0\0\0\x18ftypavif" + bytes(50), "holds AVIF data"),
        (b"\0\0\0\x18ftypqt  " + bytes(50), "holds video data"),
        (b"%PDF-1.7", "holds PDF data"),
        (b"<!DOCTYPE html><title>404", "holds web page data"),
        (b"", "not a complete image"),
        (b"GIF8", "not a complete image"),
        (b"RIFF", "not a complete image"),
        (b"BM", "not a complete image"),
    ],
)
@pytest.mark.usefixtures("without_heic")
def test_other_contents_are_named(tmp_path, data, says):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(UserError, match=says):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken(tmp_path, picture, kind):
    frames = [Image.fromarray(picture(seed)) for seed in range(3)]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(tmp_path / f"a.{kind.lower()}", kind, save_all=True, append_images=frames[1:], **lossless)
    if kind == "WEBP" and int(cv2.__version__.split(".")[0]) < 5:  # of the fourth, only late releases read several
        with contextlib.suppress(UserError):
            assert np.array_equal(read_image(tmp_path / "a.webp"), picture(0))
    else:
        assert np.array_equal(read_image(tmp_path / f"a.{kind.lower()}"), picture(0))


@pytest.mark.parametrize("mode", ["P", "PA", "LA", "1", "L", "RGBA"])
@pytest.mark.parametrize("transparency", [None, 3, bytes(range(64))], ids=["none", "one", "many"])
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_png_of_any_mode_is_what_pil_converts_to_rgb(tmp_path, picture, mode, transparency):
    image = Image.fromarray(picture(2)).convert("RGBA")
    image.putalpha(Image.fromarray(picture(3)[:, :, 0]))
    image = image.convert("RGB").quantize(64) if mode.startswith("P") else image.convert(mode)
    given = {} if transparency is None or not mode.startswith("P") else {"transparency": transparency}
    image.save(tmp_path / "a.png", **given)
    with Image.open(tmp_path / "a.png") as opened:
        assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
def test_damaged_files_decode_within_what_their_header_says_or_are_refused(tmp_path, write, picture, suffix):
    sound = write(tmp_path / f"a{suffix}", picture(1, 24, 32)).read_bytes()
    random = np.random.default_rng(0)
    decoded = 0
    for _ in range(600):
        data = bytearray(sound)
        for place in random.integers(0, min(len(data), 120), random.integers(1, 4)):
            data[place] = random.choice([0, 1, 127, 128, 255, random.integers(256)])
        try:
            image = decode_image(bytes(data), "a", max_pixels=10**6)
        except UserError:
            continue
        decoded += 1
        assert is_image(image)
        assert image.shape[0] * image.shape[1] <= image_header(bytes(data)).pixels
    assert 0 < decoded < 600
