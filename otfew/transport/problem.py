"""A batch of transport problems, checked and laid out for the solvers, and what a solver hands back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

Basis = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
"""Rows and columns (problems, arcs) of the arcs of spanning trees, flows of zero included."""

TOTALS_RTOL = 1e-4
"""Totals of a and b may differ by this much, relative to the larger; b is then rescaled in float64."""

TOTALS_RANGE = (1e-290, 1e290)
"""Totals of weights between which the solvers' arithmetic neither overflows nor loses digits."""


class Status(IntEnum):
    """How a problem ended."""

    OPTIMAL = 0
    """The solver's own measure says that it has arrived: ``gap`` and ``marginal_error`` are proof."""
    MAX_ITER = 1
    """It stopped at its last iteration; the answer is what it had then."""
    FAILED = 2
    """Numbers overflow or differ too widely for an answer that can be proven."""
    INFEASIBLE = 5
    """No plan uses allowed pairs alone."""


@dataclass(frozen=True, slots=True)
class Feasibility:
    """Which problems no plan of allowed pairs solves, and the proof; see ``forbidden.feasibility``.

    Attributes:
        infeasible: (problems,) bool.
        rows: (problems, n) bool: rows that hold more than ``columns``; none where there is a plan.
        columns: (problems, m) bool: all columns that are allowed for any of these rows.
    """

    infeasible: Bools
    rows: Bools
    columns: Bools


INVALID = 3
"""Status, within a solver that checks its input itself, of a problem that is unsound."""

UNSURE = 4
"""Status, within a solver, of a plan that is optimal only to the rounding of costs far above its own."""


