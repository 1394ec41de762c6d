"""How a class of several support images is scored: heads, as objects with their options (Zhang et al. 2020, 2022)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from otfew import checks
from otfew.errors import UserError
from otfew.method import global_vectors, shot_mean
from otfew.scores.emd import EMDScore
from otfew.transport import Exact
from otfew.transport.sending import send

EvenHead = Callable[[Tensor, Tensor], Tensor]
"""Maps support (E, W, shot, N, C), the same number of shots in every class, and query (E, Q, M, C) to (E, Q, W)."""


class ShotHead(ABC):
    """Base of the heads: small frozen dataclasses whose fields are their options.

    Attributes:
        name: What names it, with default options, in ``DeepEMD(shot_head=...)``.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Refuse options out of range."""
        for field in fields(self):  # type: ignore[arg-type]
            self.check_option(type(self).__name__, field.name, field.name, getattr(self, field.name))

    @classmethod  # noqa: B027
    def check_option(cls, owner: str, argument: str, option: str, value: Any) -> None:
        """Refuse an option's value that is out of range.

        Args:
            owner: Who is constructed, for the message.
            argument: What the option is called there.
            option: Name of the field.
            value: What was given.

        Raises:
            UserError: It is.
        """

    def check_score(self, owner: str, score: EMDScore) -> None:  # noqa: B027
        """Refuse a score that the head cannot work with.

        Args:
            owner: Who is constructed, for the message.
            score: Of two node sets.

        Raises:
            UserError: It cannot; most heads take any.
        """

    def controls(self, shot: int, usual: tuple[str, ...]) -> tuple[str, ...] | None:
        """Name the methods that score classes of so many shots in the same way, but without transport.

        Args:
            shot: Labelled images of each class.
            usual: Those that compare with the location-wise mean of the shots, which is the one shot where it is alone.

        Returns:
            As ``otfew.method.MethodBase.controls``.
        """
        return usual if shot == 1 else ()

    @abstractmethod
    def scores(
        self, score: EMDScore, support: Tensor, support_mask: Tensor | None, query: Tensor, temperature: float
    ) -> Tensor:
        """Score queries against classes.

        Args:
            score: Of two node sets.
            support: (E, W, shot, N, C).
            support_mask: (E, W, shot) bool, or None for all.
            query: (E, Q, M, C).
            temperature: Factor that the logits will have, for heads that are fitted.

        Returns:
            (E, Q, W).
        """


@dataclass(frozen=True)
class MeanHead(ShotHead):
    """Location-wise mean of the class's node sets.

    This is the structured FC before its first step, and one reading of the paper's "prototype learning".
    """

    name: ClassVar[str] = "mean"

    def controls(self, shot: int, usual: tuple[str, ...]) -> tuple[str, ...]:
        """Name the usual ones, whatever the shots."""
        return usual

    def scores(
        self, score: EMDScore, support: Tensor, support_mask: Tensor | None, query: Tensor, temperature: float
    ) -> Tensor:
        """Score against the mean maps."""
        return score(shot_mean(support, support_mask), query)


@dataclass(frozen=True)
class PrototypeHead(ShotHead):
    """The other reading: one node for the query and one for the class, the means over nodes and shots.

    The score is their cosine after centring.
    """

    name: ClassVar[str] = "prototype"

    def controls(self, shot: int, usual: tuple[str, ...]) -> None:
        """Name none: between two single nodes there is nothing to transport."""

    def check_score(self, owner: str, score: EMDScore) -> None:
        """Refuse to match a part of one node."""
        if score.mass < 1:
            raise UserError(f"{owner}: `mass` has no effect with `shot_head` 'prototype': one node has no parts.")

    def scores(
        self, score: EMDScore, support: Tensor, support_mask: Tensor | None, query: Tensor, temperature: float
    ) -> Tensor:
        """Score the means over nodes."""
        support_map, pooled = (global_vectors(n)[..., None, :] for n in (shot_mean(support, support_mask), query))
        return score(support_map, pooled)


@dataclass(frozen=True)
class NearestHead(ShotHead):
    """Score of the nearest support image: the label is that of the nearest of all ("EMD+NN")."""

    name: ClassVar[str] = "nn"

    def scores(
        self, score: EMDScore, support: Tensor, support_mask: Tensor | None, query: Tensor, temperature: float
    ) -> Tensor:
        """Take the best score of the class's support images."""
        return with_uneven_shots(lambda s, q: each_shot(score, s, q).amax(-1), support, support_mask, query)


