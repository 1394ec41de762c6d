"""What training writes: weights with their card, and the state from which it goes on."""

from __future__ import annotations

import io
from os.path import exists
from pathlib import Path
from typing import Any

import torch

from otfew.backbones.weights import load, save
from otfew.errors import UserError
from otfew.runs.files import reading, write_atomically
from otfew.runs.regular_file import GIB, open_regular

LARGEST = 64 * GIB
"""Bytes of a state that is read."""

__all__ = ["load", "load_state", "save", "save_state"]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors, numbers, strings, lists, dictionaries), whole or not at all.

    Raises:
        UserError: It can't be written, as on a full disk; the state that was there before is still there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any] | None:
    """Read a training state, onto the CPU and without running any code it may hold.

    Returns:
        The state, or None where there is no file.

    Raises:
        UserError: The file is damaged, something else stands in its place, or the system refuses to read it now.
    """
    if not exists(path):
        return None
    try:
        with reading(path), open_regular(path, LARGEST) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception:  # a damaged file may raise nearly any exception
        state = None
    if not isinstance(state, dict):
        raise UserError(f"the training state {path} is damaged: delete it to start again, or give another folder.")
    return state
