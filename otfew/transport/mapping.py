"""Barycentric maps: the points of one domain moved to where a transport plan sends them in another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.api import solve
from otfew.transport.arguments import OnFail, as_tensor, policy_of
from otfew.transport.costs import pairwise, parse_cost
from otfew.transport.mapping_classes import class_plans, class_weight, spreads
from otfew.transport.points import check_clouds, check_points
from otfew.transport.precision import in_full_precision, totals_rtol
from otfew.transport.problem import first_index, surely_finite
from otfew.transport.registry import PointSolver, Solver, resolve
from otfew.transport.transforms import outside_graphs, refuse_transforms

_SIDES = ("source", "target")


@overload
def transport_map(
    source: Tensor,
    target: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    labels: Any = None,
    solver: str | Solver = "exact",
    cost: str = "sqeuclidean",
    reg_classes: float = 0.0,
    points: Tensor | None = None,
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> Tensor: ...
@overload
def transport_map(
    source: npt.NDArray[Any],
    target: npt.NDArray[Any],
    a: npt.NDArray[Any] | None = None,
    b: npt.NDArray[Any] | None = None,
    *,
    labels: Any = None,
    solver: str | Solver = "exact",
    cost: str = "sqeuclidean",
    reg_classes: float = 0.0,
    points: npt.NDArray[Any] | None = None,
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> npt.NDArray[Any]: ...
@outside_graphs
def transport_map(
    source: Any,
    target: Any,
    a: Any = None,
    b: Any = None,
    *,
    labels: Any = None,
    solver: str | Solver = "exact",
    cost: str = "sqeuclidean",
    reg_classes: float = 0.0,
    points: Any = None,
    on_fail: OnFail | None = None,
    validate: bool = True,
) -> Any:
    """Move the points of a domain onto another one: T(x_i) = sum_j P_ij y_j / sum_j P_ij (Ferradans et al. 2014).

    P is the plan of ``solver``: an exact one, an entropic one (``otfew.Sinkhorn(reg=...)``), or one that need not move
    all the mass (``otfew.Sinkhorn(reg=..., unbalanced=rho)``). With ``reg_classes`` it is class-regularised (Courty et
    al. 2017, section 4.2): min <P, C> + reg KL(P | a b' / total) + reg_classes sum_jc |P(I_c, j)|, where P(I_c, j) is
    what the source points of class c send to target point j. As a column's sum is fixed, the norms are least where the
    points of a class share evenly what they send to a target point: images of a class stay together. Where every class
    has one point, the last term is the total mass, and the plan is the entropic one.

    For cost "sqeuclidean" and hard marginals, T follows a shift of either domain: the plan stays the same.

    Gradients reach ``target`` through the average, and everything through an entropic plan. Exact and class-regularised
    plans are constants for autograd: an exact plan is one, but for ties, as long as points move little.

    Args:
        source: (*batch, n, d) float32 or float64, torch on any device or numpy. Half precision is computed as float32.
        target: (*batch, m, d) of the same dtype and device.
        a: (*batch, n) non-negative weights of the source points, or None: uniform with the total of b, 1 if both are.
        b: (*batch, m) non-negative weights of the target points, or None; rescaled to the total of a unless unbalanced.
        labels: (*batch, n) integers, the classes of the source points; given with ``reg_classes`` and not without.
        solver: A solver of dense costs, by name or with options.
        cost: "sqeuclidean", "euclidean", "cosine" or "lp:p", see ``otfew.solve_points``.
        reg_classes: Weight of the class term, in the units of the cost; above 0 it needs ``otfew.Sinkhorn``.
        points: (*batch, k, d) other points of the source's domain. They are moved in place of ``source``, each by the
            displacement of the source point nearest to it in Euclidean distance (Ferradans et al. 2014, section 5).
        on_fail: What to do where the optimum is not reached: "raise", "warn" or "ignore"; by default exact solvers
            raise and others warn.
        validate: Check what the tensors hold; turn off only for inputs known to be sound.

    Returns:
        (*batch, n, d), or (*batch, k, d), of the source's dtype, torch or numpy as the source is. A point whose mass is
        not moved at all (weight zero, or an unbalanced plan that finds everything too far) stays where it is.

    Raises:
        ValueError: Wrong shape or dtype, NaN or infinity, a negative weight, a zero total, totals that disagree, labels
            of another length or without ``reg_classes``, an unknown cost or solver, or one without a matrix as plan.
        TypeError: ``solver`` is neither a name nor a solver.
        ImportError: The solver's library is not installed.
        ConvergenceError: An exact solver did not reach the optimum.
        RuntimeError: Under torch.vmap, torch.func or forward-mode differentiation.

    Examples:
        >>> import numpy as np
        >>> drawn = np.array([[0.0, 0.0], [1.0, 0.0]])
        >>> transport_map(drawn, np.array([[4.0, 1.0], [3.0, 1.0]]))
        array([[3., 1.],
               [4., 1.]])
    """
    given = (source, target, a, b, labels, points, cost, solver, reg_classes, on_fail, validate)
    return _moved(*given, totals_rtol(a, b))


@in_full_precision
def _moved(
    source: Any,
    target: Any,
    a: Any,
    b: Any,
    labels: Any,
    points: Any,
    cost: str,
    solver: str | Solver,
    reg_classes: float,
    on_fail: OnFail | None,
    validate: bool,
    rtol: float,
) -> Any:
    eta = class_weight(reg_classes)
    if labels is not None and not eta:
        raise ValueError("`labels` have no effect without `reg_classes`: give a weight above 0, or leave them out")
    chosen = resolve(solver)
    if isinstance(chosen, PointSolver):
        raise ValueError(
            f"transport_map needs the plan as a matrix, which {chosen.name} never makes: take 'exact' or 'sinkhorn', "
            "or multiply otfew.solve_points(...).plan with the target yourself"
        )
    parse_cost(cost)
    named = (("source", source), ("target", target), ("a", a), ("b", b), ("points", points))
    x, y, a_t, b_t, new = (as_tensor(*pair) for pair in named)
    refuse_transforms(x, y, a_t, b_t, new)
    x, y, batch = check_clouds(x, y, a_t, b_t, _SIDES)
    if validate:
        check_points(x, y, a_t, b_t, chosen.equal_totals, rtol, _SIDES)
    if new is not None:
        _check_new(new, x, batch, validate)
    dense = pairwise(cost, x, y)
    if validate and not surely_finite(dense):
        where = first_index(~torch.isfinite(dense), dense.ndim - 2)
        raise ValueError(f"{cost} costs between source and target overflow {x.dtype}{where}; rescale the points")
    if eta:
        plan = class_plans(
            dense, a_t, b_t, labels, solver=chosen, reg_classes=eta, on_fail=policy_of(chosen, on_fail)
        ).plan
    else:
        plan = solve(dense, a_t, b_t, solver=chosen, on_fail=on_fail, validate=False).plan
    moved = barycentric(plan, x, y)
    if new is not None:
        moved = _carried(new, x, moved)
    return moved.detach().cpu().numpy() if isinstance(source, np.ndarray) else moved


def barycentric(plan: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Average the targets of each source point by what it sends them; one that sends nothing stays.

    Args:
        plan: (*batch, n, m) non-negative.
        source: (*batch, n, d).
        target: (*batch, m, d).

    Returns:
        (*batch, n, d).
    """
    sent = plan.sum(-1, keepdim=True)
    sends = sent >= torch.finfo(plan.dtype).tiny
    shares = plan / torch.where(sends, sent, 1.0)
    return torch.where(sends, shares @ target, source)


def _check_new(new: Tensor, source: Tensor, batch: torch.Size, validate: bool) -> None:
    d = source.shape[-1]
    if new.ndim < 2 or new.shape[-1] != d or not spreads(new.shape[:-2], batch):
        raise ValueError(f"points must be (*batch, k, {d}) to fit source {tuple(source.shape)}, got {tuple(new.shape)}")
    if new.dtype != source.dtype or new.device != source.device:
        raise ValueError(f"points and source must have one dtype and device, got {new.dtype} and {source.dtype}")
    if validate and not surely_finite(new):
        raise ValueError(f"points holds NaN or infinity{first_index(~torch.isfinite(new), new.ndim - 2)}")


def _carried(new: Tensor, source: Tensor, moved: Tensor) -> Tensor:
    """Move new points (*batch, k, d) by the displacement of the source point that is nearest to each."""
    nearest = pairwise("sqeuclidean", new.detach(), source.detach()).argmin(-1)
    displacement = moved - source
    # The other side or the weights may have a batch that neither the points nor the source have.
    batch = displacement.shape[:-2]
    index = nearest.expand(*batch, -1)[..., None].expand(*batch, -1, new.shape[-1])
    return new + displacement.gather(-2, index)


@dataclass(frozen=True)
class Movement:
    """How far a map moves points, beside how far it moves points that have no way to go.

    Tensors on the device of the points, numpy arrays where these were.

    Attributes:
        between: (*batch,) mean squared length of the displacements of source points, by their weights.
        within: (*batch,) the same of as many target points, moved onto the same others.
    """

    between: Any
    within: Any


def movement(
    source: Any, target: Any, a: Any = None, *, solver: str | Solver = "exact", cost: str = "sqeuclidean"
) -> Movement:
    """Compare how far points move onto another domain with how far they would move without any shift.

    A plan moves a sample onto another sample of the same domain, too: two samples are never the same points. ``within``
    says how much of ``between`` that alone explains. Both depend on how many points there are, so they are taken of
    equal numbers: the targets are dealt into parts as large as the source (half of them at most), point 1 to part 1,
    point 2 to part 2, and so on. Of each part as many points as the source has, or all, and as many source points with
    the same weights are moved onto the targets of the other parts, and lengths are averaged over the parts. So where
    source and target are independent draws of one distribution, ``between`` and ``within`` have the same expectation;
    a shift between them changes ``between`` alone. The order of the points should say nothing of them.

    ``between`` is therefore not the movement of the whole source onto the whole target, which ``transport_map`` gives.

    Args:
        source: (*batch, n, d) float32 or float64, torch or numpy.
        target: (*batch, m, d) of the same kind, m >= 2.
        a: (*batch, n) weights of the source points, or None.
        solver: As in ``transport_map``.
        cost: As in ``transport_map``.

    Returns:
        A ``Movement``, in squared units of the points.

    Raises:
        ValueError: As in ``transport_map``; fewer than two target points; weights that leave nothing to the source
            points that are moved with one part.
        TypeError: As in ``transport_map``.
        ImportError: As in ``transport_map``.
        ConvergenceError: As in ``transport_map``.
        RuntimeError: As in ``transport_map``.
    """
    return _movement(source, target, a, solver, cost, totals_rtol(a))


@in_full_precision
def _movement(source: Any, target: Any, a: Any, solver: str | Solver, cost: str, rtol: float) -> Movement:
    x, y, a_t = (as_tensor(*pair) for pair in (("source", source), ("target", target), ("a", a)))
    x, y, batch = check_clouds(x, y, a_t, None, _SIDES)
    check_points(x, y, a_t, None, True, rtol, _SIDES)
    n, m = x.shape[-2], y.shape[-2]
    if m < 2:
        raise ValueError(f"target must have at least 2 points, of which some are moved onto others, got {m}")
    x, y = x.expand(*batch, *x.shape[-2:]), y.expand(*batch, *y.shape[-2:])
    parts = max(2, m // n)
    dealt = torch.arange(m, device=y.device) % parts
    between: list[Tensor] = []
    within: list[Tensor] = []
    for part in range(parts):
        own, others = y[..., dealt == part, :], y[..., dealt != part, :]
        k = min(n, own.shape[-2])
        # Fewer than all source points begin elsewhere in each part, so that all of them have their turn.
        chosen = (torch.arange(k, device=x.device) + part * n // parts) % n
        masses = None if a_t is None else a_t[..., chosen]
        if masses is not None and not bool((masses.sum(-1) > 0).all()):
            raise ValueError(
                f"a leaves no weight to {k} of the {n} source points that are compared with as many target points: "
                "leave out points of weight zero, or mix the order of the points"
            )
        for lengths, some in ((between, x[..., chosen, :]), (within, own[..., :k, :])):
            squared = (transport_map(some, others, masses, solver=solver, cost=cost) - some).square().sum(-1)
            lengths.append(squared.mean(-1) if masses is None else (squared * masses).sum(-1) / masses.sum(-1))
    found = (torch.stack(lengths).mean(0) for lengths in (between, within))
    if isinstance(source, np.ndarray):
        return Movement(*(part.detach().cpu().numpy() for part in found))
    return Movement(*found)
