"""Answers of the exact kernels, to the bit, on problems that come out the same on every computer.

The emulator and a GPU must both give what golden.json holds: they do the same operations in the same order, each
rounded once. ``python -m tests.transport.cuda.golden`` writes the file anew, where a change of the kernels is meant to
change answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import running

FILE = Path(__file__).with_name("golden.json")
SIDES = (25, 49, 90)
"""One size for each number of slots."""
PROBLEMS = 3


def _draw(key: int, *shape: int) -> np.ndarray:
    """Integers below 2^20 by counting and mixing: no library's random numbers."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(key << 32)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(44)).astype(np.int64).reshape(shape)


def cases() -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor]]]:
    """Problems for every exact kernel: general ones, ties with zero weights, and uniform ones."""
    key = 0
    for n in SIDES:
        for m in SIDES:
            for dtype in (torch.float32, torch.float64):
                key += 1
                general = _draw(key, PROBLEMS, n, m) / 2.0**20
                a, b = _draw(1000 + key, PROBLEMS, n) + 1, _draw(2000 + key, PROBLEMS, m) + 1
                general[1] = _draw(3000 + key, n, m) % 4
                a[1], b[1] = a[1] % 3, b[1] % 3
                a[2], b[2] = 1, 1
                rows, columns = a.astype(float), b.astype(float)
                columns = columns * (rows.sum(-1) / columns.sum(-1))[:, None]
                made = torch.from_numpy(general).to(dtype), torch.from_numpy(rows), torch.from_numpy(columns)
                yield f"{n}x{m} {str(dtype).removeprefix('torch.')}", made


def answer(machine: Any, tensors: tuple[Tensor, Tensor, Tensor]) -> dict[str, Any]:
    """Solve a case: a digest of all bits, and the values, to tell by how much an answer differs."""
    found = running.exact(machine, *tensors)
    digest = hashlib.sha256(b"".join(found.bits().values())).hexdigest()
    return {"values": [x.hex() for x in found.value.tolist()], "pivots": found.n_iter.tolist(), "bits": digest}


def stored() -> dict[str, dict[str, Any]]:
    """What the answers must be."""
    read: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return read


if __name__ == "__main__":
    from .emulator import Emulator

    told = {name: answer(Emulator(), tensors) for name, tensors in cases()}
    FILE.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
