"""``method="auto"``: candidates are ranked by the prior, judged by held-out photos, and the choice is judged in turn.

What the report says of accuracy comes from choices that were made anew without the photos that they were judged by: in
each outer round some photos stay out of everything, a candidate and its temperature are settled on the others by the
very same rule, and it is then asked about those that stayed out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from otfew import catalogue
from otfew.classifier.calibration import HeldOut, hold_out
from otfew.classifier.candidates import TURNABLE, Candidate, View
from otfew.classifier.holdouts import Answers, Indices, Photos, Question, nested, rounds, single
from otfew.classifier.prior import Prior
from otfew.classifier.selection import Choice, Judged, choose
from otfew.classifier.side_by_side import side_by_side
from otfew.errors import UserError
from otfew.method import FewShotMethod
from otfew.statistics.temperature import Expected, cross_fit, softmax, stack

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Examined:
    """What came of it.

    Attributes:
        choice: Which candidate, and why.
        method: The chosen one, built.
        held: Its held-out photos, calibrated.
        temperature: Of new photos.
        expected: What other data let expect of it.
        judged: Held-out photos, each answered by what would have been chosen without it.
        rounds: How many outer rounds there were.
    """

    choice: Choice
    method: FewShotMethod
    held: HeldOut
    temperature: float
    expected: Expected
    judged: HeldOut
    rounds: int


def shots(labels: Indices, units: Indices) -> float:
    """Count the different photos of a class, on average: the harmonic mean, since the poorest class errs most."""
    counts = [len(np.unique(units[labels == c])) for c in np.unique(labels)]
    return len(counts) / sum(1 / count for count in counts)


def ranked(
    tried: Sequence[Candidate], resolutions: Mapping[str, int], prior: Prior, way: int, shot: float
) -> list[Judged]:
    """Put candidates into the prior's order, with what each costs.

    Args:
        tried: Candidates.
        resolutions: That of each network's training, in pixels.
        prior: The table.
        way: Classes.
        shot: Photos of each, on average.
    """
    return [
        Judged(candidate, candidate.view.pixels / resolutions[candidate.view.backbone] ** 2, loss)
        for candidate, loss in prior.rank(tried, way, shot)
    ]


def examine(order: Sequence[Judged], views: Mapping[View, Photos], prior: Prior) -> Examined:
    """Choose a candidate for labelled photos, and judge the choice.

    Args:
        order: Candidates, ranked.
        views: The same photos as each view has them.
        prior: For temperatures.

    Raises:
        UserError: No candidate can answer.
    """
    photos = next(iter(views.values()))
    labels, units, way = photos.labels, photos.units, photos.way
    held_shot = max(1.0, shots(labels, units) - 1)
    everything = single(labels, rounds(labels, units))
    outer = rounds(labels, units, passes=1)
    inner = [nested(labels, out, [other for other in outer if other is not out]) for out in outer]
    wanted = [*everything, *single(labels, outer), *(question for part in inner for question in part)]

    asking: dict[Candidate, Answers] = {}
    unable: dict[Candidate, UserError] = {}
    pooled: dict[tuple[View, bool], Photos] = {}
    for candidate in (judged.candidate for judged in order):
        try:
            method = catalogue.build(candidate.method)
        except UserError as error:
            unable[candidate] = error
            continue
        seen = views[candidate.view]
        if method.pools:
            few = candidate.method in TURNABLE
            if (candidate.view, few) not in pooled:
                pooled[candidate.view, few] = seen.pooled().turned() if few else seen.pooled()
            seen = pooled[candidate.view, few]
        asking[candidate] = Answers(method, seen)
    threads = torch.get_num_threads() if photos.nodes.is_cpu else 1
    parts = [(candidate, part) for candidate, own in asking.items() for part in own.parts(wanted)]
    for (candidate, _), ended in zip(parts, side_by_side([part for _, part in parts], threads), strict=True):
        if ended is not None:
            unable.setdefault(candidate, ended)
    answers = {candidate: own for candidate, own in asking.items() if candidate not in unable}
    for own in answers.values():
        own.settle()
    settled = [
        replace(judged, reason=str(unable[judged.candidate]).rstrip(".")) if judged.candidate in unable else judged
        for judged in order
    ]
    if not answers:
        raise UserError(f"no candidate of method 'auto' can answer here; the first: {settled[0].reason}.")
    able = [judged for judged in settled if judged.candidate in answers]

    expected = {c: prior.expected(c, way, held_shot) for c in answers}
    choice = _choose(settled, answers, everything, photos, expected)
    if not choice.units:
        choice = replace(choice, chosen=settled.index(able[0]))
    chosen = answers[choice.candidate]
    held, temperature, expectation = hold_out(chosen, everything, expected[choice.candidate])
    judged_by = _outer(able, answers, outer, inner, photos, expected)
    return Examined(choice, chosen.method, held, temperature, expectation, judged_by, len(outer))


def _outer(
    able: Sequence[Judged],
    answers: Mapping[Candidate, Answers],
    outer: Sequence[Sequence[int]],
    inner: Sequence[list[Question]],
    photos: Photos,
    expected: Mapping[Candidate, Expected | None],
) -> HeldOut:
    """Ask about the photos of each outer round by what is chosen without them."""
    asked: list[int] = []
    logits, shares = [], []
    for question, questions in zip(single(photos.labels, outer), inner, strict=True):
        winner = _choose(able, answers, questions, photos, expected).candidate
        own = answers[winner]
        known, labels, units = _rows(own, questions)
        temperature = cross_fit(known, labels, units, expected[winner]).temperature
        found = own(question)
        asked += question.asked
        logits.append(found)
        shares.append(softmax(found, temperature))
    which = np.array(asked, dtype=np.int64)
    way = photos.way
    return HeldOut(which, stack(logits, way), stack(shares, way), photos.labels[which], photos.units[which])


def _choose(
    order: Sequence[Judged],
    answers: Mapping[Candidate, Answers],
    questions: list[Question],
    photos: Photos,
    expected: Mapping[Candidate, Expected | None],
) -> Choice:
    """Apply the rule to what some questions were answered."""
    asked = np.array([i for question in questions for i in question.asked], dtype=np.int64)
    logits = {c: stack([own(question) for question in questions], photos.way) for c, own in answers.items()}
    return choose(order, logits, photos.labels[asked], photos.units[asked], expected)


def _rows(own: Answers, questions: list[Question]) -> tuple[Floats, Indices, Indices]:
    """Put the answers to some questions below one another: logits, labels, units."""
    photos = own.photos
    asked = np.array([i for question in questions for i in question.asked], dtype=np.int64)
    return stack([own(question) for question in questions], photos.way), photos.labels[asked], photos.units[asked]
