"""How well one kind of thing is told from another by a score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def sureness(logits: Floats) -> Floats:
    """Say how sure a method is that an image is of one of its classes: how far the best logit is ahead of their mean.

    The largest probability says which class it is rather than whether it is any: of an image that two known classes
    claim alike it is small, of a strange image that one class happens to claim it is large. This measure was chosen
    over it, and over three others, on validation classes of birds and training classes of CIFAR-FS, never on test
    classes: docs/results/refusal-scores.json.

    Args:
        logits: (images, way) float64.

    Returns:
        (images,) float64, at least 0.
    """
    ahead: Floats = logits.max(1) - logits.mean(1)
    return ahead


def auroc(known: Floats, unknown: Floats) -> float:
    """Compute the chance that an unknown photo's score is below a known one's, ties counting half.

    The Mann-Whitney statistic over the number of pairs: the area under the receiver operating characteristic.

    Args:
        known: (n,) float64, confidences.
        unknown: (m,) float64, confidences.

    Returns:
        From 0 to 1; 0.5 is what chance gives.
    """
    order = np.argsort(np.concatenate([known, unknown]), kind="stable")
    values = np.concatenate([known, unknown])[order]
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    # Ranks of ties are their mean.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    is_known = order < len(known)
    n, m = len(known), len(unknown)
    return float((ranks[is_known].sum() - n * (n + 1) / 2) / (n * m))
