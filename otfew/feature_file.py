"""A user's own features, read from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from otfew.errors import UserError
from otfew.features import FeatureSet
from otfew.files import sha256_of

Array = npt.NDArray[Any]


def load_feature_file(path: str | Path) -> FeatureSet:
    """Read features and labels from ``.safetensors`` or ``.npz``.

    The file holds ``nodes`` (images, nodes, channels), or ``features`` of that shape or (images, channels), ``labels``
    (images,) of integers or strings (npz only), and, if it wants, ``base_mean`` (channels,).

    Raises:
        UserError: The file cannot be read, lacks an array, or holds a wrong shape, a NaN or an infinity.
    """
    path = Path(path)
    arrays = _read(path)
    name = next((n for n in ("nodes", "features") if n in arrays), None)
    if name is None or "labels" not in arrays:
        raise UserError(
            f"features file {path} holds {', '.join(sorted(arrays)) or 'nothing'}: "
            "it needs 'nodes' or 'features', and 'labels'."
        )
    values, labels = arrays[name], arrays["labels"]
    if values.ndim == 2:
        values = values[:, None]
    if values.ndim != 3 or 0 in values.shape or values.dtype.kind != "f":
        raise UserError(
            f"{name!r} in features file {path} is {values.dtype} of shape {arrays[name].shape}: "
            "it must be floating, (images, channels) or (images, nodes, channels), and not empty."
        )
    if labels.shape != values.shape[:1] or labels.dtype.kind not in "iuUS":
        raise UserError(
            f"'labels' in features file {path} is {labels.dtype} of shape {labels.shape}: "
            f"it must be integers or strings of shape ({len(values)},), one for each image."
        )
    values = values.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(values).all((1, 2)))
    if len(bad):
        raise UserError(
            f"{name!r} in features file {path} holds a NaN or an infinity at image {bad[0]}: "
            "remove or repair that image's features."
        )
    names, indices = np.unique(labels, return_inverse=True)
    classes = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names.tolist())
    mean = _base_mean(arrays, values.shape[2], path)
    source = {"features_sha256": sha256_of(path)}
    return FeatureSet(
        torch.from_numpy(values), indices.astype(np.int64), classes, nodes_spec="file", base_mean=mean, source=source
    )


def _read(path: Path) -> dict[str, Array]:
    """Read all arrays, never unpickling."""
    if not path.is_file():
        raise UserError(f"features file {path} does not exist: give a .safetensors or .npz file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return dict(load_file(path))
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"features file {path} cannot be read ({reason}): write it again.") from error
    raise UserError(f"features file {path} is of an unknown kind: give a .safetensors or .npz file.")


def _base_mean(arrays: dict[str, Array], channels: int, path: Path) -> torch.Tensor | None:
    """Check the optional mean of the base classes."""
    if "base_mean" not in arrays:
        return None
    mean = arrays["base_mean"]
    if mean.shape != (channels,) or mean.dtype.kind != "f" or not np.isfinite(mean).all():
        raise UserError(
            f"'base_mean' in features file {path} is {mean.dtype} of shape {mean.shape}: "
            f"it must be finite and floating, of shape ({channels},)."
        )
    return torch.from_numpy(mean.astype(np.float32))
