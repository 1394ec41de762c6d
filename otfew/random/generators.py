"""Torch's generators, borrowed: what is drawn is a function of a key, and they stand afterwards where they stood."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def drawn(seed: int) -> Iterator[None]:
    """Let the CPU's generator begin at a seed, and put it back afterwards; other devices' are not touched.

    ``torch.manual_seed`` would set those of all GPUs as well, for good.

    Args:
        seed: Of what is drawn within.
    """
    with borrowed():
        begin(seed)
        yield


@contextmanager
def borrowed(device: torch.device | None = None) -> Iterator[None]:
    """Put the CPU's generator, and a device's own, back to where they stand now.

    Args:
        device: None, or one without a generator of its own, leaves it at the CPU's.
    """
    here, own = torch.get_rng_state(), _own(device)
    there = None if own is None else own.get_rng_state(device)
    try:
        yield
    finally:
        torch.set_rng_state(here)
        if own is not None:
            own.set_rng_state(there, device)


def begin(seed: int, device: torch.device | None = None) -> None:
    """Let generators that are ``borrowed`` begin at a seed.

    Args:
        seed: Of what is drawn next.
        device: Whose generator begins there too, beside the CPU's: the current device of its kind.
    """
    torch.default_generator.manual_seed(seed)
    own = _own(device)
    if own is not None:
        own.manual_seed(seed)


def _own(device: torch.device | None) -> Any:
    """Return torch's module for a kind of device that has generators of its own, or None."""
    module = None if device is None or device.type == "cpu" else getattr(torch, device.type, None)
    return module if hasattr(module, "get_rng_state") else None
