"""LST and PT-MAP: few-shot classification of all queries of an episode at once, by transport to moving centres."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from otfew import checks
from otfew.errors import UserError
from otfew.method import MethodBase, check_episode, global_vectors
from otfew.methods.centre_heads import (
    Episode,
    Mapping,
    check_prior,
    fewer_products,
    gmm_head,
    inner_points,
    kmeans_head,
    map_head,
    ncm_head,
)
from otfew.methods.latent_space import check_options, check_points, kept, transformed
from otfew.methods.presets import SOURCES, published
from otfew.transport.precision import in_full_precision

HEADS = ("map", "kmeans", "gmm", "ncm")
CLASS_PRIORS = ("uniform", "estimated")

TRANSFORMED = 1 << 20
"""Numbers that are transformed at once: more do not stay in a processor's cache, and take four times as long."""
MAPPED = 1 << 22
"""Numbers of points, or of their products, that the heads work on at once."""
ELSEWHERE = 1 << 27
"""Either on other devices, where operations must be few and large: half a gigabyte in float32."""


class LST(MethodBase):
    """Latent Space Transform with MAP (Chobola, Vasata and Kordik 2021), on the averages of images' nodes.

    Features are transformed by ``otfew.methods.latent_space.latent_space``, about the mean of support and queries.
    Then, by ``head``:

    - "map": queries are assigned to class centres by entropic transport with cost |f - c|^2 and regularisation 1 / lam,
      centres move by alpha towards the mean of the shots and what they were assigned, n_steps times. logit = log of the
      assignment; softmax gives it back.
    - "gmm": the same without constraints on how many queries a class takes: EM with covariances 1 / (2 lam).
    - "kmeans": the same with each query assigned to its nearest centre alone; logit_c = -lam |f - c|^2.
    - "ncm": centres stay the means of the shots; logit_c = -lam |f - c|^2.

    In all of them the shots keep their labels, and uneven ones count one each. The published procedure gives "map" the
    true, balanced number of queries of each class, which elsewhere nobody knows: ``class_prior="uniform"``. With
    "estimated", classes may take other shares at a price: the plan pays slack / lam times the KL divergence of the
    shares from uniform ones, which 0 would make free and infinity hard. A ``class_prior`` given in the call is held to
    instead, and weighs the components of "gmm", whose classes take any share with either; "kmeans" and "ncm" know no
    prior.

    Each episode is solved to its own end, so its answer does not depend on the others of the batch; in the published
    code the stopping rule ties them.

    Args:
        beta: Exponent of the power transform; 1 leaves features as they are, and may be used with negative ones.
        delta: How far features are normalised before centring: 0 leaves them, 1 divides them by their norms.
        gamma: How far after.
        alpha: Part of the way that centres go in a step of "map", above 0, at most 1.
        n_steps: Steps of "map" and "gmm"; at most so many of "kmeans".
        lam: Inverse of the regularisation.
        head: "map", "kmeans", "gmm" or "ncm".
        class_prior: "uniform" or "estimated".
        slack: See above; above 0.
        joint: Centre support and queries together, or else each about its own mean.

    Raises:
        UserError: An option out of range; called with NaN, negative features, a class without a shot, a single query,
            or a ``class_prior`` that is none.

    Examples:
        >>> import torch
        >>> support, query = torch.rand(2, 5, 1, 1, 64), torch.rand(2, 75, 1, 64)
        >>> assigned = LST()(support, query).softmax(-1)
        >>> assigned.sum(1).round(decimals=2)  # the queries are known to be balanced, 15 a class
        tensor([[15., 15., 15., 15., 15.],
                [15., 15., 15., 15., 15.]])
    """

    name: ClassVar[str] = "lst"
    transductive: ClassVar[bool] = True
    pools: ClassVar[bool] = True
    needs_nonnegative: ClassVar[bool] = True
    counts_shots: ClassVar[bool] = True
    contrasts: ClassVar[tuple[str, ...]] = ("lst:head=gmm", "lst:head=kmeans")

    def __init__(
        self,
        beta: float = 0.5,
        delta: float = 0.3,
        gamma: float = 0.9,
        alpha: float = 0.2,
        n_steps: int = 20,
        lam: float = 10.0,
        head: str = "map",
        class_prior: str = "uniform",
        slack: float = 0.3,
        joint: bool = True,
    ) -> None:
        check_options(self.name, beta, delta, gamma)
        self.joint = checks.flag(self.name, "joint", joint)
        self.alpha = checks.number(self.name, "alpha", alpha, above=0, most=1)
        self.n_steps = checks.whole(self.name, "n_steps", n_steps, least=0)
        self.lam = checks.number(self.name, "lam", lam, above=0)
        self.head = checks.choice(self.name, "head", head, HEADS)
        self.class_prior = checks.choice(self.name, "class_prior", class_prior, CLASS_PRIORS)
        self.slack = checks.number(self.name, "slack", slack, above=0)
        self.beta, self.delta, self.gamma = beta, delta, gamma

    def controls(self, shot: int) -> tuple[str, ...] | None:
        """Name the heads that move centres without transport; these themselves have none."""
        return self.contrasts if self.head == "map" else None

    @classmethod
    def published(cls, source: str, shot: int = 1, **options: Any) -> LST:
        """Make it with the options that its paper gives for a data set; see ``otfew.methods.presets``.

        Args:
            source: "cifar-fs" or "cub".
            shot: Labelled images of each class: 1, or more for the options of five.
            **options: Of the constructor, over the published ones.

        Returns:
            The method.

        Raises:
            UserError: No such data set, no shot, or an option out of range.
        """
        checks.choice(cls.name, "source", source, SOURCES)
        checks.whole(cls.name, "shot", shot, least=1)
        return cls(**{**published(cls.name, source, shot), **options})

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
        episodes, n_query = query.shape[:2]
        if n_query < 2:
            raise UserError(f"{self.name} classifies an episode's queries by each other and needs 2, not {n_query}.")
        way, shot = support.shape[1:3]
        mask = None if support_mask is None else support_mask.flatten(1)
        vectors, queries = kept(global_vectors(support).flatten(1, 2), mask), global_vectors(query)
        check_points(vectors, queries, self.beta)
        labels = torch.eye(way, dtype=queries.dtype, device=queries.device).repeat_interleave(shot, 0)
        labels = labels.expand(episodes, -1, -1) if mask is None else labels * mask[..., None]
        prior = queries.new_full((episodes, way), 1 / way)
        if class_prior is not None:
            prior = check_prior(class_prior, prior)
        points = self._points(vectors, queries, mask)
        are_products = fewer_products(points.shape[1], queries.shape[2])
        step = max(1, (MAPPED if points.is_cpu else ELSEWHERE) // points[0].numel())
        parts = zip(*(torch.split(x, step) for x in (points, labels, prior)), strict=True)
        given = class_prior is not None
        return torch.cat([self._scores(Episode(some, are_products, own), shares, given) for some, own, shares in parts])

    def _points(self, support: Tensor, query: Tensor, mask: Tensor | None) -> Tensor:
        """Transform all episodes, a few at a time; see ``inner_points``."""
        step = max(
            1, (TRANSFORMED if query.is_cpu else ELSEWHERE) // ((support.shape[1] + query.shape[1]) * query.shape[2])
        )
        options = (self.beta, self.delta, self.gamma, self.joint)
        parts = []
        for start in range(0, len(query), step):
            chosen = slice(start, start + step)
            masked = None if mask is None else mask[chosen]
            pair = transformed(support[chosen], query[chosen], *options, masked)
            parts.append(inner_points(torch.cat(pair, 1)))
        return torch.cat(parts)

    def _scores(self, episode: Episode, prior: Tensor, given: bool) -> Tensor:
        """Apply the head."""
        if self.head == "ncm":
            return ncm_head(episode, self.lam)
        if self.head == "kmeans":
            return kmeans_head(episode, self.lam, self.n_steps)
        if self.head == "gmm":
            return gmm_head(episode, prior, self.lam, self.n_steps)
        slack = self.slack if self.class_prior == "estimated" and not given else None
        return map_head(episode, prior, Mapping(self.lam, slack), self.alpha, self.n_steps)


class PTMap(LST):
    """PT-MAP (Hu, Gripon and Pateux 2020): ``LST`` with unit norms, support and queries each about its own mean.

    That is delta = gamma = 1 and no joint centring; all else is as in ``LST``.

    Args:
        beta: Exponent of the power transform.
        alpha: Part of the way that centres go in a step of "map".
        n_steps: Steps of the head.
        lam: Inverse of the regularisation.
        head: "map", "kmeans", "gmm" or "ncm".
        class_prior: "uniform" or "estimated".
        slack: Price of other shares than uniform ones, where the prior is estimated.

    Raises:
        UserError: As for ``LST``.
    """

    name: ClassVar[str] = "pt-map"
    contrasts: ClassVar[tuple[str, ...]] = ("pt-map:head=gmm", "pt-map:head=kmeans")

    def __init__(
        self,
        beta: float = 0.5,
        alpha: float = 0.2,
        n_steps: int = 20,
        lam: float = 10.0,
        head: str = "map",
        class_prior: str = "uniform",
        slack: float = 0.3,
    ) -> None:
        super().__init__(beta, 1, 1, alpha, n_steps, lam, head, class_prior, slack, joint=False)
