"""The folder of one run: it belongs to one protocol, and holds the finished blocks of episodes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.runs import processes
from otfew.runs.blocks import Arrays, Form, code_of, opened, seal_of, sealed
from otfew.runs.files import DamagedError, Note, parse_json, reading, reason, write_atomically
from otfew.runs.regular_file import read_regular

_LARGEST_CLAIM = 1 << 30
_SEAL = ".seal"
"""Ending of the file that holds another's seal."""


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
        self._said: set[str] = set()
        self._owned = processes.world().is_main
        if not self._owned:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            # The claim comes before all else: a run that is killed here can be gone on with.
            write_atomically(_claim(path), to_json(identity))
            (path / "blocks").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make `output` {path} ({reason(error)}): give another folder.") from error

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
            raise UserError(f"`output` {path} is a file: give a folder.")
        if claim.exists():
            if _read(claim) != to_json(identity):
                raise UserError(
                    f"`output` {path} holds a run of another protocol ({_difference_to(claim, identity)}): "
                    "give another folder."
                )
        elif path.exists() and any(not entry.name.startswith(f".{claim.name}.") for entry in path.iterdir()):
            raise UserError(f"`output` {path} holds other files: give an empty or a new folder.")

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the run, completely or not at all."""
        if self._owned:
            write_atomically(self.path / name, data)

    def load_block(self, index: int, form: Form, note: Note) -> Arrays | None:
        """Read a finished block that can be believed; None where there is none, and why not is said in a line.

        Args:
            index: Of the block.
            form: What it must be.
            note: Called where a block is damaged, has another form, or was made by other code: of the latter once.

        Raises:
            UserError: The file is there and can't be read: it is not taken for damaged.
        """
        file = self._block(index)
        data = self._read_own(file)
        if data is None:
            return None
        try:
            arrays, code = opened(data)
        except DamagedError as error:
            note(f"finished block {file.name} is damaged ({error}); computing it again")
            return None
        if not self._is_current(code, form.code, note):
            return None
        if objection := form.objection(arrays):
            note(f"finished block {file.name} can't be right ({objection}); computing it again")
            return None
        return arrays

    def save_block(self, index: int, arrays: Arrays, form: Form) -> None:
        """Keep a finished block.

        Raises:
            ValueError: It has not the form that it is going to be read with.
        """
        if not self._owned:
            return
        if objection := form.objection(arrays):
            raise ValueError(f"block {index} can't be right: {objection}")
        write_atomically(self._block(index), sealed(arrays, form.code))

    def load_file(self, name: str, code: str, note: Note) -> bytes | None:
        """Read what ``save_file`` kept; None where there is nothing to believe, and why not is said in a line.

        Args:
            name: Of the file in the folder.
            code: Digest of the present code.
            note: As for blocks.

        Raises:
            UserError: The file is there and can't be read.
        """
        data, seal = self._read_own(self.path / name), self._read_own(self.path / f"{name}{_SEAL}")
        if data is None:
            return None
        try:
            made_by = None if seal is None else code_of(data, seal)
        except DamagedError as error:
            note(f"{name} is damaged ({error}); computing it again")
            return None
        return data if self._is_current(made_by, code, note) else None

    def save_file(self, name: str, data: bytes, code: str) -> None:
        """Keep a file of the run whose content is going to be believed, with its seal beside it."""
        self.write(f"{name}{_SEAL}", seal_of(data, code))
        self.write(name, data)

    def _read_own(self, file: Path) -> bytes | None:
        """Read a file whole; None where there is none, or where another process reads for this one."""
        if not self._owned:
            return None
        try:
            with reading(file):
                return file.read_bytes()
        except FileNotFoundError:
            return None

    def _is_current(self, made_by: str | None, code: str, note: Note) -> bool:
        """Tell whether something was made by the present code; said once of a folder where it was not."""
        if made_by == code:
            return True
        who = "by other code than this" if made_by else "by an earlier version, without a checksum"
        line = f"what is finished in {self.path} was made {who}; computing it again"
        if line not in self._said:
            self._said.add(line)
            note(line)
        return False

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
    """Name the fields in which an identity differs from the claimed one."""
    try:
        there = parse_json(_read(claim))
        return "; ".join(differences(there, identity)) or "its protocol.json was edited"
    except (ValueError, AttributeError, RecursionError):
        return "its protocol.json is damaged"


TELLING = (
    "command", "dataset", "split", "shot", "way", "query", "seed", "seeds", "episodes", "methods", "panels", "nodes",
    "backbone", "name", "resolution", "crop", "query_balance", "class_prior", "fixed_classes", "unknown_classes",
    "solver", "reference", "device",
)  # fmt: skip
"""Parts of a field's name that say most of what a run is, the most telling first."""
DERIVED = ("order", "variant", "names_sha256", "features_sha256", "sha256", "notes", "versions")
"""Parts that follow from others, or say least: they come last."""
LONGEST = 80
"""Characters of a value that are shown."""


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Name every field in which two JSON-ready records differ, with both values, the most telling first.

    What only one of them has is named once, whatever it holds.
    """
    found = dict(_differing(json.loads(to_json(there)), json.loads(to_json(here))))
    return [f"{name} {found[name]}" for name in sorted(found, key=_telling)]


def _differing(there: Any, here: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Walk two records: dotted names of fields that differ, and how."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        if there != here:
            yield name, f"is {_shown(there)} there and {_shown(here)} here"
        return
    for key in sorted(there.keys() | here.keys()):
        inner = f"{name}.{key}" if name else key
        if key in there and key in here:
            yield from _differing(there[key], here[key], inner)
        else:
            side, value = ("there", there[key]) if key in there else ("here", here[key])
            yield inner, f"is only {side}" + ("" if isinstance(value, dict) else f" ({_shown(value)})")


def _shown(value: Any) -> str:
    """Write a value, the middle of a long one left out."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 2 :]}"


def _telling(name: str) -> tuple[int, str]:
    """Rank a field by the parts of its name."""
    parts = name.split(".")
    if any(part in DERIVED for part in parts):
        return len(TELLING) + 1, name
    return min([TELLING.index(part) for part in parts if part in TELLING] or [len(TELLING)]), name
