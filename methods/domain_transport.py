"""Domain transport: the labelled images moved onto the queries' distribution by a transport plan, then classified."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from otfew import checks
from otfew.method import MethodBase, check_episode, global_vectors
from otfew.methods.centre_heads import check_prior
from otfew.methods.deepemd import DeepEMD
from otfew.scores.domains import Domains, checked_head, two_domains
from otfew.transport import Exact, Sinkhorn, solve
from otfew.transport.costs import sqeuclidean
from otfew.transport.mapping import barycentric
from otfew.transport.mapping_classes import class_plans
from otfew.transport.precision import in_full_precision

PLANS = ("exact", "entropic", "unbalanced", "class-regularised")
HEADS = ("mean", "logistic", "deepemd")
Prior = Literal["uniform", "estimated"]


class DomainTransport(MethodBase):
    """Support images moved onto the queries by the barycentric map of a transport plan (Courty et al. 2017).

    Vectors are the means of images' nodes over their norms. Each domain is taken about its own mean, which is
    ``mean-alignment``; P is a plan between the centred support x, with masses a, and the centred queries y, with equal
    masses, for the cost C_ij = |x_i - y_j|^2 over its mean sum_ij a_i C_ij / n_query; and

        x_i -> x_i + step (sum_j P_ij y_j / sum_j P_ij - x_i) + mean of the queries.

    So ``step=0`` is ``mean-alignment``. With fixed sums ("exact", "entropic", "class-regularised"), whose plans do not
    see a shift of a domain, ``step=1`` is the map of ``otfew.transport_map``, with ``reg`` and ``reg_classes`` times
    that mean; "unbalanced" plans do see one, and are made between the centred domains. Queries stay where they are.

    Plans, with ``reg``, ``rho`` and ``reg_classes`` as parts of the mean cost, which needs no labelled query:

    - "exact": the cheapest.
    - "entropic": + reg KL(P | a b').
    - "unbalanced": + reg KL(P | a b') + rho KL(P 1 | a): every query is reached, but a support image takes another
      share of them than a_i at a price. Where the classes' shares in the queries are unknown and not equal, the others
      hold every class to its share, which moves images of a rare class onto queries of others.
    - "class-regularised": entropic, + reg_classes sum_jc |P(I_c, j)|. At one shot it is "entropic": the groups are
      single images.

    Heads: "mean", logit_c = -temperature |y - p_c|^2, with p_c the mean of class c's moved shots; "logistic", fitted
    to moved shots over their norms, as the baseline is; "deepemd", ``deepemd`` with its default options between the
    query's nodes and moved nodes: all nodes of a support image are shifted by the displacement of its vector times the
    norm that was divided out, which moves their mean as the plan says and leaves the image's nodes as they are to each
    other.

    It is transductive: what becomes of a query depends on the others of its episode. An episode's answer does not
    depend on its batch-mates. a_i is the share of the image's class dealt out to its shots: of ``class_prior`` where
    the call gives one. Uneven shots: each class has its share, however many shots it has.

    Gradients reach support and queries through entropic and unbalanced plans; exact and class-regularised ones, and
    the fit of "logistic", are constants.

    As it is transductive, it can gain by clustering the queries where there is no shift at all: compare it with
    ``mean-alignment``, and a gain under a shift with that without one. It may hurt where the classes' shares of the
    queries are uneven. docs/transfer.md says how defaults were chosen, and has the figures.

    Args:
        plan: One of the above.
        head: "mean", "logistic" or "deepemd".
        reg: Regularisation of all plans but "exact".
        rho: Price of other shares, of "unbalanced".
        reg_classes: Weight of the class term, of "class-regularised".
        step: Part of the way that images go, 0 to 1.
        normalise: Divide vectors by their norms first.
        temperature: Scale of the logits of "mean".
        C: Inverse strength of the penalty of "logistic".
        class_prior: Where the call gives none: "uniform", or "estimated", the mean of the queries' softmax over the
            classes' means, with each domain about its own mean.

    Raises:
        UserError: An option out of range; called with NaN, a single query, or a ``class_prior`` that is none.

    Examples:
        >>> import torch
        >>> support, query = torch.rand(2, 5, 1, 1, 64), torch.rand(2, 75, 1, 64)
        >>> DomainTransport(plan="exact")(support, query).shape
        torch.Size([2, 75, 5])
    """

    name: ClassVar[str] = "domain-transport"
    transductive: ClassVar[bool] = True
    pools: ClassVar[bool] = True
    """But with head "deepemd", whose objects say so themselves."""
    partial_gradient: ClassVar[bool] = True
    contrasts: ClassVar[tuple[str, ...]] = ("mean-alignment", "coral", "gaussian-transport")
    """Controls that do the same without a plan."""

    def __init__(
        self,
        plan: str = "unbalanced",
        head: str = "mean",
        reg: float = 0.1,
        rho: float = 0.1,
        reg_classes: float = 0.1,
        step: float = 0.7,
        normalise: bool = True,
        temperature: float = 12.5,
        C: float = 1.0,
        class_prior: Prior = "uniform",
    ) -> None:
        self.plan = checks.choice(self.name, "plan", plan, PLANS)
        self.head = checked_head(self.name, head, temperature, C, HEADS)
        self.reg = float(checks.number(self.name, "reg", reg, above=0))
        self.rho = float(checks.number(self.name, "rho", rho, above=0))
        self.reg_classes = checks.number(self.name, "reg_classes", reg_classes, least=0)
        self.step = checks.number(self.name, "step", step, least=0, most=1)
        self.normalise = checks.flag(self.name, "normalise", normalise)
        self.class_prior = checks.choice(self.name, "class_prior", class_prior, get_args(Prior))
        if head == "deepemd":
            # Whoever runs a method averages nodes beforehand where it pools.
            vars(self)["pools"] = False

    @in_full_precision
    def __call__(
        self,
        support: Tensor,
        query: Tensor,
        *,
        support_mask: Tensor | None = None,
        class_prior: Tensor | None = None,
    ) -> Tensor:
        """Score queries against classes, see ``otfew.method.FewShotMethod``."""
        check_episode(support, query, support_mask)
        vectors, queries = global_vectors(support), global_vectors(query)
        domains = two_domains(self.name, vectors, queries, support_mask, self.normalise)
        if class_prior is not None:
            prior = check_prior(class_prior, domains.uniform())
        elif self.class_prior == "estimated":
            prior = domains.estimated(self.head.temperature)
        else:
            prior = domains.uniform()
        moved = self.moved(domains, prior)
        if self.head.name != "deepemd":
            return self.head.logits(domains, moved, domains.queries)
        shift = moved.reshape(vectors.shape) - domains.shots
        if self.normalise:
            shift = shift * torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        shift = shift.masked_fill(~domains.kept[..., None], 0)
        return DeepEMD()(support + shift[..., None, :], query, support_mask=support_mask)

    def moved(self, domains: Domains, prior: Tensor) -> Tensor:
        """Move the shots.

        Args:
            domains: The episodes' vectors.
            prior: (episodes, way), shares of the classes.

        Returns:
            (episodes, way * shot, channels); meaningless where masked.
        """
        shots, masses = domains.shots.flatten(1, 2), domains.masses(prior)
        goal = domains.queries.mean(1, keepdim=True)
        source, target = shots - masses[:, None] @ shots, domains.queries - goal
        cost = sqeuclidean(source, target)
        mean = (masses[:, None] @ cost).mean(-1, keepdim=True)
        cost = cost / torch.where(mean > 0, mean, 1.0)
        # A class of no share sends nothing, and is moved as the mean is.
        return source + self.step * (barycentric(self._plans(cost, masses, domains), source, target) - source) + goal

    def _plans(self, cost: Tensor, masses: Tensor, domains: Domains) -> Tensor:
        """Plans (episodes, way * shot, n_query) of total 1, or where unbalanced of columns 1 / n_query."""
        if self.plan == "exact":
            return solve(cost, masses, solver=Exact(), validate=False).plan
        if self.plan != "class-regularised":
            prices = (self.rho, None) if self.plan == "unbalanced" else None
            return solve(cost, masses, solver=Sinkhorn(reg=self.reg, unbalanced=prices), validate=False).plan
        way, shot = domains.kept.shape[1:]
        labels = torch.arange(way, device=cost.device).repeat_interleave(shot)
        solver = Sinkhorn(reg=self.reg)
        return class_plans(cost, masses, None, labels, solver=solver, reg_classes=self.reg_classes).plan
