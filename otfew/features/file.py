"""A user's own features, read from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from os.path import exists
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.errors import UserError
from otfew.features import published
from otfew.features.extract import FeatureSet
from otfew.runs.files import reason as system_reason
from otfew.runs.files import sha256_of
from otfew.runs.stored_arrays import FLOATING, Stored, open_npz, open_safetensors, pieces

T = TypeVar("T")


def load_feature_file(path: str | Path) -> FeatureSet:
    """Read features and labels from ``.safetensors`` or ``.npz``, or as others publish them (``features.published``).

    The file holds ``nodes`` (images, nodes, channels), or ``features`` of that shape or (images, channels), ``labels``
    (images,) of integers or strings (npz only), and, if it wants, ``base_mean`` (channels,). Features of float16,
    bfloat16 (safetensors only) and float64 are converted to float32.

    Little more is held than the features once, as float32; of a safetensors file in float32 they stay on disk.

    Args:
        path: Of the file.

    Returns:
        Nodes (images, nodes, channels) float32, one node an image where the file has vectors, and labels; classes are
        sorted.

    Raises:
        UserError: The file cannot be read, lacks an array, or holds a wrong shape or type, a NaN or an infinity.
    """
    path = Path(path)
    arrays = _open(path)
    name = next((n for n in ("nodes", "features") if n in arrays), None)
    if name is None or "labels" not in arrays:
        raise UserError(
            f"features file {path} holds {', '.join(sorted(arrays)) or 'nothing'}: "
            "it needs 'nodes' or 'features', and 'labels'."
        )
    stored, labels = arrays[name], _read(path, arrays["labels"].array)
    if len(stored.shape) == 4:
        raise UserError(
            f"{name!r} in features file {path} has shape {stored.shape}: it must be (images, channels) or (images, "
            "nodes, channels); maps (images, channels, height, width) become nodes by "
            "maps.reshape(*maps.shape[:2], -1).swapaxes(1, 2)."
        )
    if len(stored.shape) not in {2, 3} or 0 in stored.shape or not stored.floating:
        raise UserError(
            f"{name!r} in features file {path} is {stored.dtype} of shape {stored.shape}: it must be floating "
            f"({', '.join(FLOATING)}), (images, channels) or (images, nodes, channels), and not empty."
        )
    if labels.shape != stored.shape[:1] or labels.dtype.kind not in "iuUS":
        raise UserError(
            f"'labels' in features file {path} is {labels.dtype} of shape {labels.shape}: "
            f"it must be integers or strings of shape ({stored.shape[0]},), one for each image."
        )
    values = _read(path, stored.floats)
    if values.ndim == 2:
        values = values[:, None]
    if (bad := _first_bad(values)) is not None:
        raise UserError(
            f"{name!r} in features file {path} holds a NaN or an infinity at image {bad}: "
            "remove or repair that image's features."
        )
    names, indices = np.unique(labels, return_inverse=True)
    classes = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names.tolist())
    mean = _base_mean(arrays, values.shape[2], path)
    source = {"features_sha256": sha256_of(path)}
    return FeatureSet(values, indices.astype(np.int64), classes, nodes_spec="file", base_mean=mean, source=source)


def labels_digest(labels: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """Hash which image is of which class: sha256 over the names of the classes and, image after image, their numbers.

    The order of classes counts, since episodes draw them by number; their names are hashed as text, so that 3 and "3"
    are one name.
    """
    digest = hashlib.sha256("\0".join(["otfew labels 1", *classes]).encode(errors="surrogatepass"))
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _open(path: Path) -> dict[str, Stored]:
    """Look at all arrays."""
    if not exists(path):
        raise UserError(f"features file {path} does not exist: give a .safetensors or .npz file.")
    if path.suffix in published.ENDINGS:
        return _read(path, lambda: published.open_published(path))
    if path.suffix not in {".safetensors", ".npz"}:
        raise UserError(f"features file {path} is of an unknown kind: give a .safetensors, .npz, .plk or .pt file.")
    return _read(path, lambda: open_safetensors(path) if path.suffix == ".safetensors" else open_npz(path))


def _read(path: Path, read: Callable[[], T]) -> T:
    """Read, and say in a sentence what is wrong with the file."""
    try:
        return read()
    except UserError:
        raise
    except OSError as error:  # says nothing of what the file holds
        raise UserError(f"features file {path} cannot be read ({system_reason(error)}).") from error
    except Exception as error:  # a damaged file may raise nearly any exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"features file {path} cannot be read ({reason}): write it again.") from error


def _first_bad(values: Tensor) -> int | None:
    """Return the first image with a NaN or an infinity; looks at a piece at a time."""
    for rows in pieces(values.shape, values.element_size()):
        finite = torch.isfinite(values[rows]).flatten(1).all(1)
        if not bool(finite.all()):
            return int(rows.start) + int((~finite).nonzero()[0])
    return None


def _base_mean(arrays: dict[str, Stored], channels: int, path: Path) -> Tensor | None:
    """Check the optional mean of the base classes."""
    if "base_mean" not in arrays:
        return None
    stored = arrays["base_mean"]
    mean = _read(path, stored.floats) if stored.shape == (channels,) and stored.floating else None
    if mean is None or not bool(torch.isfinite(mean).all()):
        raise UserError(
            f"'base_mean' in features file {path} is {stored.dtype} of shape {stored.shape}: "
            f"it must be finite and floating, of shape ({channels},)."
        )
    return mean
