"""A solved batch of entropic problems: plan, value and certificates from its potentials.

Everything is kept for weights whose totals have the geometric mean 1; ``scale`` is what they were divided by. The plan
is P_ij = a_i b_j D_ij with the density D = exp(phi_i + psi_j - (C_ij - offset) / reg), zero where plans have no mass;
f = reg phi + offset and g = reg psi are the potentials in the units of the cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from otfew.transport.entropic.newton import Rhos
from otfew.transport.entropic.support import Support

LARGEST_EXPONENT = 700.0
"""Between two nodes without weight the density may be anything; it must not overflow, or zero times it is NaN."""


def density(net: Tensor, phi: Tensor, psi: Tensor, reg: float) -> Tensor:
    """Plan over the product of the weights (problems, n, m), from costs less their offset, in float64."""
    return (phi[..., None] + psi[:, None] - net / reg).clamp_max(LARGEST_EXPONENT).exp()


SMALL = 2**20
"""Entries below which one thread multiplies sooner than torch has woken all of its own."""


def times(plan: Tensor, factor: Tensor) -> Tensor:
    """Multiply each plan (problems, n, m) by its factor (problems,), in the plan's dtype, into a new tensor."""
    factor = factor.to(plan.dtype)[:, None, None]
    if plan.device.type == "cpu" and plan.numel() < SMALL:
        return torch.from_numpy(plan.numpy() * factor.numpy())
    return plan * factor


@dataclass(slots=True, eq=False)
class Solved:
    """Potentials of a batch of problems and what they belong to.

    Attributes:
        cost: (problems, n, m), without a graph; finite.
        a: (problems, n) float64.
        b: (problems, m) float64.
        scale: (problems,) float64.
        reg: Regularisation.
        rhos: Weights of the KL terms of the marginals, None for hard ones.
        phi: (problems, n) float64.
        psi: (problems, m) float64.
        offset: (problems,) float64.
        error: (problems,) float64, largest deviation from a marginal condition.
        status: (problems,) int8.
        n_iter: (problems,) int64.
        plan: (problems, n, m) of the weights above, in the cost's dtype, where the solver made it.
        support: Where pairs are forbidden, those that plans use.
    """

    cost: Tensor
    a: Tensor
    b: Tensor
    scale: Tensor
    reg: float
    rhos: Rhos
    phi: Tensor
    psi: Tensor
    offset: Tensor
    error: Tensor
    status: Tensor
    n_iter: Tensor
    plan: Tensor | None = None
    support: Support | None = None

    @property
    def balanced(self) -> bool:
        """Whether both marginals are hard."""
        return self.rhos == (None, None)

    def potentials(self) -> tuple[Tensor, Tensor]:
        """Return f (problems, n) and g (problems, m) in float64; if balanced with sum_j g_j b_j = 0."""
        f, g = self.reg * self.phi + self.offset[:, None], self.reg * self.psi
        if not self.balanced:
            return f, g
        shift = (g * self.b).sum(-1, keepdim=True) / self.b.sum(-1, keepdim=True)
        if self.support is None:
            return f + shift, g - shift
        return (f + shift).where(~self.support.lone_rows, 0.0), (g - shift).where(~self.support.lone_columns, 0.0)

    def density(self) -> Tensor:
        """D (problems, n, m) in float64: the plan over the product of the weights."""
        found = density(self.cost.double() - self.offset[:, None, None], self.phi, self.psi, self.reg)
        return found if self.support is None else found.where(self.support.live, 0.0)

    def plan64(self) -> Tensor:
        """The plan (problems, n, m) in float64, from the potentials."""
        return self.a[..., None] * self.density() * self.b[:, None]

    def unit_plan(self) -> Tensor:
        """The plan (problems, n, m) in the cost's dtype."""
        return self.plan64().to(self.cost.dtype) if self.plan is None else self.plan


def _side(weights: Tensor, potential: Tensor, rho: float | None) -> Tensor:
    """What one side adds to the dual: its weights times the potential, or the conjugate of its KL term."""
    gain = potential if rho is None else -rho * torch.expm1(-potential / rho)
    return (weights * gain).sum(-1)


def dual_value(solved: Solved, mass: Tensor | None = None) -> Tensor:
    """Value of the dual (problems,) for total 1; ``mass`` is the plan's, which hard marginals make 1."""
    if solved.balanced:
        # a phi + b psi, in which the gauge does not show.
        value = solved.reg * ((solved.a * solved.phi).sum(-1) + (solved.b * solved.psi).sum(-1)) + solved.offset
        return value if mass is None else value - solved.reg * (mass - 1)
    f, g = solved.potentials()
    mass = solved.plan64().sum((1, 2)) if mass is None else mass
    lost = solved.reg * (mass - solved.a.sum(-1) * solved.b.sum(-1))
    return _side(solved.a, f, solved.rhos[0]) + _side(solved.b, g, solved.rhos[1]) - lost


def _divergence(ratio: Tensor) -> Tensor:
    """X log x - x + 1, which sums to KL(x q | q) under the weights q."""
    return ratio * torch.where(ratio > 0, ratio, 1.0).log() - ratio + 1


