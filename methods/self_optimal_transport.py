"""Self-optimal-transport features: an image described by how it is matched to the others of its episode."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from otfew import checks
from otfew.method import MethodBase, check_episode, global_vectors
from otfew.scores.cosine import unit
from otfew.transport import Sinkhorn, solve
from otfew.transport.precision import in_full_precision

# How far the diagonal's cost is above the mean, in units of reg: its share of a row is then about exp(-18), and the
# solver still works in the plain domain, which holds 20.
_ABOVE = 18.0


PLANS = ("transport", "softmax")


def self_softmax(vectors: Tensor, valid: Tensor, reg: float) -> Tensor:
    """Do as ``self_transport``, but for transport: a point's shares of the others sum to 1, those it receives need not.

    P_ij = exp((cosine_ij - 1) / reg) / sum_(k not i) exp((cosine_ik - 1) / reg): the same problem without the
    constraints on columns.

    Args:
        vectors: (episodes, points, channels).
        valid: (episodes, points) bool; rows and columns of others are zero off the diagonal.
        reg: Entropic regularisation.

    Returns:
        (episodes, points, points), differentiable.
    """
    units = unit(vectors)
    diagonal = torch.eye(vectors.shape[1], dtype=torch.bool, device=vectors.device)
    logits = (units @ units.mT / reg).masked_fill(diagonal | ~valid[:, None], -torch.inf)
    # A point that is alone has no others: its row of the softmax is not a number.
    plan = logits.softmax(-1).nan_to_num(0).masked_fill(~valid[..., None], 0)
    return torch.where(diagonal, 1.0, plan / plan.amax((1, 2), keepdim=True))


def self_transport(vectors: Tensor, valid: Tensor, reg: float) -> Tensor:
    """Transport an episode's points to themselves, each to others only.

    P minimises <P, 1 - cosine> + reg KL over doubly stochastic P without diagonal, and is symmetric. It is divided by
    its largest entry, and the diagonal set to 1: row i is the new feature of point i.

    Args:
        vectors: (episodes, points, channels).
        valid: (episodes, points) bool; rows and columns of others are zero off the diagonal.
        reg: Entropic regularisation.

    Returns:
        (episodes, points, points), differentiable.
    """
    units = unit(vectors)
    points = vectors.shape[1]
    diagonal = torch.eye(points, dtype=torch.bool, device=vectors.device)
    cost = 1 - units @ units.mT
    with torch.no_grad():
        others = cost.masked_fill(diagonal, 0)
        mean = others.sum((1, 2)) / (points * (points - 1))
        far = torch.maximum(mean, 2 * _loneliness(cost, valid, diagonal)) + _ABOVE * reg
    cost = torch.where(diagonal, far[:, None, None], cost)
    mass = valid.to(cost.dtype)
    plan = solve(cost, mass, mass, solver=Sinkhorn(reg=reg), validate=False).plan
    plan = plan.masked_fill(diagonal, 0)
    return torch.where(diagonal, 1.0, plan / plan.amax((1, 2), keepdim=True)).to(cost.dtype)


def _loneliness(cost: Tensor, valid: Tensor, diagonal: Tensor) -> Tensor:
    """Find what it costs the loneliest point of each episode (episodes,) to reach its second nearest other.

    Without an arc to itself a point sends to one point and receives from another, which then do not exchange what they
    could have: that costs at most twice this. A diagonal that is cheaper would be used.
    """
    others = cost.masked_fill(diagonal | ~valid[:, None], torch.inf)
    nearest = others.topk(min(2, cost.shape[1] - 1), largest=False).values
    # A point may have one other only.
    second = torch.where(nearest[..., -1].isfinite(), nearest[..., -1], nearest[..., 0])
    return second.masked_fill(~valid | second.isinf(), 0).amax(1)


class SelfOptimalTransport(MethodBase):
    """The self-optimal-transport feature transform (Shalam and Korman 2022) before the nearest class mean.

    logit_c = -|f(q) - mean_k f(x_ck)|^2 / T. f(x) is a row of the episode's plan of transport to itself: all support
    and query vectors (means of an image's nodes) with mass 1 each, cost 1 - cosine, none to itself, entropic with
    reg = 0.1; the plan divided by its largest entry and with 1 on the diagonal. So images are near each other that
    agree on whom they are near to.

    The plan is the OT core's Sinkhorn solution at convergence, each episode by itself. The authors' code excludes the
    diagonal by a cost of 1e3 or more and stops all episodes together after 10 iterations at most. Its later release
    (renamed "balanced pairwise affinities") also writes what is known of the support into the plan: ``known_support``.

    Masses are equal and no class prior enters: ``class_prior`` is ignored. Uneven shots: masked shots have no mass, and
    each class is the mean of the shots that it has.

    Args:
        reg: Entropic regularisation, in units of the cost.
        known_support: Write 1 between shots of one class and 0 between shots of two.
        plan: "transport", or as a control without it "softmax": see ``self_softmax``.
        temperature: T. Without effect on accuracy.

    Raises:
        UserError: An option out of range.

    Examples:
        >>> support, query = torch.rand(2, 5, 1, 1, 64), torch.rand(2, 15, 1, 64)
        >>> features, queries, share = SelfOptimalTransport().transform(support, query)
        >>> features.shape, queries.shape  # an image is described by its 20 plan entries
        (torch.Size([2, 5, 1, 20]), torch.Size([2, 15, 20]))
    """

    name: ClassVar[str] = "sot"
    transductive: ClassVar[bool] = True
    pools: ClassVar[bool] = True
    counts_shots: ClassVar[bool] = True
    contrasts: ClassVar[tuple[str, ...]] = ("sot:plan=softmax",)

    def __init__(
        self, reg: float = 0.1, known_support: bool = False, temperature: float = 1.0, plan: str = "transport"
    ) -> None:
        self.reg = checks.number(self.name, "reg", reg, above=0)
        self.known_support = checks.flag(self.name, "known_support", known_support)
        self.temperature = checks.number(self.name, "temperature", temperature, above=0)
        self.plan = checks.choice(self.name, "plan", plan, PLANS)

    def controls(self, shot: int) -> tuple[str, ...] | None:
        """Name the same features without the constraints on columns, which themselves have none."""
        return self.contrasts if self.plan == "transport" else None

    @in_full_precision
    def __call__(
        self,
        support: Tensor,
        query: Tensor,
        *,
        support_mask: Tensor | None = None,
        class_prior: Tensor | None = None,
    ) -> Tensor:
        """Score queries against classes, see ``otfew.method.FewShotMethod``; ``class_prior`` is ignored."""
        check_episode(support, query, support_mask)
        features, queries, share = self.transform(support, query, support_mask)
        means = (features * share[..., None]).sum(2)
        distances = torch.cdist(queries, means, compute_mode="donot_use_mm_for_euclid_dist").square()
        logits: Tensor = -distances / self.temperature
        return logits

    @in_full_precision
    def transform(
        self, support: Tensor, query: Tensor, support_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the new features of a batch of episodes.

        Args:
            support: (episodes, way, shot, nodes, channels).
            query: (episodes, n_query, nodes, channels).
            support_mask: (episodes, way, shot) bool or None.

        Returns:
            Of the support (episodes, way, shot, points), meaningless where masked; of the query (episodes, n_query,
            points), with points = way * shot + n_query, support first; and each shot's share of its class
            (episodes, way, shot), 0 where masked.
        """
        episodes, way, shot = support.shape[:3]
        kept = support.new_ones(episodes, way, shot, dtype=torch.bool) if support_mask is None else support_mask
        vectors = global_vectors(support).masked_fill(~kept[..., None], 0).flatten(1, 2)
        points = torch.cat([vectors, global_vectors(query)], 1)
        valid = torch.cat([kept.flatten(1), kept.new_ones(query.shape[:2])], 1)
        features = (self_transport if self.plan == "transport" else self_softmax)(points, valid, self.reg)
        if self.known_support:
            alike = torch.eye(way, dtype=features.dtype, device=features.device)
            alike = alike.repeat_interleave(shot, 0).repeat_interleave(shot, 1) * valid[:, None, : way * shot]
            features = features.clone()
            features[:, : way * shot, : way * shot] = alike
        share = kept.to(features.dtype) / kept.sum(-1, keepdim=True)
        of_support, of_query = torch.split(features, [way * shot, query.shape[1]], 1)
        return of_support.reshape(episodes, way, shot, -1), of_query, share
