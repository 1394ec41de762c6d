"""Episodes that also ask about images of classes that nobody has labelled, and what methods make of them.

Who answers everything is never right about such images; a method that is less sure of them than of others can refuse
them: see ``otfew.statistics.detection.sureness``. Log-loss and Brier score are of softmax(logits / T), with a T fitted
on other episodes of the run: those of even numbers give it to those of odd ones, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError
from otfew.evaluation.episodes import Episodes, Indices, Sampler
from otfew.evaluation.estimates import rounded, to_record
from otfew.random.keys import key128
from otfew.random.shuffle import draw
from otfew.random.words import stream
from otfew.statistics.detection import auroc, sureness
from otfew.statistics.intervals import estimate
from otfew.statistics.temperature import brier, fit, from_scale, grid, log_losses, softmax

Floats = npt.NDArray[np.float64]


class UnknownClasses(Sampler):
    """The episodes of another sampler, and in each some images of classes that it does not have.

    Known classes, labelled images and queries are those of the run without unknown ones.

    Args:
        sampler: Of the known classes.
        labels: (images,) indices into ``classes``.
        classes: Names.
        count: Unknown classes in an episode; each has as many images as a known one has queries.

    Raises:
        UserError: No whole number of at least 1, or more than the split has left.
    """

    keeps = "logits"

    def __init__(self, sampler: Sampler, labels: Indices, classes: Sequence[str], count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UserError(f"`unknown_classes` must be a whole number of at least 1, not {count!r}.")
        p = sampler.protocol
        left = len(classes) - p.way
        if count > left:
            raise UserError(
                f"`unknown_classes` {count} beside `way` {p.way} asks for {count + p.way} classes, but split "
                f"{p.split!r} of {p.dataset!r} has {len(classes)}: choose {left} or less, or a smaller `way`."
            )
        self.protocol = p
        self.settings = {**sampler.settings, "unknown_classes": count}
        self._sampler = sampler
        self._count = count
        self._members = [np.flatnonzero(np.asarray(labels) == c).tolist() for c in range(len(classes))]
        self._unknown_key = key128(f"otfew unknown classes 1\n{p.key()}\n{count}")

    @property
    def unknown(self) -> int:
        """Images of unknown classes in an episode."""
        return self._count * self.protocol.query

    def __call__(self, start: int, stop: int) -> Episodes:
        """Draw episodes ``start`` to ``stop - 1``."""
        episodes = self._sampler(start, stop)
        query = self.protocol.query
        unknown = np.empty((stop - start, self._count, query), dtype=np.int64)
        for row, index in enumerate(range(start, stop)):
            words = stream(self._unknown_key, index, self._count * (1 + query))
            others = [c for c in range(len(self._members)) if c not in set(episodes.classes[row].tolist())]
            for k, place in enumerate(draw(words, len(others), self._count)):
                own = self._members[others[place]]
                unknown[row, k] = [own[i] for i in draw(words, len(own), query)]
        return replace(episodes, unknown=unknown)


@dataclass(frozen=True)
class OpenFigures:
    """What a method made of known and unknown images, episode by episode.

    Attributes:
        auroc: (episodes,) chance that an unknown image is less sure than a known one.
        log_loss: (episodes,) of known images, by calibrated probabilities.
        brier: (episodes,) likewise, from 0 to 2.
        temperatures: Of even and of odd episodes.
    """

    auroc: Floats
    log_loss: Floats
    brier: Floats
    temperatures: tuple[float, float]


def open_figures(logits: Floats, answers: Indices) -> OpenFigures:
    """Judge a method's logits.

    Args:
        logits: (episodes, queries, way), those of known images first.
        answers: (episodes, known) indices of classes.
    """
    episodes, known = answers.shape
    way = logits.shape[2]
    parity = np.arange(episodes) % 2
    found = {}
    for half in (0, 1):
        # One episode alone has no other half.
        others = parity != half if episodes > 1 else parity == half
        rows, truth = logits[others, :known].reshape(-1, way), answers[others].reshape(-1)
        wide = replace(from_scale(rows), spread=1.0)
        found[half] = fit(log_losses(rows, truth, grid(wide)).sum(0), wide)
    areas, losses, scores = np.empty(episodes), np.empty(episodes), np.empty(episodes)
    for e in range(episodes):
        shares = softmax(logits[e], found[int(parity[e])])
        sure = sureness(logits[e])
        areas[e] = auroc(sure[:known], sure[known:])
        losses[e] = log_losses(logits[e, :known], answers[e], np.array([found[int(parity[e])]])).mean()
        scores[e] = brier(shares[:known], answers[e]).mean()
    return OpenFigures(areas, losses, scores, (found[0], found[1]))


def open_records(
    logits: Mapping[str, Floats], answers: Indices, classes: Indices, class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Estimate the figures of every method, JSON-ready: name -> "auroc", "log_loss", "brier", "temperatures"."""
    records = {}
    for name, own in logits.items():
        figures = open_figures(own, answers)
        records[name] = {
            **{
                key: to_record(estimate(getattr(figures, key), classes, class_names))
                for key in ("auroc", "log_loss", "brier")
            },
            "temperatures": [rounded(t) for t in figures.temperatures],
        }
    return records
