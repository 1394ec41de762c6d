"""What ``solve`` returns: value, plan, potentials and the certificate."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.problem import Solution


def dense_plan(
    solution: Solution,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    scale: npt.NDArray[np.float64] | None = None,
) -> Tensor:
    """Lay out a solution's plan, times ``scale`` (problems,) where given, as a new tensor of shape (*batch, n, m)."""
    if solution.dense is not None:
        dense = solution.dense if scale is None else solution.dense * scale[:, None, None]
        return torch.from_numpy(dense).to(device=device, dtype=dtype, copy=True).reshape(shape)
    assert solution.rows is not None
    assert solution.cols is not None
    assert solution.flow is not None
    n, m = shape[-2:]
    # Basis arcs are distinct but for unused ones, which add zero. Memory of numpy comes zeroed from the system: torch
    # would wake all its threads to zero it, and they would then spin beside those of the next solve.
    index = torch.from_numpy(solution.rows.astype(np.int64) * m + solution.cols)
    flow = torch.from_numpy(solution.flow if scale is None else solution.flow * scale[:, None]).to(dtype)
    zeros = torch.from_numpy(np.zeros((len(index), n * m), np.float32 if dtype == torch.float32 else np.float64))
    return zeros.scatter_add_(1, index, flow).reshape(shape).to(device)


class OTResult:
    """Solutions of a batch of transport problems.

    Tensors live on the device of the cost and have its batch shape; they are numpy arrays where the cost was one.
    ``value``, ``value_linear``, ``gap`` and ``marginal_error`` are float64; ``plan`` and ``potentials`` take the
    cost's dtype.

    Attributes:
        value: (*batch,) optimal value; differentiable in cost, a and b.
        value_linear: (*batch,) <plan, cost>; for exact solvers the same as ``value``.
        gap: (*batch,) value minus dual value, in cost times mass: how far ``value`` can be above the optimum.
        marginal_error: (*batch,) largest deviation of the plan's sums from a and b, relative to the total.
        status: (*batch,) int8, see ``otfew.Status``.
        n_iter: (*batch,) int64, iterations (pivots for ``exact``).
        solver: Name of the code that ran.
    """

    def __init__(self, value: Tensor, solution: Solution, shape: tuple[int, ...], like: Tensor, numpy: bool) -> None:
        self._solution = solution
        self._shape = shape
        self._dtype = like.dtype
        self._device = like.device
        self._numpy = numpy
        self.value: Any = self._out(value)
        self.value_linear: Any = self.value
        self.solver = solution.solver

    def _out(self, tensor: Tensor) -> Any:
        return tensor.detach().cpu().numpy() if self._numpy else tensor

    def _batch(self, array: Any, *item: int, dtype: torch.dtype | None = None) -> Any:
        tensor = torch.from_numpy(array).reshape((*self._shape[:-2], *item))
        # A copy: whoever writes into it leaves the gradients alone.
        return self._out(tensor.to(device=self._device, dtype=dtype, copy=True))

    @cached_property
    def plan(self) -> Any:
        """The transport plan (*batch, n, m), made dense on first access; a constant for autograd."""
        return self._out(dense_plan(self._solution, self._shape, self._dtype, self._device))

    @cached_property
    def potentials(self) -> tuple[Any, Any]:
        """Dual potentials f (*batch, n) and g (*batch, m) in cost units: f_i + g_j <= cost_ij and sum_j g_j b_j = 0."""
        n, m = self._shape[-2:]
        return self._batch(self._solution.f, n, dtype=self._dtype), self._batch(self._solution.g, m, dtype=self._dtype)

    @cached_property
    def gap(self) -> Any:
        """Duality gap (*batch,), float64."""
        return self._batch(self._solution.gap)

    @cached_property
    def marginal_error(self) -> Any:
        """Largest marginal error relative to the total (*batch,), float64."""
        return self._batch(self._solution.marginal_error)

    @cached_property
    def status(self) -> Any:
        """How each problem ended (*batch,), int8."""
        return self._batch(self._solution.status)

    @cached_property
    def n_iter(self) -> Any:
        """Iterations (*batch,), int64."""
        return self._batch(self._solution.n_iter)

    def __repr__(self) -> str:
        n, m = self._shape[-2:]
        return f"OTResult(batch={tuple(self._shape[:-2])}, n={n}, m={m}, solver={self.solver!r})"
