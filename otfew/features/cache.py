"""Feature files on disk: written row by row, resumable after a kill, checked before use.

A finished entry is ``KEY.safetensors`` (one tensor, "nodes") and ``KEY.json`` (its sha256 and how long it took). While
it is written it is ``KEY.part``: the same bytes, so far. Rows that are on disk survive a kill.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from torch import Tensor

from otfew.errors import UserError
from otfew.runs.files import Note, parse_json, reason, sha256_of, write_atomically, writing

Found = tuple[Tensor, dict[str, Any]]
"""A tensor and what stands beside it."""


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
            raise UserError(f"cannot make the cache folder {directory} ({reason(error)}): set $OTFEW_CACHE.") from error
        self._images = images
        self.path = directory / f"{key}.safetensors"
        self.record = directory / f"{key}.json"
        self.part = directory / f"{key}.part"
        self.lock = directory / f"{key}.lock"

    def read(self) -> Found | None:
        """Map the finished tensor into memory and read its record, changing nothing; None where that can't be had.

        Needs no lock: a finished entry never changes, and one that another process is about to finish is none yet.
        """
        try:
            return self._read()
        except Exception:  # whatever is wrong is found again, and said, under the lock
            return None

    def load(self, note: Note) -> Found | None:
        """Read as ``read`` does, under the lock; a damaged entry is removed, and that is said in one line."""
        if not self.path.exists() or not self.record.exists():
            return None
        try:
            return self._read()
        except Exception as error:  # a damaged file may raise nearly any exception
            note(f"cached features {self.path.name} are damaged ({error}); extracting them again")
            with writing(self.path):
                self.path.unlink(missing_ok=True)
                self.record.unlink(missing_ok=True)
            return None

    def _read(self) -> Found:
        """Read the finished entry."""
        record = parse_json(self.record.read_bytes())
        if sha256_of(self.path) != record["sha256"]:
            raise ValueError("checksum differs")
        with safe_open(self.path, framework="pt") as file:
            nodes: Tensor = file.get_tensor("nodes")
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
            with writing(self.part):
                self.part.unlink(missing_ok=True)
            return 0
        return min(int(done), self._images)

    def append(self, nodes: npt.NDArray[np.float32]) -> None:
        """Add rows (rows, nodes, channels) to the part file; the first ones create it."""
        header = b""
        if not self.part.exists():
            header = self._header(nodes.shape[1], nodes.shape[2])
        with writing(self.part), self.part.open("ab") as file:
            file.write(header)
            file.write(np.ascontiguousarray(nodes, dtype="<f4").tobytes())

    def finish(self, record: dict[str, Any]) -> None:
        """Turn the complete part file into the finished one."""
        with writing(self.part):
            with self.part.open("rb") as file:
                os.fsync(file.fileno())
            digest = sha256_of(self.part)
        # The record goes first: where the disk has no room for it, the rows are still there to go on from.
        write_atomically(self.record, json.dumps({**record, "sha256": digest}, indent=1).encode())
        with writing(self.path):
            self.part.replace(self.path)

    def _header(self, nodes: int, channels: int) -> bytes:
        """Build the head of a safetensors file: a length, then JSON padded to eight bytes."""
        shape = [self._images, nodes, channels]
        size = 4 * self._images * nodes * channels
        text = json.dumps({"nodes": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}})
        text += " " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text.encode()
