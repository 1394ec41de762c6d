"""Read the pickles in which CIFAR is published without running what a pickle can run.

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

from otfew.data.pickle_scan import scan
from otfew.errors import UserError
from otfew.runs.regular_file import read_regular

LARGEST = 1 << 29
"""Bytes of a file that is read: the largest that is published has 155 MB."""


class _Dtype:
    """Stands in for numpy.dtype: remembers its code, ignores its state."""

    def __init__(self, code: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for numpy.ndarray: unsigned bytes of a given shape, nothing else."""

    value: npt.NDArray[np.uint8]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not (isinstance(dtype, _Dtype) and dtype.code == "u1" and isinstance(raw, bytes)):
            raise pickle.UnpicklingError("an array of another type than bytes")
        if len(shape) > 4 or prod(shape) != len(raw):
            raise pickle.UnpicklingError("an array of another shape than its bytes")
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    """Admits byte arrays, plain containers, numbers and strings.

    ``find_class`` hands out bound methods, on which a pickle can set no attribute.

    Args:
        data: The pickle, which ``scan`` has let pass.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._left = len(data)

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return self._array
        if (module, name) == ("numpy", "dtype"):
            return self._dtype
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"
        if (module, name) == ("_codecs", "encode"):
            return self._bytes
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def _array(self, *_: object) -> _Array:
        return _Array()

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
        record = _Unpickler(data).load()
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


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
