"""Where a barycentre starts: at the best of the sets, or at points that cover them."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.transport.api import solve
from otfew.transport.barycenter_iteration import Geometry, Nodes
from otfew.transport.registry import Solver


def medoid(geometry: Geometry, solver: Solver) -> tuple[Nodes, Tensor | None]:
    """Start at the set of which F is least among the sets, the same whatever their order.

    Of one or two sets it is the heavier, whose F is the weight of the other times the same cost.

    Returns:
        Its nodes, and their masses (problems, nodes) where sets have masses.
    """
    sets = geometry.sets
    size, n_sets, m, _ = sets.points.shape
    each = torch.arange(size, device=sets.points.device)
    best = sets.weights.argmax(-1)
    many = (sets.counts.sum(-1) > 2).nonzero()[:, 0]
    if len(many):
        best[many] = _nearest_to_all(geometry.part(many), solver)
    members = sets.points.new_zeros(size, n_sets, m, m)
    members[each, best] = torch.eye(m, dtype=members.dtype, device=members.device)
    return geometry.combined(members), None if sets.masses is None else sets.masses[each, best]


def _nearest_to_all(geometry: Geometry, solver: Solver) -> Tensor:
    """Number (problems,) of the set with the least F; all pairs of sets are one call."""
    sets = geometry.sets
    n_sets, m = sets.points.shape[1:3]
    flat = sets.points.flatten(1, 2)
    gram = flat @ flat.mT if geometry.gram is None else geometry.gram
    nodes = Nodes(gram, geometry.squares.flatten(1), None)
    # (problems, set, node of the other set and set, node) -> one problem a pair
    costs = geometry.costs(nodes).reshape(-1, n_sets, n_sets, m, m)
    first, second = torch.triu_indices(n_sets, n_sets, 1, device=flat.device)
    problem, pair = (sets.counts[:, first] & sets.counts[:, second]).nonzero(as_tuple=True)
    s, t = first[pair], second[pair]
    masses = (None, None) if sets.masses is None else (sets.masses[problem, t], sets.masses[problem, s])
    values = solve(costs[problem, s, t], *masses, solver=solver).value
    between = values.new_zeros((*sets.counts.shape, n_sets))
    between[problem, s, t] = between[problem, t, s] = values
    totals = (between @ sets.weights[..., None])[..., 0]
    best: Tensor = totals.masked_fill(~sets.counts, torch.inf).argmin(-1)
    return best


def farthest_first(geometry: Geometry, n_nodes: int) -> Nodes:
    """Start at nodes of all sets: the nearest to their mean, then each the farthest from those before.

    Raises:
        ValueError: The sets have fewer nodes with mass.
    """
    sets = geometry.sets
    size, n_sets, m, _ = sets.points.shape
    flat = sets.points.flatten(1, 2)
    held = sets.counts[..., None].expand(size, n_sets, m)
    if sets.masses is not None:
        held = held & (sets.masses > 0)
    held = held.flatten(1)
    fewest = int(held.sum(-1).min())
    if n_nodes > fewest:
        raise ValueError(f"n_nodes is {n_nodes}, but the sets of a problem have {fewest} nodes: give init")
    shares = (sets.weights[..., None] * held.view(size, n_sets, m)).flatten(1).to(flat.dtype)
    mean = (shares[:, None] @ flat) / shares.sum(-1)[:, None, None]
    each = torch.arange(size, device=flat.device)
    chosen = (flat - mean).square().sum(-1).masked_fill(~held, torch.inf).argmin(-1)
    picked = [chosen]
    distance = (flat - flat[each, chosen][:, None]).square().sum(-1)
    for _ in range(n_nodes - 1):
        # Those that are taken are not far from themselves, but neither may duplicates of them be passed over.
        taken = torch.stack(picked, 1)
        free = held.scatter(1, taken, False)
        chosen = distance.masked_fill(~free, -1).argmax(-1)
        picked.append(chosen)
        distance = torch.minimum(distance, (flat - flat[each, chosen][:, None]).square().sum(-1))
    taken = torch.stack(picked, 1)
    members = flat.new_zeros(size, n_nodes, n_sets * m).scatter_(2, taken[..., None], 1)
    return geometry.combined(members.view(size, n_nodes, n_sets, m).transpose(1, 2).contiguous())
