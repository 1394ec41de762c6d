"""Nodes of labelled photos that were extracted before: kept in memory for a while, and in a folder if one is given.

The key is the content: the photo's pixels, the network's digest, resolution, crop and kind of nodes.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from otfew.classifier.door import Shown
from otfew.classifier.embedder import Embedder
from otfew.errors import UserError
from otfew.runs.files import Note, reading, write_atomically

MEMORY = 512 << 20
"""Bytes of nodes that a process keeps; the photos that were longest not asked for go first."""
_NAME = "nodes"


class FeatureStore:
    """Nodes (nodes, channels) float32 of one photo and one view each.

    Args:
        memory: Bytes that are kept in memory.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory = memory
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: str, folder: Path | None, note: Note) -> Tensor | None:
        """Return what is kept under a key, or None; a damaged file is removed, and that is said in one line.

        Raises:
            UserError: A file is there and the system lets no one read it.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = None if folder is None else _read(folder / f"{key}.safetensors", key, note)
        if found is not None:
            self._keep(key, found)
        return found

    def put(self, key: str, nodes: Tensor, folder: Path | None) -> None:
        """Keep nodes.

        Raises:
            UserError: The folder cannot be written.
        """
        own = nodes.detach().float().cpu().contiguous().clone()
        self._keep(key, own)
        if folder is not None:
            sealed = {"sha256": _seal(own), "key": key}
            write_atomically(folder / f"{key}.safetensors", safetensors.torch.save({_NAME: own}, metadata=sealed))

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def _keep(self, key: str, nodes: Tensor) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = nodes
            self._size += nodes.nbytes
            while self._size > self._memory and self._kept:
                self._size -= self._kept.popitem(last=False)[1].nbytes


STORE = FeatureStore()
"""That of this process."""


def content(image: Shown) -> str:
    """Hash an image's pixels."""
    total = hashlib.sha256(f"{image.pixels.dtype.str}{image.pixels.shape}".encode())
    total.update(np.ascontiguousarray(image.pixels).data)
    return total.hexdigest()


def key_of(photo: str, embedder: Embedder) -> str:
    """Hash all that the nodes of a photo depend on.

    Args:
        photo: From ``content``.
        embedder: From images to nodes.
    """
    preparation = embedder.preparation
    parts = (photo, embedder.backbone.digest, embedder.extractor.spec, preparation.resolution, preparation.crop)
    return hashlib.sha256(repr((*parts, torch.__version__)).encode()).hexdigest()[:40]


def _read(file: Path, key: str, note: Note) -> Tensor | None:
    try:
        with reading(file):
            data = file.read_bytes()
    except FileNotFoundError:
        return None
    try:
        size = int.from_bytes(data[:8], "little")
        found = safetensors.torch.load(data)[_NAME]
        if found.dtype == torch.float32 and found.ndim == 2 and _metadata(data[8 : 8 + size]) == (_seal(found), key):
            return found
    except (SafetensorError, KeyError, ValueError):
        pass
    note(f"kept features {file.name} are damaged; extracting them again")
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot remove the damaged {file} ({error.strerror}): remove it.") from error
    return None


def _metadata(head: bytes) -> tuple[str, str]:
    """Read a file's checksum and key from its head."""
    from otfew.runs.files import parse_json

    told = parse_json(head)["__metadata__"]
    return told["sha256"], told["key"]


def _seal(nodes: Tensor) -> str:
    return hashlib.sha256(repr(tuple(nodes.shape)).encode() + nodes.numpy().tobytes()).hexdigest()
