"""The class mean with the largest cosine."""

from __future__ import annotations

from torch import Tensor

from otfew import checks
from otfew.baselines._base import Baseline
from otfew.method import global_vectors, shot_mean
from otfew.scores.cosine import cosines


class CosineCentroid(Baseline):
    """Cosine to the mean of the support's global vectors (the classifier of Meta-Baseline, Chen et al. 2021).

    logit_c = temperature * cos(q, p_c), with q the mean of the query's nodes and p_c the mean over the shots of class
    c of the means of their nodes. The support vectors are not L2-normalised before averaging, as there: a shot with a
    large norm counts for more. Uneven shots: each class is the mean of the shots that it has.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's. Without effect on accuracy.

    Raises:
        UserError: An option out of range.
    """

    name = "cosine-centroid"
    pools = True

    def __init__(self, temperature: float = 12.5) -> None:
        self.temperature = checks.number(self.name, "temperature", temperature, above=0)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Compute scaled cosines to the class means."""
        return self.temperature * cosines(global_vectors(query), global_vectors(shot_mean(support, support_mask)))
