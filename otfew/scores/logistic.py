"""Logistic regression on the labelled vectors of an episode."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from otfew.scores.cosine import unit
from otfew.transport.sending import send


def fit_logistic(items: Tensor, labels: Tensor, C: float, max_iter: int) -> tuple[Tensor, Tensor]:
    """Fit one regression an episode with scikit-learn, on one thread of the CPU, wherever the items are.

    Args:
        items: (episodes, items, channels).
        labels: (episodes, items) int64; each of the classes 0 to way - 1 occurs.
        C: Inverse strength of the L2 penalty.
        max_iter: Of L-BFGS.

    Returns:
        Rows (episodes, way, channels) and intercepts (episodes, way), of the items' dtype and device, without gradient.
        For two classes, where scikit-learn fits one row, that row and its negative, halved.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    x, y = items.detach().double().cpu().numpy(), labels.cpu().numpy()
    rows, intercepts = [], []
    with threadpool_limits(1):
        for episode_x, episode_y in zip(x, y, strict=True):
            model = LogisticRegression(C=C, max_iter=max_iter).fit(episode_x, episode_y)
            binary = len(model.classes_) == 2
            rows.append(np.concatenate([-model.coef_ / 2, model.coef_ / 2]) if binary else model.coef_)
            intercepts.append(np.array([-0.5, 0.5]) * model.intercept_ if binary else model.intercept_)
    found = (torch.from_numpy(np.stack(x)) for x in (rows, intercepts))
    fitted_rows, fitted_intercepts = (send(x, items.device, items.dtype) for x in found)
    return fitted_rows, fitted_intercepts


def logistic_logits(shots: Tensor, kept: Tensor, queries: Tensor, C: float, max_iter: int) -> Tensor:
    """Fit to normalised shots, and score normalised queries.

    Args:
        shots: (episodes, way, shot, channels).
        kept: (episodes, way, shot) bool, the shots that count.
        queries: (episodes, n_query, channels).
        C: As in ``fit_logistic``.
        max_iter: As in ``fit_logistic``.

    Returns:
        (episodes, n_query, way); no gradient flows into the shots.
    """
    fitted = [
        fit_logistic(own[counts][None], counts.nonzero()[:, 0][None], C, max_iter)
        for own, counts in zip(unit(shots), kept, strict=True)
    ]
    rows, intercepts = (torch.cat(part) for part in zip(*fitted, strict=True))
    return unit(queries) @ rows.mT + intercepts[:, None]
