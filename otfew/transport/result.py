"""What ``solve`` returns: value, plan, potentials and the certificate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.plan_operator import DensePlan, FlatPlan, PlanOperator
from otfew.transport.problem import Solution, Status, first_index
from otfew.transport.sending import send


def check_range(mass: Tensor, dtype: torch.dtype) -> None:
    """Refuse to hand out plans that a dtype would turn to zero or infinity.

    Down to the least normal number of a dtype, entries of a plan are rounded to its precision relative to the mass.

    Args:
        mass: (problems,) float64.
        dtype: Of the plan.

    Raises:
        ValueError: A mass is out of range; names the first problem of the flat batch.
    """
    limits = torch.finfo(dtype)
    bad = (mass < limits.tiny) | (mass > limits.max)
    if bool(bad.any()):
        raise ValueError(
            f"a plan of mass {float(mass[bad][0]):.3g} does not fit {dtype}{first_index(bad, 1)}; "
            "give the cost in float64, or rescale the weights"
        )


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
        return send(torch.from_numpy(dense), device, dtype, copy=True).reshape(shape)
    return dense_arcs(arcs_of(solution), shape, dtype, device, scale)


Arcs = tuple[Tensor, Tensor, Tensor]
"""Rows and columns, int32, and flows, float64, of plans that are kept sparse: each (problems, arcs)."""


def arcs_of(solution: Solution) -> Arcs:
    """Return a sparse plan's arcs; they share the solution's memory."""
    rows, cols, flow = solution.arcs
    return torch.from_numpy(rows), torch.from_numpy(cols), torch.from_numpy(flow)


def dense_arcs(
    arcs: Arcs,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    scale: npt.NDArray[np.float64] | None = None,
) -> Tensor:
    """Lay out a sparse plan; see ``dense_plan``."""
    # A file of results may have been loaded onto another device.
    rows, cols, flow = (x.cpu().numpy() for x in arcs)
    # numba compiles at import, so only once there is an exact plan to lay out.
    from otfew.transport.simplex.arcs import lay_out

    out = np.empty((len(flow), *shape[-2:]), np.float32 if dtype == torch.float32 else np.float64)
    scale = np.ones(len(out)) if scale is None else np.ascontiguousarray(scale)
    lay_out(rows, cols, flow, scale, out)
    return send(torch.from_numpy(out).reshape(shape), device)


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
        sound: Tells whether it is known that no problem failed; may wait for the device.
        arcs: Makes the arcs of ``plan`` where it is kept sparse.
        cut: Makes rows (problems, n) and columns (problems, m), bool, that prove problems infeasible; None where none
            can be, or none is.
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
    sound: Callable[[], bool] = lambda: False
    arcs: Callable[[], Arcs] | None = None
    cut: Callable[[], tuple[Tensor, Tensor] | None] = lambda: None


def parts_of(value: Tensor, solution: Solution, like: Tensor) -> Parts:
    """Describe a solution found in numpy, in the dtype and on the device of ``like``, the cost.

    Everything is a copy: whoever writes into it leaves the gradients alone.
    """
    dtype, device = like.dtype, like.device

    def out(array: npt.NDArray[Any], to: torch.dtype | None = None) -> Tensor:
        return send(torch.from_numpy(array), device, to, copy=True)

    def plan() -> Tensor:
        flows = solution.arcs[2] if solution.dense is None else solution.dense
        mass = torch.from_numpy(flows.sum(tuple(range(1, flows.ndim))))
        check_range(mass[torch.from_numpy(solution.status != Status.INFEASIBLE)], dtype)
        return dense_plan(solution, (len(solution.value), *like.shape[-2:]), dtype, device)

    def cut() -> tuple[Tensor, Tensor] | None:
        return None if solution.cut is None else (out(solution.cut[0]), out(solution.cut[1]))

    return Parts(
        value=value,
        value_linear=lambda: value if solution.linear is None else out(solution.linear),
        plan=plan,
        potentials=lambda: (out(solution.f, dtype), out(solution.g, dtype)),
        gap=lambda: out(solution.gap),
        marginal_error=lambda: out(solution.marginal_error),
        status=lambda: out(solution.status),
        n_iter=lambda: out(solution.n_iter),
        solver=solution.solver,
        sound=lambda: bool(np.count_nonzero(solution.status) == 0),
        arcs=None if solution.dense is not None else functools.partial(arcs_of, solution),
        cut=cut,
    )


_MEASURES = ("value_linear", "gap", "marginal_error", "status", "n_iter")
"""Parts of a result with one number a problem."""


class OTResult:
    """Solutions of a batch of transport problems.

    Tensors live on the device of the cost and have its batch shape; they are numpy arrays where the cost was one.
    ``value``, ``value_linear``, ``gap`` and ``marginal_error`` are float64; ``plan`` and ``potentials`` take the
    cost's dtype.

    Results can be pickled, sent to another process, deep-copied and saved with ``torch.save``. A copy holds numbers and
    no graph: ``value`` and all else is detached. Sparse plans stay sparse. ``torch.load(weights_only=True)`` takes what
    ``solve`` returned within ``torch.serialization.safe_globals([otfew.OTResult])``.

    Attributes:
        value: (*batch,) optimal value; differentiable in cost, a and b.
        solver: Name of the code that ran.
    """

    def __init__(self, parts: Parts, shape: tuple[int, ...], numpy: bool, points: bool = False) -> None:
        self._parts = parts
        self._shape = shape
        self._numpy = numpy
        self._points = points
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
        """The transport plan (*batch, n, m), made dense on first access; for exact solvers a constant for autograd.

        That of point clouds is a ``PlanOperator``.

        Raises:
            ValueError: The mass is outside the range of the cost's dtype, below 1.2e-38 or above 3.4e38 in float32.
        """
        made = self._parts.plan()
        if not self._points:
            return self._out(made)
        flat = made if isinstance(made, FlatPlan) else DensePlan(made)
        return PlanOperator(flat, tuple(self._shape[:-2]), self._numpy)

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

    @cached_property
    def cut(self) -> tuple[Any, Any]:
        """Proof that problems are infeasible: rows (*batch, n) and columns (*batch, m), bool; all False elsewhere.

        These columns are all that is allowed for these rows, and hold less: sum a[rows] > sum b[columns]. With
        ``Exact(mass=...)`` at most sum a[other rows] + sum b[columns] can be transported, which is less.
        """
        n, m = self._shape[-2:]
        like = self._parts.value
        found = self._parts.cut()
        if found is None:
            size = like.numel()
            found = tuple(torch.zeros(size, k, dtype=torch.bool, device=like.device) for k in (n, m))  # type: ignore[assignment]
        assert found is not None
        return self._out(found[0]), self._out(found[1])

    def __getstate__(self) -> dict[str, Any]:
        """Everything that is or could be asked for, as tensors without a graph."""
        parts = self._parts
        state: dict[str, Any] = {name: getattr(parts, name)().detach() for name in _MEASURES}
        f, g = parts.potentials()
        try:
            made = None if parts.arcs is not None else parts.plan()
        except ValueError as error:
            # A plan out of range keeps nobody from the rest: the copy says so when it is asked for the plan.
            made = str(error)
        return state | {
            "value": parts.value.detach(),
            "potentials": (f.detach(), g.detach()),
            "plan": made.detach() if isinstance(made, Tensor) else made,
            "arcs": None if parts.arcs is None else parts.arcs(),
            "cut": parts.cut(),
            "solver": parts.solver,
            "sound": bool(parts.sound()),
            "shape": tuple(self._shape),
            "numpy": self._numpy,
            "points": self._points,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what ``__getstate__`` handed over."""
        f, arcs = state["potentials"][0], state["arcs"]
        flat = (len(f), *state["shape"][-2:])

        def plan() -> Any:
            if arcs is None:
                if isinstance(state["plan"], str):
                    raise ValueError(state["plan"])
                return state["plan"]
            check_range(arcs[2].sum(1)[state["status"] != Status.INFEASIBLE], f.dtype)
            return dense_arcs(arcs, flat, f.dtype, f.device)

        parts = Parts(
            value=state["value"],
            plan=plan,
            potentials=lambda: state["potentials"],
            solver=state["solver"],
            sound=functools.partial(state.__getitem__, "sound"),
            arcs=None if arcs is None else lambda: arcs,
            cut=lambda: state.get("cut"),
            **{name: functools.partial(state.__getitem__, name) for name in _MEASURES},
        )
        self.__init__(parts, state["shape"], state["numpy"], state["points"])  # type: ignore[misc]

    def __copy__(self) -> OTResult:
        """Share everything, graphs included."""
        other = OTResult.__new__(OTResult)
        other.__dict__.update(self.__dict__)
        return other

    def __repr__(self) -> str:
        n, m = self._shape[-2:]
        return f"OTResult(batch={tuple(self._shape[:-2])}, n={n}, m={m}, solver={self.solver!r})"
