"""Where a JPEG ends and how large it is, read from its markers without decoding it."""

from __future__ import annotations

import re
from dataclasses import dataclass

JPEG_START = b"\xff\xd8"

# As decoders do, both skip what is no marker: fill bytes, and what stands between segments against the rules.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # FF 00 is a data byte, FF D0 to FF D7 restart the coder

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # of the others, two hold tables and one is reserved
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True)
class JpegLayout:
    """What the markers of a whole JPEG say.

    Attributes:
        width: In pixels.
        height: In pixels.
        scans: Passes over the picture that a decoder makes.
        end: Bytes up to and with its end marker; a video, a second picture or padding may follow.
    """

    width: int
    height: int
    scans: int
    end: int


def jpeg_layout(data: bytes) -> JpegLayout | None:
    """Walk over the segments from the first marker to the end marker; None where that is missing: the file is cut.

    Segments are skipped by their lengths, so that neither the end marker of a thumbnail in the header nor one that
    comes by chance in a profile or behind the picture counts.

    Args:
        data: The file, from its start marker on.
    """
    position, scans, width, height = 2, 0, 0, 0
    marker_here = _MARKER
    while (found := marker_here.search(data, position)) is not None:
        marker, position = data[found.end() - 1], found.end()
        marker_here = _MARKER
        if marker == _EOI:
            return JpegLayout(width, height, scans, position) if scans and width and height else None
        if marker == _SOI:
            return None  # another picture begins before this one has ended
        if marker in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2:
            return None
        if marker in _FRAMES:
            height = max(height, int.from_bytes(data[position + 3 : position + 5], "big"))
            width = max(width, int.from_bytes(data[position + 5 : position + 7], "big"))
        elif marker == _SOS:
            scans += 1
            marker_here = _MARKER_IN_SCAN
        position += length
    return None
