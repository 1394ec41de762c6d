"""What the first bytes of an image file say of it, for every format that is accepted, before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from otfew.data.decoding.jpeg import JPEG_START, jpeg_layout
from otfew.data.decoding.tiff import TIFF_STARTS, TiffPage, tiff_page

SCANS = 20
"""Passes over a JPEG that are worth one decoding; progressive ones in use have at most about a dozen."""

_PNG_START = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Header:
    """A complete file of an accepted format.

    Attributes:
        pixels: What decoding costs, in pixels.
        end: Bytes that belong to the image; what follows is something else.
        page: The page of a TIFF.
    """

    pixels: int
    end: int
    page: TiffPage | None = None


def image_header(data: bytes) -> Header | None:
    """Read the header; None where the file is none of the accepted formats, or is visibly cut or damaged.

    Args:
        data: The whole file.
    """
    for start, read in _READERS:
        if data.startswith(start):
            try:
                return read(data)
            except struct.error:
                return None
    return None


def foreign_format(data: bytes) -> str:
    """Name a format that is not accepted, such as "HEIC"; "" where it isn't one of the well-known."""
    kind = data[8:12] if data[4:8] == b"ftyp" else b""
    known = {
        b"avif": "AVIF",
        b"avis": "AVIF",
        b"heic": "HEIC",
        b"heix": "HEIC",
        b"hevc": "HEIC",
        b"mif1": "HEIC",
        b"msf1": "HEIC",
    }
    if kind:
        return known.get(kind, "video")
    starts = {
        b"\0\0\0\x0cjP  ": "JPEG 2000",
        b"\xff\x4f\xff\x51": "JPEG 2000",
        b"\0\0\0\x0cJXL ": "JPEG XL",
        b"\xff\x0a": "JPEG XL",
        b"%PDF": "PDF",
        b"<svg": "SVG",
        b"<?xml": "SVG",
        b"<!DOCTYPE html": "web page",
        b"<html": "web page",
        b"PK\3\4": "ZIP",
        b"8BPS": "Photoshop",
    }
    return next((name for start, name in starts.items() if data.startswith(start)), "")


def _jpeg(data: bytes) -> Header | None:
    layout = jpeg_layout(data)
    if layout is None:
        return None
    return Header(layout.width * layout.height * -(-layout.scans // SCANS), layout.end)


def _png(data: bytes) -> Header | None:
    """The first chunk is the only one that gives the size; the last one must be there."""
    position, pixels = len(_PNG_START), 0
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if (kind == b"IHDR") != (position == len(_PNG_START)):
            return None
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", data, position + 8)
            pixels = width * height
        position += 12 + length
        if kind == b"IEND":
            return Header(pixels, position) if position <= len(data) else None
    return None


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return Header(abs(width) * abs(height), len(data))  # a negative height means top-down


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header(width * height, len(data))


def _webp(data: bytes) -> Header | None:
    """Lossy, lossless, or extended: there the canvas, which the frames cannot exceed."""
    if data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    else:
        return None
    return Header(width * height, len(data))


def _tiff(data: bytes) -> Header | None:
    page = tiff_page(data)
    return None if page is None else Header(page.pixels, len(data), page)


_READERS: tuple[tuple[bytes, Callable[[bytes], Header | None]], ...] = (
    (JPEG_START, _jpeg),
    (_PNG_START, _png),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"GIF8", _gif),
    *((start, _tiff) for start in TIFF_STARTS),
)
