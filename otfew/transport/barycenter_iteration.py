"""The fixed-point iteration of barycentres: optimal plans in turn with the best nodes for them.

Nodes are kept as combinations of the sets' points, so that all the iteration asks about them are inner products, which
are computed once for all points of a problem where that is less work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from otfew.transport.api import solve
from otfew.transport.costs import directions
from otfew.transport.problem import Status
from otfew.transport.registry import Solver

PRODUCTS_AHEAD = 4
"""Points of a problem, relative to their coordinates, up to which all inner products are computed ahead."""

FEW_POINTS = 256
"""Points of a problem up to which they are anyway."""


@dataclass(frozen=True)
class Sets:
    """Problems of a flat batch.

    Attributes:
        points: (problems, sets, nodes, d).
        weights: (problems, sets) float64, total 1, zero for sets that do not count.
        counts: (problems, sets) bool.
        masses: (problems, sets, nodes) float64, or None for alike.
        cost: "sqeuclidean" or "cosine".
    """

    points: Tensor
    weights: Tensor
    counts: Tensor
    masses: Tensor | None
    cost: str

    def part(self, index: Tensor) -> Sets:
        """Take some of the problems."""
        masses = None if self.masses is None else self.masses[index]
        return Sets(self.points[index], self.weights[index], self.counts[index], masses, self.cost)


@dataclass(frozen=True)
class Nodes:
    """Nodes by their inner products.

    Attributes:
        products: (problems, n, sets * nodes), with the points.
        squares: (problems, n), with themselves.
        members: (problems, sets, n, nodes), the combinations of points that they are; None where they are none.
    """

    products: Tensor
    squares: Tensor
    members: Tensor | None

    def part(self, index: Tensor) -> Nodes:
        """Take those of some of the problems."""
        members = None if self.members is None else self.members[index]
        return Nodes(self.products[index], self.squares[index], members)


@dataclass(frozen=True)
class Geometry:
    """Inner products of problems' points: about their mean for squared distances, of directions for cosines.

    Attributes:
        sets: The problems, with points so moved.
        centre: (problems, 1, d) what was taken off.
        squares: (problems, sets, nodes) of the points with themselves.
        gram: (problems, sets * nodes, sets * nodes), or None where they are computed when needed.
        scale: (problems,) float64, size of F.
    """

    sets: Sets
    centre: Tensor
    squares: Tensor
    gram: Tensor | None
    scale: Tensor

    @classmethod
    def of(cls, sets: Sets) -> Geometry:
        """Move the points, and multiply them where that pays."""
        x = sets.points
        shares = sets.weights[..., None] * (1 / x.shape[2] if sets.masses is None else sets.masses)
        if sets.cost == "cosine":
            x, centre = directions(x), x.new_zeros(len(x), 1, x.shape[-1])
        else:
            spread = shares.expand(x.shape[:3]).flatten(1)[:, None].to(x.dtype)
            centre = spread @ x.flatten(1, 2)
            x = x - centre[:, None]
        flat = x.flatten(1, 2)
        ahead = flat.shape[1] <= max(PRODUCTS_AHEAD * flat.shape[2], FEW_POINTS)
        gram = flat @ flat.mT if ahead else None
        # Large temporaries take longer than the products.
        squares = x.square().sum(-1) if gram is None else gram.diagonal(dim1=1, dim2=2).reshape(x.shape[:3])
        scale = (shares * squares.double()).sum((-2, -1)) if sets.cost == "sqeuclidean" else shares.new_ones(len(x))
        moved = Sets(x, sets.weights, sets.counts, sets.masses, sets.cost)
        return cls(moved, centre, squares, gram, scale)

    def part(self, index: Tensor) -> Geometry:
        """Take some of the problems."""
        gram = None if self.gram is None else self.gram[index]
        return Geometry(self.sets.part(index), self.centre[index], self.squares[index], gram, self.scale[index])

    def at(self, nodes: Tensor) -> Nodes:
        """Place nodes (problems, n, d) anywhere."""
        nodes = directions(nodes) if self.sets.cost == "cosine" else nodes - self.centre
        squares = torch.linalg.vector_norm(nodes, dim=-1).square_()
        return Nodes(nodes @ self.sets.points.flatten(1, 2).mT, squares, None)

    def combined(self, members: Tensor) -> Nodes:
        """Place nodes at combinations (problems, sets, n, nodes) of the points."""
        flat = members.transpose(1, 2).flatten(2)
        points = self.sets.points.flatten(1, 2)
        products = flat @ self.gram if self.gram is not None else (flat @ points) @ points.mT
        return Nodes(products, (products * flat).sum(-1), members)

    def costs(self, nodes: Nodes) -> Tensor:
        """Costs (problems, sets, n, nodes) between nodes and the points of each set."""
        size, n_sets, m, _ = self.sets.points.shape
        products = nodes.products.reshape(size, -1, n_sets, m).transpose(1, 2)
        if self.sets.cost == "cosine":
            return 1 - products / _lengths(nodes.squares)[:, None, :, None]
        sums = nodes.squares[:, None, :, None] + self.squares[:, :, None, :]
        return torch.add(sums, products, alpha=-2).clamp_min_(0)

    def decrease(self, new: Nodes, old: Nodes, b: Tensor | float) -> Tensor:
        """How much lower (problems,) F is at the best nodes for some plans than at the nodes that the plans are of."""
        assert new.members is not None
        mixed = (old.products * new.members.transpose(1, 2).flatten(2)).sum(-1)
        if self.sets.cost == "cosine":
            each = new.squares.clamp_min(0).sqrt() - mixed / _lengths(old.squares)
        else:
            each = new.squares - 2 * mixed + old.squares
        return (each.double() * b).sum(-1).clamp_min(0)


def _lengths(squares: Tensor) -> Tensor:
    """Norms from their squares, 1 for zero vectors, which stay zero and orthogonal to all."""
    held = squares > torch.finfo(squares.dtype).eps ** 2
    return torch.where(held, squares, 1).sqrt()


@dataclass(frozen=True)
class Found:
    """Where the iteration ended.

    Attributes:
        members: (problems, sets, n, nodes), weights_s P_s / b: the combinations of points that the nodes are.
        value: (problems,) float64, F there.
        n_iter: (problems,) int64, updates.
        status: (problems,) int8.
    """

    members: Tensor
    value: Tensor
    n_iter: Tensor
    status: Tensor


def fixed_point(geometry: Geometry, nodes: Nodes, b: Tensor | None, n_iter: int, tol: float, solver: Solver) -> Found:
    """Iterate until no problem's F would be lowered by more than ``tol`` times its scale, or ``n_iter`` times.

    Args:
        geometry: Of the problems.
        nodes: Where to start.
        b: (problems, n) float64 masses of the nodes, or None for alike.
        n_iter: Most updates of the nodes.
        tol: Relative to ``geometry.scale``.
        solver: An exact one.
    """
    x = geometry.sets.points
    size, n = nodes.squares.shape
    members = x.new_zeros(size, x.shape[1], n, x.shape[2])
    value = torch.zeros(size, dtype=torch.float64, device=x.device)
    count = torch.zeros(size, dtype=torch.int64, device=x.device)
    status = torch.full((size,), int(Status.MAX_ITER), dtype=torch.int8, device=x.device)
    active = torch.arange(size, device=x.device)
    for step in range(n_iter + 1):
        plans, values = _plans(geometry.sets, geometry.costs(nodes), b, solver)
        value[active] = values
        if step == n_iter:
            break
        shares = 1 / n if b is None else b
        made = _update(geometry.sets, plans, nodes, b)
        new = geometry.combined(made)
        drop = geometry.decrease(new, nodes, shares)
        ended = drop <= tol * geometry.scale
        if nodes.members is not None:
            # Products are rounded; that nothing moves is seen from what they are of.
            ended |= (made == nodes.members).flatten(1).all(1)
        members[active], count[active] = made, step + 1
        done = active[ended]
        status[done] = int(Status.OPTIMAL)
        # At the updated nodes, whose plans these are still.
        value[done] = (values - drop.where(drop > 0, 0))[ended].clamp_min(0)
        if bool(ended.all()):
            break
        if len(done):
            going = (~ended).nonzero()[:, 0]
            geometry, new, active = geometry.part(going), new.part(going), active[going]
            b = None if b is None else b[going]
        nodes = new
    return Found(members, value, count, status)


def _plans(sets: Sets, costs: Tensor, b: Tensor | None, solver: Solver) -> tuple[Tensor, Tensor]:
    """Solve all pairs of barycentre and set that count at once: plans (problems, sets, n, nodes), F (problems,)."""
    counts = sets.counts
    rows = None if b is None else b[:, None].expand(-1, counts.shape[1], -1)
    masses = sets.masses
    if bool(counts.all()):
        result = solve(costs, rows, masses, solver=solver)
        return result.plan, (result.value * sets.weights).sum(-1)
    result = solve(
        costs[counts], None if rows is None else rows[counts], None if masses is None else masses[counts], solver=solver
    )
    plans, values = costs.new_zeros(costs.shape), sets.weights.new_zeros(counts.shape)
    plans[counts], values[counts] = result.plan, result.value
    return plans, (values * sets.weights).sum(-1)


def _update(sets: Sets, plans: Tensor, nodes: Nodes, b: Tensor | None) -> Tensor:
    """Combinations (problems, sets, n, nodes) of points that are the best nodes for plans."""
    factors = sets.weights.to(plans.dtype)[..., None, None]
    if b is None:
        return plans * (factors * plans.shape[2])
    shares = b.to(plans.dtype)[:, None, :, None]
    made = plans * factors / torch.where(shares > 0, shares, 1)
    # A node without mass stays where it is.
    return made if nodes.members is None else torch.where(shares > 0, made, nodes.members)
