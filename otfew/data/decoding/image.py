"""Any image file becomes (height, width, 3) uint8 RGB, or one clear sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from otfew.data.base import Image
from otfew.data.decoding import heic
from otfew.data.decoding.header import Header, foreign_format, image_header
from otfew.data.decoding.tiff import without_multiplication
from otfew.errors import UserError
from otfew.runs.regular_file import open_regular, read_regular

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".npy"})
"""Lower-case suffixes of the files that count as images; those of HEIC count beside them where it can be read."""

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded, unless the caller or ``MAX_PIXELS_VARIABLE`` says otherwise."""

MAX_PIXELS_VARIABLE = "OTFEW_MAX_PIXELS"
"""Environment variable that holds another limit."""

_BYTES_PER_PIXEL = 8  # four channels of 16 bits, uncompressed
_BYTES_PER_PIXEL_NPY = 32  # four channels of float64; only as many are read as the header says
_BYTES_BESIDE = 2**26  # profiles, thumbnails, a phone's video
_RAISE = f"remove it, or, if it can be trusted, raise the environment variable {MAX_PIXELS_VARIABLE}"
_SILENT = 0  # OpenCV's lowest log level
_ROWS = 256  # converted at once, which bounds the memory for intermediate values


def read_image(path: Path, *, max_pixels: int | None = None) -> Image:
    """Decode one file at its original resolution.

    Compressed files go through OpenCV: EXIF orientation is applied, grey becomes three equal channels, an alpha
    channel is dropped (as ``convert("RGB")`` of PIL does in the published loaders; colours that were multiplied by it
    are divided by it first), of several pages or frames the first is taken. 16-bit values are scaled to 8 bits, floats
    in [0, 1] to [0, 255], both rounded to the nearest. A ``.npy`` file holds (height, width) or (height, width, 1, 3 or
    4), the channels in the order RGBA. HEIC goes through pillow-heif where that is installed.

    Args:
        path: A regular file with one of ``SUFFIXES`` or ``heic.SUFFIXES``, in either case; its bytes, not its suffix,
            say what it holds.
        max_pixels: Refuse larger images before they are decoded; None takes $OTFEW_MAX_PIXELS, else 100 million.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        UserError: The file cannot be read, is no regular file, is too large, truncated or empty, holds colours that
            cannot be read as RGB, or NaN, infinity or values outside [0, 1].
    """
    limit = pixel_limit() if max_pixels is None else max_pixels
    try:
        if path.suffix.lower() == ".npy":
            with open_regular(path, limit * _BYTES_PER_PIXEL_NPY + _BYTES_BESIDE, _RAISE) as file:
                return to_rgb(_read_npy(file, str(path), limit), str(path))
        data = read_regular(path, largest_file(limit), _RAISE)
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror or error}.") from error
    return decode_image(data, str(path), max_pixels=limit)


def decode_image(data: bytes, name: str, *, max_pixels: int | None = None) -> Image:
    """Decode the bytes of an image file that is not a ``.npy``: see ``read_image``.

    Args:
        data: The whole file.
        name: What errors call it.
        max_pixels: As in ``read_image``.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        UserError: As ``read_image``.
    """
    header = image_header(data)
    if header is None:
        foreign = foreign_format(data)
        if foreign == "HEIC" and heic.installed():
            return to_rgb(heic.decode(data, name, lambda pixels: check_pixels(pixels, name, max_pixels)), name)
        if foreign == "HEIC":
            raise UserError(f'{name} holds HEIC data: run pip install "otfew[heic]", or convert it to JPEG or PNG.')
        if foreign:
            raise UserError(f"{name} holds {foreign} data; convert it to JPEG or PNG, or remove it.")
        raise _not_complete(name)
    check_pixels(header.pixels, name, max_pixels)
    if header.page is not None and header.page.unsupported:
        raise UserError(f"{name} holds {header.page.unsupported}; convert it to RGB with 8 or 16 bits a channel.")
    return to_rgb(_decode(data, header, name), name)


def pixel_limit() -> int:
    """The most pixels of an image that is decoded: $OTFEW_MAX_PIXELS, else ``MAX_PIXELS``.

    Raises:
        UserError: The variable holds no positive whole number.
    """
    given = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not given:
        return MAX_PIXELS
    if not given.isascii() or not given.isdigit() or len(given) > 18 or int(given) == 0:
        raise UserError(f"{MAX_PIXELS_VARIABLE}={given!r} is not a number of pixels; set it to such as {MAX_PIXELS}.")
    return int(given)


def largest_file(max_pixels: int | None = None) -> int:
    """The most bytes that are read of a file which is to hold an image of at most so many pixels.

    Args:
        max_pixels: As in ``read_image``.
    """
    return (pixel_limit() if max_pixels is None else max_pixels) * _BYTES_PER_PIXEL + _BYTES_BESIDE