@dataclass(slots=True, eq=False)
class Problem:
    """A flat batch of problems in which costs and weights may be shared.

    Problem k has cost ``cost[cost_index[k]]``, weights ``a[a_index[k]]`` and ``b[b_index[k]]``; its mass is the total
    of its a.

    Attributes:
        cost: (costs, n, m) float32 or float64 on the CPU; +inf where a pair is forbidden.
        a: (rows of a, n) float64.
        b: (rows of b, m) float64, not yet rescaled to the total of a.
        cost_index: (problems,) int64.
        a_index: (problems,) int64.
        b_index: (problems,) int64.
        batch: Batch shape that the flat index unfolds to.
        checked: Whether costs and weights were checked, or are to be taken as sound.
        rounding: Largest relative error of one rounding of a weight, as it was given.
        forbids: Whether pairs are known to be forbidden; if not, they may be all the same.
        basis: Rows and columns, int32 (problems, arcs), of the tree from which a search may start; arcs that make a
            cycle, or that do not exist, are passed over.
    """

    cost: npt.NDArray[np.floating]
    a: Array
    b: Array
    cost_index: npt.NDArray[np.int64]
    a_index: npt.NDArray[np.int64]
    b_index: npt.NDArray[np.int64]
    batch: tuple[int, ...]
    checked: bool = True
    rounding: float = 2.0**-53
    forbids: bool = False
    basis: Basis | None = None

    def __len__(self) -> int:
        """Count the problems."""
        return len(self.cost_index)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns (n, m)."""
        return self.cost.shape[1], self.cost.shape[2]

    def part(self, index: npt.NDArray[np.intp], cost: npt.NDArray[np.floating] | None = None) -> Problem:
        """Take some of the problems, for other costs where these are given.

        Args:
            index: (some,) which problems; costs are shared as before.
            cost: (some, n, m), the costs of these in order, or None.

        Returns:
            A batch of (some,) problems, which shares its arrays with this one.
        """
        given = cost is None
        return replace(
            self,
            cost=self.cost if cost is None else cost,
            cost_index=self.cost_index[index] if given else np.arange(len(index)),
            a_index=self.a_index[index],
            b_index=self.b_index[index],
        )

    def trees(self, index: npt.NDArray[np.intp]) -> Basis | None:
        """Take the trees of some of the problems, if there are any.

        Args:
            index: (some,) which problems.

        Returns:
            Rows and columns (some, arcs), or None.
        """
        return None if self.basis is None else (self.basis[0][index], self.basis[1][index])

    def item(self, k: int) -> tuple[Array, Array, Array]:
        """Take one problem by itself.

        Args:
            k: Which one.

        Returns:
            cost (n, m), a (n,), and b (m,) rescaled to the total of a: float64, contiguous.
        """
        a, b = self.a[self.a_index[k]], self.b[self.b_index[k]]
        cost = np.ascontiguousarray(self.cost[self.cost_index[k]], dtype=np.float64)
        return cost, np.ascontiguousarray(a), b * (a.sum() / b.sum())


@dataclass(slots=True, eq=False)
class Solution:
    """What a backend found for a flat batch of problems; everything float64 in the units of the cost.

    The plan is either sparse (``rows``, ``cols``, ``flow``) or ``dense``; the others are then None.

    Attributes:
        value: (problems,) transport cost of the plan.
        f: (problems, n) potential of the rows.
        g: (problems, m) potential of the columns; f_i + g_j <= cost_ij, sum_j g_j b_j = 0.
        gap: (problems,) value minus dual value.
        marginal_error: (problems,) largest deviation from a or b, relative to the total.
        status: (problems,) int8, see ``Status``.
        n_iter: (problems,) int64.
        solver: Name of the code that ran.
        rows: (problems, arcs) int32, of a sparse plan; unused arcs are at (0, 0).
        cols: (problems, arcs) int32, likewise.
        flow: (problems, arcs), zero on unused arcs.
        dense: (problems, n, m), the plan as a matrix.
        linear: (problems,) <plan, cost> where that is not the value.
        balanced: Whether the problem solved is that of (a, b * sum(a) / sum(b)); if not, f and g are the derivatives
            of the value in a and b as they were given.
        cut: Rows (problems, n) and columns (problems, m), bool, that prove problems infeasible: nothing else is allowed
            for these rows, and they hold more. None where none is.
        basis: Rows and columns of the tree that an exact search ended with, where they are not ``rows`` and ``cols``.
    """

    value: Array
    f: Array
    g: Array
    gap: Array
    marginal_error: Array
    status: npt.NDArray[np.int8]
    n_iter: npt.NDArray[np.int64]
    solver: str
    rows: npt.NDArray[np.int32] | None = None
    cols: npt.NDArray[np.int32] | None = None
    flow: Array | None = None
    dense: Array | None = None
    linear: Array | None = None
    balanced: bool = True
    cut: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None = None
    basis: Basis | None = None

    @property
    def arcs(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Array]:
        """Rows, columns and flows (problems, arcs) of a plan that is kept sparse.

        Raises:
            TypeError: It is dense.
        """
        if self.rows is None or self.cols is None or self.flow is None:
            raise TypeError(f"the plan of {self.solver} is not kept as arcs")
        return self.rows, self.cols, self.flow

    def put(self, index: npt.NDArray[np.intp], other: Solution) -> Solution:
        """Replace some of the problems by those of another solution, in place.

        Args:
            index: (some,) which problems.
            other: (some,) answers, with sparse plans of as many arcs.

        Returns:
            Itself.

        Raises:
            TypeError: A plan is dense.
        """
        pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = list(zip(self.arcs, other.arcs, strict=True))
        names = ("value", "f", "g", "gap", "marginal_error", "status", "n_iter")
        pairs += [(getattr(self, name), getattr(other, name)) for name in names]
        if other.cut is not None:
            if self.cut is None:
                self.cut = np.zeros_like(self.f, np.bool_), np.zeros_like(self.g, np.bool_)
            pairs += zip(self.cut, other.cut, strict=True)
        for mine, theirs in pairs:
            mine[index] = theirs
        return self

    def refuse(self, index: npt.NDArray[np.intp], proof: Feasibility) -> None:
        """Hand back, of those of some problems that are infeasible, nothing but that, in place.

        Args:
            index: (some,) which problems they are.
            proof: (some,) what was found of them.
        """
        unserved = index[proof.infeasible]
        if not len(unserved):
            return
        self.status[unserved] = Status.INFEASIBLE
        self.value[unserved], self.gap[unserved], self.marginal_error[unserved] = np.inf, np.nan, np.nan
        for part in (self.f, self.g, self.flow, self.dense, self.rows, self.cols):
            if part is not None:
                part[unserved] = 0
        if self.linear is not None:
            self.linear[unserved] = np.inf
        if self.cut is None:
            self.cut = np.zeros_like(self.f, np.bool_), np.zeros_like(self.g, np.bool_)
        self.cut[0][unserved], self.cut[1][unserved] = proof.rows[proof.infeasible], proof.columns[proof.infeasible]


@dataclass(frozen=True)
class Potentials:
    """Dual potentials near those of a flat batch of problems, in units of the cost and in any gauge.

    Attributes:
        f: (problems, n) float64, finite, without a graph, on the device of the problems.
        g: (problems, m) float64, likewise.
    """

    f: Tensor
    g: Tensor


def first_index(bad: Tensor, batch_dims: int) -> str:
    """Name the first batch index at which ``bad`` holds anywhere."""
    index = bad.nonzero()[0].tolist()[:batch_dims]
    if not index:
        return ""
    return f" at batch index {index[0] if len(index) == 1 else tuple(index)}"


def check_dtype(name: str, tensor: Tensor) -> None:
    """Refuse other precisions.

    Raises:
        ValueError: Neither float32 nor float64; the message names the argument.
    """
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{name} must be float32 or float64, got {tensor.dtype}; convert it with .float() or .double()"
        )


def _checked_totals(name: str, weights: Tensor) -> Tensor:
    """Totals (*batch,) float64 of sound weights; the slow search for what is wrong only where something is."""
    totals = weights.sum(-1, dtype=torch.float64)
    if weights.numel() == 0:
        return totals
    # Comparisons with NaN are false, and a NaN weight makes its total NaN.
    least, largest = torch.aminmax(totals)
    if bool((weights.min() >= 0) & (least >= TOTALS_RANGE[0]) & (largest <= TOTALS_RANGE[1])):
        return totals
    batch_dims = weights.ndim - 1
    if not bool(torch.isfinite(weights).all()):
        raise ValueError(f"{name} holds NaN or infinity{first_index(~torch.isfinite(weights), batch_dims)}")
    if bool((weights < 0).any()):
        raise ValueError(f"{name} holds a negative weight{first_index(weights < 0, batch_dims)}")
    if bool((totals <= 0).any()):
        raise ValueError(f"{name} has total weight zero{first_index(totals <= 0, batch_dims)}")
    extreme = (totals < TOTALS_RANGE[0]) | (totals > TOTALS_RANGE[1])
    raise ValueError(
        f"{name} has a total outside [{TOTALS_RANGE[0]}, {TOTALS_RANGE[1]}]{first_index(extreme, batch_dims)}; "
        "rescale the weights"
    )


def check_shapes(cost: Tensor, a: Tensor | None, b: Tensor | None) -> torch.Size:
    """Check shapes and dtypes and return the batch shape.

    Args:
        cost: (*batch, n, m).
        a: (*batch, n) or None.
        b: (*batch, m) or None.

    Raises:
        ValueError: A shape or dtype does not fit; the message names the argument.
    """
    if cost.ndim < 2:
        raise ValueError(
            f"cost must be (*batch, n, m), got shape {tuple(cost.shape)}; for point clouds see solve_points"
        )
    n, m = cost.shape[-2:]
    if n == 0 or m == 0:
        raise ValueError(f"cost must have at least one row and one column, got shape {tuple(cost.shape)}")
    check_dtype("cost", cost)
    batches = [cost.shape[:-2]]
    for name, weights, size in (("a", a, n), ("b", b, m)):
        if weights is None:
            continue
        check_dtype(name, weights)
        if weights.ndim < 1 or weights.shape[-1] != size:
            raise ValueError(
                f"{name} must be (*batch, {size}) to fit cost {tuple(cost.shape)}, got {tuple(weights.shape)}"
            )
        batches.append(weights.shape[:-1])
    if all(batch == batches[0] for batch in batches):
        return batches[0]
    try:
        batch: torch.Size = torch.broadcast_shapes(*batches)  # type: ignore[no-untyped-call]
    except RuntimeError:
        given = ", ".join(str(tuple(batch)) for batch in batches)
        raise ValueError(f"batch shapes of cost and weights do not broadcast: {given}") from None
    return batch


def surely_finite(cost: Tensor) -> bool:
    """Look at the sum: if it is finite, so is every entry, at a fraction of the cost of looking at each.

    On the CPU numpy sums: torch would wake all its threads, and they would then spin beside those of the solver.
    """
    values = cost.detach()
    if values.device.type != "cpu":
        return bool(torch.isfinite(values.sum()))
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.add.reduce(values.numpy(), None))


def surely_sound(cost: Tensor, a: Tensor | None, b: Tensor | None, equal_totals: bool, totals_rtol: float) -> bool:
    """Pass what is sound: on the CPU in numpy, which looks at a small problem's values in a third of torch's time."""
    if not cost.is_cpu:
        return _surely_sound_elsewhere(cost.detach(), a, b, equal_totals, totals_rtol)
    totals = []
    # Entering the context takes as long as looking at a small problem, so once.
    with np.errstate(over="ignore", invalid="ignore"):
        for weights in (a, b):
            if weights is None:
                continue
            if not weights.is_cpu or weights.numel() == 0:
                return False
            values = weights.detach().numpy()
            total = np.add.reduce(values, -1, np.float64)
            least, largest = (total, total) if values.ndim == 1 else (total.min(), total.max())
            # Comparisons with NaN are false, and a NaN weight makes its total NaN.
            if not (np.minimum.reduce(values, None) >= 0 and least >= TOTALS_RANGE[0] and largest <= TOTALS_RANGE[1]):
                return False
            totals.append(total)
        if equal_totals and len(totals) == 2 and _apart(totals[0], totals[1], totals_rtol):
            return False
        return math.isfinite(np.add.reduce(cost.detach().numpy(), None))


def _surely_sound_elsewhere(
    cost: Tensor, a: Tensor | None, b: Tensor | None, equal_totals: bool, totals_rtol: float
) -> bool:
    """Pass what is sound on a device, with one look at it."""
    good, totals = torch.isfinite(cost.sum()), []
    for weights in (a, b):
        if weights is None:
            continue
        if weights.device != cost.device or weights.numel() == 0:
            return False
        total = weights.detach().sum(-1, dtype=torch.float64)
        least, largest = torch.aminmax(total)
        # Comparisons with NaN are false, and a NaN weight makes its total NaN.
        good = good & (weights.detach().min() >= 0) & (least >= TOTALS_RANGE[0]) & (largest <= TOTALS_RANGE[1])
        totals.append(total)
    if equal_totals and len(totals) == 2:
        first, second = totals
        good = good & ((first - second).abs() <= totals_rtol * torch.maximum(first, second)).all()
    return bool(good)


def _apart(first: Any, second: Any, rtol: float) -> bool:
    """Tell whether totals (*batch,), numbers or arrays, differ by more than a part of the larger anywhere."""
    if isinstance(first, float) and isinstance(second, float):
        return bool(abs(first - second) > rtol * max(first, second))
    return bool(np.count_nonzero(abs(first - second) > rtol * np.maximum(first, second)) > 0)


def check_values(
    cost: Tensor, a: Tensor | None, b: Tensor | None, equal_totals: bool = True, totals_rtol: float = TOTALS_RTOL
) -> bool:
    """Check what the tensors hold, and where asked for that the totals of a and b agree to ``totals_rtol``.

    Returns:
        Whether all costs are finite; if not, some pairs are forbidden.

    Raises:
        ValueError: NaN or -inf as a cost, NaN, infinity or a negative number as a weight, a zero total, or totals that
            disagree; names argument and batch index.
    """
    if surely_sound(cost, a, b, equal_totals, totals_rtol):
        return True
    finite = surely_finite(cost)
    if not finite:
        # Comparisons with NaN are false.
        bad = ~(cost.detach() > -math.inf)
        if bool(bad.any()):
            raise ValueError(f"cost holds NaN or -inf{first_index(bad, cost.ndim - 2)}")
        finite = not bool((cost.detach() == math.inf).any())
    total_a = None if a is None else _checked_totals("a", a.detach())
    total_b = None if b is None else _checked_totals("b", b.detach())
    if equal_totals and total_a is not None and total_b is not None:
        bad = (total_a - total_b).abs() > totals_rtol * torch.maximum(total_a, total_b)
        if bool(bad.any()):
            where = first_index(bad, bad.ndim)
            first = tuple(bad.nonzero()[0].tolist())
            sums = " and ".join(f"{float(total.expand_as(bad)[first]):.6g}" for total in (total_a, total_b))
            raise ValueError(f"totals of a and b disagree{where}: {sums}; normalise the weights to one total")
    return finite


def _flat_index(shape: torch.Size, batch: torch.Size, each: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Index of each problem of the batch in a tensor whose own batch shape broadcasts to it."""
    if shape == batch:
        return each
    index = torch.arange(shape.numel()).reshape(shape).expand(batch)
    return index.reshape(-1).contiguous().numpy()


