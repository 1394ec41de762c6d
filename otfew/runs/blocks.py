"""What a finished block of a run must be to be believed: whole, of the expected form, and made by the present code."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.runs.files import DamagedError, parse_json
from otfew.runs.npz import check_unpacked

Arrays = dict[str, npt.NDArray[Any]]
SEAL = "seal"
"""Entry of a stored block: JSON with a sha256 of all others, and the digest of the code that made them."""


@dataclass(frozen=True)
class Column:
    """What an array of a block must be.

    Attributes:
        shape: Its shape.
        kind: numpy's letter for its type: "i" whole numbers, "f" floating, "U" text.
        least: Smallest value of a number.
        most: Largest; where it is infinite, values must be finite all the same.
        gaps: NaN is an answer too.
    """

    shape: tuple[int, ...] = ()
    kind: str = "f"
    least: float = -math.inf
    most: float = math.inf
    gaps: bool = False

    def objection(self, name: str, array: npt.NDArray[Any]) -> str:
        """Say what is wrong with an array; "" where nothing is."""
        if array.shape != self.shape:
            return f"{name!r} has shape {array.shape}, not {self.shape}"
        if array.dtype.kind != self.kind:
            return f"{name!r} is of type {array.dtype}"
        if self.kind == "U":
            return ""
        known = array[~np.isnan(array)] if self.gaps else array
        if not np.isfinite(known).all():
            return f"{name!r} holds what is no number"
        if known.size and not (self.least <= known.min() and known.max() <= self.most):
            return f"{name!r} goes from {known.min():g} to {known.max():g}; possible is {self.least:g} to {self.most:g}"
        return ""


@dataclass(frozen=True)
class Form:
    """What a caller expects of a block.

    Attributes:
        columns: Its arrays, by name; a block has these and no others.
        code: Digest of the code that makes it, see ``otfew.runs.identity.code_digest``.
    """

    columns: Mapping[str, Column]
    code: str

    def objection(self, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
        """Say what first is wrong with a block; "" where nothing is."""
        if missing := sorted(self.columns.keys() - arrays.keys()):
            return f"{missing[0]!r} is missing"
        if others := sorted(arrays.keys() - self.columns.keys()):
            return f"{others[0]!r} is none of its arrays"
        found = (column.objection(name, arrays[name]) for name, column in self.columns.items())
        return next(filter(None, found), "")


def sealed(arrays: Mapping[str, npt.NDArray[Any]], code: str) -> bytes:
    """Write a block as an ``.npz`` file with its seal.

    Args:
        arrays: By name; none of them is called "seal".
        code: Digest of the code that made them.

    Raises:
        ValueError: An array of Python objects, or one of the seal's name.
    """
    if SEAL in arrays:
        raise ValueError(f"an array of a block must not be called {SEAL!r}")
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays, **{SEAL: np.array(_seal(_digest(arrays), code))})
    return buffer.getvalue()


def opened(data: bytes) -> tuple[Arrays, str | None]:
    """Read what ``sealed`` wrote.

    Returns:
        The arrays, and the digest of the code that made them: None for blocks of old, which have no seal.

    Raises:
        DamagedError: It is no such file, or not the one that was written.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_unpacked(archive)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays: Arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged file may raise nearly any exception
        raise DamagedError(str(error).partition("\n")[0] or type(error).__name__) from error
    seal = arrays.pop(SEAL, None)
    if seal is None:
        return arrays, None
    return arrays, _checked(str(seal), _digest(arrays))


def seal_of(data: bytes, code: str) -> bytes:
    """Write the seal of a file that stays as it is: of a record in JSON, say."""
    return _seal(hashlib.sha256(data).hexdigest(), code).encode()


def code_of(data: bytes, seal: bytes) -> str:
    """Read the seal of a file: the digest of the code that made it.

    Raises:
        DamagedError: The file is not the one that was sealed.
    """
    return _checked(seal.decode("utf-8", errors="replace"), hashlib.sha256(data).hexdigest())


def _seal(digest: str, code: str) -> str:
    """Bind a content to the code that made it: a changed one of either is noticed."""
    return json.dumps({"sha256": hashlib.sha256(f"{digest} {code}".encode()).hexdigest(), "code": code})


def _checked(seal: str, digest: str) -> str:
    """Return the code's digest of a seal; raises ``DamagedError`` where the content is another."""
    try:
        code = parse_json(seal.encode())["code"]
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError("its seal cannot be read") from error
    if not isinstance(code, str) or seal != _seal(digest, code):
        raise DamagedError("its checksum differs")
    return code


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Hash names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
