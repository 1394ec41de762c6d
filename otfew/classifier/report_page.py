"""The page of a classification: the answers, what they rest on, and the least sure photos explained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otfew.classifier.answers import Answer
from otfew.classifier.evidence import wilson
from otfew.classifier.explanation_page import shown
from otfew.classifier.few_shot import FewShotClassifier
from otfew.classifier.many import Classified
from otfew.classifier.selection import reason_of, table_of
from otfew.data.base import Image
from otfew.data.decoding.picture import decode_picture
from otfew.errors import UserError
from otfew.reporting.forest import Entry, Forest, forest
from otfew.reporting.pages import Grid, render, thumbnail
from otfew.reporting.tables import Cell
from otfew.runs.identity import versions
from otfew.runs.watch import Step
from otfew.statistics.temperature import unit_means

EXPLAINED = 6
"""The least sure photos, which are explained."""
ROWS = 2000
"""Answers of a page, the least sure of more; the file has all."""
PICTURED = 200
"""Answers of a page that may have small pictures."""
_HEAD = ("file", "photo", "label", "confidence", "runner-up", "its\nconfidence", "unknown", "nearest labelled photo")


def page(fitted: FewShotClassifier, found: Classified, summary: str, step: Step) -> str:
    """Write the page.

    Args:
        fitted: Who gave the answers.
        found: The answers.
        summary: Its headline.
        step: Told how far the explanations are.
    """
    ranked = _least_sure_first(found)
    choice = fitted.report_.choice
    return render(
        "classify.html",
        summary,
        known=fitted.report_.lines([photo.title for photo in fitted.labelled_.photos]),
        accuracy=_accuracies(fitted),
        confusions=_confusions(fitted),
        candidates=None if choice is None else Grid(*table_of(choice), texts=frozenset({7})),
        reason="" if choice is None else reason_of(choice),
        answers=_answers(fitted, found, ranked[:ROWS]),
        left_out=f"The {ROWS:,} least sure of {len(ranked):,}." if len(ranked) > ROWS else "",
        skipped=[str(one) for one in found.skipped],
        explained=_explained(fitted, found, ranked[:EXPLAINED], step),
        protocol=protocol(fitted),
    )


def protocol(fitted: FewShotClassifier) -> list[str]:
    """Say on what the answers rest."""
    embedder, calibration = fitted.embedder_, fitted.calibration_
    card = embedder.backbone.card
    name, options = fitted.recipe_
    told = "".join(f", {key} {value}" for key, value in sorted(options.items()))
    method = name if isinstance(name, str) else type(name).__name__
    lines = [
        f"method: {method}{told}, on {embedder.extractor.spec} nodes",
        f"backbone: {embedder.backbone.name}, trained on {card.training_data or 'unknown data'}; images: "
        f"{embedder.preparation.resolution} px, crop {embedder.preparation.crop}",
        f"confidence: softmax of the method's logits over a temperature of {calibration.temperature:.3g}, from "
        f"{calibration.photos} held-out photos and {calibration.source or 'the scale of the logits'}",
    ]
    if fitted.reject is not None and calibration.threshold is not None:
        lines.append(
            f"unknown: photos whose best logit is ahead of the mean of all by less than {calibration.threshold:.4g}, "
            f"below which at most {100 * fitted.reject:g} % of photos of known classes are expected"
        )
    lines.append("nearest: the labelled photo whose mean node has the highest cosine, whatever its class")
    lines.append(f"versions: {', '.join(f'{name} {number}' for name, number in versions().items())}")
    return lines


def _least_sure_first(found: Classified) -> list[int]:
    """List the places that have an answer: refused ones first, then by confidence."""
    answered = {place: answer for place, answer in enumerate(found.answers) if answer is not None}
    return sorted(answered, key=lambda i: (not answered[i].unknown, answered[i].confidence, i))


def _answers(fitted: FewShotClassifier, found: Classified, places: Sequence[int]) -> Grid:
    """Lay the answers out, in the order of the files, with small pictures where they are few."""
    names = _names(found.files)
    rows = []
    for place in sorted(places):
        answer = found.answers[place]
        assert answer is not None
        picture: Cell = ""
        if len(places) <= PICTURED and (read := _read(found.files[place])) is not None:
            picture = thumbnail(read)
        rows.append(_row(names[place], picture, answer, fitted))
    return Grid(_HEAD, rows, frozenset({2, 4, 6, 7}))


def _row(name: str, picture: Cell, answer: Answer, fitted: FewShotClassifier) -> list[Cell]:
    unknown = "" if answer.unknown is None else "unknown" if answer.unknown else "no"
    nearest = fitted.labelled_.photos[answer.nearest].title
    shares = f"{answer.confidence:.3f}", f"{answer.runner_up_confidence:.3f}"
    return [name, picture, str(answer.label), shares[0], str(answer.runner_up), shares[1], unknown, nearest]


def _names(files: Sequence[Path]) -> list[str]:
    """Call files by their names, with as many folders as tell them apart: where they lie is nobody else's affair."""
    most = max((len(path.parts) for path in files), default=1)
    for parts in range(1, most + 1):
        names = ["/".join(path.parts[-parts:]) for path in files]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in files]


