"""Copies from the CPU to a device that nothing waits for."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None, *, copy: bool = False) -> Tensor:
    """Copy a tensor to a device and a dtype; the host does not wait for what the device was told before.

    A plain copy from the CPU to a GPU does wait. Without it the driver still reads the source before this returns, so
    that the source may be freed or changed.

    Args:
        tensor: Anywhere; what lies on another device than the CPU is copied as by ``Tensor.to``.
        device: Where to.
        dtype: Of the copy; None for the tensor's.
        copy: Copy in any case.
    """
    # MPS shares the CPU's memory and would read it too late.
    waits = not tensor.is_cpu or device.type == "mps"
    return tensor.to(device, tensor.dtype if dtype is None else dtype, non_blocking=not waits, copy=copy)
