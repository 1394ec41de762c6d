"""The control of the barycentre head: clusters of the class's nodes, found without transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from otfew import checks
from otfew.method import shot_mean
from otfew.methods._prototypes import placed, shot_directions
from otfew.methods.shot_heads import ShotHead
from otfew.random.keys import key128
from otfew.scores.emd import EMDScore
from otfew.transport.sending import send


@dataclass(frozen=True)
class KMeansHead(ShotHead):
    """k-means of all nodes of the class's shots, with as many clusters as a shot has nodes: barycentres' control.

    As ``BarycenterHead`` but for transport: no constraint says that each cluster takes as much from each shot.
    Spherical k-means (Dhillon and Modha 2001) on the directions of channel-centred nodes, which maximises the mean
    cosine to the nearest centre, from k-means++ (Arthur and Vassilvitskii 2007, with 1 - cosine for the squared
    distance). A centre's length and mean are those of its nodes, on average; a cluster that runs empty keeps its
    centre. The draws are the same in every class and episode, from nodes in the order of their products with one random
    vector, so that neither batch-mates nor the order of shots and nodes matter. With one shot the class is that shot.

    Memberships are constants of the gradient.

    Args:
        seed: Of the start.
        n_iter: Most rounds; a class ends where its clusters stay as they are.

    Raises:
        UserError: An option out of range.
    """

    seed: int = 0
    n_iter: int = 50

    name: ClassVar[str] = "kmeans"

    @classmethod
    def check_option(cls, owner: str, argument: str, option: str, value: Any) -> None:
        """Refuse fractions, and counts below 1."""
        checks.whole(owner, argument, value, least=1 if option == "n_iter" else None)

    def scores(
        self, score: EMDScore, support: Tensor, support_mask: Tensor | None, query: Tensor, temperature: float
    ) -> Tensor:
        """Score against the centres."""
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
        valid = support_mask[..., None].expand(shots.shape[:4]).flatten(3).flatten(2)
        points = shot_directions(shots).flatten(2, 3)
        members = self._members(points.flatten(0, 1), valid.flatten(0, 1), shots.shape[3])
        nodes = placed(members.view(*shots.shape[:2], *members.shape[1:]), shots.flatten(2, 3))
        single = (support_mask.sum(-1) == 1)[..., None, None]
        return torch.where(single, shot_mean(support, support_mask), nodes)

    def _members(self, points: Tensor, valid: Tensor, k: int) -> Tensor:
        """Cluster directions (problems, n, channels) of which some are valid: (problems, k, n), rows of total 1."""
        cosines = points @ points.mT
        chosen = self._start(points, cosines, valid, k)
        each = torch.arange(len(points), device=points.device)[:, None]
        members = torch.zeros_like(cosines[:, :k])
        members.scatter_(2, chosen[..., None], 1)
        near = cosines[each, chosen]
        before = None
        for _ in range(self.n_iter):
            nearest = near.argmax(1)
            if before is not None and torch.equal(nearest, before):
                break
            before = nearest
            counted = torch.zeros_like(members).scatter_(1, nearest[:, None], 1.0) * valid[:, None]
            sizes = counted.sum(-1, keepdim=True)
            members = torch.where(sizes > 0, counted / sizes.clamp_min(1), members)
            # Cosines of the nodes with the sums of the members' directions.
            sums = members @ cosines
            lengths = (sums * members).sum(-1, keepdim=True).clamp_min(0).sqrt()
            near = sums / torch.where(lengths > 0, lengths, 1)
        return members

    def _start(self, points: Tensor, cosines: Tensor, valid: Tensor, k: int) -> Tensor:
        """Draw k nodes of each problem, the likelier the farther they are from those before: (problems, k)."""
        draws = np.random.Philox(key=key128(f"kmeans head {self.seed}")).random_raw(k + points.shape[-1])
        uniform = send(torch.from_numpy((draws >> np.uint64(11)) * 2.0**-53), points.device, torch.float64)
        along = (points.double() @ (uniform[k:] - 0.5)).masked_fill(~valid, torch.inf)
        order = torch.argsort(along, dim=-1, stable=True)
        ordered = valid.gather(1, order).double()
        each = torch.arange(len(points), device=points.device)
        far = ordered
        chosen = []
        for draw in uniform[:k]:
            # Where nothing is far, since nodes are equal, any will do.
            likely = torch.where(far.sum(-1, keepdim=True) > 0, far, ordered).cumsum(-1)
            place = torch.searchsorted(likely, draw * likely[:, -1:], right=True).clamp_max(order.shape[1] - 1)
            chosen.append(order.gather(1, place)[:, 0])
            apart = (1 - cosines[each, chosen[-1]].double()).clamp_min(0).gather(1, order) * ordered
            # A node is not apart from itself, whatever rounding says.
            apart.scatter_(1, place, 0.0)
            far = apart if len(chosen) == 1 else torch.minimum(far, apart)
        return torch.stack(chosen, 1)
