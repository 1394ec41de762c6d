"""The seam at which kernels are launched: a GPU through its driver, or in tests what stands in for one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ctypes

    import torch
    from torch import Tensor

    from otfew.transport.cuda.programs import Kernel


class Machine(Protocol):
    """What runs kernels on one device."""

    def address(self, tensor: Tensor) -> int:
        """Address, in the memory that kernels see, of a tensor's first element."""

    def launch(self, kernel: Kernel, problems: int, arguments: ctypes.Structure) -> None:
        """Run a kernel on the device's current stream, one warp a problem, and do not wait for it.

        Args:
            kernel: What to run.
            problems: How many there are; none is no launch.
            arguments: Copied before this returns; the tensors whose addresses it holds may be freed in stream order.
        """


Make = Callable[["torch.device"], "Machine | None"]
"""Makes the machine of a device; None, having said why, where kernels cannot run there."""


def machine_for(device: torch.device) -> Machine | None:
    """Return what runs kernels on a device.

    It is made once a device, whatever the number of threads.

    Returns:
        None where no kernel can run: kinds of devices without a maker, GPUs that are too old, no compiler. Then the
        reason was said, once, and the caller goes the way that needs no kernel.
    """
    if device.type not in _makers:
        return None
    if device not in _machines:
        with _lock:
            if device not in _machines:
                _machines[device] = _makers[device.type](device)
    return _machines[device]


def known(kind: str) -> bool:
    """Tell whether kernels may run on a kind of device, so that ``machine_for`` says why where they do not."""
    return kind in _makers


def register(kind: str, make: Make | None) -> None:
    """Say what makes the machines of a kind of device.

    Args:
        kind: As ``torch.device.type`` names it.
        make: Called once a device, when it is first asked for; None: no kernel runs on this kind any more.
    """
    with _lock:
        for device in [device for device in _machines if device.type == kind]:
            del _machines[device]
        if make is None:
            _makers.pop(kind, None)
        else:
            _makers[kind] = make


def _cuda(device: torch.device) -> Machine | None:
    from otfew.transport.cuda.driver import machine

    return machine(device)


_makers: dict[str, Make] = {"cuda": _cuda}

_machines: dict[torch.device, Machine | None] = {}

_lock = threading.RLock()
