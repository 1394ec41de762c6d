"""Sinkhorn divergence: entropic transport less what it costs to stay, so that equal measures are at zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.transport.api import solve
from otfew.transport.arguments import OnFail, as_tensor
from otfew.transport.backends.keops import KeOps, KeOpsWithin
from otfew.transport.entropic.sinkhorn import Sinkhorn
from otfew.transport.points import solve_points
from otfew.transport.precision import in_full_precision
from otfew.transport.problem import check_dtype, first_index, surely_finite
from otfew.transport.registry import Solver, resolve
from otfew.transport.result import OTResult
from otfew.transport.sending import send


@dataclass(frozen=True)
class Divergence:
    """Sinkhorn divergences of a batch, with the three results that they are made of.

    Tensors on the device of the costs or points, numpy arrays where these were.

    Attributes:
        value: (*batch,) float64, never negative, differentiable in costs or points and in weights.
        between: What was found between x and y.
        within_x: What was found between x and itself.
        within_y: What was found between y and itself.
    """

    value: Any
    between: OTResult
    within_x: OTResult
    within_y: OTResult

    @property
    def gap(self) -> Any:
        """How far ``value`` can be from the divergence (*batch,): the gap between, and half of those within."""
        return self.between.gap + (self.within_x.gap + self.within_y.gap) / 2

    @property
    def status(self) -> Any:
        """How each problem ended (*batch,), int8: the worst of its three, see ``otfew.Status``."""
        return self._largest(lambda result: result.status)

    @property
    def marginal_error(self) -> Any:
        """Largest deviation of a sum of the three plans from its weight (*batch,), relative to the total."""
        return self._largest(lambda result: result.marginal_error)

    @property
    def n_iter(self) -> Any:
        """Iterations of the three solves together (*batch,), int64."""
        return self.between.n_iter + self.within_x.n_iter + self.within_y.n_iter

    def _largest(self, what: Callable[[OTResult], Any]) -> Any:
        first, second, third = (what(result) for result in (self.between, self.within_x, self.within_y))
        largest = torch.maximum if isinstance(first, Tensor) else np.maximum
        return largest(largest(first, second), third)


def sinkhorn_divergence(
    cost: Any,
    cost_x: Any,
    cost_y: Any,
    a: Any = None,
    b: Any = None,
    *,
    solver: str | Solver = "sinkhorn",
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> Divergence:
    """Sinkhorn divergences S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2 of a batch of dense costs.

    OT is the regularised value min <P, C> + reg KL(P | a b' / total) of entropic solvers (Genevay, Peyre and Cuturi
    2018, equation 3; Feydy et al. 2019, equation 3). For costs whose kernel exp(-C / reg) is positive definite, such as
    |x - y| and |x - y|^2, S is not negative, and zero only for equal measures; a value that rounding or the solver's
    tolerance puts below zero is given as zero.

    With ``Sinkhorn(unbalanced=...)`` totals may differ. All three problems then measure against the product of their
    weights over s, the geometric mean of the totals of a and b, and reg (total a - total b)^2 / (2 s) is added
    (Sejourne et al. 2019, definition 3, for weights over s, times s).

    Args:
        cost: (*batch, n, m) float32 or float64 costs between x and y, torch on any device or numpy. Half precision is
            computed as float32.
        cost_x: (*batch, n, n) costs of x with itself, of the same kind.
        cost_y: (*batch, m, m) costs of y with itself, of the same kind.
        a: (*batch, n) non-negative weights of x, or None: uniform with the total of b, 1 if both are None.
        b: (*batch, m) non-negative weights of y, or None: uniform with the total of a; rescaled to it unless
            unbalanced.
        solver: An entropic solver of dense costs, by name or with options such as ``otfew.Sinkhorn(reg=0.05)``.
        on_fail: What to do where an optimum is not reached: "raise", "warn" or "ignore"; by default entropic solvers
            warn.
        validate: Check what the tensors hold; turn off only for inputs known to be sound.

    Returns:
        A ``Divergence`` in units of cost times mass: ``value``, ``gap`` that bounds its error, the worst ``status``,
        and the three ``OTResult`` objects.

    Raises:
        ValueError: Wrong shape or dtype, NaN or infinity, a negative weight, a zero total, totals that disagree, a
            solver that is not entropic; the message names the argument and the batch index.
        TypeError: ``solver`` is neither a name nor a solver.
        ImportError: The solver's library is not installed.
        ConvergenceError: With ``on_fail="raise"``, an optimum was not reached.
        RuntimeError: Under torch.vmap, torch.func or forward-mode differentiation.

    Examples:
        >>> import numpy as np
        >>> x, y = np.array([0.0, 1.0]), np.array([2.0, 3.0])
        >>> costs = [(u[:, None] - v) ** 2 for u, v in ((x, y), (x, x), (y, y))]
        >>> float(sinkhorn_divergence(*costs).value.round(6))
        4.0
    """
    return _dense(cost, cost_x, cost_y, a, b, _entropic(solver, True), on_fail, validate)


def sinkhorn_divergence_points(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    cost: str = "sqeuclidean",
    solver: str | Solver = "keops",
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> Divergence:
    """Sinkhorn divergences of a batch of point clouds; see ``sinkhorn_divergence``.

    ``KeOps`` finds the self terms by averaged iterations on one potential (Feydy et al. 2019, section 3.1): half the
    sums, and few where points hardly exchange anything.

    Args:
        x: (*batch, n, d) float32 or float64 points, torch on any device or numpy. Half precision is computed as
            float32.
        y: (*batch, m, d) points of the same dtype and device.
        a: (*batch, n) non-negative weights of x, or None: uniform with the total of b, 1 if both are None.
        b: (*batch, m) non-negative weights of y, or None: uniform with the total of a; rescaled to it unless
            unbalanced.
        cost: Between points, as for ``solve_points``: "sqeuclidean" (reg = 2 blur^2 in GeomLoss's units, and twice its
            value), "euclidean" (reg = blur), "cosine" or "lp:p".
        solver: An entropic solver, of points ("keops", "geomloss"), which never hold the costs, or of dense costs
            ("sinkhorn", ...), which are given them.
        on_fail: See ``sinkhorn_divergence``.
        validate: See ``sinkhorn_divergence``.

    Returns:
        A ``Divergence``; its gradients reach x, y, a and b.

    Raises:
        ValueError: See ``sinkhorn_divergence``; also an unknown cost.
        TypeError: See ``sinkhorn_divergence``.
        ImportError: The solver's library is not installed.
        ConvergenceError: See ``sinkhorn_divergence``.
        RuntimeError: See ``sinkhorn_divergence``.

    Examples:
        >>> import numpy as np
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0]])
        >>> float(sinkhorn_divergence_points(x, x + np.array([0.0, 2.0])).value.round(6))
        4.0
    """
    chosen = _entropic(solver, False)

    def run(x: Any, y: Any, a: Any, b: Any) -> OTResult:
        return solve_points(x, y, a, b, cost=cost, solver=chosen, on_fail=on_fail, validate=validate)

    between = run(x, y, a, b)
    # Sound from here on.
    own_a, own_b = _weights(a, b, x.shape[-2], y.shape[-2], True)
    if type(chosen) is KeOps:
        chosen = KeOpsWithin(**{field.name: getattr(chosen, field.name) for field in fields(chosen)})
    within_x, within_y = run(x, x, own_a, own_a), run(y, y, own_b, own_b)
    return Divergence(_value(between, within_x, within_y, None), between, within_x, within_y)


@in_full_precision
def _dense(
    cost: Any,
    cost_x: Any,
    cost_y: Any,
    a: Any,
    b: Any,
    solver: Solver,
    on_fail: OnFail | None,
    validate: bool,
) -> Divergence:
    given, own_x, own_y = (as_tensor(*z) for z in (("cost", cost), ("cost_x", cost_x), ("cost_y", cost_y)))
    # ``solve`` refuses what is wrong with the first of them.
    if given is not None and given.ndim >= 2:
        for name, own, size in (("cost_x", own_x, given.shape[-2]), ("cost_y", own_y, given.shape[-1])):
            _check_own(name, own, size, given, validate)
    between = solve(cost, a, b, solver=solver, on_fail=on_fail, validate=validate)
    assert given is not None
    n, m = given.shape[-2:]
    own_a, own_b = _weights(a, b, n, m, solver.equal_totals)
    added = None
    if not solver.equal_totals:
        assert isinstance(solver, Sinkhorn)
        own_x, own_y, added = _one_product(own_x, own_y, own_a, own_b, solver.reg)
    numpy_in = isinstance(cost, np.ndarray)

    def within(own: Tensor | None, weights: Tensor | None) -> OTResult:
        laid: Any = own.detach().numpy() if numpy_in and own is not None else own
        return solve(laid, weights, weights, solver=solver, on_fail=on_fail, validate=validate)

    within_x, within_y = within(own_x, own_a), within(own_y, own_b)
    return Divergence(_value(between, within_x, within_y, added), between, within_x, within_y)


def _entropic(solver: str | Solver, dense_only: bool) -> Solver:
    """Resolve a solver, and refuse one whose value has no divergence."""
    chosen = resolve(solver)
    if chosen.kind != "entropic":
        raise ValueError(
            f"solver {chosen.name!r} is not entropic; take an entropic one such as otfew.Sinkhorn(reg=0.1)"
        )
    if dense_only and chosen.input == "points":
        raise ValueError(
            f"solver {chosen.name!r} works on point clouds: call otfew.sinkhorn_divergence_points(x, y, a, b)"
        )
    if chosen.equal_totals:
        return chosen
    if not isinstance(chosen, Sinkhorn) or chosen.rhos[0] != chosen.rhos[1]:
        raise ValueError("a Sinkhorn divergence has one price for both marginals: give unbalanced one number")
    if not dense_only:
        raise ValueError(
            "sinkhorn_divergence_points takes balanced solvers; for Sinkhorn(unbalanced=...) "
            "call otfew.sinkhorn_divergence with costs from otfew.costs.pairwise"
        )
    return chosen


def _check_own(name: str, own: Tensor | None, size: int, cost: Tensor, validate: bool) -> None:
    """Check the costs of one side with itself.

    Raises:
        ValueError: Wrong shape, dtype or device, NaN or infinity; the message names argument and batch index.
    """
    if own is None:
        raise ValueError(f"{name} must be a torch tensor or a numpy array, got None")
    if own.ndim < 2 or own.shape[-2:] != (size, size):
        raise ValueError(
            f"{name} must be (*batch, {size}, {size}) to fit cost {tuple(cost.shape)}, got {tuple(own.shape)}"
        )
    check_dtype(name, own)
    if own.dtype != cost.dtype or own.device != cost.device:
        given = f"{own.dtype} on {own.device} and {cost.dtype} on {cost.device}"
        raise ValueError(f"{name} and cost must have one dtype and device, got {given}; convert one of them")
    if validate and not surely_finite(own):
        bad = ~torch.isfinite(own)
        if bool(bad.any()):
            raise ValueError(f"{name} holds NaN or infinity{first_index(bad, own.ndim - 2)}")


@in_full_precision
def _weights(a: Any, b: Any, n: int, m: int, equal_totals: bool) -> tuple[Tensor | None, Tensor | None]:
    """Weights of both sides as the problem between them has them, differentiable; None if both are 1 / n and 1 / m."""
    first, second = as_tensor("a", a), as_tensor("b", b)
    if first is None and second is None:
        return None, None
    if first is None:
        assert second is not None
        second = second.double()
        total = second.sum(-1, keepdim=True)
        return (total / n).expand(*total.shape[:-1], n), second
    first = first.double()
    total = first.sum(-1, keepdim=True)
    if second is None:
        return first, (total / m).expand(*total.shape[:-1], m)
    second = send(second, first.device, torch.float64)
    return first, second * (total / second.sum(-1, keepdim=True)) if equal_totals else second


def _one_product(
    cost_x: Any, cost_y: Any, a: Tensor | None, b: Tensor | None, reg: float
) -> tuple[Tensor, Tensor, Tensor | float]:
    """Let self terms of unequal totals measure against a a' / s; return their costs, and what that adds to the value.

    reg KL(P | c Q) is reg KL(P | Q) - reg |P| log c + reg (c - 1) |Q|: another cost and a constant.
    """
    if a is None or b is None:
        return cost_x, cost_y, 0.0
    total_a, total_b = a.sum(-1), b.sum(-1)
    scale = (total_a * total_b).sqrt()

    def moved(cost: Tensor, total: Tensor) -> Tensor:
        return cost + (reg * (scale / total).log())[..., None, None].to(cost.device, cost.dtype)

    constants = sum(reg * (total * total / scale - total) for total in (total_a, total_b))
    added = reg * (total_a - total_b) ** 2 / (2 * scale) - constants / 2
    return moved(cost_x, total_a), moved(cost_y, total_b), added


def _value(between: OTResult, within_x: OTResult, within_y: OTResult, added: Tensor | float | None) -> Any:
    """Put the three values together; below zero the number is zero, and the gradient as it is."""
    value = between.value - (within_x.value + within_y.value) / 2
    if isinstance(value, Tensor):
        value = value if added is None else value + torch.as_tensor(added).to(value.device)
        return value + (value.detach().clamp(min=0) - value.detach())
    moved = value if added is None else value + torch.as_tensor(added).detach().cpu().numpy()
    return np.maximum(moved, 0)
