"""A few-shot method of one's own: ``otfew compare --methods my_method:BestMatches deepemd``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from otfew.method import MethodBase, check_episode, shot_mean
from otfew.transport.precision import in_full_precision


class BestMatches(MethodBase):
    """Each node of the query looks for its best match in the class, and the worst of these matches do not count.

    logit_c = temperature * mean over the best half of the query's nodes i of max_j cos(u_i, v_cj), where v_c are the
    nodes of the class, averaged over its shots place by place.

    Args:
        temperature: Scale of the logits; meta-training learns it with the backbone.
        share: Of the query's nodes that count, in (0, 1].
    """

    name = "best-matches"
    learned = ("temperature",)

    def __init__(self, temperature: float | Tensor = 10.0, share: float = 0.5) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        self.temperature, self.share = temperature, share

    @in_full_precision
    def __call__(
        self,
        support: Tensor,
        query: Tensor,
        *,
        support_mask: Tensor | None = None,
        class_prior: Tensor | None = None,
    ) -> Tensor:
        """Score queries (episodes, n_query, nodes, channels) against the classes of ``support``."""
        check_episode(support, query, support_mask)
        classes = normalize(shot_mean(support, support_mask), dim=-1)
        cosines = torch.einsum("eqic,ewjc->eqwij", normalize(query, dim=-1), classes)
        best = cosines.amax(-1)
        count = max(1, round(self.share * best.shape[-1]))
        return self.temperature * best.topk(count).values.mean(-1)
