"""Feature files on disk: written row by row, resumable after a kill, checked before use.

A finished entry is ``KEY.safetensors`` (one tensor, "nodes") and ``KEY.json`` (its sha256 and how long it took). While
it is written it is ``KEY.part``: the same bytes, so far. Rows that are on disk survive a kill.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
from safetensors import safe_open
from torch import Tensor

from otfew.errors import UserError

Note = Callable[[str], None]


def default_directory() -> Path:
    """Where caches lie: $OTFEW_CACHE, else the user's cache directory."""
    given = os.environ.get("OTFEW_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("otfew"))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there completely or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(file)


def _hash(file: Any) -> str:
    """Hash an open file piece by piece, for Python 3.10."""
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


class Entry:
    """One tensor "nodes" (images, nodes, channels) float32 in a cache directory.

    Args:
        directory: Created if missing.
        key: File name without its suffix.
        images: How many rows the finished tensor has.

    Raises:
        UserError: The directory cannot be made.
    """

    def __init__(self, directory: Path, key: str, images: int) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the cache folder {directory} ({error.strerror}): set $OTFEW_CACHE."
            ) from error
        self._images = images
        self.path = directory / f"{key}.safetensors"
        self.record = directory / f"{key}.json"
        self.part = directory / f"{key}.part"
        self.lock = directory / f"{key}.lock"

    def load(self, note: Note) -> tuple[Tensor, dict[str, Any]] | None:
        """Map the finished tensor into memory and read its record; None, said in one line, where it is damaged."""
        if not self.path.exists() or not self.record.exists():
            return None
        try:
            record = json.loads(self.record.read_bytes())
            if sha256_of(self.path) != record["sha256"]:
                raise ValueError("checksum differs")
            with safe_open(self.path, framework="pt") as file:
                nodes: Tensor = file.get_tensor("nodes")
        except Exception as error:
            note(f"cached features {self.path.name} are damaged ({error}); extracting them again")
            self.path.unlink(missing_ok=True)
            self.record.unlink(missing_ok=True)
            return None
        return nodes, record

    def rows(self, batch: int) -> int:
        """Cut the part file back to whole batches of rows and count them; 0 where there is nothing to go on from."""
        try:
            with self.part.open("r+b") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                shape = json.loads(file.read(length))["nodes"]["shape"]
                row = 4 * shape[1] * shape[2]
                done = (file.seek(0, os.SEEK_END) - 8 - length) // row // batch * batch
                file.truncate(8 + length + done * row)
                if shape[0] != self._images:
                    raise ValueError("another number of images")
        except Exception:  # a damaged head may hold anything
            self.part.unlink(missing_ok=True)
            return 0
        return min(int(done), self._images)

    def append(self, nodes: npt.NDArray[np.float32]) -> None:
        """Add rows (rows, nodes, channels) to the part file; the first ones create it."""
        header = b""
        if not self.part.exists():
            header = self._header(nodes.shape[1], nodes.shape[2])
        with self.part.open("ab") as file:
            file.write(header)
            file.write(np.ascontiguousarray(nodes, dtype="<f4").tobytes())

    def finish(self, record: dict[str, Any]) -> None:
        """Turn the complete part file into the finished one."""
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        digest = sha256_of(self.part)
        self.part.replace(self.path)
        write_atomically(self.record, json.dumps({**record, "sha256": digest}, indent=1).encode())

    def _header(self, nodes: int, channels: int) -> bytes:
        """Build the head of a safetensors file: a length, then JSON padded to eight bytes."""
        shape = [self._images, nodes, channels]
        size = 4 * self._images * nodes * channels
        text = json.dumps({"nodes": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}})
        text += " " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text.encode()