def check_pixels(pixels: int, name: str, max_pixels: int | None = None) -> None:
    """Refuse an image of too many pixels.

    Args:
        pixels: As its header says.
        name: What the error calls it.
        max_pixels: As in ``read_image``.

    Raises:
        UserError: It has more.
    """
    limit = pixel_limit() if max_pixels is None else max_pixels
    if pixels > limit:
        raise UserError(
            f"{name} would decode to {pixels:,} pixels, more than the {limit:,} allowed; shrink or remove it, or, "
            f"if it can be trusted, set the environment variable {MAX_PIXELS_VARIABLE} to at least {pixels}."
        )


def to_rgb(array: npt.NDArray[Any], name: str) -> Image:
    """Make any admitted array of pixels (height, width, 3) uint8 RGB.

    Args:
        array: (height, width) or (height, width, 1, 3 or 4) of uint8, uint16, or floats in [0, 1].
        name: What errors call it.

    Raises:
        UserError: Another shape or type, NaN, infinity, or floats outside [0, 1].
    """
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise UserError(f"{name} has shape {array.shape}; an image is (height, width, 3), RGB.")
    pixels = _eight_bits(array[:, :, :3], name)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else np.ascontiguousarray(pixels)


def _read_npy(file: BinaryIO, name: str, limit: int) -> npt.NDArray[Any]:
    """The array of a .npy file, of which the header is looked at first; pickled objects are refused."""
    if file.peek(2)[:2] == b"PK":  # type: ignore[attr-defined]
        raise UserError(f"{name} is an archive of several arrays; store one image in each .npy file.")
    try:
        shape, dtype = _npy_header(file)
    except (ValueError, EOFError) as error:
        raise _no_npy(name, error) from error
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise UserError(f"{name} has shape {shape}; an image is (height, width, 3), RGB.")
    if dtype.kind not in "buif":
        raise _no_npy(name, ValueError(f"it holds {dtype}"))
    check_pixels(shape[0] * shape[1], name, limit)
    file.seek(0)
    try:
        return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OverflowError) as error:
        raise _no_npy(name, error) from error


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the values; ValueError where it is none of the versions that plain arrays have."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"its version is {version}")
    shape, _, dtype = readers[version](file)
    return shape, dtype


def _no_npy(name: str, error: BaseException) -> UserError:
    return UserError(
        f"{name} is not a complete .npy array of numbers ({_first_line(error)}); write it again or remove it."
    )


def _decode(data: bytes, header: Header, name: str) -> npt.NDArray[Any]:
    """OpenCV's pixels in their own depth, RGB or grey."""
    import cv2

    page, flags = header.page, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    encoded = np.frombuffer(data, np.uint8, header.end)
    if page is not None and page.separate_alpha:
        encoded = np.frombuffer(without_multiplication(data, page), np.uint8)
    if page is not None and page.premultiplied:
        flags = cv2.IMREAD_UNCHANGED  # keeps the alpha; of a TIFF it is only a flag of channels and depth
    set_log_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # 4 and 5
    # The UserError says what is wrong. Threads that meet here may at worst leave OpenCV's own log off.
    log_level = set_log_level(_SILENT)
    try:
        pixels = cv2.imdecode(encoded, flags)
    except cv2.error:
        pixels = None
    finally:
        set_log_level(log_level)
    if pixels is None:
        raise _not_complete(name)
    if page is not None and page.premultiplied:
        pixels = _divided_by_alpha(pixels)
    return pixels if pixels.ndim == 2 else pixels[:, :, ::-1]


def _divided_by_alpha(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Colours as they were before alpha multiplied them; black where nothing is left of them."""
    most = np.iinfo(pixels.dtype).max
    colours = np.empty((*pixels.shape[:2], 3), pixels.dtype)
    for start in range(0, len(pixels), _ROWS):
        rows = pixels[start : start + _ROWS].astype(np.float64)
        divided = rows[:, :, :3] * most / np.maximum(rows[:, :, 3:], 1)
        colours[start : start + _ROWS] = np.rint(np.minimum(divided, most))
    return colours


def _eight_bits(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Scale any admitted depth to uint8."""
    if array.dtype == np.uint8:
        return array
    floats = np.issubdtype(array.dtype, np.floating)
    if array.dtype != np.uint16 and not floats:
        raise UserError(f"{name} holds values of type {array.dtype}; store uint8, or floats between 0 and 1.")
    if floats and not np.isfinite(array).all():
        raise UserError(f"{name} holds NaN or infinite values; repair or remove that image.")
    if floats and (array.min() < 0 or array.max() > 1):
        raise UserError(
            f"{name} holds floats from {array.min():g} to {array.max():g}; scale them to [0, 1] or store uint8."
        )
    scaled = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), _ROWS):
        rows = array[start : start + _ROWS]
        scaled[start : start + _ROWS] = (
            np.rint(rows.astype(np.float64) * 255) if floats else (rows.astype(np.uint32) + 128) // 257
        )
    return scaled


def _not_complete(name: str) -> UserError:
    return UserError(f"{name} is not a complete image that OpenCV can decode; replace or remove it.")


def _first_line(error: BaseException) -> str:
    """An error's first line, which is the one that says something."""
    return str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
