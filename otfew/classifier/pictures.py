"""Images as people hold them: any container goes by position, and one image is told from a list of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, KeysView, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from otfew.classifier.places import files_of
from otfew.data.decoding.picture import is_file, is_pil
from otfew.errors import UserError

if TYPE_CHECKING:
    from typing import BinaryIO

    from PIL.Image import Image as PILImage

Picture: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | npt.NDArray[Any] | Tensor | PILImage"
"""One image: what ``otfew.data.decoding.picture.decode_picture`` takes."""

ADVICE = "give a list of images"


def in_order(images: Any) -> Iterator[Any]:
    """Go through images by position, one at a time.

    Args:
        images: A list, tuple, iterator, pandas Series or Index, data set with ``[]`` and a length, array or tensor of
            four dimensions. An index of its own counts for nothing. Or the name of a folder, or a pattern: the images
            that ``otfew.classifier.places.find_photos`` finds there.

    Raises:
        UserError: One image or one path in place of a list, or a container that holds its items in no order.
    """
    if isinstance(images, str | os.PathLike) and (listed := _listed(images)):
        return iter(listed)
    if _is_picture(images):
        raise UserError(f"the images are {_told(images)}: {ADVICE}, of one in [ ] if there is only one.")
    unordered = isinstance(images, Mapping | Set) and not isinstance(images, KeysView)
    if unordered or hasattr(images, "columns"):
        what = "table" if hasattr(images, "columns") else "container that gives them no order"
        raise UserError(f"the images are a {type(images).__name__}, a {what}: {ADVICE}, or one column.")
    if isinstance(images, np.ma.MaskedArray):
        raise UserError(f"the images are a masked array, of which the mask would be lost: {ADVICE} without a mask.")
    if isinstance(images, np.ndarray | Tensor):
        _check_dimensions(images)
    if isinstance(images, Iterable):
        return iter(images)
    if hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        # Data sets of torch have no iteration of their own, and [] need not fail behind the last.
        return (images[i] for i in range(len(images)))
    raise UserError(f"the images are {_told(images)}: {ADVICE}.")


def count(images: Any) -> int | None:
    """Count images before any is touched; None where the container does not tell, or is a name."""
    if isinstance(images, str | os.PathLike):
        return None
    try:
        return len(images)
    except TypeError:
        return None


def _check_dimensions(images: npt.NDArray[Any] | Tensor) -> None:
    """Refuse an array that is one image, or cannot be told from one."""
    numeric = isinstance(images, Tensor) or images.dtype.kind in "biufc"
    if images.ndim == 3 and numeric:
        raise UserError(
            f"the images are one array of shape {tuple(images.shape)}, which may be a single image: "
            f"{ADVICE}, [image] for one, list(images) for a stack of grey ones."
        )
    if images.ndim in {0, 2} or (images.ndim not in {1, 4} and numeric):
        raise UserError(
            f"the images are one array of shape {tuple(images.shape)}: {ADVICE}, [image] for one, or an array "
            "(images, height, width, 3)."
        )


def _listed(place: str | os.PathLike[str]) -> list[Path] | None:
    """List what a folder or a pattern stands for; None for a file, which is one image in place of a list."""
    name = os.path.expanduser(os.fsdecode(place))
    if not name or "\0" in name or os.path.isfile(name):
        return None
    return files_of(place)


def _is_picture(image: Any) -> bool:
    """Tell a single image that numpy does not know as such."""
    return isinstance(image, str | bytes | bytearray | memoryview | os.PathLike) or is_pil(image) or is_file(image)


def _told(image: Any) -> str:
    """Name a thing by its kind, and itself where that is short."""
    if image is None:
        return "None"
    kind = type(image).__name__
    text = repr(image)
    return f"{kind} {text}" if len(text) <= 60 and "\n" not in text else f"a {kind}"
