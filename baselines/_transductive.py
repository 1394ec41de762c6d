"""What the transductive baselines share: the call of the contract with a class prior, and its checks."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from otfew.baselines._base import Baseline
from otfew.errors import UserError
from otfew.method import check_episode
from otfew.transport.precision import in_full_precision

Prior = Literal["uniform", "estimated"]


class TransductiveBaseline(Baseline):
    """A baseline that sees all queries of an episode at once, on global vectors."""

    transductive = True
    pools = True

    @in_full_precision
    def __call__(
        self,
        support: Tensor,
        query: Tensor,
        *,
        support_mask: Tensor | None = None,
        class_prior: Tensor | None = None,
    ) -> Tensor:
        """Score queries against classes; see ``otfew.method.FewShotMethod``."""
        check_episode(support, query, support_mask)
        prior = None if class_prior is None else checked_prior(class_prior, support)
        return self.transduce(support, query, support_mask, prior)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Compute the logits without a given class prior; see ``Baseline.logits``."""
        return self.transduce(support, query, support_mask, None)

    @abstractmethod
    def transduce(
        self, support: Tensor, query: Tensor, support_mask: Tensor | None, class_prior: Tensor | None
    ) -> Tensor:
        """Compute the logits of a checked batch of episodes.

        Args:
            support: (episodes, way, shot, nodes, channels), checked.
            query: (episodes, n_query, nodes, channels), checked.
            support_mask: (episodes, way, shot) bool or None.
            class_prior: (episodes, way) of sum 1, or None.

        Returns:
            (episodes, n_query, way); larger is more similar.
        """


def checked_prior(class_prior: Tensor, support: Tensor) -> Tensor:
    """Divide a class prior by its total.

    Args:
        class_prior: (episodes, way), shares or counts.
        support: (episodes, way, ...), for its shape, dtype and device.

    Returns:
        (episodes, way) of the support's dtype and device.

    Raises:
        UserError: A wrong shape, a negative entry, NaN or infinity, or an episode without any mass; names the episode.
    """
    if class_prior.shape != support.shape[:2]:
        raise UserError(f"`class_prior` must be of shape {tuple(support.shape[:2])}, not {tuple(class_prior.shape)}.")
    prior = class_prior.to(support)
    total = prior.sum(-1)
    wrong = (~torch.isfinite(total) | (prior < 0).any(-1) | (total <= 0)).nonzero()
    if len(wrong):
        raise UserError(f"`class_prior` of episode {int(wrong[0])} must be non-negative with a positive finite total.")
    return prior / total[:, None]
