"""Generated pictures on disk: one file a split, checked by its digests whenever it is read."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError
from otfew.runs.files import write_atomically


@dataclass(frozen=True)
class Pictures:
    """Pictures and boxes of one split.

    Attributes:
        images: (images, side, side, 3) uint8 RGB.
        boxes: (images, 4) float32: x0, y0, x1, y1 in pixels.
        digest: Sha256 of the bytes of ``images``.
    """

    images: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    digest: str


def cached(name: str, folders: list[Path], make: Callable[[], Pictures]) -> Pictures:
    """Read pictures from the first folder that has them undamaged; else make them and keep them where that works.

    Args:
        name: File name, which has to change whenever the pictures would.
        folders: Where to look, and to write, in this order; folders that cannot be used are passed over.
        make: Makes the pictures.
    """
    for folder in folders:
        if (found := read(folder / name)) is not None:
            return found
    made = make()
    for folder in folders:
        with contextlib.suppress(UserError):
            write(folder / name, made)
            break
    return made


def read(path: Path) -> Pictures | None:
    """Read a file of pictures; None if there is none or it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            wanted = file.metadata() or {}
            images, boxes = file.get_tensor("images"), file.get_tensor("boxes")
    except (OSError, SafetensorError):
        return None
    digest = sha256(images)
    return Pictures(images, boxes, digest) if wanted == _metadata(digest, boxes) else None


def write(path: Path, pictures: Pictures) -> None:
    """Write pictures under a temporary name and rename, so that no reader ever sees half a file.

    Raises:
        UserError: If the folder cannot be made or written to.
    """
    from safetensors.numpy import save

    tensors: dict[str, npt.NDArray[Any]] = {"images": pictures.images, "boxes": pictures.boxes}
    write_atomically(path, save(tensors, metadata=_metadata(pictures.digest, pictures.boxes)))


def _metadata(digest: str, boxes: npt.NDArray[np.float32]) -> dict[str, str]:
    """Both digests in one entry: safetensors writes several in any order, and files would differ."""
    return {"sha256": f"{digest} {sha256(boxes)}"}


def sha256(array: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> str:
    """Sha256 of the bytes of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
