"""Some problems of a batch, by the rules by which numpy chooses elements of an array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor


def chosen(key: Any, batch: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Numbers in the flat batch of the problems that a key chooses, in the shape that they then have.

    Args:
        key: Whole numbers, slices, ..., and arrays or tensors of whole numbers or bool, or a tuple of these.
        batch: Shape of the batch.

    Raises:
        IndexError: The key does not fit.
    """
    keys = tuple(map(_here, key)) if isinstance(key, tuple) else _here(key)
    if not batch and key != () and key is not ...:
        raise IndexError("the result is that of one problem without a batch, so there is nothing to index")
    try:
        found = np.arange(math.prod(batch)).reshape(batch)[keys]
    except IndexError as error:
        raise IndexError(f"result[{_said(key)}] does not fit the batch shape {batch}: {error}") from None
    return np.asarray(found, np.int64)


def _here(key: Any) -> Any:
    """Take a tensor as an array."""
    return key.detach().cpu().numpy() if isinstance(key, Tensor) else key


def _said(key: Any) -> str:
    """Write a key as a user did, arrays by their shape."""
    if isinstance(key, tuple):
        return ", ".join(map(_said, key))
    if isinstance(key, np.ndarray | Tensor):
        return f"array of shape {tuple(key.shape)} and type {key.dtype}"
    return "..." if key is ... else str(key)
