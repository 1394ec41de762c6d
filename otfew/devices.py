"""Where to compute: a device by name, the way there for data, and what float32 means on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from otfew.errors import UserError
from otfew.transport import sending


def pick(name: str | torch.device = "auto", *, among: Sequence[str] = ("cuda", "mps")) -> torch.device:
    """Choose a device and try it with one number.

    Args:
        name: As torch names devices, or "auto" for the first of ``among`` that is there, else the CPU.
        among: Kinds of accelerators that "auto" may choose, the best first.

    Raises:
        UserError: Torch knows no such device, or it cannot hold and give back a number here.
    """
    if name == "auto":
        name = next((kind for kind in among if _present(kind)), "cpu")
    try:
        device = torch.device(name)
        # The meta device takes everything and gives nothing back.
        usable = torch.ones(1, device=device).item() == 1
    except (RuntimeError, AssertionError, ImportError, TypeError, ValueError):
        usable = False
    if not usable:
        found = "".join(f", {kind}" for kind in ("cuda", "mps") if _present(kind))
        none = "" if found else " (torch finds no accelerator here)"
        raise UserError(f"`device` {str(name)!r} cannot be used: choose auto, cpu{found}{none}.")
    return device


def _present(kind: str) -> bool:
    """Tell whether torch finds an accelerator of a kind."""
    return torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a batch to a device without waiting for what runs there; a GPU fetches it from pinned memory by itself.

    Args:
        tensor: Anywhere; pinned memory must not be written to afterwards.
        device: Where to; a tensor that is there is returned as it is.
    """
    device = torch.device(device)
    return sending.send(tensor.pin_memory() if tensor.is_cpu and device.type == "cuda" else tensor, device)


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was told, so that a clock sees the work that follows and no other."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def room(device: torch.device) -> int | None:
    """Count the bytes of a device's memory that are free, those that torch keeps for later use among them.

    Returns:
        None where torch does not tell.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@contextmanager
def full_float32() -> Iterator[None]:
    """Let products and convolutions of float32 be float32's: GPUs since 2020 round their factors to ten bits (TF32).

    The settings are afterwards what they were.
    """
    cudnn, cuda, mkldnn = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
    # Since torch 2.9 each kind of product has a setting of its own, beside which the older ones can't be read.
    kinds: list[Any] = [
        getattr(library, kind)
        for library, kind in ((cudnn, "conv"), (cudnn, "rnn"), (cuda, "matmul"), (mkldnn, "conv"), (mkldnn, "matmul"))
        if hasattr(getattr(library, kind, None), "fp32_precision")
    ]
    before = [kind.fp32_precision for kind in kinds]
    older = None if kinds else (cudnn.allow_tf32, torch.get_float32_matmul_precision())
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        if older is not None:
            cudnn.allow_tf32 = False
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision
        if older is not None:
            cudnn.allow_tf32 = older[0]
            torch.set_float32_matmul_precision(older[1])