def _to_numpy(tensor: Tensor, item_dims: int) -> npt.NDArray[np.floating]:
    plain = tensor.is_cpu and not tensor.requires_grad
    array: npt.NDArray[np.floating] = tensor.numpy() if plain else tensor.detach().cpu().numpy()
    if array.ndim == item_dims + 1:
        return array
    return array.reshape(-1, *array.shape[array.ndim - item_dims :])


def _uniform(other: Array | None, size: int) -> Array:
    """Uniform weights (rows of the other side, size) with the totals of the other side, 1 if it is missing too."""
    if other is None:
        return np.full((1, size), 1.0 / size)
    weights = np.empty((len(other), size))
    weights[:] = np.add.reduce(other, -1, keepdims=True) / size
    return weights


def rounding_of(a: Tensor | None, b: Tensor | None, totals_rtol: float = TOTALS_RTOL) -> float:
    """Largest relative error of one rounding of a weight, from the dtypes of weights and what their totals may differ.

    Half precision arrives as float32, with totals that may differ by four roundings.
    """
    if TOTALS_RTOL < totals_rtol < math.inf:
        return totals_rtol / 4
    narrow = (a is not None and a.dtype is torch.float32) or (b is not None and b.dtype is torch.float32)
    return 2.0**-24 if narrow else 2.0**-53


