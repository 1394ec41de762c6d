"""Transductive heads: class centres that move with how queries are assigned to them.

Centres are averages of an episode's points, so they are kept as weights of the points, and all that heads ask about
points are inner products. That is the isometry in place of the published QR: no coordinates are needed at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from otfew.errors import UserError
from otfew.transport import ConvergenceWarning, Sinkhorn, Status, solve
from otfew.transport.arguments import OnFail
from otfew.transport.complaints import warn

TOLERANCE = 1e-6
"""Largest error of a query's assignments, which sum to 1, at which Sinkhorn stops; the published code's."""

LOOK = 4
"""Steps of k-means between two looks at whether it has ended, where a look waits for the device."""


@dataclass(frozen=True)
class Episode:
    """Points of a batch of episodes, support first.

    Attributes:
        points: From ``inner_points``: (episodes, n, channels), or the inner products (episodes, n, n).
        are_products: Which of the two.
        labels: (episodes, n_support, way) float, one 1 in each row; none at support points to ignore.
    """

    points: Tensor
    are_products: bool
    labels: Tensor

    @cached_property
    def squares(self) -> Tensor:
        """Squared norms of the queries (episodes, n_query)."""
        n_support = self.labels.shape[1]
        if self.are_products:
            return self.points.diagonal(dim1=1, dim2=2)[:, n_support:]
        return self.points[:, n_support:].square().sum(-1)

    def weights(self, assigned: Tensor) -> Tensor:
        """Weigh points (episodes, n, way) so that a class's centre is the mean of its shots and what it is assigned.

        Args:
            assigned: (episodes, n_query, way).
        """
        members = torch.cat([self.labels, assigned], 1)
        return members / members.sum(1, keepdim=True)

    def support_weights(self) -> Tensor:
        """Weigh points (episodes, n, way) so that centres are the means of the shots."""
        episodes, n_support, way = self.labels.shape
        return self.weights(self.labels.new_zeros(episodes, self.points.shape[1] - n_support, way))

    def distances(self, weights: Tensor) -> Tensor:
        """Compute squared distances (episodes, n_query, way) of the queries to the centres with these weights."""
        products = self.points @ (weights if self.are_products else self.points.mT @ weights)
        centres = (weights * products).sum(1, keepdim=True)
        return self.squares[..., None] - 2 * products[:, self.labels.shape[1] :] + centres


def fewer_products(n: int, channels: int) -> bool:
    """Tell whether n points have fewer inner products than coordinates."""
    return n <= channels


def inner_points(points: Tensor) -> Tensor:
    """Turn points (episodes, n, channels) into their inner products (episodes, n, n) where these are fewer."""
    return points @ points.mT if fewer_products(*points.shape[1:]) else points


@dataclass(frozen=True)
class Mapping:
    """Assignment of queries to centres by entropic transport.

    Attributes:
        lam: Inverse of the regularisation.
        slack: Price of class totals that differ from the prior, in units of 1 / lam; None where they must not.
    """

    lam: float
    slack: float | None = None

    def __call__(self, distances: Tensor, prior: Tensor, ended: list[Tensor] | None = None) -> Tensor:
        """Assign: (episodes, n_query, way), whose rows sum to 1.

        Args:
            distances: (episodes, n_query, way), the cost.
            prior: (episodes, way) of sum 1, share of each class.
            ended: Where given, how problems ended is appended to it (episodes,) and not looked at: a look waits for
                the device.
        """
        n_query = distances.shape[1]
        reg = 1 / self.lam
        solver = Sinkhorn(
            reg=reg,
            tol=TOLERANCE / n_query,
            unbalanced=None if self.slack is None else (self.slack * reg, None),
        )
        # Classes are the rows: the compiled loop works along columns, and likes them to be many.
        on_fail: OnFail | None = None if ended is None else "ignore"
        result = solve(distances.mT, prior, solver=solver, on_fail=on_fail, validate=False)
        if ended is not None:
            ended.append(result.status)
        assigned: Tensor = n_query * result.plan.mT
        return assigned


def report(ended: list[Tensor], reg: float) -> None:
    """Warn where an assignment that was not looked at is short of its optimum."""
    status = torch.stack(ended) if ended else None
    failed = 0 if status is None else int((status != Status.OPTIMAL).sum())
    if failed and status is not None:
        warn(
            f"sinkhorn did not reach the optimum of {failed} of {status.numel()} assignments of queries at "
            f"reg {reg:.3g}; lower lam",
            ConvergenceWarning,
        )


def log_assignments(assigned: Tensor) -> Tensor:
    """Logits (episodes, n_query, way) whose softmax is the assignment; zeros become the least number there is."""
    logits: Tensor = assigned.clamp_min(torch.finfo(assigned.dtype).tiny).log()
    return logits.log_softmax(-1)


def map_head(episode: Episode, prior: Tensor, mapping: Mapping, alpha: float, n_steps: int) -> Tensor:
    """MAP: assign queries by transport, move centres a part of the way, and again (Hu et al. 2020, algorithm 1).

    Args:
        episode: The points.
        prior: (episodes, way) of sum 1.
        mapping: How queries are assigned.
        alpha: Part of the way that centres go in a step.
        n_steps: Steps; queries are assigned once more after the last.

    Returns:
        Logarithms of the assignments (episodes, n_query, way).
    """
    weights = episode.support_weights()
    ended: list[Tensor] | None = None if episode.points.is_cpu else []
    for _ in range(n_steps):
        assigned = mapping(episode.distances(weights), prior, ended)
        weights = weights + alpha * (episode.weights(assigned) - weights)
    assigned = mapping(episode.distances(weights), prior, ended)
    if ended is not None:
        report(ended, 1 / mapping.lam)
    return log_assignments(assigned)


def ncm_head(episode: Episode, lam: float) -> Tensor:
    """Nearest class mean: -lam times the squared distances to the means of the shots."""
    return -lam * episode.distances(episode.support_weights())


def kmeans_head(episode: Episode, lam: float, n_steps: int) -> Tensor:
    """K-means from the means of the shots, which keep their labels; classes may take any number of queries.

    Args:
        episode: The points.
        lam: Scale of the logits.
        n_steps: Steps at most; it ends where no query changes its class.

    Returns:
        -lam times the squared distances to the last centres (episodes, n_query, way).
    """
    weights = episode.support_weights()
    distances = episode.distances(weights)
    nearest = distances.argmin(-1)
    look = 1 if distances.is_cpu else LOOK
    for step in range(1, n_steps + 1):
        weights = episode.weights(torch.nn.functional.one_hot(nearest, distances.shape[-1]).to(distances))
        distances = episode.distances(weights)
        before, nearest = nearest, distances.argmin(-1)
        # Episodes that have ended stay as they are while others go on.
        if step % look == 0 and torch.equal(before, nearest):
            break
    return -lam * distances


def gmm_head(episode: Episode, prior: Tensor, lam: float, n_steps: int) -> Tensor:
    """Gaussian mixture, fitted by EM from the means of the shots, which keep their labels.

    Covariances are 1 / (2 lam) times the identity, as MAP's likelihood exp(-lam |f - c|^2) has it: what tells the two
    apart is that classes may take any number of queries here. The weights of the components are not fitted: with
    covariances so wide the largest component would take everything.

    Args:
        episode: The points.
        prior: (episodes, way) of sum 1: the weights of the components.
        lam: See above.
        n_steps: EM steps.

    Returns:
        Logarithms of the responsibilities (episodes, n_query, way).
    """
    bias = prior.clamp_min(torch.finfo(prior.dtype).tiny).log()[:, None]
    weights = episode.support_weights()
    for _ in range(n_steps):
        weights = episode.weights((bias - lam * episode.distances(weights)).softmax(-1))
    return (bias - lam * episode.distances(weights)).log_softmax(-1)


def check_prior(class_prior: Tensor, like: Tensor) -> Tensor:
    """Turn a given prior (episodes, way) into shares of the classes.

    Args:
        class_prior: What the caller gave: numbers that are not negative and not all zero.
        like: (episodes, way), for its shape, dtype and device.

    Raises:
        UserError: A wrong shape, NaN, infinity, a negative number or a sum of zero, naming the episode.
    """
    if class_prior.shape != like.shape:
        shapes = f"{tuple(like.shape)}, not {tuple(class_prior.shape)}"
        raise UserError(f"`class_prior` must be (episodes, way) = {shapes}.")
    prior = class_prior.to(like)
    total = prior.sum(-1)
    bad = (~((prior >= 0).all(-1) & (total > 0) & (total < math.inf))).nonzero()
    if len(bad):
        raise UserError(
            f"`class_prior` of episode {int(bad[0])} must be finite numbers of at least 0 that are not all 0, "
            f"not {[round(x, 4) for x in prior[int(bad[0])].tolist()]}."
        )
    return prior / total[:, None]
