"""One image that a user hands over, of whatever kind, becomes pixels, or one sentence that says which image it was."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from otfew.data.image import read_image
from otfew.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

_AS_THEY_ARE = frozenset({"L", "RGB", "F", "I"})
"""Modes of PIL whose numbers are grey or RGB already; those of 32-bit integers are then refused as such arrays are."""


def decode_picture(image: Any, index: int) -> npt.NDArray[Any]:
    """Turn one image into pixels.

    Args:
        image: A path, a PIL image, an array (height, width, 3) or (height, width) of uint8 or of floats in [0, 1], or a
            tensor (3, height, width) or (height, width) of such.
        index: Its place among others, for messages.

    Returns:
        (height, width, 3), uint8, or float32 with values in [0, 255].

    Raises:
        UserError: It is none of these, or holds NaN or values out of range.
    """
    if isinstance(image, str | os.PathLike) and not isinstance(os.fspath(image), bytes):
        return read_image(Path(image))
    array = _from_pil(image, index) if _is_pil(image) else _as_array(image, index)
    if isinstance(image, Tensor) and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        shape = tuple(image.shape) if isinstance(image, Tensor) else array.shape
        raise UserError(f"image {index} has shape {shape}: give (height, width, 3), or a (3, height, width) tensor.")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise UserError(f"image {index} is {array.dtype}: give uint8, or floating values in [0, 1].")
    if not np.isfinite(array).all():
        raise UserError(f"image {index} holds a NaN or an infinity: repair or remove it.")
    if array.min() < 0 or array.max() > 1:
        raise UserError(f"image {index} has values outside [0, 1]: scale it, or give uint8.")
    return np.ascontiguousarray(array.astype(np.float32) * 255)


def _as_array(image: Any, index: int) -> npt.NDArray[Any]:
    """Let numpy read an array, a tensor or nested lists; anything else is named."""
    if isinstance(image, np.ma.MaskedArray):
        raise UserError(f"image {index} is a masked array, of which the mask would be lost: fill it first.")
    if isinstance(image, Tensor):
        # numpy knows neither bfloat16 nor what lives elsewhere.
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image
    try:
        array = np.asarray(image) if _like_an_array(image) else None
    except (ValueError, TypeError, RuntimeError):
        array = None
    if array is None or array.dtype.kind not in "biufcO":
        kind = "None" if image is None else f"of type {type(image).__name__}"
        raise UserError(f"image {index} is {kind}: give a path, an array, a PIL image or a tensor.")
    return array


def _like_an_array(image: Any) -> bool:
    """Tell what holds numbers from what does not: numpy makes an array of anything."""
    return isinstance(image, np.ndarray | Tensor | list | tuple) or hasattr(image, "__array__")


def _is_pil(image: Any) -> bool:
    """Tell PIL's images without importing PIL: whoever has one has imported it."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def _from_pil(image: PILImage, index: int) -> npt.NDArray[Any]:
    """Take the pixels of a PIL image as its file's would be taken: alpha is dropped, a palette is looked up.

    Modes that PIL alone knows how to read (CMYK, YCbCr, palettes) go through its conversion; 16 bits become 8, rounded.
    """
    try:
        if image.mode.startswith("I;16"):
            return ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.asarray(image if image.mode in _AS_THEY_ARE else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(
            f"image {index}, of PIL's mode {image.mode}, cannot be read ({error}): convert it to RGB."
        ) from error
