"""What an embedding is worth: retrieval metrics, and classifiers fitted on training embeddings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from otfew.retrieval.metrics import METRICS, embedding_scores, means, retrieval_metrics

PROBES = ("knn", "linear")
SVC = "svc"
FIGURES = (*METRICS, *PROBES)
"""The keys of what ``evaluate`` returns, but for ``SVC``."""

NEIGHBOURS = 5
ITERATIONS = 200


@dataclass(frozen=True)
class Embedded:
    """Embeddings (items, channels) with their labels (items,), on the CPU."""

    vectors: Tensor
    labels: Tensor


def evaluate(
    queries: Embedded, gallery: Embedded, probe: Embedded | None, *, exclude_self: bool, svc: bool = False
) -> dict[str, float | None]:
    """Measure retrieval by Euclidean distance, and accuracy of two classifiers of the queries.

    "knn" votes among the 5 nearest of the probe's embeddings. "linear" is logistic regression on them, each channel
    scaled by the probe's mean and deviation. "svc", only where it is asked for, is scikit-learn's support vector
    machine with its defaults (RBF), on embeddings as they are: what the published codes of batch-wise OT report.

    Args:
        queries: Test items.
        gallery: What is retrieved: the same items, or another modality's.
        probe: Training items of the same classes; None where there are none.
        exclude_self: Query i is the gallery's item i, or a picture of the same thing, and does not count.
        svc: Fit a support vector machine as well.

    Returns:
        Name in ``FIGURES``, and "svc" -> fraction; None for the classifiers without a probe.

    Raises:
        ValueError: Embeddings that are not finite, or no query with anything to find.
    """
    found: dict[str, float | None] = dict(
        means(
            retrieval_metrics(
                embedding_scores(queries.vectors, gallery.vectors),
                queries.labels,
                gallery.labels,
                exclude_self=exclude_self,
            )
        )
    )
    names = (*PROBES, SVC) if svc else PROBES
    if probe is None:
        return found | dict.fromkeys(names)
    return found | {name: _ACCURACIES[name](queries, probe) for name in names}


def knn_accuracy(queries: Embedded, probe: Embedded, neighbours: int = NEIGHBOURS) -> float:
    """Classify by vote of the nearest; among classes with as many votes, the nearest item's decides."""
    scores = embedding_scores(queries.vectors, probe.vectors)
    neighbours = min(neighbours, len(probe.labels))
    step, correct = 1024, 0
    for start in range(0, len(queries.labels), step):
        stop = min(start + step, len(queries.labels))
        nearest = probe.labels[scores(start, stop).topk(neighbours, dim=1).indices]
        votes = (nearest[:, :, None] == nearest[:, None, :]).sum(2)
        # The first of the largest counts belongs to the nearest item among the winners.
        winner = nearest.gather(1, votes.argmax(1, keepdim=True))[:, 0]
        correct += int((winner == queries.labels[start:stop]).sum())
    return correct / len(queries.labels)


def linear_accuracy(queries: Embedded, probe: Embedded) -> float:
    """Fit logistic regression on the probe and classify the queries."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    centre = probe.vectors.double().mean(0)
    # A channel that ReLU or collapse has made constant says nothing, and must not be divided by (nearly) zero.
    floor = 1e-6 * probe.vectors.double().abs().amax(0) + 1e-300
    spread = probe.vectors.double().std(0).clamp_min(floor)
    inputs, tested = (((side.vectors.double() - centre) / spread).numpy() for side in (probe, queries))
    with warnings.catch_warnings():
        # A probe that has used its iterations is what every loss gets.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=ITERATIONS).fit(inputs, probe.labels.numpy())
    return float(np.mean(model.predict(tested) == queries.labels.numpy()))


def svc_accuracy(queries: Embedded, probe: Embedded) -> float:
    """Fit a support vector machine with scikit-learn's defaults on the probe and classify the queries."""
    from sklearn import svm

    model = svm.SVC().fit(probe.vectors.double().numpy(), probe.labels.numpy())
    return float(np.mean(model.predict(queries.vectors.double().numpy()) == queries.labels.numpy()))


_ACCURACIES = {"knn": knn_accuracy, "linear": linear_accuracy, SVC: svc_accuracy}


def subset(count: int, limit: int | None, seed: int = 0) -> Tensor:
    """Choose items to evaluate on: all, or ``limit`` of them by a fixed draw; ascending indices."""
    if limit is None or limit >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit].sort().values
