"""Where node sets lie while episodes are gathered from them: on the device where they fit, else with the CPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.devices import room, send

SHARE = 0.5
"""Of a device's free memory that node sets may take: methods need the rest."""


def placed(nodes: Tensor, device: torch.device, processes: int = 1) -> Tensor:
    """Copy node sets to a device, unless they would take too much of its memory.

    Args:
        nodes: (images, nodes, channels), perhaps mapped from disk.
        device: Where methods run.
        processes: How many may share the device, and do the same.

    Returns:
        The nodes on the device, or as they are.
    """
    free = room(device)
    fits = free is None or processes * nodes.numel() * nodes.element_size() <= SHARE * free
    # Not by pinned memory, of which as much again would be held.
    return nodes.to(device) if fits else nodes


def gathered(nodes: Tensor, indices: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """Pick images: indices (...,) of nodes (images, nodes, channels) give (..., nodes, channels) on the device."""
    index = send(torch.from_numpy(indices.reshape(-1)), nodes.device)
    return send(nodes.index_select(0, index).view(*indices.shape, *nodes.shape[1:]), device)