def primal_value(solved: Solved, density: Tensor) -> Tensor:
    """Value (problems,) for total 1 of the plan with this density, whose marginals are taken as they are.

    From the density alone, so that weights may be zero: nothing is divided by them.
    """
    rho_a, rho_b = solved.rhos
    product = solved.a[..., None] * solved.b[:, None]
    value = (product * (density * solved.cost + solved.reg * _divergence(density))).sum((1, 2))
    if rho_a is not None:
        value = value + rho_a * (solved.a * _divergence((density * solved.b[:, None]).sum(2))).sum(-1)
    if rho_b is not None:
        value = value + rho_b * (solved.b * _divergence((density * solved.a[..., None]).sum(1))).sum(-1)
    return value


def round_plan(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Nearest way from a plan to one with exact marginals (Altschuler, Weed and Rigollet 2017, algorithm 2).

    Rows and columns that carry too much are scaled down; what is then missing is added as a product.

    Args:
        plan: (problems, n, m) float64.
        a: (problems, n).
        b: (problems, m) of the same total.
    """

    def shrink(sums: Tensor, goal: Tensor) -> Tensor:
        return torch.where(sums > goal, goal / sums, 1.0)

    plan = plan * shrink(plan.sum(2), a)[..., None]
    plan = plan * shrink(plan.sum(1), b)[:, None]
    rows, columns = (a - plan.sum(2)).clamp_min(0), (b - plan.sum(1)).clamp_min(0)
    missing = rows.sum(-1, keepdim=True)
    return plan + rows[..., None] * (columns / torch.where(missing > 0, missing, 1.0))[:, None]


def round_all(solved: Solved, plan: Tensor) -> Tensor:
    """Nearest way from a plan (problems, n, m), float64, to one with exact marginals, within the pairs plans use."""
    if solved.support is None:
        return round_plan(plan, solved.a, solved.b)
    return solved.support.rounded(plan, solved.a, solved.b)


def round_hard(solved: Solved, plan: Tensor) -> Tensor:
    """Make hard marginals exact; soft ones take any plan."""
    if solved.balanced:
        return round_all(solved, plan)
    if solved.rhos[0] is None:
        return plan * torch.where(solved.a > 0, solved.a / plan.sum(2), 0.0)[..., None]
    if solved.rhos[1] is None:
        return plan * torch.where(solved.b > 0, solved.b / plan.sum(1), 0.0)[:, None]
    return plan


def entropic_gap(solved: Solved) -> Tensor:
    """Value of a feasible plan minus the dual value (problems,): a bound on the error of either."""
    plan = solved.plan64()
    dual = dual_value(solved, plan.sum((1, 2)))
    product = solved.a[..., None] * solved.b[:, None]
    feasible = torch.where(product > 0, round_hard(solved, plan) / product, 0.0)
    return solved.scale * (primal_value(solved, feasible) - dual)


def feasible_potentials(solved: Solved) -> tuple[Tensor, Tensor]:
    """Potentials of the linear program, f_i + g_j <= C_ij, made from the entropic ones by two c-transforms.

    The better of the two ways round is taken, problem by problem; sum_j g_j b_j = 0.
    """
    cost, a, b, support = solved.cost.double(), solved.a, solved.b, solved.support
    f, g = solved.potentials()
    mine, theirs = a > 0, b > 0
    if support is not None and support.parts > 1:
        mine, theirs = mine & (support.row_part >= 0), theirs & (support.column_part >= 0)
    shut = cost if support is None else cost.where(support.live, torch.inf)

    def least(net: Tensor, weights: Tensor, dim: int) -> Tensor:
        # Nodes without weight must not bind those with some.
        found = net.where(weights, torch.inf).amin(dim)
        # Nor must those that nothing serves bind anyone.
        return found if support is None else found.where(found < torch.inf, 0.0)

    f1 = least(shut - g[:, None], theirs[:, None], 2)
    g1 = least(shut - f1[..., None], mine[..., None], 1)
    g2 = least(shut - f[..., None], mine[..., None], 1)
    f2 = least(shut - g2[:, None], theirs[:, None], 2)
    first = (f1 * a).sum(-1) + (g1 * b).sum(-1) >= (f2 * a).sum(-1) + (g2 * b).sum(-1)
    f, g = torch.where(first[:, None], f1, f2), torch.where(first[:, None], g1, g2)
    if support is not None:
        if support.parts > 1:
            f, g = support.part(f, g, cost, b, 0.0)
        shut = cost.where(support.allowed, torch.inf)
    # Those without weight come last, as high as they may.
    g = torch.where(theirs, g, least(shut - f[..., None], mine[..., None], 1))
    f = torch.where(mine, f, least(shut - g[:, None], torch.ones_like(theirs)[:, None], 2))
    shift = (g * b).sum(-1, keepdim=True) / b.sum(-1, keepdim=True)
    return f + shift, g - shift


def marginal_error(solved: Solved) -> Tensor:
    """Largest deviation of the plan's sums from their conditions (problems,), relative to the total."""
    plan = solved.plan64() if solved.plan is None else solved.plan.double()
    f, g = solved.potentials()
    rho_a, rho_b = solved.rhos
    rows = solved.a if rho_a is None else solved.a * (-f / rho_a).exp()
    columns = solved.b if rho_b is None else solved.b * (-g / rho_b).exp()
    return torch.maximum((plan.sum(2) - rows).abs().amax(-1), (plan.sum(1) - columns).abs().amax(-1))
