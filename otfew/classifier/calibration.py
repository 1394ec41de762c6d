"""Confidence that means something: the temperature of new photos, and below which confidence they are refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otfew.classifier.by_class import Evenly
from otfew.classifier.holdouts import Answers, Indices, Photos, Question, rounds, single
from otfew.classifier.rejection import LEAST_CLASSES, Detection, threshold
from otfew.method import FewShotMethod
from otfew.statistics.detection import auroc, sureness
from otfew.statistics.temperature import Expected, brier, cross_fit, log_losses, softmax, stack, unit_means

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What turns logits into answers; plain values, so that it can be kept.

    Attributes:
        temperature: By which logits are divided.
        expected: Temperature that other data let expect; equal to the other where nothing could be held out.
        source: Where that expectation comes from.
        photos: Held-out photos that the fit rests on, near-duplicates counting once.
        threshold: Sureness below which a photo is refused, see ``otfew.statistics.detection.sureness``; None where
            nothing is.
        rate: Share of known photos that may be refused; None likewise.
    """

    temperature: float
    expected: float
    source: str
    photos: int
    threshold: float | None = None
    rate: float | None = None


@dataclass(frozen=True)
class HeldOut:
    """Logits of photos that the method had not seen, and the probabilities that they give.

    Attributes:
        photos: (rows,) which photo; one may have several rows.
        logits: (rows, way).
        probabilities: (rows, way), by a temperature that was fitted without the row's unit.
        labels: (rows,) true classes.
        units: (rows,).
    """

    photos: Indices
    logits: Floats
    probabilities: Floats
    labels: Indices
    units: Indices

    def sureness(self) -> Floats:
        """Return how sure the method is of each unit, averaged over its rows: (units,)."""
        return unit_means(sureness(self.logits), self.units)[0]

    def by_photo(self) -> tuple[Indices, Floats]:
        """Average probabilities over the rows of each photo: (photos,) which, and (photos, way)."""
        names, place = np.unique(self.photos, return_inverse=True)
        sums = np.zeros((len(names), self.probabilities.shape[1]))
        np.add.at(sums, place, self.probabilities)
        return names, sums / np.bincount(place)[:, None]


@dataclass(frozen=True)
class Quality:
    """How good probabilities are, on held-out photos: means by class, see ``by_class.Evenly``.

    Attributes:
        log_loss: Of the method's own softmax, then of the calibrated one.
        brier: Likewise; from 0 to 2.
    """

    log_loss: tuple[float, float]
    brier: tuple[float, float]


def quality(held: HeldOut) -> Quality | None:
    """Compare probabilities before and after calibration; None where nothing was held out."""
    if not len(held.labels):
        return None
    rows, weights = np.arange(len(held.labels)), Evenly.of(held.labels, held.units)
    losses, scores = [], []
    for shares in (softmax(held.logits, 1.0), held.probabilities):
        if shares is held.probabilities:
            loss = -np.log(np.maximum(shares[rows, held.labels], 1e-300))
        else:
            loss = log_losses(held.logits, held.labels, np.ones(1))[:, 0]
        losses.append(weights.mean(loss))
        scores.append(weights.mean(brier(shares, held.labels)))
    return Quality((losses[0], losses[1]), (scores[0], scores[1]))


def hold_out(answers: Answers, questions: list[Question], expected: Expected | None) -> tuple[HeldOut, float, Expected]:
    """Ask about held-out photos and calibrate what is answered.

    Args:
        answers: The method and its photos.
        questions: Of ``holdouts.single``.
        expected: Temperature to expect; None takes the scale of the logits.

    Returns:
        What was held out, the temperature for new photos, and what was expected of it.
    """
    photos = answers.photos
    answers.prepare(questions)
    logits = stack([answers(question) for question in questions], photos.way)
    asked = np.array([i for question in questions for i in question.asked], dtype=np.int64)
    labels, units = photos.labels[asked], photos.units[asked]
    fitted = cross_fit(logits, labels, units, expected)
    shares = softmax(logits, fitted.each) if len(logits) else logits
    return HeldOut(asked, logits, shares, labels, units), fitted.temperature, fitted.expected


def calibrate(
    method: FewShotMethod, photos: Photos, expected: Expected | None, rate: float | None
) -> tuple[Calibration, HeldOut]:
    """Calibrate a method on labelled photos.

    Args:
        method: Not transductive.
        photos: All of them.
        expected: Temperature to expect; None takes the scale of the logits.
        rate: Share of known photos that may be refused, or None.

    Raises:
        UserError: Too few photos for the rate, or an answer of the method that is none.
    """
    answers = Answers(method, photos)
    held, temperature, expected = hold_out(
        answers, single(photos.labels, rounds(photos.labels, photos.units)), expected
    )
    return settle(held, temperature, expected, rate), held


def settle(held: HeldOut, temperature: float, expected: Expected, rate: float | None) -> Calibration:
    """Put a fit into a record, with the threshold where refusals are wanted.

    Raises:
        UserError: Too few photos for the rate.
    """
    sure = held.sureness() if len(held.labels) else np.zeros(0)
    limit = None if rate is None else threshold(sure, rate)
    return Calibration(temperature, float(np.exp(expected.log_mean)), expected.source, len(sure), limit, rate)


def detection(method: FewShotMethod, photos: Photos, held: HeldOut, calibration: Calibration) -> Detection | None:
    """Estimate how well unknown kinds are told, by leaving each class out in turn; None with fewer than four classes.

    Args:
        method: Not transductive.
        photos: All of them.
        held: Photos of known classes, held out.
        calibration: With the threshold.
    """
    if photos.way < LEAST_CLASSES or not len(held.labels):
        return None
    sure, units = [], []
    for c in range(photos.way):
        out = np.flatnonzero(photos.labels == c)
        # A near-duplicate of a photo that is left out, under another label, would recognise it.
        rest = np.flatnonzero((photos.labels != c) & ~np.isin(photos.units, photos.units[out]))
        kept = np.unique(photos.labels[rest])
        if len(kept) < 2:
            continue
        labels = np.searchsorted(kept, np.where(np.isin(photos.labels, kept), photos.labels, kept[0]))
        fewer = Photos(photos.nodes, labels, len(kept), photos.units)
        logits = Answers(method, fewer)(Question(tuple(rest.tolist()), tuple(out.tolist())))
        sure.append(sureness(logits))
        units.append(photos.units[out])
    if not sure:
        return None
    unknown = unit_means(np.concatenate(sure), np.concatenate(units))[0]
    limit = calibration.threshold
    found = None if limit is None else float((unknown < limit).mean())
    return Detection(auroc(held.sureness(), unknown), found, len(sure))
