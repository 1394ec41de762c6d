"""Where to compute: from a name to a device that torch can use here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from otfew.errors import UserError


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
        raise UserError(f"`device` {str(name)!r} cannot be used: choose auto, cpu, or what torch finds here.")
    return device


def _present(kind: str) -> bool:
    """Tell whether torch finds an accelerator of a kind."""
    return torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()
