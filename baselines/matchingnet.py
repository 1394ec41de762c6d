"""Matching networks: attention over the support images."""

from __future__ import annotations

from torch import Tensor

from otfew import checks
from otfew.baselines._base import Baseline
from otfew.baselines._shots import shot_vectors, shot_weights
from otfew.method import global_vectors
from otfew.scores.cosine import cosines


def attention_log_probability(shots: Tensor, weights: Tensor, vectors: Tensor, temperature: float) -> Tensor:
    """Compute the log of the attention that each class receives.

    Args:
        shots: (episodes, way, shot, channels).
        weights: (episodes, way, shot), summing to 1 over shots; 0 leaves a shot out.
        vectors: (episodes, n_query, channels).
        temperature: Factor of the cosines.

    Returns:
        (episodes, n_query, way); exponentials sum to 1 over classes.
    """
    scores = temperature * cosines(vectors, shots.flatten(1, 2)).view(*vectors.shape[:2], *shots.shape[1:3])
    per_class: Tensor = (scores + weights.log()[:, None]).logsumexp(-1)
    return per_class.log_softmax(-1)


class MatchingNet(Baseline):
    """Attention over the support images by cosine (Vinyals et al. 2016, section 2.1.1; no full context embeddings).

    logit_c = log P(c), P(c) proportional to mean_k exp(temperature * cos(q, x_ck)), with q and x_ck the means of the
    nodes of the query and of shot k of class c. With as many shots in each class this is the paper's: a softmax of
    the cosines over all support images, summed over the images of a class. Uneven shots: the paper's sum would favour
    classes with more shots, whatever they look like; the mean over a class's shots does not.

    Args:
        temperature: Factor of the cosines. The paper has none (1), under which the attention is nearly even; 12.5 is
            DeepEMD's scale of cosines. Without effect on 1-shot accuracy.

    Raises:
        UserError: An option out of range.
    """

    name = "matchingnet"
    pools = True

    def __init__(self, temperature: float = 12.5) -> None:
        self.temperature = checks.number(self.name, "temperature", temperature, above=0)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Compute log class probabilities."""
        return attention_log_probability(
            shot_vectors(support, support_mask),
            shot_weights(support, support_mask),
            global_vectors(query),
            self.temperature,
        )
