"""A classifier's file: a record and arrays, whole and checked, in one safetensors file; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode
from safetensors.torch import save as encode
from torch import Tensor

from otfew.errors import UserError
from otfew.runs.files import parse_json, reason, write_atomically
from otfew.runs.regular_file import GIB, read_regular

SUFFIX = ".otfew"
"""What such a file's name ends in, unless its user prefers another name."""
FORMAT = 2
"""Of the file; a larger one is refused, with the advice to update otfew. The first held nothing of held-out photos."""
LARGEST = 8 * GIB
"""Bytes of a file that are read."""

_KEY = "otfew"
_CHECKSUM = "sha256"
_LARGEST_HEADER = 64 << 20
_AGAIN = "copy or save it again"


def write(path: Path, record: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Write a file, whole or not at all; the same record and arrays give the same bytes.

    Args:
        path: Of the file.
        record: JSON-ready.
        arrays: Tensors by name.

    Raises:
        UserError: It cannot be written.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(arrays.items())}
    whole = {"format": FORMAT, **record}
    whole[_CHECKSUM] = _digest(whole, kept)
    write_atomically(path, encode(kept, {_KEY: json.dumps(whole, sort_keys=True, ensure_ascii=True)}))


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file and check that it is what was written.

    Args:
        path: Of the file.

    Returns:
        Record and arrays.

    Raises:
        UserError: It cannot be read, is something else, is damaged, or comes from a later otfew.
    """
    try:
        data = read_regular(path, LARGEST)
    except OSError as error:
        raise UserError(f"classifier {path} cannot be read ({reason(error)}): give the path of a saved one.") from error
    header = _header(data)
    if header is None:
        raise UserError(f"{path} is no classifier that otfew saved, or only the beginning of one: {_AGAIN}.")
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_KEY), str):
        raise UserError(f"{path} is a safetensors file, but no classifier that otfew saved: give another file.")
    try:
        record = parse_json(metadata[_KEY].encode())
        version = record["format"]
        later = isinstance(version, int) and version > FORMAT
        arrays = {} if later else decode(data)
        sound = later or record.pop(_CHECKSUM) == _digest(record, dict(sorted(arrays.items())))
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        sound, later, version = False, False, None
    if later:
        raise UserError(
            f"classifier {path} was saved by a later otfew (format {version}; this one reads {FORMAT}): update otfew."
        )
    if not sound:
        raise UserError(f"classifier {path} is damaged (its content is not what was written): {_AGAIN}.")
    return record, arrays


def packed(values: Tensor, name: str) -> dict[str, Tensor]:
    """Leave out zeros, without loss: of the nodes of a network that ends in a rectifier, few others are left.

    Args:
        values: float16, of any shape.
        name: Under which they are kept.

    Returns:
        Which of them are not zero, eight to a byte, and those, by names; or all, where that is smaller.
    """
    flat = values.contiguous().flatten()
    there = flat.view(torch.int16) != 0  # minus zero is something
    if int(there.sum()) * 16 + len(flat) >= 16 * len(flat):
        return {name: values}
    bits = torch.nn.functional.pad(there, (0, -len(flat) % 8)).view(-1, 8)
    weights = torch.tensor([1 << k for k in range(8)], dtype=torch.uint8)
    mask = (bits.to(torch.uint8) * weights).sum(1).to(torch.uint8)
    shape = torch.tensor(values.shape, dtype=torch.int64)
    return {f"{name}.mask": mask, f"{name}.values": flat[there], f"{name}.shape": shape}


def unpacked(arrays: Mapping[str, Tensor], name: str) -> Tensor:
    """Undo ``packed``; raises ``ValueError`` where the parts do not fit."""
    if name in arrays:
        return arrays[name]
    mask, values, shape = (arrays[f"{name}.{part}"] for part in ("mask", "values", "shape"))
    count = int(shape.prod())
    if mask.dtype != torch.uint8 or values.dtype != torch.float16 or len(mask) != -(-count // 8):
        raise ValueError(f"the parts of {name} do not fit")
    there = (mask[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten()[:count].bool()
    flat = torch.zeros(count, dtype=torch.float16)
    flat[there] = values
    return flat.view(shape.tolist())


def _header(data: bytes) -> dict[str, Any] | None:
    """Read what a safetensors file says of itself; None where it is none."""
    if len(data) < 8:
        return None
    (length,) = struct.unpack_from("<Q", data)
    if length > min(len(data) - 8, _LARGEST_HEADER):
        return None
    try:
        header = parse_json(data[8 : 8 + length])
    except ValueError:
        return None
    return header if isinstance(header, dict) else None


def _digest(record: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> str:
    """Hash a record without its checksum, and arrays in the order of their names."""
    total = hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=True).encode())
    for name, tensor in arrays.items():
        total.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if tensor.numel():  # torch sees no bytes in nothing
            total.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
