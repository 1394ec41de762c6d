"""Labels as people hold them: any iterable becomes an array by position; what is no class is refused."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterable, KeysView, Mapping, Set
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.errors import UserError

Labels = npt.NDArray[Any]


def as_labels(labels: Any) -> Labels:
    """Bring labels into an array, in the order in which they stand.

    Args:
        labels: A list, tuple, iterator, array, tensor, or pandas Series, Index or Categorical; an index of its own
            counts for nothing. Integers, strings, booleans, or floats that are whole numbers.

    Returns:
        (labels,) of the dtype that numpy gives them.

    Raises:
        UserError: Nothing to go through in order, more than one dimension, a missing label (None, NaN, NA), text and
            numbers side by side, or numbers that are not whole.
    """
    array = _array(labels)
    if array.ndim != 1:
        raise UserError(f"the labels have shape {array.shape}: give one label for each image, in one dimension.")
    if array.dtype.kind == "O":
        array = _of_one_kind(array, listed=not hasattr(labels, "dtype"))
    _refuse_missing(array)
    if array.dtype.kind == "c":
        raise UserError(f"label 0 is {array[0]}: a class is named by a string or an integer.")
    if array.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(array) | (array != np.floor(array)))
        if len(wrong):
            raise UserError(
                f"label {wrong[0]} is {array[wrong[0]]}, which names no class: "
                "give strings or whole numbers, quantities cut into classes."
            )
    return array


def as_indices(labels: Any, classes: int) -> npt.NDArray[np.int64]:
    """Bring labels that count classes into an array, in the order in which they stand.

    Args:
        labels: Any container of whole numbers, see ``as_labels``.
        classes: How many classes there are.

    Raises:
        UserError: As ``as_labels`` does, or a label that is no number from 0 to ``classes`` - 1.
    """
    found = as_labels(labels)
    whole = found.astype(np.int64) if found.dtype.kind in "iuf" else np.full(len(found), -1)
    wrong = np.flatnonzero((whole < 0) | (whole >= classes))
    if len(wrong):
        raise UserError(
            f"label {wrong[0]} is {found[wrong[0]]}: give the number of its class, from 0 to {classes - 1}."
        )
    return whole


def classes_of(labels: Labels) -> tuple[Labels, npt.NDArray[np.intp]]:
    """Sort the classes that labels name.

    Args:
        labels: (labels,), from ``as_labels``.

    Returns:
        (classes,) sorted, and (labels,) the index of each label's class.

    Raises:
        UserError: Labels that have no order.
    """
    try:
        return np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise UserError(f"the labels cannot be sorted ({error}): give strings or integers.") from error


def _array(labels: Any) -> Labels:
    """Hold labels in an array, each as it is: numpy alone would write numbers and NaN beside text as text."""
    has_order = isinstance(labels, Iterable) or hasattr(labels, "__getitem__")
    has_order &= not isinstance(labels, Mapping | Set) or isinstance(labels, KeysView)
    if isinstance(labels, str | bytes) or not has_order:
        raise UserError(f"the labels are {_told(labels)}: give a list, with a label for each image in their order.")
    if isinstance(labels, Tensor):
        whole = labels.detach().cpu()
        return np.asarray(whole.float() if whole.dtype == torch.bfloat16 else whole)
    if isinstance(labels, np.ma.MaskedArray):
        if np.ma.getmaskarray(labels).any():
            raise UserError("the labels are an array with masked entries: leave those labels and their images out.")
        return np.asarray(labels)
    if hasattr(labels, "ndim") or hasattr(labels, "__array__"):
        return np.asarray(labels)
    items = list(labels)
    array = np.empty(len(items), object)
    for i, item in enumerate(items):
        array[i] = item.item() if isinstance(item, Tensor) and item.ndim == 0 else item
    return array


def _of_one_kind(array: Labels, *, listed: bool) -> Labels:
    """Give Python's objects a dtype if they are all numbers, or text that came without one."""
    missing = [i for i, label in enumerate(array) if _is_missing(label)]
    if missing:
        _refuse(missing[0], array[missing[0]])
    texts = [isinstance(label, str) for label in array]
    if all(texts):
        # Strings from pandas stay objects, as scikit-learn leaves them.
        return _exact(array) if listed else array
    if any(texts):
        first = texts.index(not texts[0])
        raise UserError(
            f"the labels hold text and other things side by side ({array[0]!r} and {array[first]!r}): give one kind."
        )
    if any(np.ndim(label) for label in array if isinstance(label, list | tuple | np.ndarray | Tensor)):
        raise UserError("each label must be one string or number, but some are lists: give one label for each image.")
    if not all(isinstance(label, numbers.Number | np.bool_) for label in array):
        return array
    found = _exact(array)
    if found.dtype.kind == "O" and not all(isinstance(label, numbers.Integral) for label in array):
        raise UserError("the labels mix fractions with whole numbers too large for them: give whole numbers only.")
    return found


def _exact(array: Labels) -> Labels:
    """Let numpy choose a dtype, unless one label would become another: 2**63 beside -1, NUL at the end of text."""
    found = np.array(array.tolist())
    # As Python's numbers, which compare without rounding.
    items = [label.item() if isinstance(label, np.generic) else label for label in array]
    if found.tolist() == items:
        return found
    kept = np.empty(len(items), object)
    kept[:] = items
    return kept


def _refuse_missing(array: Labels) -> None:
    """Refuse what numpy's own dtypes hold for "missing"."""
    if array.dtype.kind in "fcmM":
        missing = np.flatnonzero(np.isnat(array) if array.dtype.kind in "mM" else np.isnan(array))
        if len(missing):
            _refuse(int(missing[0]), array[missing[0]])


def _is_missing(label: Any) -> bool:
    """Tell None, NaN, NaT and pandas' NA from labels: NaN differs from itself, NA does not even say."""
    if label is None:
        return True
    try:
        return bool(operator.ne(label, label))
    except TypeError:
        return True
    except ValueError:  # an array
        return False


def _refuse(index: int, label: Any) -> None:
    raise UserError(f"label {index} is missing ({label}): name its class, or leave the image out.")


def _told(labels: Any) -> str:
    """Name what was given in place of a list."""
    if isinstance(labels, Mapping | Set):
        return f"a {type(labels).__name__}, which has no order"
    return repr(labels)[:40]
