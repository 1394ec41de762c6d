"""What goes in and out of POT's functions: numpy arrays, lists or torch tensors, and answers of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.compat.optimum import LEAST_MASS
from otfew.transport.arguments import remedy
from otfew.transport.problem import Array

TOTALS = 1.5e-6
"""Totals of a and b may differ by this much: the sixth decimal, as POT checks it."""


class MarginalError(AssertionError, ValueError):
    """Weights that do not fit the costs or each other: POT's error (AssertionError) and otfew's (ValueError)."""


@dataclass(slots=True)
class Like:
    """The kind of array that answers take.

    Attributes:
        dtype: Of numpy or of torch.
        device: None for numpy.
    """

    dtype: Any
    device: torch.device | None

    @property
    def floating(self) -> bool:
        """Whether it holds fractions."""
        return bool(self.dtype.kind == "f" if self.device is None else self.dtype.is_floating_point)

    def out(self, array: npt.NDArray[Any]) -> Any:
        """Hand out an array that nobody else holds."""
        if self.device is None:
            return array.astype(self.dtype, copy=False)
        return torch.from_numpy(array).to(self.device, self.dtype)

    def number(self, value: Array) -> Any:
        """Hand out values (problems,) without their axis, for one problem: a float, or a tensor without axes."""
        return float(value[0]) if self.device is None else self.out(value)[0]


def same_library(**given: Any) -> bool:
    """Tell whether arguments, arrays, tensors or lists, are tensors.

    Raises:
        ValueError: They are of two libraries, or of another one; names them.
    """
    tensors = [name for name, x in given.items() if isinstance(x, Tensor)]
    arrays = [name for name, x in given.items() if isinstance(x, np.ndarray)]
    for name, x in given.items():
        if not isinstance(x, Tensor | np.ndarray | list | tuple):
            raise ValueError(
                f"`{name}` must be a numpy array, a torch tensor or a list of numbers, got {type(x).__name__}"
                f"{remedy(x)}"
            )
    if tensors and arrays:
        raise ValueError(
            f"`{tensors[0]}` is a torch tensor and `{arrays[0]}` a numpy array: give all arrays of one library"
        )
    return bool(tensors)


def is_empty(given: Any) -> bool:
    """Tell whether weights are left out."""
    if isinstance(given, Tensor):
        return given.numel() == 0
    return (given.size if isinstance(given, np.ndarray) else np.size(given)) == 0


def to_numpy(name: str, given: Any) -> Array:
    """Read an argument as float64 on the CPU, without its graph.

    Raises:
        ValueError: It holds no numbers; names the argument.
    """
    if isinstance(given, Tensor):
        if given.is_complex():
            raise ValueError(f"`{name}` must hold real numbers, got {given.dtype}")
        return given.detach().to("cpu", torch.float64).numpy()
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"got {array.dtype}")
        return np.ascontiguousarray(array, np.float64)
    except ValueError as error:
        raise ValueError(f"`{name}` must hold real numbers in rows of one length: {error}") from None


def like_of(tensors: bool, candidates: Sequence[Any], fallback: Any) -> Like:
    """Take the kind of the first argument that is there: weights before costs.

    Args:
        tensors: Whether the arguments are tensors.
        candidates: Weights, which may be empty.
        fallback: The costs.
    """
    for given in candidates:
        if not is_empty(given) and not (tensors and not isinstance(given, Tensor)):
            found = _like(given)
            break
    else:
        found = _like(fallback)
        if not found.floating:
            # Uniform weights are fractions, whatever the costs are.
            found.dtype = np.dtype(np.float64) if found.device is None else torch.float64
    return found


def _like(given: Any) -> Like:
    if isinstance(given, Tensor):
        return Like(given.dtype, given.device)
    return Like(given.dtype if isinstance(given, np.ndarray) else np.asarray(given).dtype, None)


def checked_totals(name: str, weights: Array) -> Array:
    """Return the totals (*batch, 1) of weights (*batch, nodes), and refuse those that no plan has.

    Raises:
        MarginalError: NaN, infinity, a negative weight or no weight at all.
    """
    # The ufuncs themselves: a small problem takes less time than the methods around them.
    total: Array = np.add.reduce(weights, -1, keepdims=True)
    least, most = (total[0], total[0]) if total.ndim == 1 else (total.min(), total.max())
    # Comparisons with NaN are false, and a NaN weight makes its total NaN.
    if np.minimum.reduce(weights, None) >= 0 and least >= LEAST_MASS and most < np.inf:
        return total
    if not np.isfinite(weights).all():
        raise MarginalError(f"`{name}` holds NaN or infinity: weights are finite numbers")
    if weights.min() < 0:
        raise MarginalError(f"`{name}` holds a negative weight, {weights.min():.3g}: clip it to zero")
    raise MarginalError(f"`{name}` has total weight zero: give it some weight")
