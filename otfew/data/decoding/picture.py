"""One image that a user hands over, of whatever kind, becomes pixels, or one sentence that says which image it was."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.data.decoding.image import check_pixels, decode_image, largest_file, read_image, to_rgb
from otfew.errors import UserError

_ORIENTATION = 0x0112  # the tag of EXIF


def decode_picture(image: object, index: int) -> npt.NDArray[Any]:
    """Turn any kind of image into RGB pixels.

    Args:
        image: A path, which may begin with ``~``; an array (height, width) or (height, width, 1, 3 or 4); a tensor
            (height, width) or (1, 3 or 4, height, width); a PIL image, turned upright by its EXIF orientation as a
            file's pixels are; the bytes of an image file; or an open binary file, read from where it stands, where it
            stands again afterwards if it can. Arrays and tensors hold uint8, or floating values in [0, 1]; alpha is
            dropped.
        index: Its place among the user's images, for errors.

    Returns:
        (height, width, 3) uint8, or float32 with values in [0, 255] where the user's were floating.

    Raises:
        UserError: It cannot be used; the sentence names the path, or "image K".
    """
    name = name_of(image, index)
    if isinstance(image, str | os.PathLike):
        if not name:
            raise UserError(f"image {index} is an empty path: give that of a file.")
        return read_image(Path(name))
    if is_file(image):
        image = _bytes_of(image, name)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image), name)
    if isinstance(image, Tensor):
        return _pixels(_channels_last(image, name), name, "a (3, height, width) tensor")
    if is_pil(image):
        return _from_pil(image, name)
    if isinstance(image, list | tuple) or not (isinstance(image, np.ndarray) or hasattr(image, "__array__")):
        kind = "None" if image is None else f"of type {type(image).__name__}"
        raise UserError(f"{name} is {kind}: give a path, an array (height, width, 3), a tensor or a PIL image.")
    if isinstance(image, np.ma.MaskedArray) and np.ma.is_masked(image):
        raise UserError(f"{name} has masked values, which no method leaves out: fill them first.")
    return _pixels(np.asarray(image), name, "(height, width, 3)")


def name_of(image: object, index: int) -> str:
    """What a user would call an image: its path, that of an open file, or "image K".

    Args:
        image: As in ``decode_picture``.
        index: Its place among the user's images.
    """
    if isinstance(image, str | os.PathLike):
        return os.path.expanduser(os.fsdecode(image))
    path = getattr(image, "name", None) if is_file(image) else None
    return path if isinstance(path, str) and path else f"image {index}"


def is_file(image: object) -> bool:
    """Whether it is an open file, or what can be read like one."""
    return all(callable(getattr(image, method, None)) for method in ("read", "readline", "close"))


def _bytes_of(file: Any, name: str) -> bytes:
    """Read an open file from where it stands, and go back there if it can go back."""
    most = largest_file()
    try:
        start = file.tell() if file.seekable() else None
        data = file.read(most + 1)
        if start is not None:
            file.seek(start)
    except (OSError, ValueError, AttributeError, TypeError, EOFError) as error:
        told = str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
        raise UserError(f"{name} is a file that cannot be read ({told}): open it anew, in binary mode.") from error
    if not isinstance(data, bytes):
        raise UserError(f"{name} is a file opened as text: open it in binary mode, open(path, 'rb').")
    if not data:
        raise UserError(f"{name} is a file with nothing left to read: open it anew, or seek(0).")
    if len(data) > most:
        raise UserError(f"{name} has more than {most:,} bytes, the most that is read of an image: shrink it.")
    return data


def _pixels(array: npt.NDArray[Any], name: str, wanted: str) -> npt.NDArray[Any]:
    """RGB of an array whose channels come last; floating values are not rounded."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(f"{name} has shape {array.shape}, channels last: give {wanted}, one image at a time.")
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        raise UserError(f"{name} is {array.dtype}: give uint8, or floating values in [0, 1].")
    rgb = array[:, :, :3] if array.shape[2] > 1 else np.repeat(array, 3, axis=2)
    if rgb.dtype == np.uint8:
        return np.ascontiguousarray(rgb)
    if not np.isfinite(rgb).all():
        raise UserError(f"{name} holds a NaN or an infinity: repair or remove it.")
    if rgb.min() < 0 or rgb.max() > 1:
        raise UserError(f"{name} has values outside [0, 1]: scale it, or give uint8.")
    return np.ascontiguousarray(rgb.astype(np.float32) * 255)


def _channels_last(image: Tensor, name: str) -> npt.NDArray[Any]:
    """A tensor's values in memory of this machine; numpy has no bfloat16."""
    if image.is_meta or image.layout is not torch.strided:
        raise UserError(f"{name} is a tensor without plain values: give a dense one on a device.")
    values = image.detach()
    array = (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def is_pil(image: object) -> bool:
    """Whether it comes from PIL, which only a caller that has made one has imported."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def _from_pil(image: Any, name: str) -> npt.NDArray[np.uint8]:
    """The pixels of a PIL image by the rules that hold for files."""
    check_pixels(image.width * image.height, name)
    try:
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{name} is a PIL image that cannot be decoded ({error}); replace or remove it.") from error
    return _upright(to_rgb(_modes(image, name), name), orientation)


def _modes(image: Any, name: str) -> npt.NDArray[Any]:
    """Grey of 16 bits and floats keep their depth; other modes become RGB of 8 bits."""
    mode = image.mode
    if mode == "LAB":
        raise UserError(f"{name} is a PIL image in L*a*b* colours; convert it to RGB.")
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if mode == "F":
        return np.asarray(image)
    if mode == "I":
        values = np.asarray(image)
        if image.format != "PNG" or values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
            raise UserError(f"{name} is a PIL image of whole numbers without a known largest; convert it to RGB.")
        return values.astype(np.uint16)  # how older releases of PIL open 16 bits of grey
    straight = {"RGBa": "RGBA", "La": "LA"}.get(mode)
    return np.asarray((image.convert(straight) if straight else image).convert("RGB"))


def _upright(pixels: npt.NDArray[np.uint8], orientation: object) -> npt.NDArray[np.uint8]:
    """Undo the turn or mirroring that an EXIF orientation, 1 to 8, declares."""
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels)
