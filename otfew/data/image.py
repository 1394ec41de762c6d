"""Any image file becomes (height, width, 3) uint8 RGB, or one clear sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.data.base import Image
from otfew.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".npy"})
"""Lower-case suffixes of the files that count as images."""

_SILENT = 0  # OpenCV's lowest log level
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def read_image(path: Path) -> Image:
    """Decode one file at its original resolution.

    Compressed files go through OpenCV: EXIF orientation is applied, grey becomes three equal channels, an alpha
    channel is dropped (as ``convert("RGB")`` of PIL does in the published loaders). 16-bit values are scaled to 8 bits,
    floats in [0, 1] to [0, 255], both rounded to the nearest. A ``.npy`` file holds (height, width) or
    (height, width, 1, 3 or 4), the channels in the order RGBA.

    Args:
        path: File with one of ``SUFFIXES``, in either case.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        UserError: The file cannot be read, is truncated or empty, or holds NaN, infinity or values outside [0, 1].
    """
    try:
        array = _read_npy(path) if path.suffix.lower() == ".npy" else _decode(path)
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror or error}.") from error
    return np.ascontiguousarray(_three_channels(_eight_bits(array, path), path))


def _read_npy(path: Path) -> npt.NDArray[Any]:
    """The array of a .npy file; pickled objects are refused."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise UserError(
            f"{path} is not a complete .npy array of numbers ({_first_line(error)}); write it again or remove it."
        ) from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is an archive of several arrays; store one image in each .npy file.")
    return array


def _decode(path: Path) -> npt.NDArray[Any]:
    """OpenCV's pixels in their own depth, RGB or grey."""
    import cv2

    # Reading the bytes here rather than in cv2.imread keeps non-ASCII paths working on every system.
    data = path.read_bytes()
    set_log_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # 4 and 5
    # The UserError says what is wrong. Threads that meet here may at worst leave OpenCV's own log off.
    log_level = set_log_level(_SILENT)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        pixels = None
    finally:
        set_log_level(log_level)
    if pixels is None or _is_cut_jpeg(data):
        raise UserError(f"{path} is not a complete image that OpenCV can decode; replace or remove it.")
    return pixels if pixels.ndim == 2 else pixels[:, :, ::-1]


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG's end marker is missing: some decoders fill the rest with grey and say nothing.

    The search starts at the last scan, behind any thumbnail in the header; inside a scan the marker cannot occur.
    """
    return data.startswith(_JPEG_START) and data.find(_JPEG_END, data.rfind(_JPEG_SCAN)) < 0


def _eight_bits(array: npt.NDArray[Any], path: Path) -> npt.NDArray[np.uint8]:
    """Scale any admitted depth to uint8."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{path} holds values of type {array.dtype}; store uint8, or floats between 0 and 1.")
    if not np.isfinite(array).all():
        raise UserError(f"{path} holds NaN or infinite values; repair or remove that image.")
    if array.size and (array.min() < 0 or array.max() > 1):
        raise UserError(
            f"{path} holds floats from {array.min():g} to {array.max():g}; scale them to [0, 1] or store uint8."
        )
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)


def _three_channels(array: npt.NDArray[np.uint8], path: Path) -> Image:
    """Grey, RGB or RGBA to RGB."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise UserError(f"{path} has shape {array.shape}; an image is (height, width, 3), RGB.")
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]


def _first_line(error: BaseException) -> str:
    """An error's first line, which is the one that says something."""
    return str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
