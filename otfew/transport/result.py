"""What ``solve`` returns: value, plan, potentials and the certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    assert solution.flow is not None
    # numba compiles at import, so only once there is an exact plan to lay out.
    from otfew.transport.arcs import lay_out

    out = np.empty((len(solution.flow), *shape[-2:]), np.float32 if dtype == torch.float32 else np.float64)
    scale = np.ones(len(out)) if scale is None else np.ascontiguousarray(scale)
    lay_out(solution.rows, solution.cols, solution.flow, scale, out)
    return torch.from_numpy(out).reshape(shape).to(device)


@dataclass(slots=True, eq=False)
class Parts:
    """What a result is made of: tensors on one device over a flat batch, each made when it is first asked for.

    Attributes:
        value: (problems,) float64, differentiable.
        value_linear: Makes (problems,) float64.
        plan: Makes (problems, n, m) in the cost's dtype, or a plan as an operator.
        potentials: Makes f (problems, n) and g (problems, m) in the cost's dtype.
        gap: Makes (problems,) float64.
        marginal_error: Makes (problems,) float64.
        status: Makes (problems,) int8, see ``Status``.
        n_iter: Makes (problems,) int64.
        solver: Name of the code that ran.
        sound: Whether it is known that no problem failed.
    """

    value: Tensor
    value_linear: Callable[[], Tensor]
    plan: Callable[[], Any]
    potentials: Callable[[], tuple[Tensor, Tensor]]
    gap: Callable[[], Tensor]
    marginal_error: Callable[[], Tensor]
    status: Callable[[], Tensor]
    n_iter: Callable[[], Tensor]
    solver: str
    sound: bool = False


def parts_of(value: Tensor, solution: Solution, like: Tensor) -> Parts:
    """Describe a solution found in numpy, in the dtype and on the device of ``like``, the cost.

    Everything is a copy: whoever writes into it leaves the gradients alone.
    """
    dtype, device = like.dtype, like.device

    def out(array: npt.NDArray[Any], to: torch.dtype | None = None) -> Tensor:
        return torch.from_numpy(array).to(device=device, dtype=to, copy=True)

    return Parts(
        value=value,
        value_linear=lambda: value if solution.linear is None else out(solution.linear),
        plan=lambda: dense_plan(solution, (len(solution.value), *like.shape[-2:]), dtype, device),
        potentials=lambda: (out(solution.f, dtype), out(solution.g, dtype)),
        gap=lambda: out(solution.gap),
        marginal_error=lambda: out(solution.marginal_error),
        status=lambda: out(solution.status),
        n_iter=lambda: out(solution.n_iter),
        solver=solution.solver,
        sound=np.count_nonzero(solution.status) == 0,
    )


class OTResult:
    """Solutions of a batch of transport problems.

    Tensors live on the device of the cost and have its batch shape; they are numpy arrays where the cost was one.
    ``value``, ``value_linear``, ``gap`` and ``marginal_error`` are float64; ``plan`` and ``potentials`` take the
    cost's dtype.

    Attributes:
        value: (*batch,) optimal value; differentiable in cost, a and b.
        solver: Name of the code that ran.
    """

    def __init__(self, parts: Parts, shape: tuple[int, ...], numpy: bool) -> None:
        self._parts = parts
        self._shape = shape
        self._numpy = numpy
        self.value: Any = self._out(parts.value)
        self.solver = parts.solver

    def _out(self, part: Any) -> Any:
        if not isinstance(part, Tensor):
            return part
        batch = self._shape[:-2]
        unfolded = part if batch == part.shape[:1] else part.reshape((*batch, *part.shape[1:]))
        return unfolded.detach().cpu().numpy() if self._numpy else unfolded

    @cached_property
    def value_linear(self) -> Any:
        """<plan, cost> (*batch,), float64; for exact solvers the same as ``value``."""
        return self._out(self._parts.value_linear())

    @cached_property
    def plan(self) -> Any:
        """The transport plan (*batch, n, m), made dense on first access; for exact solvers a constant for autograd."""
        return self._out(self._parts.plan())

    @cached_property
    def potentials(self) -> tuple[Any, Any]:
        """Dual potentials f (*batch, n) and g (*batch, m) in cost units, with sum_j g_j b_j = 0.

        Of exact solvers f_i + g_j <= cost_ij.
        """
        f, g = self._parts.potentials()
        return self._out(f), self._out(g)

    @cached_property
    def gap(self) -> Any:
        """How far ``value`` can be above the optimum (*batch,): value minus dual value, cost times mass, float64."""
        return self._out(self._parts.gap())

    @cached_property
    def marginal_error(self) -> Any:
        """Largest deviation of the plan's sums from a and b (*batch,), relative to the total, float64."""
        return self._out(self._parts.marginal_error())

    @cached_property
    def status(self) -> Any:
        """How each problem ended (*batch,), int8; see ``otfew.Status``."""
        return self._out(self._parts.status())

    @cached_property
    def n_iter(self) -> Any:
        """Iterations (*batch,), int64 (pivots for ``exact``)."""
        return self._out(self._parts.n_iter())

    def __repr__(self) -> str:
        n, m = self._shape[-2:]
        return f"OTResult(batch={tuple(self._shape[:-2])}, n={n}, m={m}, solver={self.solver!r})"
