"""What the first page of a TIFF holds, and which of the kinds OpenCV reads as they are meant."""

from __future__ import annotations

import struct
from dataclasses import dataclass

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # bytes, shorts, longs and those of 64 bits: all that the tags below take
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = 256, 257, 258, 262, 277, 284, 338, 339
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_WANTED = {_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT, _TILE_WIDTH, _TILE_HEIGHT}
_MOST_VALUES = 64
"""An image has few channels; tags that list more values than so many are no image's."""

_ASSOCIATED, _SEPARATE = 1, 2  # alpha that the colours are multiplied by, and alpha that they are not
_FLOATS = 3
_DEPTHS = (1, 2, 4, 8, 10, 12, 14, 16, 32, 64)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {
    -1: "colours without a declared kind",
    4: "a mask",
    **dict.fromkeys((8, 9, 10), "L*a*b* colours"),
    32803: "raw sensor values",
}


@dataclass(frozen=True)
class TiffPage:
    """The first page.

    Attributes:
        pixels: Of the page, or of a tile if that is larger: the most that a decoder holds at once.
        premultiplied: Its colours are multiplied by its alpha.
        unsupported: What keeps it from being read as it is meant, such as "L*a*b* colours"; "" if nothing does.
        separate_alpha: Byte ranges of the tag's values that make OpenCV multiply the colours by alpha.
    """

    pixels: int
    premultiplied: bool
    unsupported: str
    separate_alpha: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Tag:
    values: tuple[int, ...]
    offset: int
    size: int


def tiff_page(data: bytes) -> TiffPage | None:
    """Read the tags of the first page; None where they cannot be read.

    Args:
        data: The file.
    """
    try:
        tags = _first_page(data)
    except (struct.error, ValueError, OverflowError):
        return None

    def one(tag: int, otherwise: int) -> int:
        return tags[tag].values[0] if tag in tags else otherwise

    width, height = one(_WIDTH, 0), one(_HEIGHT, 0)
    if not width or not height:
        return None
    extra = tags.get(_EXTRA)
    separate = () if extra is None else tuple(i for i, value in enumerate(extra.values) if value == _SEPARATE)
    return TiffPage(
        pixels=max(width * height, one(_TILE_WIDTH, 0) * one(_TILE_HEIGHT, 0)),
        premultiplied=extra is not None and _ASSOCIATED in extra.values,
        unsupported=_unsupported(
            one(_PHOTOMETRIC, -1),
            one(_SAMPLES, 1),
            tags[_BITS].values if _BITS in tags else (1,),
            planar=one(_PLANAR, 1) != 1,
            floats=one(_FORMAT, 1) == _FLOATS,
            premultiplied=extra is not None and _ASSOCIATED in extra.values,
        ),
        separate_alpha=()
        if extra is None
        else tuple((extra.offset + i * extra.size, extra.offset + (i + 1) * extra.size) for i in separate),
    )


def without_multiplication(data: bytes, page: TiffPage) -> bytearray:
    """Declare a separate alpha to be a channel of no special meaning, which decoders pass on and do not multiply by."""
    changed = bytearray(data)
    for start, stop in page.separate_alpha:
        changed[start:stop] = bytes(stop - start)
    return changed


def _unsupported(
    photometric: int, samples: int, bits: tuple[int, ...], *, planar: bool, floats: bool, premultiplied: bool
) -> str:
    """What OpenCV would read as something else than it is."""
    depth, colour = max(bits), _COLOURS.get(photometric, f"colours of kind {photometric}")
    wide = depth > 8
    faults = (
        (photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR), colour),
        (len(set(bits)) > 1 or depth not in _DEPTHS, f"channels of {' and '.join(map(str, sorted(set(bits))))} bits"),
        (wide and photometric == _WHITE_IS_ZERO, f"grey values of {depth} bits that count from white"),
        (wide and photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB), f"{depth} bits of colours other than RGB"),
        (wide and planar and samples > 1, f"channels of {depth} bits in separate planes"),
        (floats and samples not in (1, 3), f"{samples} channels of floating numbers"),
        (
            premultiplied and (photometric != _RGB or samples != 4 or depth not in (8, 16)),
            "premultiplied alpha beside other channels than RGB of 8 or 16 bits",
        ),
    )
    return next((said for wrong, said in faults if wrong), "")


def _first_page(data: bytes) -> dict[int, _Tag]:
    """The tags that matter, in a classic or a big TIFF of either order of bytes."""
    order = ">" if data[:1] == b"M" else "<"
    big = data[:4] in TIFF_STARTS[2:]
    start, count_code, entry_code = (8, "Q", "HHQ") if big else (4, "H", "HHI")
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, start)
    (count,) = struct.unpack_from(order + count_code, data, offset)
    offset += struct.calcsize(order + count_code)
    inline = 8 if big else 4
    step = struct.calcsize(order + entry_code) + inline
    tags: dict[int, _Tag] = {}
    # The tags' numbers are 16 bits wide and ascend, so that a longer list repeats itself.
    for k in range(min(count, 2**16)):
        tag, kind, length = struct.unpack_from(order + entry_code, data, offset + k * step)
        if tag not in _WANTED or tag in tags:
            continue
        if kind not in _TYPES or not 0 < length <= _MOST_VALUES:
            raise ValueError(f"tag {tag} has {length} values of type {kind}")
        size = struct.calcsize(order + _TYPES[kind])
        place = offset + (k + 1) * step - inline
        if size * length > inline:
            (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
        tags[tag] = _Tag(struct.unpack_from(f"{order}{length}{_TYPES[kind]}", data, place), place, size)
    return tags
