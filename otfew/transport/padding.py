"""Problems of different sizes as one batch: padded with nodes that have no mass and may be paired with nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otfew.transport.arguments import as_tensor
from otfew.transport.problem import check_dtype


@dataclass(frozen=True)
class Padded:
    """A batch of problems of different sizes: ``otfew.solve(padded.cost, padded.a, padded.b, mask=padded.mask)``.

    Attributes:
        cost: (problems, n, m), n and m the largest numbers of rows and columns; zero where it is padded.
        a: (problems, n) weights of the rows, zero where padded.
        b: (problems, m) weights of the columns, likewise.
        mask: (problems, n, m) bool, True where there is a pair.
        sizes: Rows and columns of each problem.
    """

    cost: Any
    a: Any
    b: Any
    mask: Any
    sizes: tuple[tuple[int, int], ...]

    def crop(self, padded: Any) -> list[Any]:
        """Cut what a result holds for the batch back to the problems' sizes.

        Args:
            padded: (problems, n, m), as a plan is, or a pair (problems, n), (problems, m), as potentials and cuts are.

        Returns:
            For each problem a view (n_k, m_k), or a pair (n_k,), (m_k,).

        Raises:
            ValueError: Another shape.

        Examples:
            >>> import numpy as np
            >>> from otfew.transport import solve
            >>> padded = pad([np.eye(2), np.ones((1, 3))])
            >>> result = solve(padded.cost, padded.a, padded.b, mask=padded.mask)
            >>> [plan.shape for plan in padded.crop(result.plan)]
            [(2, 2), (1, 3)]
        """
        if isinstance(padded, tuple):
            f, g = padded
            if tuple(f.shape) + tuple(g.shape)[1:] != tuple(self.cost.shape) or len(g) != len(self.sizes):
                raise ValueError(
                    f"padded must be a pair of {tuple(self.a.shape)} and {tuple(self.b.shape)}, "
                    f"got {tuple(f.shape)} and {tuple(g.shape)}"
                )
            return [(f[k, :n], g[k, :m]) for k, (n, m) in enumerate(self.sizes)]
        if tuple(padded.shape) != tuple(self.cost.shape):
            raise ValueError(f"padded must be {tuple(self.cost.shape)}, got {tuple(padded.shape)}")
        return [padded[k, :n, :m] for k, (n, m) in enumerate(self.sizes)]


def pad(costs: Sequence[Any], a: Sequence[Any] | None = None, b: Sequence[Any] | None = None) -> Padded:
    """Make one batch of problems of different sizes, for one call of ``solve``.

    Padded nodes have no mass, and the mask allows them nothing, so that each problem's answer is that of ``solve`` on
    the problem alone; plan, potentials and gradients are zero there. Gradients reach the costs and weights that were
    given.

    Args:
        costs: (n_k, m_k) each, all torch or all numpy, of one dtype and device.
        a: (n_k,) weights of the rows each, or None: uniform, each problem with the total of its b, 1 if both are None.
        b: (m_k,) weights of the columns each, or None: uniform, each with the total of its a.

    Returns:
        A ``Padded``; tensors if the costs are, else arrays.

    Raises:
        ValueError: No costs, or something of another type, shape, dtype or device; the message names the argument and
            its place in the list.

    Examples:
        >>> import numpy as np
        >>> from otfew.transport import solve
        >>> padded = pad([np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([[1.0, 3.0, 5.0]])])
        >>> solve(padded.cost, padded.a, padded.b, mask=padded.mask).value
        array([0., 3.])
    """
    given = _tensors("costs", costs, 2)
    kinds = [(tensor.dtype, tensor.device, isinstance(x, Tensor)) for tensor, x in zip(given, costs, strict=True)]
    for k, kind in enumerate(kinds):
        if kind != kinds[0]:
            named = [_named(*kinds[i], i) for i in (0, k)]
            raise ValueError(
                f"costs must be all tensors or all arrays, of one dtype and device: {named[0]}, {named[1]}"
            )
    sizes = tuple((cost.shape[0], cost.shape[1]) for cost in given)
    heights, widths = (list(side) for side in zip(*sizes, strict=True))
    rows = None if a is None else _weights("a", a, heights)
    columns = None if b is None else _weights("b", b, widths)
    if rows is None:
        rows = [_uniform(None if columns is None else columns[k], size, given[k]) for k, size in enumerate(heights)]
    if columns is None:
        columns = [_uniform(None if a is None else rows[k], size, given[k]) for k, size in enumerate(widths)]
    n, m = max(heights), max(widths)
    mask = given[0].new_zeros((len(sizes), n, m), dtype=torch.bool)
    for k, (height, width) in enumerate(sizes):
        mask[k, :height, :width] = True
    parts = [_stacked(given, (n, m)), _stacked(rows, (n,)), _stacked(columns, (m,)), mask]
    made: list[Any] = parts if kinds[0][2] else [part.detach().cpu().numpy() for part in parts]
    return Padded(made[0], made[1], made[2], made[3], sizes)


def _weights(name: str, side: Any, lengths: list[int]) -> list[Tensor]:
    """Take the weights of a side, one tensor a problem."""
    weights = _tensors(name, side, 1)
    if len(weights) != len(lengths):
        raise ValueError(f"{name} must hold weights for each of {len(lengths)} costs, got {len(weights)}")
    for k, (given, length) in enumerate(zip(weights, lengths, strict=True)):
        if len(given) != length:
            raise ValueError(f"{name}[{k}] must be ({length},) to fit costs[{k}], got {tuple(given.shape)}")
    return weights


def _uniform(other: Tensor | None, size: int, cost: Tensor) -> Tensor:
    """Uniform weights with the total of the other side, 1 if that is missing too, as ``solve`` takes them."""
    # MPS has no float64.
    dtype = torch.float32 if cost.device.type == "mps" else torch.float64
    if other is None:
        return cost.new_full((size,), 1 / size, dtype=dtype)
    return (other.to(dtype).sum() / size).expand(size)


def _stacked(parts: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Stack tensors, each padded with zeros behind."""
    padded = []
    for part in parts:
        behind = [(0, length - own) for own, length in zip(part.shape, shape, strict=True)]
        padded.append(torch.nn.functional.pad(part, [x for pair in reversed(behind) for x in pair]))
    return torch.stack(padded)


def _tensors(name: str, given: Any, dims: int) -> list[Tensor]:
    """Take a list of tensors or arrays, and refuse anything else."""
    if not isinstance(given, list | tuple) or not given:
        got = f"an empty {type(given).__name__}" if isinstance(given, list | tuple) else type(given).__name__
        raise ValueError(f"{name} must be a list of tensors or arrays, one a problem, got {got}")
    tensors = []
    for k, value in enumerate(given):
        tensor = as_tensor(f"{name}[{k}]", value)
        if tensor is None:
            raise ValueError(f"{name}[{k}] must be a torch tensor or a numpy array, got None")
        if tensor.ndim != dims or 0 in tensor.shape:
            wanted = "(n, m) with at least one row and one column" if dims == 2 else "one number a node"
            raise ValueError(f"{name}[{k}] must be {wanted}, got shape {tuple(tensor.shape)}")
        check_dtype(f"{name}[{k}]", tensor)
        tensors.append(tensor)
    return tensors


def _named(dtype: torch.dtype, device: torch.device, tensor: bool, k: int) -> str:
    """Say of which kind a cost is."""
    return f"costs[{k}] is {'a tensor' if tensor else 'an array'} of {dtype} on {device}"
