"""Read the pickles in which CIFAR and features are published without running what a pickle can run.

A pickle may name any function and call it. Here the few names that such a file needs (an array, its type, a byte
string) lead to small stand-ins of our own, and every other name is refused; a file can disturb the stand-ins alone.
Before that, ``pickle_scan`` has looked through its operations.
"""

from __future__ import annotations

import io
import pickle
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.data.pickle_scan import LABEL_KEYS, scan
from otfew.errors import UserError
from otfew.runs.regular_file import read_regular

LARGEST = 1 << 29
"""Bytes of a file that is read: the largest that is published has 155 MB."""
LARGEST_FEATURES = 1 << 32
"""Bytes of a file of features: those of tieredImageNet's training images have 1.2 GB."""
MOST_OPERATIONS = 50_000_000
"""In a file of features, of which a vector takes a dozen."""
BYTES = frozenset({"u1"})
FLOATS = frozenset({"f2", "f4", "f8"})
"""Types of arrays, as numpy writes them; of floats, the little-endian ones."""


class _Dtype:
    """Stands in for numpy.dtype: remembers its code and the order of its bytes, ignores the rest."""

    order: object = "|"

    def __init__(self, code: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]


class _Array:
    """Stands in for numpy.ndarray: numbers of a given shape, nothing else.

    Args:
        codes: Types that it may have.
    """

    value: npt.NDArray[Any]

    def __init__(self, codes: frozenset[str]) -> None:
        self._codes = codes

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not (isinstance(dtype, _Dtype) and dtype.code in self._codes and isinstance(raw, bytes)):
            raise pickle.UnpicklingError(f"an array of another type than {', '.join(sorted(self._codes))}")
        kind = np.dtype(str(dtype.code))
        if dtype.order == ">" and kind.itemsize > 1:
            raise pickle.UnpicklingError("an array of big-endian numbers")
        if len(shape) > 4 or prod(shape) * kind.itemsize != len(raw):
            raise pickle.UnpicklingError("an array of another shape than its bytes")
        self.value = np.frombuffer(raw, kind.newbyteorder("<")).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    """Admits arrays, plain containers, numbers and strings.

    ``find_class`` hands out bound methods, on which a pickle can set no attribute.

    Args:
        data: The pickle, which ``scan`` has let pass.
        codes: Types of arrays.
        labelled: Admit ``collections.defaultdict`` of lists too, as a dictionary.
    """

    def __init__(self, data: bytes, codes: frozenset[str], *, labelled: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._left = len(data)
        self._codes = codes
        self._labelled = labelled

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return self._array
        if (module, name) == ("numpy", "dtype"):
            return self._dtype
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"
        if (module, name) == ("_codecs", "encode"):
            return self._bytes
        if self._labelled and (module, name) == ("collections", "defaultdict"):
            return self._mapping
        if self._labelled and module in ("builtins", "__builtin__") and name == "list":
            return "list"
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def _array(self, *_: object) -> _Array:
        return _Array(self._codes)

    def _mapping(self, *_: object) -> dict[Any, Any]:
        return {}

    def _dtype(self, code: object, *_: object) -> _Dtype:
        return _Dtype(code)

    def _bytes(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"a string in the encoding {encoding}")
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("more bytes than the file has")
        return text.encode("latin1")


def load_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of byte arrays, lists, numbers and strings.

    Args:
        path: A file as the publisher of CIFAR wrote it (Python 2, protocol 2) or as Python 3 writes it.

    Returns:
        Key -> value; keys as str, strings of Python 2 as bytes, arrays as uint8.

    Raises:
        UserError: The file cannot be read, is damaged, or asks for anything but the above.
    """
    try:
        data = read_regular(path, LARGEST)
        scan(data)
        record = _Unpickler(data, BYTES).load()
        if not isinstance(record, dict):
            raise pickle.UnpicklingError("not a dictionary")
        return {_text(key): value.value if isinstance(value, _Array) else value for key, value in record.items()}
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:  # a damaged pickle may raise nearly any exception
        raise UserError(
            f"{path} is damaged or not one of the publisher's pickles ({error or type(error).__name__}); "
            "fetch it again from its publisher."
        ) from error


def load_by_label(path: Path) -> dict[int | str, list[npt.NDArray[Any]]]:
    """Read a pickled dictionary of label -> arrays, as S2M2, PT-MAP and LST keep features (``output.plk``).

    Args:
        path: A file as ``pickle.dump`` of Python 3 writes it, protocols 0 to 4.

    Returns:
        Label, an integer or a string, -> its float arrays, in the file's order.

    Raises:
        UserError: The file cannot be read, is damaged, or asks for anything but dictionaries, lists and float arrays;
            nothing of it was run.
    """
    try:
        data = read_regular(path, LARGEST_FEATURES)
        scan(data, LABEL_KEYS, MOST_OPERATIONS)
        return _by_label(_Unpickler(data, FLOATS, labelled=True).load())
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:  # a damaged pickle may raise nearly any exception
        raise UserError(
            f"{path} is damaged or no dictionary of label -> feature vectors ({error or type(error).__name__}); "
            "nothing of it was run. Write features as .npz with 'features' and 'labels'."
        ) from error


def _by_label(record: object) -> dict[int | str, list[npt.NDArray[Any]]]:
    """Check the dictionary, and give labels their types."""
    if not isinstance(record, dict) or not record:
        raise pickle.UnpicklingError("not a dictionary, or an empty one")
    found: dict[int | str, list[npt.NDArray[Any]]] = {}
    for key, values in record.items():
        if isinstance(key, bool) or not isinstance(key, int | str | bytes):
            raise pickle.UnpicklingError(f"the label {key!r}")
        # An array stands for its rows.
        arrays = list(values.value) if isinstance(values, _Array) else values
        if not isinstance(arrays, list):
            raise pickle.UnpicklingError(f"a {type(values).__name__} for the label {key!r}")
        vectors = [each.value if isinstance(each, _Array) else each for each in arrays]
        if not all(isinstance(vector, np.ndarray) for vector in vectors):
            raise pickle.UnpicklingError(f"something else than arrays for the label {key!r}")
        found[key if isinstance(key, int) else _text(key)] = vectors
    return found


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
