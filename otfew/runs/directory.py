"""The folder of one run: it belongs to one protocol, and holds the finished blocks of episodes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError
from otfew.runs import processes
from otfew.runs.files import Note, parse_json, reason, write_atomically
from otfew.runs.regular_file import read_regular

Arrays = dict[str, npt.NDArray[Any]]
_LARGEST_CLAIM = 1 << 30


def to_json(record: Mapping[str, Any]) -> bytes:
    """Serialise with sorted keys: equal records are equal bytes."""
    return (json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


class RunDirectory:
    """Claims a folder for one run, or goes on with what is there.

    Of several processes the main one alone looks at the disk: the others may not see it.

    Args:
        path: Created if missing.
        identity: JSON-ready: protocol and versions. A folder of another identity is refused.

    Raises:
        UserError: The folder holds another run or foreign files; nothing is written then.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.check(path, identity)
        self.path = path
        self.identity = identity
        self._owned = processes.world().is_main
        if not self._owned:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            # The claim comes before all else: a run that is killed here can be gone on with.
            write_atomically(_claim(path), to_json(identity))
            (path / "blocks").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make --output {path} ({reason(error)}): give another folder.") from error

    @staticmethod
    def check(path: Path, identity: Mapping[str, Any]) -> None:
        """Refuse what the constructor refuses, and write nothing: for the time before long preparations.

        Raises:
            UserError: The folder holds another run or foreign files.
        """
        if not processes.world().is_main:
            return
        claim = _claim(path)
        if path.exists() and not path.is_dir():
            raise UserError(f"--output {path} is a file: give a folder.")
        if claim.exists():
            if _read(claim) != to_json(identity):
                raise UserError(
                    f"--output {path} holds a run of another protocol ({_difference_to(claim, identity)}): "
                    "give another folder."
                )
        elif path.exists() and any(not entry.name.startswith(f".{claim.name}.") for entry in path.iterdir()):
            raise UserError(f"--output {path} holds other files: give an empty or a new folder.")

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the run, completely or not at all."""
        if self._owned:
            write_atomically(self.path / name, data)

    def load_block(self, index: int, note: Note) -> Arrays | None:
        """Read a finished block; None where there is none or, said in one line, where it is damaged."""
        file = self._block(index)
        if not self._owned or not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except Exception:
            note(f"finished episodes {file.name} are damaged; computing them again")
            return None

    def save_block(self, index: int, arrays: Arrays) -> None:
        """Keep a finished block."""
        if not self._owned:
            return
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_atomically(self._block(index), buffer.getvalue())

    def _block(self, index: int) -> Path:
        return self.path / "blocks" / f"{index:06d}.npz"


def _claim(path: Path) -> Path:
    """Return the file that says whose folder it is."""
    return path / "protocol.json"


def _read(claim: Path) -> bytes:
    """Read the file that says whose folder it is."""
    try:
        return read_regular(claim, _LARGEST_CLAIM)
    except OSError as error:
        raise UserError(f"{claim} cannot be read ({reason(error)}): give another folder.") from error


def _difference_to(claim: Path, identity: Mapping[str, Any]) -> str:
    """Name the first field in which an identity differs from the claimed one."""
    try:
        there = parse_json(_read(claim))
        return first_difference(there, identity) or "its protocol.json was edited"
    except (ValueError, AttributeError, RecursionError):
        return "its protocol.json is damaged"


def first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Name the first field in which two JSON-ready records differ, with both values; "" where none does."""
    flat_there, flat_here = _flat(json.loads(to_json(there))), _flat(json.loads(to_json(here)))
    for name in sorted(flat_there.keys() | flat_here.keys()):
        if flat_there.get(name) != flat_here.get(name):
            return f"{name} is {flat_there.get(name)!r} there and {flat_here.get(name)!r} here"
    return ""


def _flat(record: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted names."""
    if not isinstance(record, dict):
        return {prefix: record}
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= _flat(value, f"{prefix}.{name}" if prefix else name)
    return flat
