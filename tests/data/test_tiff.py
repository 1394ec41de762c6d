"""What TIFFs hold is read as it is meant, or refused: OpenCV misreads some of it without a word."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from otfew.data.decoding.image import decode_image
from otfew.errors import UserError

BLACK_IS_ZERO, WHITE_IS_ZERO, RGB, CMYK, YCBCR, LAB = 1, 0, 2, 5, 6, 8
SEPARATE, ASSOCIATED, UNSPECIFIED = 2, 1, 0
DEPTHS = [np.uint8, np.uint16]


CODES = {3: "H", 4: "I", 16: "Q"}


def tiff(pixels, photometric, extra=None, *, planar=1, order="<", big=False, more=()):
    """(height, width, channels) of any type -> an uncompressed file, one strip a plane; libraries write few such."""
    height, width, channels = pixels.shape
    planes = channels if planar == 2 else 1
    data = (np.moveaxis(pixels, 2, 0) if planar == 2 else pixels).astype(pixels.dtype.newbyteorder(order)).tobytes()
    strip = len(data) // planes
    entries = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [8 * pixels.dtype.itemsize] * channels),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, [0] * planes),
        (277, 3, [channels]),
        (278, 4, [height]),
        (279, 4, [strip] * planes),
        (284, 3, [planar]),
        (339, 3, [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * channels),
        *([] if extra is None else [(338, 3, extra)]),
    ]
    entries = sorted([e for e in entries if e[0] not in {m[0] for m in more}] + list(more))
    inline, pointer, entry, start = (8, "Q", "HHQ", 16) if big else (4, "I", "HHI", 8)
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8))
    )
    sizes = [struct.calcsize(order + CODES[kind] * len(values)) for _, kind, values in entries]
    tail_at = start + (8 if big else 2) + len(entries) * (struct.calcsize(order + entry) + inline) + inline
    data_at = tail_at + sum(size for size in sizes if size > inline)
    listed, tail = struct.pack(order + ("Q" if big else "H"), len(entries)), b""
    for (tag, kind, values), size in zip(entries, sizes, strict=True):
        held = [data_at + k * strip for k in range(planes)] if tag == 273 else values
        raw = struct.pack(order + CODES[kind] * len(held), *held)
        listed += struct.pack(order + entry, tag, kind, len(held))
        listed += raw.ljust(inline, b"\0") if size <= inline else struct.pack(order + pointer, tail_at + len(tail))
        tail += raw if size > inline else b""
    return head + listed + bytes(inline) + tail + data


def channels(count, dtype=np.uint8, seed=0):
    most = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    values = np.random.default_rng(seed).integers(0, 256, (5, 7, count))
    return (values / 255 * most + 0.5 * (most > 1)).astype(dtype)


def eight(pixels):
    return pixels if pixels.dtype == np.uint8 else np.floor(pixels / 257 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("extra", [SEPARATE, UNSPECIFIED, None])
def test_a_separate_alpha_leaves_the_colours_alone(dtype, order, big, extra):
    rgba = channels(4, dtype)
    data = tiff(rgba, RGB, None if extra is None else [extra], order=order, big=big)
    assert np.array_equal(decode_image(data, "a.tif"), eight(rgba[:, :, :3]))


@pytest.mark.parametrize("dtype", DEPTHS)
def test_colours_that_alpha_multiplied_are_divided_by_it(dtype):
    most = np.iinfo(dtype).max
    rgba = channels(4, dtype)
    rgba[0, :, 3], rgba[1, :, 3] = 0, most
    rgba[2:, :, 3] = np.maximum(rgba[2:, :, 3], most // 4)
    stored = rgba.copy()
    stored[:, :, :3] = np.floor(rgba[:, :, :3].astype(float) * rgba[:, :, 3:] / most + 0.5)
    found = decode_image(tiff(stored, RGB, [ASSOCIATED]), "a.tif").astype(int)
    assert not found[0].any()
    assert np.abs(found - eight(rgba[:, :, :3]))[1:].max() <= 2  # a quarter of the levels are left
    if dtype == np.uint8:
        pil = np.asarray(Image.open(io.BytesIO(tiff(stored, RGB, [ASSOCIATED]))).convert("RGB")).astype(int)
        assert np.abs(found - pil)[1:].max() <= 1


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_pages_with_alpha(compression):
    rgba, file = channels(4), io.BytesIO()
    Image.fromarray(rgba).save(file, "TIFF", compression=compression)
    assert np.array_equal(decode_image(file.getvalue(), "a.tif"), rgba[:, :, :3])


def test_grey_with_alpha_and_from_white():
    grey = channels(2)
    expected = np.repeat(grey[:, :, :1], 3, axis=2)
    assert np.array_equal(decode_image(tiff(grey, BLACK_IS_ZERO, [SEPARATE]), "a"), expected)
    assert np.array_equal(decode_image(tiff(255 - grey[:, :, :1], WHITE_IS_ZERO), "a"), expected)


@pytest.mark.parametrize(("photometric", "mode", "count"), [(CMYK, "CMYK", 4), (YCBCR, "YCbCr", 3)])
def test_inks_and_video_colours_come_close_to_pil(photometric, mode, count):
    values = channels(count)
    expected = np.asarray(Image.frombytes(mode, (7, 5), values.tobytes()).convert("RGB")).astype(int)
    assert (
        np.abs(decode_image(tiff(values, photometric, more=[(530, 3, [1, 1])]), "a").astype(int) - expected).max() <= 3
    )


def test_planes_of_eight_bits():
    assert np.array_equal(decode_image(tiff(channels(4), RGB, [SEPARATE], planar=2), "a"), channels(4)[:, :, :3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats(dtype):
    assert np.array_equal(decode_image(tiff(channels(3, dtype), RGB), "a"), channels(3))


def test_of_several_pages_the_first_is_taken():
    first, file = channels(3), io.BytesIO()
    more = [Image.fromarray(channels(3, seed=1)), Image.fromarray(channels(4, seed=2))]
    Image.fromarray(first).save(file, "TIFF", save_all=True, append_images=more)
    assert np.array_equal(decode_image(file.getvalue(), "a"), first)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("dtype", DEPTHS)
def test_orientation_is_applied(turn, dtype):
    rgb = channels(3, dtype)
    upright = rgb
    if turn in (3, 4, 6, 7):  # after the table of the format: where row 0 and column 0 are seen
        upright = upright[::-1]
    if turn in (2, 3, 7, 8):
        upright = upright[:, ::-1]
    if turn >= 5:
        upright = upright.swapaxes(0, 1)
    assert np.array_equal(decode_image(tiff(rgb, RGB, more=[(274, 3, [turn])]), "a"), eight(upright))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (tiff(channels(3), LAB), r"L\*a\*b\*"),
        (tiff(channels(3, np.uint16), LAB), r"L\*a\*b\*"),
        (tiff(channels(3), 9), r"L\*a\*b\*"),
        (tiff(channels(1), 4), "a mask"),
        (tiff(channels(3), 34892), "colours of kind 34892"),
        (tiff(channels(1, np.uint16), WHITE_IS_ZERO), "count from white"),
        (tiff(channels(1, np.float32), WHITE_IS_ZERO), "count from white"),
        (tiff(channels(4, np.uint16), CMYK), "16 bits of colours other than RGB"),
        (tiff(channels(1, np.uint16), 3), "16 bits of colours other than RGB"),
        (tiff(channels(3, np.uint16), RGB, planar=2), "separate planes"),
        (tiff(channels(3, np.float32), RGB, planar=2), "separate planes"),
        (tiff(channels(4, np.float32), RGB, [SEPARATE]), "4 channels of floating"),
        (tiff(channels(2), BLACK_IS_ZERO, [ASSOCIATED]), "premultiplied alpha"),
        (tiff(channels(3), RGB, more=[(258, 3, [5, 6, 5])]), "channels of 5 and 6 bits"),
        (tiff(channels(3, np.int16), RGB), "type int16"),
        (tiff(channels(3, np.uint32), RGB), r"type uint32|not a complete image"),  # OpenCV 5, 4
        (tiff(channels(5), RGB, [SEPARATE, UNSPECIFIED]), "not a complete image"),
        (tiff(channels(3), RGB, more=[(277, 3, [65535])]), "not a complete image"),
        (tiff(channels(3), RGB, more=[(258, 3, [8] * 1000)]), "not a complete image"),
        (tiff(channels(3), RGB, more=[(256, 4, [0])]), "not a complete image"),
        (tiff(channels(3), RGB, more=[(256, 4, [2**32 - 1])]), "would decode to 21,474,836,475 pixels"),
        (tiff(channels(3), RGB, more=[(322, 4, [2**31]), (323, 4, [16])]), "would decode to 34,359,738,368 pixels"),
        (b"II*\0\xff\xff\xff\xff", "not a complete image"),
        (b"MM\0+\0\x08\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "not a complete image"),
    ],
)
def test_what_would_be_misread_is_refused(data, says):
    with pytest.raises(UserError, match=says) as error:
        decode_image(data, "folder/a.tif")
    assert str(error.value).startswith("folder/a.tif ")