@dataclass(frozen=True)
class FusionHead(ShotHead):
    """Scores of the class's support images, averaged or added up ("EMD+Fusion").

    The paper says that scores are combined, not whether their mean or sum. Where classes have the same number of
    shots that changes nothing but the temperature; where not, the sum favours classes with more.

    Args:
        combine: "mean" or "sum".

    Raises:
        UserError: Another word.
    """

    combine: str = "mean"

    name: ClassVar[str] = "fusion"

    @classmethod
    def check_option(cls, owner: str, argument: str, option: str, value: Any) -> None:
        """Refuse any other word."""
        checks.choice(owner, argument, value, ("mean", "sum"))

    def scores(
        self, score: EMDScore, support: Tensor, support_mask: Tensor | None, query: Tensor, temperature: float
    ) -> Tensor:
        """Combine the scores."""

        def fused(shots: Tensor, queries: Tensor) -> Tensor:
            each = each_shot(score, shots, queries)
            return each.sum(-1) if self.combine == "sum" else each.mean(-1)

        return with_uneven_shots(fused, support, support_mask, query)


@dataclass(frozen=True)
class MergeHead(ShotHead):
    """One set of all nodes of the class's support images ("EMD+Merge").

    The paper's normalisation gives both sides the same total, so every node of the class takes part. The released
    code's gives every node the same share on average, so with partial mass the query's nodes are matched with as much
    of the class as they need.

    Args:
        mass: "equal" or "partial"; the latter needs the solver ``exact``.

    Raises:
        UserError: Another word; given to ``DeepEMD``, "partial" with another solver, or with part of the mass.
    """

    mass: str = "equal"

    name: ClassVar[str] = "merge"

    @classmethod
    def check_option(cls, owner: str, argument: str, option: str, value: Any) -> None:
        """Refuse any other word."""
        checks.choice(owner, argument, value, ("equal", "partial"))

    def check_score(self, owner: str, score: EMDScore) -> None:
        """Refuse partial mass with solvers that cannot transport it."""
        if self.mass == "partial" and not isinstance(score.solver, Exact):
            raise UserError(f"{owner}: merging with partial mass needs `solver` 'exact', not {score.solver.name!r}.")
        if self.mass == "partial" and score.mass < 1:
            raise UserError(
                f"{owner}: `mass` below 1 does not go with MergeHead('partial'), which matches as much of the class as "
                "a query needs: take MergeHead('equal')."
            )

    def scores(
        self, score: EMDScore, support: Tensor, support_mask: Tensor | None, query: Tensor, temperature: float
    ) -> Tensor:
        """Score against all nodes of a class."""

        def merged(shots: Tensor, queries: Tensor) -> Tensor:
            nodes = shots.flatten(2, 3)
            return score.partial(nodes, queries) if self.mass == "partial" else score(nodes, queries)

        return with_uneven_shots(merged, support, support_mask, query)


def each_shot(score: EMDScore, support: Tensor, query: Tensor) -> Tensor:
    """Score queries against every support image: (E, Q, W, shot)."""
    way, shot = support.shape[1:3]
    scores = score(support.flatten(1, 2), query)
    return scores.reshape(*scores.shape[:2], way, shot)


def with_uneven_shots(head: EvenHead, support: Tensor, support_mask: Tensor | None, query: Tensor) -> Tensor:
    """Apply a head to classes of different numbers of shots: those with equally many at a time.

    Args:
        head: Of even shots; a class's scores must not depend on other classes.
        support: (E, W, shot, N, C).
        support_mask: (E, W, shot) bool, or None for all.
        query: (E, Q, M, C).

    Returns:
        Scores (E, Q, W).
    """
    if support_mask is None:
        return head(support, query)
    # What is where is decided on the CPU, so that a device is asked once.
    valid = support_mask.cpu()
    counts = valid.sum(-1)
    distinct = sorted(set(counts.flatten().tolist()))
    if len(distinct) == 1 and distinct[0] == support.shape[2]:
        return head(support, query)
    episodes, way = support.shape[:2]
    scores = query.new_zeros(episodes, way, query.shape[1])
    for count in distinct:
        episode, label = (counts == count).nonzero(as_tuple=True)
        shot = valid[episode, label].nonzero()[:, 1].view(-1, count)
        episode, label, shot = (send(x, support.device) for x in (episode, label, shot))
        shots = support[episode[:, None], label[:, None], shot]
        if len(distinct) == 1:
            return head(shots.view(episodes, way, *shots.shape[1:]), query)
        scores = scores.index_put((episode, label), head(shots[:, None], query[episode])[..., 0])
    return scores.mT
