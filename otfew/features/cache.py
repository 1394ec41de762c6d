"""Feature files on disk: written row by row, resumable after a kill, checked before use.

A finished entry is ``KEY.safetensors`` (one tensor, "nodes") and ``KEY.json`` (its sha256 and how long it took). While
it is written it is ``KEY.part``: the same bytes, so far. Rows that are on disk survive a kill.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from otfew.errors import UserError
from otfew.runs.files import DamagedError, Note, parse_json, reading, reason, sha256_of, write_atomically, writing

Found = tuple[Tensor, dict[str, Any]]
"""A tensor and what stands beside it."""
_LARGEST_HEAD = 1 << 16


def _record(data: bytes) -> dict[str, Any]:
    """Read what stands beside a tensor: its checksum, and how long an image took or null."""
    try:
        record = parse_json(data)
    except ValueError as error:
        raise DamagedError(f"its record is no JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), str):
        raise DamagedError("its record names no checksum")
    if not isinstance(record.get("milliseconds"), int | float | None):
        raise DamagedError("its record names no time")
    return record


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

        Raises:
            UserError: The files are there and can't be read.
        """
        try:
            return self._read()
        except (FileNotFoundError, DamagedError):  # what is wrong is found again, and said, under the lock
            return None

    def load(self, note: Note) -> Found | None:
        """Read as ``read`` does, under the lock; a damaged entry is removed, and that is said in one line.

        Raises:
            UserError: The files are there and can't be read: they stay, since nothing is known of what they hold.
        """
        try:
            return self._read()
        except FileNotFoundError:
            return None
        except DamagedError as error:
            note(f"cached features {self.path.name} are damaged ({error}); extracting them again")
            with writing(self.path):
                self.path.unlink(missing_ok=True)
                self.record.unlink(missing_ok=True)
            return None

    def _read(self) -> Found:
        """Read the finished entry.

        Raises:
            FileNotFoundError: There is none.
            DamagedError: Its bytes are not those that were written, or not those of features.
            UserError: The system lets no one read it now.
        """
        with reading(self.path):
            written = self.record.read_bytes()
            digest = sha256_of(self.path)
        record = _record(written)
        if digest != record["sha256"]:
            raise DamagedError("checksum differs")
        try:
            with safe_open(self.path, framework="pt") as file:
                nodes: Tensor = file.get_tensor("nodes")
        except SafetensorError as error:
            raise DamagedError(str(error)) from error
        except (OSError, RuntimeError) as error:
            if isinstance(error, FileNotFoundError) and not self.path.exists():
                raise  # somebody has cleared the cache in this moment
            # The bytes are the right ones. What torch and safetensors say of a lack of handles or memory varies.
            raise UserError(f"cannot map {self.path} into memory ({error}): it is left as it is.") from error
        if nodes.dtype != torch.float32 or nodes.ndim != 3 or len(nodes) != self._images:
            raise DamagedError(f"{nodes.dtype} of shape {tuple(nodes.shape)}")
        return nodes, record

    def rows(self, batch: int) -> int:
        """Cut the part file back to whole batches of rows and count them; 0 where there is nothing to go on from.

        Raises:
            UserError: The file is there and can't be read; it stays.
        """
        try:
            with reading(self.part), self.part.open("r+b") as file:
                head, row = self._row_bytes(file)
                done = (file.seek(0, os.SEEK_END) - head) // row // batch * batch
                file.truncate(head + done * row)
        except FileNotFoundError:
            return 0
        except DamagedError:
            with writing(self.part):
                self.part.unlink()
            return 0
        return min(int(done), self._images)

    def _row_bytes(self, file: BinaryIO) -> tuple[int, int]:
        """Read the head of a part file: its own bytes and those of a row; raises ``DamagedError``."""
        size = file.read(8)
        (length,) = struct.unpack("<Q", size) if len(size) == 8 else (0,)
        if not 0 < length <= _LARGEST_HEAD:
            raise DamagedError("no head")
        try:
            images, nodes, channels = parse_json(file.read(length))["nodes"]["shape"]
            row = 4 * nodes * channels
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedError(f"a head of another kind ({error})") from error
        if images != self._images or not isinstance(row, int) or row < 1:
            raise DamagedError("features of another shape")
        return 8 + length, row

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
