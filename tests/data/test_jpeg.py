"""Whole JPEGs decode whatever follows them; cut ones are refused whatever they hold."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from otfew.data.decoding.image import decode_image
from otfew.data.decoding.jpeg import jpeg_layout
from otfew.errors import UserError

END = b"\xff\xd9"
KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 1},
    "progressive restarts": {"progressive": True, "restart_marker_rows": 1},
    "optimised": {"optimize": True, "subsampling": 0},
    "grey": {},
    "cmyk": {},
}


def jpeg(kind="baseline", seed=0, size=(61, 43)):
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)
    image = image.convert({"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB"))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **KINDS[kind])
    return file.getvalue()


def with_segment(data, marker, body):
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]


def with_thumbnail(data):
    return with_segment(data, 0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + jpeg(seed=5, size=(16, 12)))


def with_profile(data):
    """A profile that holds every marker there is."""
    return with_segment(data, 0xE2, b"ICC_PROFILE\0" + bytes(b for m in range(256) for b in (0xFF, m)) + END)


TAILS = {
    "nothing": b"",
    "zeros": bytes(4096),
    "a video": np.random.default_rng(3).bytes(200_000),
    "scan markers": b"\xff\xda" * 500,
    "end markers": END * 3,
    "a second picture": jpeg(seed=7),
    "a cut second picture": jpeg(seed=7)[:-30],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "dress", [lambda data: data, with_thumbnail, with_profile], ids=["bare", "thumbnail", "profile"]
)
@pytest.mark.parametrize("tail", TAILS)
def test_whole_pictures_decode_alike_whatever_follows(kind, dress, tail):
    plain = jpeg(kind)
    expected = decode_image(plain, "a.jpg")
    pil = np.asarray(Image.open(io.BytesIO(plain)).convert("RGB")).astype(int)
    assert np.abs(expected.astype(int) - pil).max() <= (0 if kind != "cmyk" else 3)
    assert np.array_equal(decode_image(dress(plain) + TAILS[tail], "a.jpg"), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "dress", [lambda data: data, with_thumbnail, with_profile], ids=["bare", "thumbnail", "profile"]
)
@pytest.mark.parametrize("padding", [b"", bytes(5000)], ids=["cut", "zeros"])
def test_pictures_cut_anywhere_are_refused(kind, dress, padding):
    whole = dress(jpeg(kind))
    scan = whole.rfind(b"\xff\xda")
    places = {2, 30, len(whole) // 2, scan + 1, scan + 20, len(whole) - 40, len(whole) - 2, len(whole) - 1}
    for length in sorted(places):
        with pytest.raises(UserError, match="not a complete image"):
            decode_image(whole[:length] + padding, "a.jpg")


def test_a_picture_that_another_interrupts_is_refused():
    with pytest.raises(UserError, match="not a complete image"):
        decode_image(jpeg()[:-60] + jpeg(seed=7), "a.jpg")


def test_fill_bytes_and_strays_between_segments_are_skipped():
    data = jpeg()
    table = data.index(b"\xff\xdb")
    for stray in (b"\xff\xff\xff", b"\0\0\0", b"\xff\x01"):
        assert jpeg_layout(data[:table] + stray + data[table:]).end == len(data) + len(stray)
    assert np.array_equal(decode_image(data[:-2] + b"\xff\xff" + END, "a"), decode_image(data, "a"))


def test_layout():
    layout = jpeg_layout(jpeg() + TAILS["a video"])
    assert (layout.width, layout.height, layout.scans, layout.end) == (61, 43, 1, len(jpeg()))
    assert jpeg_layout(jpeg("progressive")).scans > 3
    for damaged in (b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xe0\0\1" + END, b"\xff\xd8\xff\xda\0\2" + END):
        assert jpeg_layout(damaged) is None


def test_a_scan_repeated_without_end_is_refused():
    data = jpeg("progressive", size=(2000, 1500))
    last = data[data.rfind(b"\xff\xda") : -2]
    with pytest.raises(UserError, match="would decode to 303,000,000 pixels"):
        decode_image(data[:-2] + last * 2000 + END, "a.jpg")
