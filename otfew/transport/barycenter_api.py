"""Free-support Wasserstein barycentres: the node set that is nearest to several, in transport cost."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.transport.barycenter_arguments import COSTS, Asked, check_count, checked, refuse
from otfew.transport.barycenter_iteration import Found, Geometry, Sets, fixed_point
from otfew.transport.barycenter_start import farthest_first, medoid
from otfew.transport.costs import directions, pairwise
from otfew.transport.precision import in_full_precision
from otfew.transport.registry import Solver
from otfew.transport.simplex.exact import Exact

ASSIGNMENT = 128
"""Most nodes of an assignment problem; larger ones are quicker as transport problems."""


@dataclass(frozen=True)
class Barycenter:
    """Barycentres of a batch of problems: tensors on the device of the points, numpy arrays where these were.

    Attributes:
        points: (*batch, n, d), the barycentre's nodes; unit vectors for cosine costs.
        masses: (*batch, n), their masses, which total 1.
        value: (*batch,) float64, sum_s weights_s OT(barycentre, set s), in units of the cost.
        n_iter: (*batch,) int64, updates of the nodes.
        status: (*batch,) int8, see ``otfew.Status``: OPTIMAL where the nodes are a fixed point, MAX_ITER where
            ``n_iter`` ended before. A fixed point is a stationary point; there is no algorithm that is quick and finds
            the best of them.
    """

    points: Any
    masses: Any
    value: Any
    n_iter: Any
    status: Any
    _plans: Callable[[], Any] = field(repr=False, compare=False)

    @cached_property
    def plans(self) -> Any:
        """The optimal plans (*batch, sets, n, nodes) to the sets, of which the nodes are made.

        Constants for autograd, zero for sets that do not count.
        """
        return self._plans()


def barycenter(
    points: Any,
    weights: Any = None,
    *,
    masses: Any = None,
    mask: Any = None,
    n_nodes: int | None = None,
    node_masses: Any = None,
    cost: str = "sqeuclidean",
    init: Any = None,
    n_iter: int = 50,
    tol: float = 1e-7,
    solver: str | Solver = "exact",
) -> Barycenter:
    """Find free-support Wasserstein barycentres of a batch of problems by fixed-point iteration with exact plans.

    It descends F(Y) = sum_s weights_s min_P <P, c(Y, X_s)>, P over plans between the masses of Y and of X_s, in
    turns: the optimal plans of the nodes (all problems of an iteration are one call of ``otfew.solve``), then the best
    nodes for these plans. For c = |y - x|^2 those are y_i = sum_sj weights_s P_s,ij x_sj / b_i (Cuturi and Doucet 2014,
    algorithm 2 with theta = 1; Alvarez-Esteban et al. 2016, equation 7 for discrete measures); for c = 1 - cos(y, x)
    that sum over the directions of x, divided by its norm, since sum_j P_ij (1 - <y_i, x_j>) is least over unit
    vectors there. So F never rises, whichever the cost. A problem stops by itself, where an update can lower F by at
    most ``tol`` times its scale: its answer does not depend on the others.

    Gradients: ``value`` has the envelope gradient in ``points`` and ``weights``, that of F at constant plans and
    nodes, which is the true one where plans are unique. ``points`` of the result have that at constant plans. None
    reaches ``masses``, ``node_masses`` or ``init``.

    Args:
        points: (*batch, sets, nodes, d) float32 or float64, torch on any device or numpy. Half precision is computed
            as float32. Costs between near-duplicates are rounded by the spread of a problem's points.
        weights: (*batch, sets) of the sets, not negative, total 1; None: alike.
        masses: (*batch, sets, nodes) of the nodes in each set, not negative, each total 1; None: alike.
        mask: (*batch, sets) bool, True where a set counts; the weights of those are rescaled to total 1. What other
            sets hold does not matter.
        n_nodes: Number of nodes of the barycentre; None takes as many as a set has, or as ``init``.
        node_masses: (*batch, n_nodes) masses of the barycentre's nodes, positive, total 1. None: alike, or those of
            the set from which it starts.
        cost: "sqeuclidean" or "cosine".
        init: (*batch, n_nodes, d) nodes to start from. None: the set that is itself the best barycentre among the
            sets; where ``n_nodes`` is another number, nodes of all sets, each the farthest from those before.
        n_iter: Most updates.
        tol: Least relative decrease of F that is worth another update. Its scale is the spread of a problem's points
            about their mean, weighed as F does, for squared distances; 1 for cosines.
        solver: An exact solver of dense costs, by name or with options.

    Returns:
        A ``Barycenter``.

    Raises:
        ValueError: Wrong shape or dtype, NaN or infinity, weights or masses that are negative or do not total 1, no
            set that counts, an unknown cost, a solver that is not exact; the message names the argument.
        TypeError: ``solver`` is neither a name nor a solver.
        ImportError: The solver's library is not installed.
        RuntimeError: Under torch.vmap or torch.func.

    Examples:
        >>> import numpy as np
        >>> sets = np.array([[[0.0, 0.0], [4.0, 0.0]], [[4.0, 2.0], [0.0, 2.0]]])
        >>> found = barycenter(sets)
        >>> found.points, float(found.value)
        (array([[0., 1.],
               [4., 1.]]), 1.0)
    """
    return _barycenter(points, weights, masses, mask, n_nodes, node_masses, cost, init, n_iter, tol, solver)


@in_full_precision
def _barycenter(
    points: Any,
    weights: Any,
    masses: Any,
    mask: Any,
    n_nodes: Any,
    node_masses: Any,
    cost: str,
    init: Any,
    n_iter: int,
    tol: float,
    solver: str | Solver,
) -> Barycenter:
    if cost not in COSTS:
        raise ValueError(f"cost must be 'sqeuclidean' or 'cosine', got {cost!r}")
    n_iter = check_count("n_iter", n_iter)
    if isinstance(tol, bool) or not isinstance(tol, numbers.Real) or not 0 <= tol < 1:
        raise ValueError(f"tol must be a number of at least 0 and below 1, got {tol!r}")
    asked = checked(points, weights, masses, mask, n_nodes, node_masses, init, solver)
    with torch.no_grad():
        found, b = _found(asked, cost, n_iter, float(tol))
    nodes = _nodes(asked, found, cost)
    shares = nodes.new_full(nodes.shape[:2], 1 / asked.n) if b is None else b.to(nodes.dtype)

    def plans() -> Tensor:
        given = asked.weights.detach().where(asked.weights > 0, 1).to(nodes.dtype)
        return found.members * (shares[:, None] / given[..., None])[..., None]

    value = found.value
    if torch.is_grad_enabled() and (asked.points.requires_grad or asked.weights.requires_grad):
        costs = pairwise(cost, nodes.detach()[:, None], asked.points)
        envelope = ((plans() * costs).sum((-2, -1)).double() * asked.weights).sum(-1)
        value = value + (envelope - envelope.detach())

    def out(part: Tensor) -> Any:
        shaped = part.reshape((*asked.batch, *part.shape[1:]))
        return shaped.detach().cpu().numpy() if isinstance(points, np.ndarray) else shaped

    return Barycenter(
        points=out(nodes),
        masses=out(shares),
        value=out(value),
        n_iter=out(found.n_iter),
        status=out(found.status),
        _plans=lambda: out(plans()),
    )


def _found(asked: Asked, cost: str, n_iter: int, tol: float) -> tuple[Found, Tensor | None]:
    """Start and iterate; also returns the masses (problems, n) of the nodes, or None for alike."""
    counts = asked.weights > 0
    sets = Sets(asked.points.detach(), asked.weights.detach(), counts, asked.masses, cost)
    geometry = Geometry.of(sets)
    if not bool(geometry.squares.isfinite().all()):
        refuse("points", ~asked.points.isfinite(), asked.batch, "NaN or infinity")
        refuse("points", ~geometry.squares.isfinite(), asked.batch, "numbers whose squares overflow: divide them")
    b = asked.node_masses
    m = asked.points.shape[2]
    if asked.init is not None:
        begun = geometry.at(asked.init)
    elif asked.n == m:
        begun, own = medoid(geometry, asked.solver)
        b = own if b is None else b
    else:
        begun = farthest_first(geometry, asked.n)
    alike = sets.masses is None and b is None and asked.n == m
    # Assignment problems of our own solver, on the CPU: those too go from one start to the end in compiled code.
    if alike and m <= ASSIGNMENT and type(asked.solver) is Exact and geometry.gram is not None and begun.squares.is_cpu:
        from otfew.transport.barycenter_kernel import assigned

        return assigned(geometry, begun, n_iter, tol, asked.solver.threads or torch.get_num_threads()), b
    return fixed_point(geometry, begun, b, n_iter, tol, asked.solver), b


def _nodes(asked: Asked, found: Found, cost: str) -> Tensor:
    """Combine the points as they came, so that gradients reach them and the weights: (problems, n, d)."""
    about = (directions(asked.points) if cost == "cosine" else asked.points).flatten(1, 2)
    members = found.members
    if asked.weights.requires_grad:
        lam = asked.weights.where(asked.weights > 0, 1)
        members = members * (lam / lam.detach()).to(members.dtype)[..., None, None]
    nodes = members.transpose(1, 2).flatten(2) @ about
    return directions(nodes) if cost == "cosine" else nodes
