"""Free-support Wasserstein barycentres: the node set that is nearest to several, in transport cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.transport.arguments import as_tensor
from otfew.transport.barycenter_iteration import Geometry, Sets, fixed_point
from otfew.transport.barycenter_start import farthest_first, medoid
from otfew.transport.costs import directions, pairwise
from otfew.transport.precision import in_full_precision
from otfew.transport.problem import TOTALS_RTOL, check_dtype, first_index
from otfew.transport.simplex.exact import Exact
from otfew.transport.registry import PointSolver, Solver, resolve

COSTS = ("sqeuclidean", "cosine")


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
        plans: (*batch, sets, n, nodes), the optimal plans to the sets of which the nodes are made; constants for
            autograd, zero for sets that do not count.
    """

    points: Any
    masses: Any
    value: Any
    n_iter: Any
    status: Any
    plans: Any


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

    Example:
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
    chosen = _exact(solver)
    if cost not in COSTS:
        raise ValueError(f"cost must be 'sqeuclidean' or 'cosine', got {cost!r}")
    for name, count in (("n_iter", n_iter), ("n_nodes", 1 if n_nodes is None else n_nodes)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {count!r}")
    if isinstance(tol, bool) or not isinstance(tol, int | float) or not 0 <= tol < 1:
        raise ValueError(f"tol must be a number of at least 0 and below 1, got {tol!r}")
    given = as_tensor("points", points)
    if given is None or given.ndim < 3 or 0 in given.shape:
        got = "None" if given is None else str(tuple(given.shape))
        raise ValueError(
            f"points must be (*batch, sets, nodes, d) with at least one of each, got {got}; a single set needs an axis "
            "of its own: points[None]"
        )
    check_dtype("points", given)
    batch, (n_sets, m, d) = given.shape[:-3], given.shape[-3:]
    flat = given.reshape(-1, n_sets, m, d)
    lam, counts = _weights(weights, mask, batch, n_sets, flat)
    kept = flat.masked_fill(~counts[..., None, None], 0)
    _refuse("points", ~kept.isfinite(), batch, "NaN or infinity")
    a = _simplex("masses", masses, (*batch, n_sets, m), flat, counts)
    b = _simplex("node_masses", node_masses, (*batch, n_nodes or m), flat) if init is None else None
    start = None if init is None else _init(init, batch, d, n_nodes, flat)
    if start is not None:
        b = _simplex("node_masses", node_masses, (*batch, start.shape[1]), flat)
    if b is not None:
        _refuse("node_masses", b <= 0, batch, "a node without mass")

    with torch.no_grad():
        sets = Sets(kept.detach(), lam.detach(), counts, a, cost)
        geometry = Geometry.of(sets)
        if start is not None:
            begun = geometry.at(start)
        elif n_nodes is None or n_nodes == m:
            begun, own = medoid(geometry, chosen)
            b = own if b is None else b
        else:
            begun = farthest_first(geometry, n_nodes)
        alike = masses is None and b is None and begun.squares.shape[1] == m <= 128
        if alike and type(chosen) is Exact and geometry.gram is not None and flat.is_cpu:
            from otfew.transport.barycenter_kernel import assigned

            found = assigned(geometry, begun, n_iter, tol, chosen.threads or torch.get_num_threads())
        else:
            found = fixed_point(geometry, begun, b, n_iter, tol, chosen)
    n = found.members.shape[2]
    # One product over all sets: weights_s P_s / b, of the points as they came, so that gradients reach them.
    about = (directions(kept) if cost == "cosine" else kept).flatten(1, 2)
    members = found.members
    if lam.requires_grad:
        members = members * torch.where(counts, lam / lam.detach().clamp_min(1e-300), 0)[..., None, None]
    nodes = members.transpose(1, 2).flatten(2).to(about.dtype) @ about
    if cost == "cosine":
        nodes = directions(nodes)
    shares = nodes.new_full((len(flat), n), 1 / n) if b is None else b.to(nodes.dtype)
    plans = members.detach() * shares[:, None, :, None]
    plans = plans / torch.where(counts, lam.detach(), 1)[..., None, None].to(plans.dtype)
    value = found.value
    if torch.is_grad_enabled() and (kept.requires_grad or lam.requires_grad):
        costs = pairwise(cost, nodes.detach()[:, None], kept)
        envelope = ((plans * costs).sum((-2, -1)).double() * lam).sum(-1)
        value = value + (envelope - envelope.detach())

    def out(part: Tensor) -> Any:
        shaped = part.reshape(*batch, *part.shape[1:])
        return shaped.detach().cpu().numpy() if isinstance(points, np.ndarray) else shaped

    return Barycenter(out(nodes), out(shares), out(value), out(found.n_iter), out(found.status), out(plans))


def _exact(solver: str | Solver) -> Solver:
    chosen = resolve(solver)
    if isinstance(chosen, PointSolver) or chosen.kind != "exact" or not chosen.equal_totals:
        raise ValueError(
            f"solver must be exact, of dense costs and of all the mass, since a blurred plan pulls all nodes to their "
            f"mean; got {chosen!r}"
        )
    return chosen


def _weights(weights: Any, mask: Any, batch: torch.Size, sets: int, flat: Tensor) -> tuple[Tensor, Tensor]:
    """Take the weights (problems, sets) of the sets, float64, and tell which count."""
    if mask is None:
        counts = torch.ones(len(flat), sets, dtype=torch.bool, device=flat.device)
    else:
        allowed = torch.as_tensor(mask)
        if allowed.dtype != torch.bool:
            raise ValueError(f"mask must be bool, True where a set counts, got {allowed.dtype}")
        counts = _spread("mask", allowed, (*batch, sets)).to(flat.device)
        _refuse("mask", ~counts.any(-1), batch, "no set that counts")
    if weights is None:
        lam = counts.double()
        return lam / lam.sum(-1, keepdim=True), counts
    given = as_tensor("weights", weights)
    assert given is not None
    check_dtype("weights", given)
    lam = _spread("weights", given, (*batch, sets)).to(flat.device).double()
    _refuse("weights", counts & ~((lam >= 0) & lam.isfinite()), batch, "a negative weight, NaN or infinity")
    lam = lam.masked_fill(~counts, 0)
    total = lam.sum(-1, keepdim=True)
    wrong = total <= 0 if mask is not None else (total - 1).abs() > TOTALS_RTOL
    _refuse("weights", wrong[..., 0], batch, "a total other than 1: divide them by their sum", "have")
    return lam / total, counts & (lam > 0)


def _simplex(
    name: str, given: Any, shape: tuple[int, ...], flat: Tensor, counts: Tensor | None = None
) -> Tensor | None:
    """Take masses as (problems, ..., nodes) float64 of total 1; uniform where a set does not count."""
    tensor = as_tensor(name, given)
    if tensor is None:
        return None
    check_dtype(name, tensor)
    batch = shape[: len(shape) - (1 if counts is None else 2)]
    masses = _spread(name, tensor.detach(), shape, len(batch)).to(flat.device).double()
    if counts is not None:
        masses = masses.where(counts[..., None], 1 / shape[-1])
    _refuse(name, ~((masses >= 0) & masses.isfinite()), batch, "a negative mass, NaN or infinity")
    total = masses.sum(-1, keepdim=True)
    _refuse(name, (total - 1).abs()[..., 0] > TOTALS_RTOL, batch, "a total other than 1: divide by the sum", "have")
    return masses / total


def _init(init: Any, batch: torch.Size, d: int, n_nodes: int | None, flat: Tensor) -> Tensor:
    tensor = as_tensor("init", init)
    assert tensor is not None
    check_dtype("init", tensor)
    n = tensor.shape[-2] if tensor.ndim >= 2 else 0
    if n < 1 or (n_nodes is not None and n != n_nodes):
        wanted = f"({', '.join(('*batch', str(n_nodes or 'n_nodes'), str(d)))})"
        raise ValueError(f"init must be {wanted}, got {tuple(tensor.shape)}")
    start = _spread("init", tensor.detach(), (*batch, n, d), len(batch)).to(flat.device, flat.dtype)
    _refuse("init", ~start.isfinite(), batch, "NaN or infinity")
    return start


def _spread(name: str, tensor: Tensor, shape: tuple[int, ...], batch_dims: int | None = None) -> Tensor:
    """Broadcast over the batch and flatten it."""
    dims = len(shape) - 1 if batch_dims is None else batch_dims
    try:
        if tensor.shape[-(len(shape) - dims) :] != shape[dims:]:
            raise RuntimeError
        spread = tensor.expand(shape)
    except RuntimeError:
        raise ValueError(f"{name} must be {shape} to fit points, got {tuple(tensor.shape)}") from None
    return spread.reshape(-1, *shape[dims:])


def _refuse(name: str, bad: Tensor, batch: tuple[int, ...], what: str, verb: str = "hold") -> None:
    """Say where something is wrong in (problems, ...), if it is.

    Raises:
        ValueError: It is; names the batch index.
    """
    if bool(bad.any()):
        of_problem = bad.flatten(1).any(1) if bad.ndim > 1 else bad
        shaped = of_problem.reshape(batch)
        where = first_index(shaped, shaped.ndim) if shaped.ndim else ""
        raise ValueError(f"{name} {verb} {what}{where}")