def _read(path: Path) -> Image | None:
    """Decode a file; None where it is gone since."""
    try:
        pixels = decode_picture(path, 0)
    except UserError:
        return None
    return np.asarray(pixels if pixels.dtype == np.uint8 else np.rint(pixels), np.uint8)


def _accuracies(fitted: FewShotClassifier) -> Forest | None:
    """Draw the held-out accuracy of each class with Wilson's interval, the poorest first."""
    held = fitted._trusted().held
    if not len(held.labels):
        return None
    which, shares = held.by_photo()
    labels, units = fitted.labelled_.labels[which], fitted.labelled_.groups[which]
    entries = []
    for c, name in enumerate(fitted.classes_.tolist()):
        own = labels == c
        if not own.any():
            continue
        right, _ = unit_means((shares[own].argmax(1) == c).astype(np.float64), units[own])
        low, high = wilson(float(right.sum()), len(right))
        mean = float(right.mean())
        text = f"{100 * mean:.0f} % of {len(right)}"
        entries.append(Entry(str(name), 100 * mean, None, (100 * low, 100 * high), text))
    entries.sort(key=lambda entry: entry.value)
    return forest("held-out photos that were right, %, with 95 % intervals (near-duplicates count once)", entries)


def _confusions(fitted: FewShotClassifier) -> dict[str, Any] | None:
    """Count what held-out photos were taken for, in classes that have confusions at all."""
    held = fitted._trusted().held
    if not len(held.labels):
        return None
    which, shares = held.by_photo()
    labels, taken = fitted.labelled_.labels[which].tolist(), shares.argmax(1).tolist()
    wrong = {c for true, other in zip(labels, taken, strict=True) if true != other for c in (true, other)}
    if not wrong:
        return None
    counts = Counter(zip(labels, taken, strict=True))
    shown = sorted(wrong)
    names = fitted.classes_.tolist()
    return {"names": [str(names[c]) for c in shown], "counts": [[counts[a, b] for b in shown] for a in shown]}


def _explained(fitted: FewShotClassifier, found: Classified, places: Sequence[int], step: Step) -> list[dict[str, Any]]:
    """Explain some answers; a photo that is gone since, or nodes whose places are unknown, are left out."""
    told = []
    for done, place in enumerate(places):
        step(done, len(places))
        try:
            reasons = fitted.explain(found.files[place])
        except UserError:
            continue
        title, *sentences = reasons.sentences()
        told.append({"title": title, "sentences": sentences, "panels": shown(reasons)})
    step(len(places), len(places))
    return told
