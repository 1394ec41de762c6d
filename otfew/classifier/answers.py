"""Answers about new photos as rows: the class, how sure, what else it might be, and the labelled photo most like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.classifier.few_shot import FewShotClassifier
from otfew.statistics.detection import sureness

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answer:
    """What is said of one photo.

    Attributes:
        label: The class with the highest probability, also where the photo is refused.
        confidence: Its calibrated probability.
        runner_up: The class with the second highest.
        runner_up_confidence: Its probability.
        unknown: Whether the photo is refused; None where nothing is.
        sureness: How far the best logit is ahead of their mean: what refusals go by.
        nearest: Place among ``labelled_.photos`` of the one whose mean node has the highest cosine.
    """

    label: Any
    confidence: float
    runner_up: Any
    runner_up_confidence: float
    unknown: bool | None
    sureness: float
    nearest: int


@dataclass(frozen=True)
class Raw:
    """What is computed of photos: all that answers are made of.

    Attributes:
        logits: (images, classes) of the method.
        nearest: (images,) see ``Answer``.
        vectors: (images, channels) float32 mean nodes.
    """

    logits: Floats
    nearest: Indices
    vectors: npt.NDArray[np.float32]


def ask(classifier: FewShotClassifier, nodes: Tensor) -> Raw:
    """Score photos that have been embedded.

    Args:
        classifier: Fitted.
        nodes: (images, nodes, channels), of its ``embedder_``.
    """
    logits = classifier._judge(nodes).cpu().double().numpy()
    means = nodes.mean(1)
    known = classifier.labelled_.nodes.mean(1)
    similar = torch.nn.functional.normalize(means, dim=1) @ torch.nn.functional.normalize(known, dim=1).T
    return Raw(logits, similar.argmax(1).cpu().numpy(), means.cpu().float().numpy())


def answers(classifier: FewShotClassifier, logits: Floats, nearest: Sequence[int]) -> list[Answer]:
    """Put what was computed into rows.

    Args:
        classifier: Fitted.
        logits: (images, classes).
        nearest: (images,).
    """
    if not len(logits):
        return []
    shares = classifier._shares(logits)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :2]
    sure = sureness(logits)
    limit = None if classifier.reject is None else classifier.calibration_.threshold
    names = classifier.classes_.tolist()
    return [
        Answer(
            label=names[first],
            confidence=float(row[first]),
            runner_up=names[second],
            runner_up_confidence=float(row[second]),
            unknown=None if limit is None else bool(own < limit),
            sureness=float(own),
            nearest=int(near),
        )
        for (first, second), row, own, near in zip(order.tolist(), shares, sure, nearest, strict=True)
    ]
