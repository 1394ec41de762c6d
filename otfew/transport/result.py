"""What ``solve`` returns: value, plan, potentials and the certificate."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import NamedTuple, TypeVar

from otfew.transport.plan_operator import ArrayT, DensePlan, FlatPlan, PlanOperator, nonzeros
from otfew.transport.precision import WITHOUT_DOUBLES, float_dtype
from otfew.transport.problem import Solution, Status, first_index
from otfew.transport.selection import chosen
from otfew.transport.sending import send

PlanT = TypeVar("PlanT", default=ArrayT)
"""What the plan of a result is: arrays like its other parts, or a ``PlanOperator``."""


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
    # Results may have been moved to another device, and to another precision.
    rows, cols, flow = arcs[0].cpu().numpy(), arcs[1].cpu().numpy(), arcs[2].cpu().double().numpy()
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
        basis: Makes rows and columns of the tree that an exact search ended with, where they are not those of ``arcs``;
            both int32 (problems, arcs).
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
    basis: Callable[[], tuple[Tensor, Tensor]] | None = None
    cut: Callable[[], tuple[Tensor, Tensor] | None] = lambda: None

    def mapped(self, each: Callable[[Tensor], Tensor], sides: tuple[int, int]) -> Parts:
        """Describe the same problems, or some of them, by what ``each`` makes of every tensor (problems, ...).

        Args:
            each: Is given tensors one by one, when they are asked for; the value at once.
            sides: (n, m), of which plans are laid out.

        Returns:
            What a result of these problems is made of.
        """

        def one(make: Callable[[], Tensor]) -> Callable[[], Tensor]:
            return lambda: each(make())

        def several(make: Callable[[], Any] | None) -> Callable[[], Any] | None:
            return None if make is None else lambda: tuple(map(each, make()))

        arcs, potentials = several(self.arcs), several(self.potentials)
        assert potentials is not None

        def plan() -> Any:
            if arcs is None or not self.value.is_cpu:
                made = self.plan()
                return each(made) if isinstance(made, Tensor) else made.mapped(each)
            # Of a large batch only what was chosen is laid out.
            return _checked_plan(arcs(), sides, potentials()[0], each(self.status()))

        def cut() -> tuple[Tensor, Tensor] | None:
            found = self.cut()
            return None if found is None else (each(found[0]), each(found[1]))

        return Parts(
            value=each(self.value),
            plan=plan,
            potentials=potentials,
            solver=self.solver,
            sound=self.sound,
            arcs=arcs,
            basis=several(self.basis),
            cut=cut,
            **{name: one(getattr(self, name)) for name in _MEASURES},
        )

    def rounded(self, dtype: torch.dtype) -> Parts:
        """Return the value and what is measured with it in another precision; plan and potentials stay.

        Args:
            dtype: float32 or float64.
        """

        def cast(make: Callable[[], Tensor]) -> Callable[[], Tensor]:
            return lambda: make().to(dtype)

        measures: dict[str, Any] = {
            name: cast(getattr(self, name)) for name in ("value_linear", "gap", "marginal_error")
        }
        return replace(self, value=self.value.to(dtype), **measures)

    def shared(self) -> Parts:
        """Return the same, each part of which is made once at most, whoever asks for it."""
        made = ("plan", "potentials", "sound", "arcs", "basis", "cut", *_MEASURES)
        given = {name: getattr(self, name) for name in made}
        kept: dict[str, Any] = {name: functools.cache(make) for name, make in given.items() if make is not None}
        return replace(self, **kept)


def _checked_plan(arcs: Arcs, sides: tuple[int, int], like: Tensor, status: Tensor) -> Tensor:
    """Lay out plans in the dtype and on the device of ``like``, which holds potentials, if they fit."""
    check_range(arcs[2].double().sum(1)[status != Status.INFEASIBLE], like.dtype)
    return dense_arcs(arcs, (len(arcs[2]), *sides), like.dtype, like.device)


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
        basis=None if solution.basis is None else functools.partial(_tensors, solution.basis),
        cut=cut,
    )


def _tensors(arrays: tuple[npt.NDArray[Any], ...]) -> Any:
    """Share the memory of arrays."""
    return tuple(map(torch.from_numpy, arrays))


_MEASURES = ("value_linear", "gap", "marginal_error", "status", "n_iter")
"""Parts of a result with one number a problem."""

_OPTIONAL = ("arcs", "basis")
"""Parts that some results have."""


class SparsePlan(NamedTuple, Generic[ArrayT]):
    """Transport plans as lists of arcs, padded to one length with arcs that carry nothing.

    Attributes:
        rows: (*batch, arcs) int64.
        columns: (*batch, arcs) int64.
        mass: (*batch, arcs) in the dtype of the value, float64 unless said otherwise; zero where an arc is unused. No
            two arcs with mass share both row and column.
    """

    rows: ArrayT
    columns: ArrayT
    mass: ArrayT


class OTResult(Generic[ArrayT, PlanT]):
    """Solutions of a batch of transport problems.

    Tensors live on the device of the cost and have its batch shape; they are numpy arrays where the cost was one, and
    type checkers know which: ``OTResult[Tensor]`` or ``OTResult[NDArray[Any]]``, of point clouds with a second
    parameter, ``PlanOperator[Tensor]``. ``value``, ``value_linear``, ``gap`` and ``marginal_error`` are float64, or
    ``dtype`` of the call; ``plan`` and ``potentials`` take the cost's dtype.

    A result is indexed by problem, as an array of its batch shape is: ``result[3]``, ``result[1, 2]``, ``result[-2:]``,
    ``result[result.status != 0]``; it has a length and can be iterated over. What is so chosen keeps its graph and can
    be given as ``warm`` to another call.

    Results can be pickled, sent to another process, deep-copied and saved with ``torch.save``. A copy holds numbers and
    no graph: ``value`` and all else is detached. Sparse plans stay sparse. ``torch.load(weights_only=True)`` takes what
    ``solve`` returned within ``torch.serialization.safe_globals([otfew.OTResult])``.

    ``repr`` counts how the problems ended. For that it never waits for a GPU which nobody has waited for: with
    ``on_fail="ignore"`` there are no counts on a GPU.

    Attributes:
        value: (*batch,) optimal value; differentiable in cost, a and b.
        solver: Name of the code that ran.
    """

    value: ArrayT
    solver: str

    def __init__(
        self, parts: Parts, shape: tuple[int, ...], numpy: bool, points: bool = False, looked: bool = False
    ) -> None:
        self._parts = parts
        self._shape = shape
        self._numpy = numpy
        self._points = points
        self._looked = looked
        self.value = self._out(parts.value)
        self.solver = parts.solver

    def _out(self, part: Any) -> Any:
        if not isinstance(part, Tensor):
            return part
        batch = self._shape[:-2]
        unfolded = part if batch == part.shape[:1] else part.reshape((*batch, *part.shape[1:]))
        return unfolded.detach().cpu().numpy() if self._numpy else unfolded

    @cached_property
    def value_linear(self) -> ArrayT:
        """<plan, cost> (*batch,), in the dtype of ``value``; for exact solvers the same as ``value``."""
        return self._out(self._parts.value_linear())  # type: ignore[no-any-return]

    @cached_property
    def plan(self) -> PlanT:
        """The transport plan (*batch, n, m), made dense on first access; for exact solvers a constant for autograd.

        That of point clouds is a ``PlanOperator``.

        Raises:
            ValueError: The mass is outside the range of the cost's dtype, below 1.2e-38 or above 3.4e38 in float32.
        """
        made = self._parts.plan()
        if self._points:
            flat = made if isinstance(made, FlatPlan) else DensePlan(made)
            made = PlanOperator(flat, tuple(self._shape[:-2]), self._numpy)
        return self._out(made)  # type: ignore[no-any-return]

    @cached_property
    def plan_sparse(self) -> SparsePlan[ArrayT]:
        """The transport plan as its arcs, rows, columns and mass (*batch, arcs) each; see ``SparsePlan``.

        Of our own exact solver these are the at most n + m - 1 arcs that it keeps, constants for autograd, whose mass
        has not been rounded to the cost's dtype; nothing of size n m is made. Of a plan that is a matrix they are its
        entries other than zero, with the graph of ``plan``; of an entropic plan, which spreads over all pairs, they
        take more memory than the matrix. How many there are depends on the plans, so a GPU is then waited for.

        Raises:
            ValueError: The plan is an operator without a matrix.
        """
        parts = self._parts
        if parts.arcs is not None:
            rows, columns, mass = parts.arcs()
        else:
            made = parts.plan()
            if isinstance(made, FlatPlan):
                raise ValueError(
                    f"the plan of {self.solver} is an operator that spreads over all pairs and keeps no arcs: take "
                    "plan @ v, or the largest entries of plan.dense()"
                )
            rows, columns, mass = nonzeros(made)
        found = (rows.long(), columns.long(), mass.to(parts.value.dtype))
        return SparsePlan(*map(self._out, found))

    @cached_property
    def potentials(self) -> tuple[ArrayT, ArrayT]:
        """Dual potentials f (*batch, n) and g (*batch, m) in cost units, with sum_j g_j b_j = 0.

        Of exact solvers f_i + g_j <= cost_ij.
        """
        f, g = self._parts.potentials()
        return self._out(f), self._out(g)

    @cached_property
    def gap(self) -> ArrayT:
        """How far ``value`` can be above the optimum (*batch,): value minus dual value, cost times mass."""
        return self._out(self._parts.gap())  # type: ignore[no-any-return]

    @cached_property
    def marginal_error(self) -> ArrayT:
        """Largest deviation of the plan's sums from a and b (*batch,), relative to the total."""
        return self._out(self._parts.marginal_error())  # type: ignore[no-any-return]

    @cached_property
    def status(self) -> ArrayT:
        """How each problem ended (*batch,), int8; see ``otfew.Status``."""
        return self._out(self._parts.status())  # type: ignore[no-any-return]

    @cached_property
    def n_iter(self) -> ArrayT:
        """Iterations (*batch,), int64 (pivots for ``exact``)."""
        return self._out(self._parts.n_iter())  # type: ignore[no-any-return]

    def to(
        self, device: torch.device | str | int | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> OTResult[ArrayT, PlanT]:
        """Copy the result to a device, to a dtype, or to both; graphs lead back to where they were.

        Args:
            device: Where to; a dtype may stand in its place, as in ``Tensor.to``.
            dtype: float32 or float64, of all that is neither a count nor an index: value, certificates, plan and
                potentials. None leaves each its own, but float32 on devices without float64 (MPS). There the plan of
                point clouds stays on the CPU.

        Returns:
            The copy, of the same batch shape.

        Raises:
            ValueError: Another dtype, or a device for the arrays of numpy.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        goal = self._parts.value.device if device is None else torch.device(device)
        if self._numpy and goal.type != "cpu":
            raise ValueError(f"a result of numpy arrays cannot be moved to {goal}: give solve() tensors instead")
        precision = None if dtype is None else float_dtype(dtype, goal)
        if goal.type in WITHOUT_DOUBLES:
            precision = torch.float32

        def moved(tensor: Tensor) -> Tensor:
            if precision is None or not tensor.is_floating_point():
                return send(tensor, goal)
            # Rounded where there is float64.
            return (
                send(tensor.to(precision), goal) if goal.type in WITHOUT_DOUBLES else send(tensor, goal).to(precision)
            )

        return self._mapped(moved)

    def cpu(self) -> OTResult[ArrayT, PlanT]:
        """Return a copy on the CPU."""
        return self.to("cpu")

    def detach(self) -> OTResult[ArrayT, PlanT]:
        """Return a result with the same numbers and without a graph: nothing of the cost's graph is kept alive."""
        return self._mapped(Tensor.detach)

    def _mapped(self, each: Callable[[Tensor], Tensor]) -> OTResult[ArrayT, PlanT]:
        n, m = self._shape[-2:]
        return OTResult(self._parts.mapped(each, (n, m)), self._shape, self._numpy, self._points, self._looked)

    def __len__(self) -> int:
        """First size of the batch shape.

        Raises:
            TypeError: There is one problem and no batch.
        """
        if len(self._shape) == 2:
            raise TypeError("a result of one problem without a batch has no length; its batch shape is ()")
        return self._shape[0]

    def __bool__(self) -> bool:
        """Tell that there is a result, whatever its length."""
        return True

    def __getitem__(self, key: Any) -> OTResult[ArrayT, PlanT]:
        """Choose problems as elements of an array of the batch shape are chosen.

        Args:
            key: Whole numbers, slices, ..., and arrays or tensors of whole numbers or bool, or a tuple of these.

        Raises:
            IndexError: The key does not fit the batch shape.
        """
        index = chosen(key, tuple(self._shape[:-2]))
        flat = send(torch.from_numpy(np.ascontiguousarray(index.reshape(-1))), self._parts.value.device)
        n, m = self._shape[-2:]
        parts = self._common.mapped(lambda tensor: tensor.index_select(0, flat), (n, m))
        return OTResult(parts, (*index.shape, n, m), self._numpy, self._points, self._looked)

    def __iter__(self) -> Iterator[OTResult[ArrayT, PlanT]]:
        """Go over the first dimension of the batch."""
        return (self[k] for k in range(len(self)))

    @cached_property
    def _common(self) -> Parts:
        """What results of some of the problems are made from."""
        return self._parts.shared()

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
        optional = {name: getattr(parts, name) for name in _OPTIONAL}
        return state | {
            "value": parts.value.detach(),
            "potentials": (f.detach(), g.detach()),
            "plan": made.detach() if isinstance(made, Tensor) else made,
            "cut": parts.cut(),
            "solver": parts.solver,
            "sound": bool(parts.sound()),
            "shape": tuple(self._shape),
            "numpy": self._numpy,
            "points": self._points,
            **{name: None if make is None else make() for name, make in optional.items()},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what ``__getstate__`` handed over."""
        f, arcs = state["potentials"][0], state["arcs"]
        n, m = state["shape"][-2:]

        def plan() -> Any:
            if arcs is None:
                if isinstance(state["plan"], str):
                    raise ValueError(state["plan"])
                return state["plan"]
            return _checked_plan(arcs, (n, m), f, state["status"])

        # Older files lack some.
        held = [*_MEASURES, *(name for name in _OPTIONAL if state.get(name) is not None)]
        makers: dict[str, Any] = {name: functools.partial(state.__getitem__, name) for name in held}
        parts = Parts(
            value=state["value"],
            plan=plan,
            potentials=lambda: state["potentials"],
            solver=state["solver"],
            sound=functools.partial(state.__getitem__, "sound"),
            cut=lambda: state.get("cut"),
            **makers,
        )
        self.__init__(parts, state["shape"], state["numpy"], state["points"], looked=True)  # type: ignore[misc]

    def __copy__(self) -> OTResult[ArrayT, PlanT]:
        """Share everything, graphs included."""
        other: OTResult[ArrayT, PlanT] = OTResult.__new__(OTResult)
        other.__dict__.update(self.__dict__)
        return other

    def __repr__(self) -> str:
        n, m = self._shape[-2:]
        counts = "".join(f", {status.name.lower()} {count}" for status, count in self._counts() if count)
        return f"OTResult(batch={tuple(self._shape[:-2])}, n={n}, m={m}, solver={self.solver!r}{counts})"

    def _counts(self) -> list[tuple[Status, int]]:
        """Count how the problems ended, unless a device would have to be waited for that nobody has waited for."""
        if not (self._looked or self._parts.value.is_cpu):
            return []
        if self._parts.sound():
            return [(Status.OPTIMAL, math.prod(self._shape[:-2]))]
        found = self._parts.status().cpu().numpy()
        return [(status, int(np.count_nonzero(found == status))) for status in Status]
