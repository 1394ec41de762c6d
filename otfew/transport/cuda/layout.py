"""Where kernels find the problems of a batch: strides of the tensors as they are, so that nothing is copied."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch import Size, Tensor

Shape = tuple[int, ...]

Strided = tuple[Shape, Shape]
"""Sizes and strides of a tensor's batch dimensions."""


@dataclass(frozen=True)
class Layout:
    """Batch dimensions as few as can be, and each tensor's strides over them, in elements.

    Attributes:
        size: Of the dimensions.
        strides: For each tensor; 0 where it is broadcast.
    """

    size: Shape
    strides: tuple[Shape, ...]


def strided(tensor: Tensor | None, item_dims: int) -> Strided:
    """Sizes and strides of the batch dimensions of a tensor; of none, those of something shared by all."""
    if tensor is None:
        return (), ()
    batch = tensor.ndim - item_dims
    return tuple(tensor.shape[:batch]), tensor.stride()[:batch]


@functools.lru_cache(maxsize=1024)
def layout(batch: Size, *tensors: Strided) -> Layout:
    """Lay tensors out over a batch to which their own batch dimensions broadcast.

    Dimensions of one are left out, and neighbours over which every tensor steps evenly become one.
    """
    dims = len(batch)
    steps = []
    for size, stride in tensors:
        missing = dims - len(size)
        steps.append([0] * missing + [0 if length == 1 else step for length, step in zip(size, stride, strict=True)])
    sizes: list[int] = []
    strides: list[tuple[int, ...]] = []
    for d in range(dims):
        if batch[d] == 1:
            continue
        here = tuple(step[d] for step in steps)
        if sizes and all(outer == inner * batch[d] for outer, inner in zip(strides[-1], here, strict=True)):
            sizes[-1] *= batch[d]
            strides[-1] = here
        else:
            sizes.append(batch[d])
            strides.append(here)
    return Layout(tuple(sizes), tuple(tuple(step[k] for step in strides) for k in range(len(tensors))))
