"""Answers of the entropic kernels, to the bit, on problems that come out the same on every computer.

As in golden.py: the emulator and a GPU must both give what entropic_golden.json holds, exponentials and logarithms
included. ``python -m tests.transport.cuda.entropic_golden`` writes the file anew, where a change of the kernels is
meant to change answers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from otfew.transport.cuda.sinkhorn import solve_entropic
from otfew.transport.entropic.newton import Rhos

from .golden import _draw as draw

FILE = Path(__file__).with_name("entropic_golden.json")
PROBLEMS = 3
REGS = (1.0, 0.1, 0.004)
"""Of costs from 0 to 1: in the plain domain at once, there for a while, and beyond it."""


def cases() -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor, float, Rhos]]]:
    """Small and large problems in each dtype, with zero weights, of hard marginals and of soft ones."""
    key = 0
    for n, m in ((25, 25), (5, 75), (90, 64)):
        for dtype in (torch.float32, torch.float64):
            for reg in REGS:
                key += 1
                cost = torch.from_numpy(draw(key, PROBLEMS, n, m) / 2.0**20).to(dtype)
                a, b = (
                    torch.from_numpy(draw(1000 * side + key, PROBLEMS, k) / 2.0**20) for side, k in ((1, n), (2, m))
                )
                a[1, ::3], b[1, ::4] = 0, 0
                rhos: Rhos = (0.5, None) if reg == REGS[1] and n == 25 and dtype == torch.float64 else (None, None)
                kind = "soft" if rhos[0] else "hard"
                yield f"{n}x{m} {str(dtype).removeprefix('torch.')} {reg} {kind}", (cost, a, b, reg, rhos)


def answer(machine: Any, problems: tuple[Tensor, Tensor, Tensor, float, Rhos]) -> dict[str, Any]:
    """Solve a case: a digest of all bits, and the duals' values, to tell by how much an answer differs.

    The device of the tensors must be the machine's.
    """
    found = solve_entropic(machine, *problems, tol=1e-6, max_iter=1000)
    assert found is not None
    parts = [found.solved.plan, found.solved.phi, found.solved.psi, found.solved.error, found.solved.n_iter]
    bits = b"".join(part.cpu().numpy().tobytes() for part in parts if part is not None)
    values = [x.hex() for x in found.value.tolist()] if problems[4] == (None, None) else []
    return {"values": values, "n_iter": found.solved.n_iter.tolist(), "bits": hashlib.sha256(bits).hexdigest()}


def stored() -> dict[str, dict[str, Any]]:
    """What the answers must be."""
    read: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return read


if __name__ == "__main__":
    from .emulator import Emulator

    told = {name: answer(Emulator(), problems) for name, problems in cases()}
    assert all(math.isfinite(float.fromhex(x)) for each in told.values() for x in each["values"])
    FILE.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