def build(
    cost: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    batch: torch.Size,
    checked: bool = True,
    rounding: float = 2.0**-53,
    forbids: bool = False,
) -> Problem:
    """Lay out checked tensors for the solvers; the last three are those of ``Problem``.

    A missing side is uniform with the other side's total, 1 if both are missing.
    """
    n, m = cost.shape[-2:]
    flat_a = None if a is None else np.ascontiguousarray(_to_numpy(a, 1), np.float64)
    flat_b = None if b is None else np.ascontiguousarray(_to_numpy(b, 1), np.float64)
    one = torch.Size(())
    a_shape = one if a is None else a.shape[:-1]
    b_shape = one if b is None else b.shape[:-1]
    if flat_a is None:
        flat_a, a_shape = _uniform(flat_b, n), b_shape
    if flat_b is None:
        flat_b, b_shape = _uniform(flat_a, m), a_shape
    each = np.arange(batch.numel())
    return Problem(
        cost=_to_numpy(cost, 2),
        a=flat_a,
        b=flat_b,
        cost_index=_flat_index(cost.shape[:-2], batch, each),
        a_index=_flat_index(a_shape, batch, each),
        b_index=_flat_index(b_shape, batch, each),
        batch=tuple(batch),
        checked=checked,
        rounding=rounding,
        forbids=forbids,
    )
