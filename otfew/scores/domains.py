"""An episode as two domains, the labelled images and the queries, and what follows once one was moved onto the other.

Shapes: E episodes, W classes (way), S shots, Q queries, d channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from otfew import checks
from otfew.errors import UserError
from otfew.scores.cosine import unit
from otfew.scores.logistic import logistic_logits

MAX_ITER = 1000
"""Steps of L-BFGS, as of the baseline ``logistic``."""


@dataclass(frozen=True)
class Domains:
    """Vectors of a batch of episodes.

    Attributes:
        shots: (E, W, S, d), zeros where masked.
        kept: (E, W, S) bool, the shots that count.
        queries: (E, Q, d).
    """

    shots: Tensor
    kept: Tensor
    queries: Tensor

    @property
    def share(self) -> Tensor:
        """Share of each shot in its class (E, W, S), equal for those that count; 0 where masked."""
        counted = self.kept.to(self.shots.dtype)
        return counted / counted.sum(-1, keepdim=True)

    def masses(self, prior: Tensor) -> Tensor:
        """Deal each class's share of the mass out to its shots.

        Args:
            prior: (E, W) of sum 1.

        Returns:
            (E, W S) of sum 1, 0 where masked.
        """
        return (prior[..., None] * self.share).flatten(1)

    def uniform(self) -> Tensor:
        """Return equal shares of the classes (E, W)."""
        way = self.shots.shape[1]
        return self.shots.new_full(self.shots.shape[:2], 1 / way)

    def estimated(self, temperature: float) -> Tensor:
        """Estimate the classes' shares in the queries (E, W), without any query's label.

        The mean over queries of softmax_c(-temperature |y - p_c|^2), with each domain about its own mean, for classes
        of equal shares.
        """
        way = (self.shots * self.share[..., None]).sum(2)
        centred = way - way.mean(1, keepdim=True), self.queries - self.queries.mean(1, keepdim=True)
        return (-temperature * squared_distances(*centred)).softmax(-1).mean(1)


def two_domains(owner: str, shots: Tensor, queries: Tensor, support_mask: Tensor | None, normalise: bool) -> Domains:
    """Check the vectors of a batch of episodes.

    Args:
        owner: Name of the method.
        shots: (E, W, S, d).
        queries: (E, Q, d).
        support_mask: (E, W, S) bool or None.
        normalise: Whether to divide vectors by their norms.

    Raises:
        UserError: A single query, or a NaN or an infinity, naming the episode.
    """
    if queries.shape[1] < 2:
        raise UserError(f"{owner} looks at an episode's queries together and needs 2, not {queries.shape[1]}.")
    kept = shots.new_ones(shots.shape[:3], dtype=torch.bool) if support_mask is None else support_mask
    shots = shots.masked_fill(~kept[..., None], 0)
    sums = torch.stack([shots.detach().abs().sum((1, 2, 3)), queries.detach().abs().sum((1, 2))])
    # Finite numbers may have an infinite sum; so look again before refusing.
    if not bool(torch.isfinite(sums).all()):
        for what, vectors in (("support", shots), ("query", queries)):
            bad = (~torch.isfinite(vectors)).flatten(1).any(1).nonzero()
            if len(bad):
                raise UserError(f"{what} holds a NaN or an infinity in episode {int(bad[0])}.")
    return Domains(*((unit(shots), kept, unit(queries)) if normalise else (shots, kept, queries)))


def squared_distances(centres: Tensor, vectors: Tensor) -> Tensor:
    """|vector - centre|^2 (E, Q, W), from differences, of centres (E, W, d) and vectors (E, Q, d)."""
    return torch.cdist(vectors, centres, compute_mode="donot_use_mm_for_euclid_dist").square()


@dataclass(frozen=True)
class Head:
    """What classifies once the labelled images were moved.

    Attributes:
        name: "mean": logit_c = -temperature |y - p_c|^2, with p_c the mean of the moved shots of class c. "logistic":
            logit_c = <w_c, y / |y|> + b_c, fitted to the moved shots over their norms as ``logistic`` is.
        temperature: Of "mean".
        C: Inverse strength of the penalty of "logistic".
    """

    name: str
    temperature: float
    C: float

    def logits(self, domains: Domains, shots: Tensor, queries: Tensor) -> Tensor:
        """Score queries.

        Args:
            domains: The episodes before anything moved.
            shots: (E, W S, d) moved.
            queries: (E, Q, d), as they then are.

        Returns:
            (E, Q, W).
        """
        shots = shots.reshape(domains.shots.shape)
        if self.name == "logistic":
            if shots.shape[1] < 2:
                raise UserError("logistic regression needs at least two classes: raise `way`.")
            return logistic_logits(shots, domains.kept, queries, self.C, MAX_ITER)
        return -self.temperature * squared_distances((shots * domains.share[..., None]).sum(2), queries)


def checked_head(owner: str, head: str, temperature: float, C: float, heads: tuple[str, ...]) -> Head:
    """Check a head's options; raises ``UserError`` for one that is none."""
    return Head(
        checks.choice(owner, "head", head, heads),
        checks.number(owner, "temperature", temperature, above=0),
        checks.number(owner, "C", C, above=0),
    )
