"""A class as the Wasserstein barycentre of its shots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from otfew import checks
from otfew.method import shot_mean
from otfew.methods._prototypes import placed, shot_directions
from otfew.methods.shot_heads import ShotHead
from otfew.scores.emd import EMDScore
from otfew.scores.pairwise import normalised_weights
from otfew.transport import barycenter


@dataclass(frozen=True)
class BarycenterHead(ShotHead):
    """Free-support Wasserstein barycentre of the class's node sets, in the cost of the score.

    The mean of a class's maps averages what lies at the same place, whatever it shows. Here the nodes of the shots are
    first matched with each other: the class's nodes minimise the mean transport cost to the shots, 1 - cosine of
    channel-centred nodes (``otfew.barycenter`` on their directions, shots weighed alike). A node's length after
    centring and its mean over channels are those of the nodes that it is made of, on average. Queries are then weighed
    against these nodes as against any others, by default with cross-reference weights of query and class.

    Plans are constants of the gradient, which is that of the nodes at these plans.

    Args:
        masses: How much the nodes of a shot weigh when shots are matched: "cross_reference", by their product with the
            mean node of the class's other shots, as DeepEMD weighs them against a query, so that what one shot alone
            shows (its background) counts for little; or "uniform", so that all that a shot shows is in the class.
        start: "mean", their location-wise mean, or "medoid", the shot that is itself the best barycentre among the
            shots, which needs no places that go together. Defaults were chosen on validation classes of the birds.
        n_iter: Most updates of the fixed-point iteration; two or three are the rule.

    Raises:
        UserError: An option out of range.
    """

    masses: str = "cross_reference"
    start: str = "mean"
    n_iter: int = 20

    name: ClassVar[str] = "barycenter"

    def controls(self, shot: int, usual: tuple[str, ...]) -> tuple[str, ...]:
        """Name the same nodes put together by k-means: what the barycentre has more is transport between the shots."""
        return usual if shot == 1 else ("deepemd:shot_head=kmeans",)

    @classmethod
    def check_option(cls, owner: str, argument: str, option: str, value: Any) -> None:
        """Refuse other words, and counts below 1."""
        if option == "n_iter":
            checks.whole(owner, argument, value)
        else:
            words = {"masses": ("uniform", "cross_reference"), "start": ("medoid", "mean")}
            checks.choice(owner, argument, value, words[option])

    def scores(
        self, score: EMDScore, support: Tensor, support_mask: Tensor | None, query: Tensor, temperature: float
    ) -> Tensor:
        """Score against the barycentres."""
        return score(self.class_nodes(support, support_mask), query)

    def class_nodes(self, support: Tensor, support_mask: Tensor | None) -> Tensor:
        """Combine the shots of each class into one node set.

        Args:
            support: (episodes, way, shot, nodes, channels).
            support_mask: (episodes, way, shot) bool; masked shots do not count. None counts all.

        Returns:
            (episodes, way, nodes, channels).
        """
        if support.shape[2] == 1:
            return support[:, :, 0]
        if support_mask is None:
            support_mask = torch.ones(support.shape[:3], dtype=torch.bool, device=support.device)
        shots = support.masked_fill(~support_mask[..., None, None], 0)
        towards = shot_directions(shots)
        masses = None if self.masses == "uniform" else _masses(shots.detach(), support_mask)
        found = barycenter(
            towards,
            masses=masses,
            mask=support_mask,
            cost="cosine",
            init=shot_mean(towards, support_mask) if self.start == "mean" else None,
            n_iter=self.n_iter,
        )
        counts = support_mask.sum(-1)[..., None, None]
        members = (found.plans / counts[..., None] / found.masses[:, :, None, :, None]).transpose(2, 3).flatten(3)
        return torch.where(counts > 1, placed(members, shots.flatten(2, 3)), shot_mean(support, support_mask))


def _masses(shots: Tensor, mask: Tensor) -> Tensor:
    """Cross-reference weights (episodes, way, shot, nodes) of each shot's nodes against the other shots' mean node."""
    means = shots.mean(3) * mask[..., None]
    others = (means.sum(2, keepdim=True) - means) / (mask.sum(-1)[..., None, None] - 1).clamp_min(1)
    return normalised_weights((shots @ others[..., None])[..., 0])
