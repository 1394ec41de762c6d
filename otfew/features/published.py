"""Features as other codebases publish them: pickles of label -> vectors (``output.plk``), and tensors in ``.pt`` files.

Both go through restricted readers: nothing in the files is run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.backbones.tensor_files import check_dense, load_plain
from otfew.data.restricted_pickle import load_by_label
from otfew.errors import UserError
from otfew.runs.regular_file import GIB, regular_size
from otfew.runs.stored_arrays import Stored

PICKLES = (".plk", ".pkl", ".pickle")
TENSORS = (".pt", ".pth")
ENDINGS = (*PICKLES, *TENSORS)
"""Endings of the files that are read here."""
LARGEST = 32 * GIB

_VALUES = ("nodes", "features", "data", "embeddings")
_LABELS = ("labels", "label", "targets", "target")

ByLabel = Mapping[int | str, npt.NDArray[Any]]


def open_published(path: Path) -> dict[str, Stored]:
    """Read features and labels.

    Args:
        path: A ``.plk``, ``.pkl`` or ``.pickle`` file: a dictionary of label -> list of vectors (channels,) or node
            sets (nodes, channels), or label -> one array of them, as S2M2, PT-MAP and LST write it. Or a ``.pt`` or
            ``.pth`` file: a dictionary with "features" (also "nodes", "data" or "embeddings") and "labels" (also
            "targets"), whose classes may be an axis of their own as in PT-MAP's, (classes, images, channels) beside
            (classes, images); or one of label -> tensor.

    Returns:
        "features" (images, channels) or (images, nodes, channels), and "labels" (images,), and "base_mean" where the
        file has it.

    Raises:
        UserError: The file cannot be read, asks to run something, or holds anything else.
    """
    if path.suffix in PICKLES:
        return _together(
            {label: _stacked(vectors, label, path) for label, vectors in load_by_label(path).items()}, path
        )
    regular_size(path, LARGEST)
    held = load_plain(path, "features")
    if not isinstance(held, Mapping) or not held:
        raise _wrong(path, f"a {type(held).__name__}")
    for name, tensor in held.items():
        if isinstance(tensor, Tensor):
            check_dense(tensor, str(name), path)
    values = next((held[name] for name in _VALUES if name in held), None)
    labels = next((held[name] for name in _LABELS if name in held), None)
    if isinstance(values, Tensor) and isinstance(labels, Tensor):
        return _beside(values, labels, held.get("base_mean"))
    if all(isinstance(key, int | str) and isinstance(tensor, Tensor) for key, tensor in held.items()):
        return _together({key: _numpy(tensor) for key, tensor in held.items()}, path)
    raise _wrong(path, f"the entries {', '.join(map(str, list(held)[:5]))}")


def _beside(values: Tensor, labels: Tensor, mean: object) -> dict[str, Stored]:
    """Describe features that stand beside their labels."""
    if labels.ndim == 2 and values.ndim >= 3 and values.shape[:2] == labels.shape:
        values, labels = values.flatten(0, 1), labels.flatten()
    found = {"features": _stored(values), "labels": _stored(labels)}
    return found if not isinstance(mean, Tensor) else {**found, "base_mean": _stored(mean)}


def _together(by_label: ByLabel, path: Path) -> dict[str, Stored]:
    """Put the images of all labels into one array, label after label."""
    shapes = {array.shape[1:] for array in by_label.values()}
    if len(shapes) != 1 or not all(array.ndim in {2, 3} for array in by_label.values()):
        told = ", ".join(str(shape) for shape in sorted(shapes)[:3])
        raise _wrong(path, f"features of the shapes {told}")
    # Numbers and names in one file would be sorted as text: 10 before 2.
    kinds = {type(label) for label in by_label}
    labels = [label for label, array in by_label.items() for _ in range(len(array))]
    texts = np.array([str(label) for label in labels]) if len(kinds) > 1 or str in kinds else np.array(labels)
    images = sum(len(array) for array in by_label.values())
    values = np.empty((images, *shapes.pop()), np.float32)
    np.concatenate(list(by_label.values()), out=values, casting="same_kind")
    return {"features": _stored(torch.from_numpy(values)), "labels": _stored(texts)}


def _stacked(vectors: list[npt.NDArray[Any]], label: int | str, path: Path) -> npt.NDArray[Any]:
    """Put the vectors of one label together."""
    shapes = {vector.shape for vector in vectors}
    if len(shapes) != 1 or math.prod(next(iter(shapes))) == 0:
        raise _wrong(path, f"{len(vectors)} vectors of {len(shapes)} shapes for the label {label!r}")
    return np.stack(vectors).astype(np.float32, copy=False)


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    return array


def _stored(values: Tensor | npt.NDArray[Any]) -> Stored:
    """Describe what is in memory already."""
    if isinstance(values, Tensor):
        kept = values.detach()
        dtype = str(kept.dtype).removeprefix("torch.")
        return Stored(tuple(kept.shape), dtype, lambda: kept.float().contiguous(), lambda: _numpy(kept))
    array = values
    return Stored(array.shape, array.dtype.name, lambda: torch.from_numpy(array).float(), lambda: array)


def _wrong(path: Path, what: str) -> UserError:
    """Say what a file should hold."""
    return UserError(
        f"features file {path} holds {what}: it needs label -> vectors, or 'features' beside 'labels', all of "
        "one shape."
    )
